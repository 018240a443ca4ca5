"""AlpacaEval-style win rates against a reference model, plain and length-controlled.

In: judge annotations (model, instruction, preference) and the outputs they are about. Out: one line a model: win rate, its standard
error, length-controlled win rate, mean length; and how far each ranking goes with length. Why: judges like long answers, so that a
ranking by plain win rate rewards length; the length-controlled rate says how often the model would win at equal length.

    python -m generation.winrate annotations.parquet --outputs outputs.parquet --reference gpt4_1106_preview
    python -m generation.winrate out/judged --reference my-model      # a directory of `generation.judge`, mode pairwise

`preference` is 1 when the reference wins, 2 when the model wins, 1.5 or 0 for a tie, in between for a judge weighted by its
log-probabilities; null (the judge failed) is left out and counted.

The regression (Dubois et al., arXiv 2404.04475), one per model m on instructions x, with the reference fixed at 0:

    logit P(m wins on x) = theta_m + phi_m tanh((len_ref - len_m) / std) + psi_m gamma_x,    length-controlled = mean of P at equal length

gamma_x, how hard x is for everyone, comes from one joint regression over all models (phi shared, psi = 1). Where a model wins 2 % of
the time its own data hardly hold phi and psi, so they are drawn towards the joint fit. The published implementation does the same by
adding annotations of gamed reference outputs at weight 0.2 (with 805 prompts an information of about 16: PRIOR); those and its
gamma_x are files on a hub, so that our figures are close to the published ones, not equal: docs/agreement.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from columnar.cli import emit, parser, run, say, table
from columnar.errors import InputError
from generation.annotations import Comparison, read_comparisons, read_judged, read_leaderboard
from generation.statistics import kendall, spearman

Array = NDArray[np.float64]
PRIOR = 16.0
DIFFICULTY_RIDGE = 0.1


class WinRate(NamedTuple):
    """Rates in percent; `lc` is None when no regression could be fitted (one model's answers all as long as the reference's)."""

    model: str
    n: int
    missing: int
    win_rate: float
    standard_error: float
    discrete: float
    lc: float | None
    lc_standard_error: float | None
    mean_length: float
    length_effect: float | None


def fit_logistic(x: Array, y: Array, ridge: Array, center: Array) -> Array:
    """Coefficients of a logistic regression with targets in [0, 1], drawn towards `center` with strength `ridge` (per column).

    Newton's method with step halving, so that near-separable data (a model that never wins) cannot make it diverge.
    """

    def loss(b: Array) -> float:
        z = x @ b
        return float(np.sum(np.logaddexp(0, z) - y * z) + 0.5 * np.sum(ridge * (b - center) ** 2))

    beta = center.astype(float).copy()
    current = loss(beta)
    for _ in range(100):
        p = sigmoid(x @ beta)
        gradient = x.T @ (p - y) + ridge * (beta - center)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge + 1e-9)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (new := loss(beta - size * step)) > current and size > 1e-6:
            size /= 2
        beta = beta - size * step
        if current - new < 1e-10 * (1 + abs(current)):
            break
        current = new
    return beta


def sigmoid(z: Array) -> Array:
    """The logistic function, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -z)), float)


def length_feature(comparisons: list[Comparison]) -> Array:
    """tanh of the standardised length difference of one model: positive where the reference is longer."""
    delta = np.array([c.reference_length - c.length for c in comparisons], float)
    spread = delta.std(ddof=1) if delta.size > 1 else 0.0
    return np.tanh(delta / spread) if spread > 0 else np.zeros_like(delta)


def instruction_difficulty(by_model: dict[str, list[Comparison]]) -> tuple[dict[str, float], float]:
    """gamma per instruction and the shared length effect, from all models together; with one model every gamma is 0."""
    numbers: dict[str, int] = {}
    for comparisons in by_model.values():
        for c in comparisons:
            numbers.setdefault(c.instruction, len(numbers))
    if len(by_model) < 2:
        return dict.fromkeys(numbers, 0.0), 0.0
    x = np.concatenate([length_feature(cs) for cs in by_model.values()])
    y = np.array([c.win for cs in by_model.values() for c in cs])
    model = np.repeat(np.arange(len(by_model)), [len(cs) for cs in by_model.values()])
    item = np.array([numbers[c.instruction] for cs in by_model.values() for c in cs])
    phi, gamma = fit_joint(x, y, model, item)
    return {text: float(gamma[i]) for text, i in numbers.items()}, phi


