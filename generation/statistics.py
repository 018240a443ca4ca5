"""The few statistics that judges and leaderboards need, as pure functions on numpy arrays: rank correlations, kappa, bootstrap.

    >>> round(kendall([1, 2, 3, 4], [1, 3, 2, 4]), 3)
    0.667

Correlations are nan when one side has no variation (all scores equal): undefined, not zero, and never averaged in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean with its 95 % bootstrap interval and the number of items it stands on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return "·" if self.n == 0 else f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ranks(values: ArrayLike) -> Array:
    """Ranks from 1; equal values share the mean of their ranks."""
    array = np.asarray(values, float)
    _, where, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[where], float)


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation; nan when either side is constant or shorter than 2."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    if a.size < 2 or np.all(a == a[0]) or np.all(b == b[0]):
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation, ties sharing their mean rank."""
    return pearson(ranks(x), ranks(y))


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b, which corrects for ties on either side (Kendall 1945)."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    i, j = np.triu_indices(a.size, 1)
    da, db = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    norm = np.sqrt(np.sum(da != 0) * np.sum(db != 0, dtype=float))
    return float(np.sum(da * db) / norm) if norm else float("nan")


def kappa(x: Sequence[Any], y: Sequence[Any]) -> float:
    """Cohen's kappa: agreement beyond what the two raters' label frequencies give by chance; nan when chance is certain."""
    labels = sorted(set(x) | set(y), key=repr)
    a, b = np.array([labels.index(v) for v in x]), np.array([labels.index(v) for v in y])
    if not a.size:
        return float("nan")
    share = [(np.mean(a == k), np.mean(b == k)) for k in range(len(labels))]
    chance = float(sum(p * q for p, q in share))
    return float((np.mean(a == b) - chance) / (1 - chance)) if chance < 1 else float("nan")


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A random generator for one use: the same for the same seed and purpose, whatever else ran before."""
    digest = hashlib.blake2b(f"{seed}\x1f{purpose}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def bootstrap(values: ArrayLike, seed: int, purpose: str, draws: int = 1000, groups: Sequence[Any] | None = None) -> Estimate:
    """Mean and 95 % percentile interval; nan values are left out and not counted.

    Args:
        groups: one label a value: whole groups are drawn (items of one prompt are not independent); None draws single values.
    """
    array = np.asarray(values, float)
    kept = ~np.isnan(array)
    array = array[kept]
    if not array.size:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    labels = np.arange(array.size) if groups is None else np.unique(np.asarray(groups)[kept], return_inverse=True)[1]
    sums, counts = np.bincount(labels, array), np.bincount(labels).astype(float)
    drawn = generator(seed, purpose).integers(0, sums.size, (draws, sums.size))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(array.mean()), float(low), float(high), int(array.size))
