"""Duplicates over whole dataset directories: sign, search, write the sidecars and the evidence, count.

In:   dataset directories and a `DedupConfig`. Out: cols/dedup.parquet and hits/duplicates.parquet in each, and a report.

    found = search([open_dataset("out/a"), open_dataset("out/b")], config); write(found, datasets, config)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from columnar import cli
from columnar.store import Dataset, open_dataset, stage_key, write_json, write_table
from curation.dedup import DedupConfig
from curation.duplicate_search import REASONS, Found, find_duplicates, keys_of
from curation.minhash import sign

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
    keys = (keys_of(d, number, number - len(known), config) for number, d in enumerate(everything))
    return find_duplicates(pl.concat(keys), everything, config), everything


def ids_of(datasets: Sequence[Dataset]) -> pa.Array:
    """The ids of all rows, in key order."""
    pieces = [pq.read_table(file, columns=["id"])["id"] for dataset in datasets for file in dataset.row_files]
    return pa.concat_arrays(
        [chunk.cast(pa.large_string()) for piece in pieces for chunk in piece.chunks] or [pa.array([], pa.large_string())]
    )


def write(found: Found, everything: Sequence[Dataset], config: DedupConfig, out: Path | None = None) -> None:
    """Write cols/dedup.parquet and hits/duplicates.parquet of every dataset that is not a reference; all evidence to `out` if given."""
    ids = ids_of(everything)
    hits = found.hits(ids)
    dataset = found.keys["dataset"].to_numpy()
    owner = pa.array(dataset[found.kind != 0])
    key = stage_key("dedup", VERSION, config.model_dump(mode="json"), [d.content for d in everything])
    start = 0
    for number, one in enumerate(everything):
        stop = start + one.rows
        if number >= len(config.against):
            metadata = {"stage": "dedup", "key": key, "rows_sha256": one.content}
            write_table(one.sidecar("dedup"), found.columns(ids, start, stop), metadata)
            mine = hits if len(everything) == 1 else hits.filter(pa.compute.equal(owner, number))
            write_table(one.path / "hits" / "duplicates.parquet", mine, metadata)
        start = stop
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_table(out / "duplicates.parquet", hits, {"stage": "dedup", "key": key})
        write_json(out / "report.json", report(found, config))


def report(found: Found, config: DedupConfig) -> dict[str, Any]:
    """Counts by source, removed rows by (source, source of the kept row), and notes on what was not checked or may be missed."""
    keys = found.keys.select(
        source=pl.col("source").cast(pl.String), rank="rank", keeper=pl.Series(found.keeper), kind=pl.Series(found.kind)
    )
    source = keys["source"]
    keys = keys.with_columns(kept_source=source.gather(found.keeper), reference=keys["rank"].gather(found.keeper) < 0)
    gone = keys.filter(pl.col("kind") > 0)
    sizes = gone.group_by("keeper").len().with_columns(kept_source=source.gather(pl.Series(gone.group_by("keeper").len()["keeper"])))
    counts = [(pl.col("kind") == number).sum().alias(str(reason).split("_")[0]) for number, reason in enumerate(REASONS) if reason]
    mine = keys.filter(pl.col("rank") >= 0)
    table = mine.group_by("source").agg(
        rows=pl.len(), **{e.meta.output_name(): e for e in counts}, against=((pl.col("kind") > 0) & pl.col("reference")).sum()
    )
    biggest = sizes.group_by("kept_source").agg(largest_cluster=pl.col("len").max() + 1)
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
        gone.group_by("source", "kept_source").agg(rows=pl.len(), **{e.meta.output_name(): e for e in counts}).sort("rows", descending=True)
    )
    return {
        "sources": table.select(columns).to_dicts(),
        "pairs": pairs.select("source", "kept_source", "rows", "exact", "near").to_dicts(),
        "removed": len(gone),
        "rows": len(mine),
        "notes": found.notes,
    }