def fit_joint(x: Array, y: Array, model: NDArray[np.int64], item: NDArray[np.int64]) -> tuple[float, Array]:
    """phi and gamma of logit P = phi x + theta_model + gamma_item, gamma drawn towards 0 (DIFFICULTY_RIDGE), theta and phi free.

    Newton's method with step halving. The part of the Hessian that belongs to the items is diagonal, so each step solves a system as small
    as the number of models (Schur complement), however many instructions there are.
    """
    models, items = int(model.max()) + 1, int(item.max()) + 1
    few, gamma = np.zeros(1 + models), np.zeros(items)  # few: phi and the thetas
    cell = model * items + item

    def loss(few: Array, gamma: Array) -> float:
        z = few[0] * x + few[1 + model] + gamma[item]
        return float(np.sum(np.logaddexp(0, z) - y * z) + DIFFICULTY_RIDGE / 2 * gamma @ gamma + 5e-7 * few @ few)

    current = loss(few, gamma)
    for _ in range(100):
        p = sigmoid(few[0] * x + few[1 + model] + gamma[item])
        r, w = p - y, p * (1 - p)
        g_few = np.concatenate([[x @ r], np.bincount(model, r, models)]) + 1e-6 * few
        g_gamma = np.bincount(item, r, items) + DIFFICULTY_RIDGE * gamma
        per_model, across = np.bincount(model, w, models), np.bincount(model, w * x, models)
        corner = np.diag(np.concatenate([[w @ x**2], per_model]) + 1e-6)
        corner[0, 1:] = corner[1:, 0] = across
        side = np.vstack([np.bincount(item, w * x, items), np.bincount(cell, w, models * items).reshape(models, items)])
        diagonal = np.bincount(item, w, items) + DIFFICULTY_RIDGE
        step_few = np.linalg.solve(corner - (side / diagonal) @ side.T, g_few - side @ (g_gamma / diagonal))
        step_gamma = (g_gamma - step_few @ side) / diagonal
        size = 1.0
        while (new := loss(few - size * step_few, gamma - size * step_gamma)) > current and size > 1e-6:
            size /= 2
        few, gamma = few - size * step_few, gamma - size * step_gamma
        if current - new < 1e-10 * (1 + abs(current)):
            break
        current = new
    return float(few[0]), gamma


def length_controlled(comparisons: list[Comparison], gamma: dict[str, float], shared_effect: float) -> tuple[float, float, float]:
    """Length-controlled win rate in percent, its standard error (delta method, sandwich variance), and the model's length effect phi."""
    difficulty = np.array([gamma[c.instruction] for c in comparisons])
    x = np.column_stack([length_feature(comparisons), difficulty, np.ones(len(comparisons))])
    y = np.array([c.win for c in comparisons])
    ridge = np.array([PRIOR, PRIOR, 1e-6])
    beta = fit_logistic(x, y, ridge, np.array([shared_effect, 1.0, 0.0]))
    equal = x.copy()
    equal[:, 0] = 0.0
    p, fitted = sigmoid(equal @ beta), sigmoid(x @ beta)
    bread = np.linalg.inv((x * (fitted * (1 - fitted))[:, None]).T @ x + np.diag(ridge))
    meat = (x * ((y - fitted) ** 2)[:, None]).T @ x
    slope = (equal * (p * (1 - p))[:, None]).mean(0)
    variance = float(slope @ bread @ meat @ bread @ slope) + (float(p.var(ddof=1)) / len(p) if len(p) > 1 else 0.0)
    return 100 * float(p.mean()), 100 * variance**0.5, float(beta[0])


