"""What a model's answers to held-out requests are worth, by the world's truth: quality, right answers, safety, length, padding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from columnar import store
from recipes.world.data import VERIFIABLE
from recipes.world.tasks import grade, solve


def marks(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Of (request, answer): means over the requests that the world knows; `families` has the quality of each kind.

    `verifiable` is the share of right answers where there is one right answer; requests for quotation marks are a kind of their own.
    """
    every: dict[str, list[float]] = defaultdict(list)
    families: dict[str, list[float]] = defaultdict(list)
    for request, answer in pairs:
        task = solve(request)
        if task is None:
            continue
        worth = grade(task, answer)
        every["quality"].append(worth.quality)
        every["correct"].append(worth.correct)
        if task.family in VERIFIABLE:
            every["verifiable"].append(worth.correct)
        every["words"].append(len(answer.split()))
        every["padding"].append(worth.padding)
        every["safe" if task.harmful else "helpful"].append(worth.safe if task.harmful else worth.helpful)
        families["quoted" if task.quoted else task.family].append(worth.quality)
    means = {name: round(fmean(values), 4) for name, values in sorted(every.items())}
    return {"answers": len(every["quality"]), **means, "families": {k: round(fmean(v), 3) for k, v in sorted(families.items())}}


def answers_of(directory: Path) -> list[tuple[str, str]]:
    """(request, answer) of every candidate of a dataset directory; of an answer that is missing there is none."""
    out = []
    for batch in store.read_batches(store.open_dataset(directory), ["prompt", "candidates"]):
        for row in batch.to_pylist():
            out += [(row["prompt"][-1]["content"], candidate["content"]) for candidate in row["candidates"]]
    return out


def gain(before: Path, after: Path, what: str = "quality") -> dict[str, Any]:
    """Two models' answers to the same requests: means, the mean difference and its 95 % interval (paired, normal).

    Args:
        before, after: directories of candidates.
        what: quality, padding, helpful or safe, of the requests that have it; or verifiable, right answers where there is one.
    """
    found = [dict(answers_of(place)) for place in (before, after)]
    pairs = [[_mark(request, told[request], what) for told in found] for request in sorted(found[0].keys() & found[1].keys())]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    moved = [b - a for a, b in known]
    half = 1.96 * stdev(moved) / sqrt(len(moved)) if len(moved) > 1 else 1.0
    means = [round(fmean(side), 4) if known else 0.0 for side in (zip(*known, strict=True) if known else ((), ()))]
    low, high = (round(fmean(moved or [0.0]) + sign * half, 4) for sign in (-1, 1))
    says = "yes" if low > 0 else "no: lower" if high < 0 else "within noise"
    return {
        "requests": len(moved),
        "before": means[0],
        "after": means[1],
        "difference": round(means[1] - means[0], 4),
        "from": low,
        "to": high,
        "higher": says,
    }


def _mark(request: str, answer: str, what: str) -> float | None:
    task = solve(request)
    if task is None:
        return None
    worth = grade(task, answer)
    if what == "verifiable":
        return float(worth.correct) if task.family in VERIFIABLE else None
    if what in ("helpful", "safe") and task.harmful != (what == "safe"):
        return None
    return float(getattr(worth, what))
