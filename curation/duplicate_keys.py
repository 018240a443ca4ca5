"""What the duplicate search goes by: a few numbers of every row, on disk, and which rows take part.

In:   dataset directories, or the columns that a mix has of its sources.
Out:  `Keys`; a row is named by its line: its place when all datasets are put one after another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from columnar.errors import ConfigError
from columnar.store import ROW_GROUP, Dataset, read_batches
from curation.dedup import DedupConfig
from curation.minhash import TEXT_COLUMNS
from curation.narrow import Narrow, exact_key, hexadecimal

Lines = npt.NDArray[np.int64]


class Keys(NamedTuple):
    """The rows that are compared.

    Columns of `rows`: id; high and low (equal in both: exact duplicates; zero: duplicates nothing); merit (the kept one has most of it);
    source; where it is there, kind (rows of different kinds are never near-duplicates by row).
    """

    rows: Narrow
    starts: list[int]  # the first line of each dataset, and the number of lines at the end
    ranks: list[int]  # of each dataset: lower keeps higher; below zero: a reference, whose rows are never marked
    names: list[str]  # what the numbers in `source` mean
    competes: npt.NDArray[np.bool_]  # the lines that are compared

    def dataset(self, lines: Lines) -> Lines:
        """The number of each line's dataset."""
        return np.searchsorted(self.starts, lines, side="right") - 1

    def reference(self, lines: Lines) -> npt.NDArray[np.bool_]:
        """Which lines are of a reference."""
        return np.array([*self.ranks, 0])[self.dataset(lines)] < 0

    def source(self, lines: Lines) -> pa.StringArray:
        """The names of the sources."""
        return pa.array(self.names, pa.string()).take(pa.array(self.rows.take("source", lines)))

    def in_keep_order(self, lines: Lines, config: DedupConfig) -> Lines:
        """The lines, the one that keeps the others first. Reference rows come before all; ties go by source order, then by line."""
        lines = np.sort(lines)
        rank = np.array([*self.ranks, 0])[self.dataset(lines)]
        levels: list[npt.NDArray[Any]] = [] if config.keep == "first" else [rank]
        if config.keep in ("longest", "highest_score"):
            levels.append(-self.rows.take("merit", lines))
        levels.append(rank >= 0)
        return lines[np.lexsort(tuple(levels))]  # stable: what ties in every level stays in line order


def append(rows: Narrow, dataset: Dataset, names: list[str], config: DedupConfig, kinds: list[str] | None = None) -> None:
    """Add all rows of a dataset; names of sources (and kinds) that are new go to the end of their list. Reads text only for `longest`.

    Raises:
        ConfigError: the score column does not exist.
    """
    key = "hash" if config.by == "row" else "prompt_hash"
    longest = config.keep == "longest"
    for batch in read_batches(dataset, ["id", key, "kind", "source", *(TEXT_COLUMNS if longest else ())]):
        frame = pl.DataFrame({name: batch.column(name) for name in ("id", key, "kind", "source")})
        rows.append(id=hexadecimal(frame["id"]), **exact_key(frame[key]), source=_numbers(batch.column("source"), names))
        if kinds is not None:
            rows.append(kind=_numbers(batch.column("kind"), kinds))
        if longest:
            rows.append(merit=_characters(batch))
    if config.keep == "highest_score":
        rows.append(merit=_scores(dataset, config))


def keys_of(datasets: list[Dataset], ranks: list[int], config: DedupConfig) -> Keys:
    """The keys of all rows of these datasets."""
    rows, names, kinds = Narrow(), list[str](), list[str]()
    for dataset in datasets:
        append(rows, dataset, names, config, kinds)
    starts = [0, *np.cumsum([dataset.rows for dataset in datasets]).tolist()]
    return Keys(rows, starts, ranks, names, np.ones(starts[-1], np.bool_))


def _numbers(column: pa.Array, names: list[str]) -> npt.NDArray[np.uint32]:
    """The place of each value in `names`; what is new goes to its end."""
    coded = pc.fill_null(column, "").dictionary_encode()
    for name in coded.dictionary.to_pylist():
        if name not in names:
            names.append(name)
    places = np.array([names.index(name) for name in coded.dictionary.to_pylist()], np.uint32)
    return places[coded.indices.to_numpy()]


def _characters(batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
    total = np.zeros(batch.num_rows)
    for name in TEXT_COLUMNS:
        if name in batch.schema.names:
            column = batch.column(name)
            owner = np.repeat(np.arange(batch.num_rows), pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False))
            lengths = pc.fill_null(pc.utf8_length(column.flatten().field("content")), 0).to_numpy(zero_copy_only=False)
            total += np.bincount(owner, weights=lengths, minlength=batch.num_rows)
    return total


def _scores(dataset: Dataset, config: DedupConfig) -> npt.NDArray[np.float64]:
    name = config.score or "chosen_score"
    stage, _, column = name.rpartition(".")
    files = [dataset.sidecar(stage)] if stage else dataset.row_files
    if not all(file.is_file() and column in pq.read_schema(file).names for file in files):
        raise ConfigError(f"keep: highest_score: {dataset.path} has no column {name}: set score to a column of the rows or to STAGE.COLUMN")
    batches = (batch.column(0) for file in files for batch in pq.ParquetFile(file).iter_batches(ROW_GROUP, columns=[column]))
    scores = np.concatenate([np.zeros(0), *(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False) for values in batches)])
    return np.where(np.isnan(scores), -np.inf, scores)