def win_rates(comparisons: Iterable[Comparison], missing: dict[str, int] | None = None) -> list[WinRate]:
    """One line a model, best length-controlled rate first (plain rate where there is none).

    Args:
        missing: comparisons per model without a verdict, to be reported beside it.
    """
    by_model: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        by_model.setdefault(comparison.model, []).append(comparison)
    # a model that only ever ties is the reference itself: it says nothing about instructions
    informative = {m: cs for m, cs in by_model.items() if any(c.win != 0.5 for c in cs)}
    gamma, shared = instruction_difficulty(informative)
    out = []
    for model, cs in by_model.items():
        wins = np.array([c.win for c in cs])
        lc: tuple[float, float, float] | tuple[None, None, None] = (None, None, None)
        if model not in informative:
            lc = (50.0, 0.0, 0.0)
        elif len(cs) > 3 and np.ptp(length_feature(cs)) > 0:
            lc = length_controlled(cs, gamma, shared)
        error = 100 * float(wins.std(ddof=1) / len(wins) ** 0.5) if len(wins) > 1 else float("nan")
        discrete = 100 * float(np.mean(np.where(wins > 0.5, 1.0, np.where(wins < 0.5, 0.0, 0.5))))
        mean_length = float(np.mean([c.length for c in cs]))
        lost = (missing or {}).get(model, 0)
        out.append(WinRate(model, len(cs), lost, 100 * float(wins.mean()), error, discrete, lc[0], lc[1], mean_length, lc[2]))
    return sorted(out, key=lambda w: (-(w.win_rate if w.lc is None else w.lc), w.model))


def length_correlations(rates: list[WinRate]) -> dict[str, float]:
    """Spearman's correlation of each ranking with the models' mean lengths: what length control should bring down."""
    lengths = [w.mean_length for w in rates]
    plain = spearman([w.win_rate for w in rates], lengths)
    controlled = [(w.lc, w.mean_length) for w in rates if w.lc is not None]
    return {"win_rate": plain, "length_controlled": spearman([c for c, _ in controlled], [n for _, n in controlled])}


def compare(rates: list[WinRate], published: dict[str, tuple[float, float | None]]) -> dict[str, dict[str, float]]:
    """Ours beside the published figures: models in both, Kendall's tau of the two orders, the largest and the rms difference in points."""
    out = {}
    for name, index in (("win_rate", 0), ("length_controlled", 1)):
        pairs = []
        for w in rates:
            theirs, ours = published.get(w.model, (None, None))[index], (w.win_rate, w.lc)[index]
            if theirs is not None and ours is not None:
                pairs.append((ours, theirs))
        if pairs:
            a, b = np.array(pairs).T
            out[name] = {
                "models": len(pairs),
                "tau": kendall(a, b),
                "max_difference": float(np.abs(a - b).max()),
                "rms_difference": float(np.sqrt(np.mean((a - b) ** 2))),
            }
    return out


def main(args: argparse.Namespace) -> int:
    """Read, fit, print."""
    if (args.annotations / "manifest.json").is_file():
        comparisons, missing = read_judged(args.annotations, args.reference, args.judge)
    else:
        comparisons, missing = read_comparisons(args.annotations, args.outputs, args.reference, args.judge)
    comparisons = [c for c in comparisons if c.model not in args.exclude]
    if not comparisons:
        raise InputError(f"{args.annotations}: no comparison with a verdict", "check --judge and --exclude")
    rates = win_rates(comparisons, missing)
    result: dict[str, Any] = {"models": [w._asdict() for w in rates], "correlation_with_length": length_correlations(rates)}
    if args.published:
        result["published"] = compare(rates, read_leaderboard(args.published))
    if args.json:
        emit(result)
        return 0
    print(table(result["models"]))
    correlation = result["correlation_with_length"]
    say(f"Spearman with mean length: win rate {correlation['win_rate']:.2f}, length-controlled {correlation['length_controlled']:.2f}")
    if args.published:
        print(table([{"ranking": name, **figures} for name, figures in result["published"].items()]))
    return 0


if __name__ == "__main__":
    made = parser("generation.winrate", __doc__)
    made.add_argument(
        "annotations", type=Path, help="model, instruction, preference (and judge_config); or a directory of judged candidates"
    )
    made.add_argument("--outputs", type=Path, help="model, instruction, output (not needed where annotations have output_1 and output_2)")
    made.add_argument("--reference", default="", help="the model everyone was compared with")
    made.add_argument("--judge", help="which judge_config to use")
    made.add_argument("--exclude", action="append", default=[], metavar="MODEL", help="leave a model out of every fit")
    made.add_argument("--published", type=Path, help="a published leaderboard (CSV) to compare with")
    sys.exit(run(main, made))
