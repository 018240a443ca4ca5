"""What a model's answers to held-out requests are worth, by the world's truth: quality, right answers, safety, length, padding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
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
