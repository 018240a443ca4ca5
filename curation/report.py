"""Counts a finished mix: the funnel of each source, conserved to the row, and the distributions that the manifest keeps.

count(config, sources, decisions) -> the manifest's `counts`
"""

from __future__ import annotations

from typing import Any

import polars as pl

from columnar.errors import CaravanError
from curation.decide import Loaded
from curation.mix import MixConfig

TOKEN_BINS = [0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]
TURN_BINS = [0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64]


def count(config: MixConfig, sources: list[Loaded], decisions: pl.DataFrame) -> dict[str, Any]:
    """The funnel per source and in all, and histograms of what was kept.

    Raises:
        CaravanError: rows went missing: for some source, in != out + dropped + rejected.
    """
    by_source: dict[str, Any] = {}
    for number, source in enumerate(sources):
        loaded = source.dataset.manifest["identity"]["counts"]
        mine = decisions.filter(pl.col("source") == number)
        kept = mine.filter(pl.col("split").is_not_null())
        out = int(kept["copies"].cast(pl.Int64).sum())
        line = {
            "in": loaded["in"],
            "rejected": loaded["rejects"],
            "dropped": _reasons(mine),
            "kept": len(kept),
            "copies": out - len(kept),
            "out": out,
            "tokens": _weighted(kept, "n_tokens"),
            "chars": _weighted(kept, "n_chars"),
            "tokens_per_row": _histogram(kept, "n_tokens", TOKEN_BINS),
            "turns_per_row": _histogram(kept, "n_turns", TURN_BINS),
        }
        if line["in"] != line["kept"] + line["rejected"] + sum(line["dropped"].values()):
            raise CaravanError(f"{source.name}: {line['in']} rows in, but kept + rejected + dropped make another number: {line}")
        by_source[source.name] = line
    total = {field: sum(c[field] for c in by_source.values()) for field in ("in", "rejected", "kept", "copies", "out", "tokens", "chars")}
    kept = decisions.filter(pl.col("split").is_not_null())
    splits = {s: int(kept.filter(pl.col("split") == s)["copies"].cast(pl.Int64).sum()) for s in ("train", "validation")}
    tokenizer = config.signals.tokenizer
    return {
        **total,
        "splits": {s: n for s, n in splits.items() if n or s == "train"},
        "by_reason": _reasons(decisions),
        "by_source": by_source,
        "tokens_by": tokenizer or "estimate: UTF-8 bytes / 4",
        "bins": {"tokens_per_row": TOKEN_BINS, "turns_per_row": TURN_BINS},
        "tokens_per_row": _quantiles(kept, "n_tokens"),
    }


def _reasons(rows: pl.DataFrame) -> dict[str, int]:
    counts = rows.filter(pl.col("reason").is_not_null()).group_by("reason", maintain_order=True).len()
    return {str(reason): int(n) for reason, n in counts.sort("len", "reason", descending=[True, False]).iter_rows()}


def _weighted(kept: pl.DataFrame, column: str) -> int:
    return int(kept.select((pl.col(column).cast(pl.Int64).fill_null(0) * pl.col("copies").cast(pl.Int64)).sum()).item())


def _histogram(kept: pl.DataFrame, column: str, bins: list[int]) -> list[int]:
    """Rows in [bin, next bin), the last open-ended."""
    values = kept[column].fill_null(0).cast(pl.Int64)
    return [int(((values >= low) & (values < high)).sum()) for low, high in zip(bins, [*bins[1:], 1 << 62], strict=True)]


def _quantiles(kept: pl.DataFrame, column: str) -> dict[str, int]:
    values = kept[column].drop_nulls()
    if not len(values):
        return {}
    return {name: int(values.quantile(q, "nearest") or 0) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))}
