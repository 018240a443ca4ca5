"""Judgements -> the ratings and the score of each candidate: the arithmetic, apart from the asking, so that it can be redone for nothing.

    >>> of_judge("aspects", [("honesty", 0, None, None), ("helpfulness", 0, None, 4.0), ("truthfulness", 0, None, 5.0)], 1)[0]
    4.5

A missing rating is left out of a mean, never counted as a number. Over several samples each aspect is averaged first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from generation.judge import Judgement

Line = tuple[str, int, int | None, float | None]  # aspect, candidate, other, rating


def of_judge(mode: str, lines: Iterable[Line], n: int) -> list[float | None]:
    """One judge's score of each of n candidates; None where it said nothing that counts.

    aspects: the mean over the aspects' means. pairwise: the share of the other candidates it beats (a tie is half; the two orders of
    a pair that disagree are a tie). strength: the mean margin in helpfulness (or the only aspect), where orders that disagree are 0.
    """
    lines = list(lines)
    if mode in ("pairwise", "strength"):
        aspects = sorted({aspect for aspect, *_ in lines})
        return _of_pairs([line for line in lines if aspects and line[0] == aspects[0]], n, tie=0.5 if mode == "pairwise" else 0.0)
    out: list[float | None] = []
    for i in range(n):
        by_aspect = _means((aspect, value) for aspect, candidate, _, value in lines if candidate == i)
        out.append(fmean(by_aspect.values()) if by_aspect else None)
    return out


def _means(pairs: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for name, value in pairs:
        if value is not None and not math.isnan(value):
            values[name].append(value)
    return {name: fmean(found) for name, found in values.items()}


def _of_pairs(lines: list[Line], n: int, tie: float) -> list[float | None]:
    said: dict[tuple[int, int], dict[bool, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for _, first, second, value in lines:
        assert second is not None
        turned = first > second
        if value is not None and turned:
            value = 2 * tie - value
        said[min(first, second), max(first, second)][turned].append(value)
    points: dict[int, list[float]] = defaultdict(list)
    for (a, b), orders in said.items():
        values = [v for order in orders.values() for v in order]
        if any(v is None for v in values):
            continue  # half a comparison is none: the other order may have said the opposite
        known = [v for v in values if v is not None]
        sides = {(v > tie) - (v < tie) for v in known}
        value = fmean(known) if len(sides) == 1 else tie
        points[a].append(value)
        points[b].append(2 * tie - value)
    return [fmean(points[i]) if points[i] else None for i in range(n)]


def apply(row: dict[str, Any], judgements: list[Judgement], order: list[str]) -> dict[str, Any]:
    """The row with `ratings` and `score` from its judgements.

    Args:
        order: the judges by name. The first gives `score`, and its aspects their plain names; the others' are `judge/aspect`, and
            their score is a rating called like the judge.
    """
    n = len(row["candidates"])
    candidates = [{**c, "ratings": [], "score": None} for c in row["candidates"]]
    for number, name in enumerate(order):
        mine = [j for j in judgements if j.judge == name]
        if not mine:
            continue
        mode = mine[0].mode
        aspects = list(dict.fromkeys(j.aspect for j in mine))
        for aspect in aspects:
            lines = [(j.aspect, j.candidate, j.other, j.rating) for j in mine if j.aspect == aspect]
            for i, value in enumerate(of_judge(mode, lines, n)):
                why = next((j.rationale for j in mine if j.aspect == aspect and j.candidate == i and j.rationale), None)
                label = aspect if number == 0 or aspect == name else f"{name}/{aspect}"
                candidates[i]["ratings"].append({"aspect": label, "rating": value, "rationale": why})
        for i, value in enumerate(of_judge(mode, ((j.aspect, j.candidate, j.other, j.rating) for j in mine), n)):
            if number == 0:
                candidates[i]["score"] = value
            elif name not in aspects:
                candidates[i]["ratings"].append({"aspect": name, "rating": value, "rationale": None})
    return {**row, "candidates": candidates}
