"""The duplicate search as a stage of a mix: among the rows that passed the rules, which are dropped for which kept row.

sign(config, sources)                      signatures, one sidecar a source, reused by every later mix
drop_duplicates(config, sources, rows)     the rows with their fates, and the evidence for hits/duplicates.parquet
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from columnar import cli
from columnar.store import Dataset, open_dataset, write_table
from curation import duplicate_search, minhash
from curation.decide import Loaded, drop
from curation.dedup import DedupConfig


class Evidence(NamedTuple):
    """What was found: one line a dropped row, with the row that is kept for it."""

    hits: pa.Table
    notes: list[str]

    def write(self, out: Path) -> None:
        """Write hits/duplicates.parquet."""
        write_table(out / "hits" / "duplicates.parquet", self.hits)


def references(config: DedupConfig, root: Path) -> list[Dataset]:
    """The datasets of `against:`; relative paths start at `root`."""
    return [open_dataset(root / path) for path in config.against]


def sign(config: DedupConfig, sources: list[Loaded], against: list[Dataset]) -> None:
    """Write the signatures of every source that has none yet."""
    for dataset in [*(source.dataset for source in sources), *against] if config.near else []:
        with cli.Progress(f"sign {dataset.manifest['identity']['name']}", dataset.rows) as bar:
            minhash.sign(dataset, config.near, bar.add)


def drop_duplicates(
    config: DedupConfig, sources: list[Loaded], against: list[Dataset], rows: pl.DataFrame
) -> tuple[pl.DataFrame, Evidence]:
    """Give exact and near duplicates their fate.

    Args:
        rows: every row's fate so far, with `key` (u128, what makes exact duplicates), `score` and `kind`; sorted by source and row.
    """
    standing = rows.filter(pl.col("reason").is_null())
    datasets = [source.dataset for source in sources] + against
    ranks = [source.order if config.keep == "source_order" else 0 for source in sources]
    names = pl.Series("name", [source.name for source in sources], dtype=pl.Categorical)
    number = standing["source"].cast(pl.Int64)
    keys = standing.select(
        dataset=pl.col("source").cast(pl.Int32),
        row=pl.col("row").cast(pl.Int64),
        rank=pl.Series(ranks, dtype=pl.Int32).gather(number),
        key="key",
        kind=pl.lit(None, pl.Categorical),  # a mix has one kind
        source=names.gather(number),
        n_chars=pl.col("n_chars").cast(pl.Int64),
        score="score",
    )
    ids = standing["id"]
    for offset, dataset in enumerate(against):
        reference = duplicate_search.keys_of(dataset, len(sources) + offset, -1, config)
        keys = pl.concat([keys, reference.with_columns(kind=pl.lit(None, pl.Categorical))])
        hexes = [i for batch in duplicate_search.read_batches(dataset, ["id"]) for i in batch.column("id").to_pylist()]
        ids = pl.concat([ids, pl.Series([int(i, 16) for i in hexes], dtype=pl.UInt64)])
    found = duplicate_search.find_duplicates(keys, datasets, config)
    hits = found.hits(pa.array([f"{i:016x}" for i in ids.to_list()]))
    table = pl.DataFrame(hits)
    fates = table.select(
        id=pl.col("id").str.to_integer(base=16, dtype=pl.UInt64),
        stage=pl.lit("dedup"),
        reason=pl.col("kind") + "_duplicate",
        detail=pl.when(pl.col("kind") == "exact")
        .then(pl.format("says what {} of {} says", "kept_id", "kept_source"))
        .otherwise(pl.format("Jaccard {} with {} of {}", pl.col("jaccard").round(3), "kept_id", "kept_source")),
    )
    return drop(rows, fates), Evidence(hits, found.notes)
