"""Counts a finished mix: the funnel of each source, conserved to the row, and the distributions that the manifest keeps.

count(config, sources, decisions) -> the manifest's `counts`
"""

from __future__ import annotations

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
    copies = decisions.copies(sources)
    tokens = decisions.rows["n_tokens"].fill_null(0).to_numpy().astype(np.int64)
    chars = decisions.rows["n_chars"].fill_null(0).to_numpy().astype(np.int64)
    turns = decisions.rows["n_turns"].fill_null(0).to_numpy()
    by_source: dict[str, Any] = {}
    for number, source in enumerate(sources):
        loaded = source.dataset.manifest["identity"]["counts"]
        mine = decisions.lines(number)
        kept, times = decisions.split[mine] > 0, copies[mine]
        line = {
            "in": loaded["in"],
            "rejected": loaded["rejects"],
            "dropped": _reasons(decisions, mine),
            "kept": int(kept.sum()),
            "copies": int(times.sum() - kept.sum()),
            "out": int(times.sum()),
            "tokens": int((tokens[mine] * times).sum()),
            "chars": int((chars[mine] * times).sum()),
            "tokens_per_row": _histogram(tokens[mine][kept], TOKEN_BINS),
            "turns_per_row": _histogram(turns[mine][kept], TURN_BINS),
        }
        if line["in"] != line["kept"] + line["rejected"] + sum(line["dropped"].values()):
            raise CaravanError(f"{source.name}: {line['in']} rows in, but kept + rejected + dropped make another number: {line}")
        by_source[source.name] = line
    total = {field: sum(c[field] for c in by_source.values()) for field in ("in", "rejected", "kept", "copies", "out", "tokens", "chars")}
    splits = {name: int(copies[decisions.split == number].sum()) for number, name in SPLITS.items()}
    return {
        **total,
        "splits": {name: n for name, n in splits.items() if n or name == "train"},
        "by_reason": _reasons(decisions, slice(None)),
        "by_source": by_source,
        "tokens_by": config.signals.tokenizer or "estimate: UTF-8 bytes / 4",
        "bins": {"tokens_per_row": TOKEN_BINS, "turns_per_row": TURN_BINS},
        "tokens_per_row": _quantiles(tokens[decisions.split > 0]),
    }


def _reasons(decisions: Decisions, lines: slice) -> dict[str, int]:
    counts: dict[str, int] = {}
    for rule, n in zip(decisions.fates[1:], np.bincount(decisions.fate[lines], minlength=len(decisions.fates))[1:].tolist(), strict=True):
        if rule and n:
            counts[rule.reason] = counts.get(rule.reason, 0) + n
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _histogram(values: npt.NDArray[Any], bins: list[int]) -> list[int]:
    """Rows in [bin, next bin), the last open-ended."""
    return np.bincount(np.searchsorted(bins, values, side="right") - 1, minlength=len(bins)).tolist()


def _quantiles(values: npt.NDArray[Any]) -> dict[str, int]:
    if not len(values):
        return {}
    points = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    return {name: int(np.quantile(values, q, method="nearest")) for name, q in points}
