"""Counts a finished mix: the funnel of each source, conserved to the row, and the distributions that the manifest keeps.

count(config, sources, decisions) -> the manifest's `counts`
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from columnar.errors import CaravanError
from curation.decide import SPLITS, Decisions, Loaded
from curation.mix import MixConfig

TOKEN_BINS = [0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]
TURN_BINS = [0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64]


def count(config: MixConfig, sources: list[Loaded], decisions: Decisions) -> dict[str, Any]:
    """The funnel per source and in all, and histograms of what was kept.

    Raises:
        CaravanError: rows went missing: for some source, in != out + dropped + rejected.
    """
    by_source: dict[str, Any] = {}
    splits = dict.fromkeys(SPLITS.values(), 0)
    tokens_of_rows: Counter[int] = Counter()
    for number, source in enumerate(sources):
        loaded = source.dataset.manifest["identity"]["counts"]
        kept = copies = 0
        sums = {"tokens": 0, "chars": 0}
        histograms = {"tokens_per_row": np.zeros(len(TOKEN_BINS), np.int64), "turns_per_row": np.zeros(len(TURN_BINS), np.int64)}
        for part in decisions.parts(number):
            split, times = decisions.split[part], decisions.times(number, part)
            tokens, chars, turns = (decisions.rows.read(f"n_{name}", part) for name in ("tokens", "chars", "turns"))
            kept += int((split > 0).sum())
            copies += int(times.sum()) - int((split > 0).sum())
            sums["tokens"] += int((tokens * times).sum())
            sums["chars"] += int((chars * times).sum())
            histograms["tokens_per_row"] += _histogram(tokens[split > 0], TOKEN_BINS)
            histograms["turns_per_row"] += _histogram(turns[split > 0], TURN_BINS)
            for place, name in SPLITS.items():
                splits[name] += int(times[split == place].sum())
            values, counts = np.unique(tokens[split > 0], return_counts=True)
            tokens_of_rows.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        line = {
            "in": loaded["in"],
            "rejected": loaded["rejects"],
            "dropped": _reasons(decisions, decisions.lines(number)),
            "kept": kept,
            "copies": copies,
            "out": kept + copies,
            **sums,
            **{name: bins.tolist() for name, bins in histograms.items()},
        }
        if line["in"] != line["kept"] + line["rejected"] + sum(line["dropped"].values()):
            raise CaravanError(f"{source.name}: {line['in']} rows in, but kept + rejected + dropped make another number: {line}")
        by_source[source.name] = line
    total = {field: sum(c[field] for c in by_source.values()) for field in ("in", "rejected", "kept", "copies", "out", "tokens", "chars")}
    return {
        **total,
        "splits": {name: n for name, n in splits.items() if n or name == "train"},
        "by_reason": _reasons(decisions, slice(None)),
        "by_source": by_source,
        "tokens_by": config.signals.tokenizer or "estimate: UTF-8 bytes / 4",
        "bins": {"tokens_per_row": TOKEN_BINS, "turns_per_row": TURN_BINS},
        "tokens_per_row": _quantiles(tokens_of_rows),
    }


def _reasons(decisions: Decisions, lines: slice) -> dict[str, int]:
    counts: dict[str, int] = {}
    for rule, n in zip(decisions.fates[1:], np.bincount(decisions.fate[lines], minlength=len(decisions.fates))[1:].tolist(), strict=True):
        if rule and n:
            counts[rule.reason] = counts.get(rule.reason, 0) + n
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _histogram(values: npt.NDArray[Any], bins: list[int]) -> npt.NDArray[np.int64]:
    """Rows in [bin, next bin), the last open-ended."""
    return np.bincount(np.searchsorted(bins, values, side="right") - 1, minlength=len(bins))


def _quantiles(counts: Counter[int]) -> dict[str, int]:
    """Of the values that occur so often: the nearest ones, as numpy has them."""
    if not counts:
        return {}
    values = np.array(sorted(counts))
    ends = np.cumsum([counts[value] for value in values.tolist()])
    points = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    return {name: int(values[np.searchsorted(ends, round(q * (int(ends[-1]) - 1)), side="right")]) for name, q in points}
