"""Duplicates over whole dataset directories: sign, search, write the sidecars and the evidence, count.

In:   dataset directories and a `DedupConfig`. Out: cols/dedup.parquet and hits/duplicates.parquet in each, and a report.

    found = search([open_dataset("out/a"), open_dataset("out/b")], config); write(found, datasets, config)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from columnar import cli
from columnar.store import Dataset, open_dataset, stage_key, write_json, write_table
from curation.dedup import DedupConfig
from curation.duplicate_keys import Keys, keys_of
from curation.duplicate_search import REASONS, Found, find_duplicates
from curation.minhash import sign
from curation.narrow import spans

VERSION = 1


def references(config: DedupConfig) -> list[Dataset]:
    """The datasets that `against` names."""
    return [open_dataset(path) for path in config.against]


def search(datasets: Sequence[Dataset], config: DedupConfig) -> tuple[Found, list[Dataset]]:
    """Search the datasets, first ones kept before later ones, and against the references; returns the datasets in key order too."""
    known = references(config)
    everything = [*known, *datasets]
    if config.near:
        for dataset in everything:
            with cli.Progress(f"minhash {dataset.path.name}", dataset.rows) as bar:
                sign([dataset], config.near, bar.add)
    keys = keys_of(everything, [number - len(known) for number in range(len(everything))], config)
    return find_duplicates(keys, everything, config), everything


def write(found: Found, everything: Sequence[Dataset], config: DedupConfig, out: Path | None = None) -> None:
    """Write cols/dedup.parquet and hits/duplicates.parquet of every dataset that is not a reference; all evidence to `out` if given."""
    key = stage_key("dedup", VERSION, config.model_dump(mode="json"), [d.content for d in everything])
    for number, one in enumerate(everything):
        if number >= len(config.against):
            metadata = {"stage": "dedup", "key": key, "rows_sha256": one.content}
            write_table(one.sidecar("dedup"), found.columns(number), metadata)
            write_table(one.path / "hits" / "duplicates.parquet", found.hits(number), metadata)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_table(out / "duplicates.parquet", found.hits(), {"stage": "dedup", "key": key})
        write_json(out / "report.json", report(found, config))


def report(found: Found, config: DedupConfig) -> dict[str, Any]:
    """Counts by source, removed rows by (source, source of the kept row), and notes on what was not checked or may be missed."""
    keys = found.keys
    gone = pl.DataFrame(
        {
            "source": pl.Series(pl.from_arrow(keys.source(found.line))),
            "kept_source": pl.Series(pl.from_arrow(keys.source(found.keeper))),
            "keeper": found.keeper,
            "kind": found.kind,
            "reference": keys.reference(found.keeper),
        }
    )
    counts = [(pl.col("kind") == number).sum().alias(str(reason).split("_")[0]) for number, reason in enumerate(REASONS) if reason]
    sizes = gone.group_by("keeper", "kept_source").len()
    biggest = sizes.group_by("kept_source").agg(largest_cluster=pl.col("len").max() + 1)
    mine = gone.group_by("source").agg(*counts, against=pl.col("reference").sum())
    rows = _rows_by_source(keys)
    table = pl.DataFrame({"source": list(rows), "rows": list(rows.values())}, schema={"source": pl.String, "rows": pl.Int64})
    table = table.join(mine, on="source", how="left").with_columns(pl.col("exact", "near", "semantic", "against").fill_null(0))
    table = table.join(biggest, left_on="source", right_on="kept_source", how="left").sort("source")
    table = table.with_columns(kept=pl.col("rows") - pl.col("exact") - pl.col("near") - pl.col("semantic"))
    columns = [
        "source",
        "rows",
        "kept",
        "exact",
        "near",
        *(["semantic"] if config.semantic else []),
        *(["against"] if config.against else []),
        "largest_cluster",
    ]
    pairs = (
        gone.group_by("source", "kept_source")
        .agg(pl.len().alias("rows"), *counts)
        .sort("rows", "source", "kept_source", descending=[True, False, False])
    )
    return {
        "sources": table.select(columns).to_dicts(),
        "pairs": pairs.select("source", "kept_source", "rows", "exact", "near").to_dicts(),
        "removed": len(gone),
        "rows": sum(rows.values()),
        "notes": found.notes,
    }


def _rows_by_source(keys: Keys) -> dict[str, int]:
    """How many rows each source has outside of references."""
    counts = np.zeros(len(keys.names), np.int64)
    for number, rank in enumerate(keys.ranks):
        for part in spans(*keys.starts[number : number + 2]) if rank >= 0 else ():
            counts += np.bincount(keys.rows.read("source", part), minlength=len(counts))
    return {name: count for name, count in zip(keys.names, counts.tolist(), strict=True) if count}
