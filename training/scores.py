"""What may be said about a score: its interval, two models on the same items, several seeds of the same training.

In: scores by item (0 to 1), or scores by run. Out: `Estimate`s, `Paired`, `Band`. Pure functions, deterministic.

>>> str(interval([1.0] * 8 + [0.0] * 2))
'0.800 [0.490, 0.943]'
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from generation.statistics import Estimate, bootstrap, generator

Z = 1.959963984540054  # 95 %
# the 97.5 % quantile of Student's t for 1, 2, 3, ... degrees of freedom; beyond them an expansion around the normal one
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that at least one of k answers is right, from n answers of which `right` are: unbiased (Chen et al. 2021, 2107.03374).

    Raises:
        ValueError: fewer answers than k.
    """
    if n < k:
        raise ValueError(f"pass@{k} needs at least {k} answers, found {n}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def interval(values: Sequence[float], seed: int = 0, purpose: str = "score") -> Estimate:
    """Mean and 95 % interval over items: Wilson's where every item is right or wrong, else a bootstrap; NaN items are left out."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return Estimate(math.nan, math.nan, math.nan, 0)
    if all(v in (0.0, 1.0) for v in known):
        n, p = len(known), fmean(known)
        middle, half = (p + Z**2 / (2 * n)) / (1 + Z**2 / n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
        return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), n)
    return bootstrap(known, seed, purpose)


class Paired(NamedTuple):
    """Two models on the same items; `difference` is the second minus the first."""

    n: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    wins: int  # items on which the second did better
    losses: int
    p: float  # two-sided
    test: str

    @property
    def verdict(self) -> str:
        """In words, at 5 %."""
        if self.p >= 0.05:
            return "no difference that these items could show"
        return "the second is better" if self.difference > 0 else "the first is better"


def paired(first: Mapping[str, float], second: Mapping[str, float], seed: int = 0) -> Paired:
    """Compare two models item by item: the exact McNemar test where items are right or wrong, else sign flips of the differences.

    Items that only one of them has, or that are NaN for one, are left out (n says how many were compared). The interval of the
    difference is a bootstrap over items.

    Raises:
        ValueError: no item in common.
    """
    common = sorted(i for i in first.keys() & second.keys() if not math.isnan(first[i]) and not math.isnan(second[i]))
    if not common:
        raise ValueError("the two results have no item in common")
    a, b = np.array([first[i] for i in common]), np.array([second[i] for i in common])
    difference = b - a
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    spread = bootstrap(difference, seed, "paired")
    if set(np.unique(np.concatenate([a, b]))) <= {0.0, 1.0}:
        p, test = _mcnemar(wins, losses), "McNemar, exact"
    else:
        p, test = _sign_flips(difference, seed), "sign flips"
    return Paired(len(common), float(a.mean()), float(b.mean()), float(difference.mean()), spread.low, spread.high, wins, losses, p, test)


def _mcnemar(wins: int, losses: int) -> float:
    """Two-sided: how often a fair coin would split the items that differ at least so unevenly."""
    n, fewer = wins + losses, min(wins, losses)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n) if n else 1.0


def _sign_flips(difference: np.ndarray, seed: int, draws: int = 10_000) -> float:
    """Two-sided: how often the mean difference would be so large were each item's sign a coin's; all signs are tried where few differ."""
    moved = difference[difference != 0]
    if not moved.size:
        return 1.0
    if moved.size <= 12:
        signs = np.array([[1 if number >> bit & 1 else -1 for bit in range(moved.size)] for number in range(2**moved.size)])
        return float((np.abs(signs @ moved) >= abs(moved.sum()) - 1e-9).mean())
    signs = generator(seed, "sign flips").choice([-1.0, 1.0], (draws, moved.size))
    return float((1 + (np.abs(signs @ moved) >= abs(moved.sum()) - 1e-9).sum()) / (1 + draws))


class Band(NamedTuple):
    """A score over several runs that differ in nothing but the seed; low and high hold the mean with 95 % confidence."""

    runs: int
    mean: float
    spread: float  # standard deviation from run to run: what one run alone may be off by
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.spread:.3f} ({self.runs} runs)" if self.runs > 1 else f"{self.mean:.3f} (one run)"


def band(scores: Sequence[float]) -> Band:
    """The seed noise of a score. One run has no spread: NaN, not zero."""
    known = [s for s in scores if not math.isnan(s)]
    if len(known) < 2:
        return Band(len(known), known[0] if known else math.nan, math.nan, math.nan, math.nan)
    mean, spread = fmean(known), stdev(known)
    half = student(len(known) - 1) * spread / math.sqrt(len(known))
    return Band(len(known), mean, spread, mean - half, mean + half)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    if freedom <= len(T):
        return T[freedom - 1]
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)  # Cornish and Fisher's expansion


def beyond_noise(one: Sequence[float], other: Sequence[float]) -> bool | None:
    """Do two sets of runs differ by more than their seeds explain (Welch's interval of the difference, 95 %)? None: too few runs."""
    a, b = band(one), band(other)
    if a.runs < 2 or b.runs < 2:
        return None
    va, vb = a.spread**2 / a.runs, b.spread**2 / b.runs
    if va + vb == 0:
        return a.mean != b.mean
    freedom = (va + vb) ** 2 / (va**2 / (a.runs - 1) + vb**2 / (b.runs - 1))
    return abs(a.mean - b.mean) > student(max(1, math.floor(freedom))) * math.sqrt(va + vb)
