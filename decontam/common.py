"""Common n-grams: those that anybody might write ("Write a function to check whether the given"). They are no evidence.

An n-gram is *used on its own* by a row that contains it without holding any item it belongs to. It is common when two sources
of the data use it on their own, or two benchmarks do so in their items. Rows that do hold an item (HELD: all of a short one, most of
a long one) do not count, so that a benchmark copied into many sources does not make itself invisible.

In: an index and datasets. Out: the index with its common n-grams marked, and which rows are worth a second look: common n-grams only
take coverage away, so a row that holds nothing with all n-grams counted is clean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np

from columnar.engine import LOCAL, Engine
from columnar.store import Dataset
from decontam import match
from decontam.found import RowTexts, mark_batch, scan_texts
from decontam.index import Index
from decontam.pieces import Piece, Scratches, over_pieces, read_piece
from decontam.rules import Field

Marks = dict[Piece, np.ndarray]  # places of the rows of a piece that may hold an item
SOURCES = "SELECT DISTINCT source FROM read_parquet(?, union_by_name=true) ORDER BY 1"


def without_common(
    index: Index,
    datasets: list[Dataset],
    fields: tuple[Field, ...],
    threads: int,
    on_rows: Callable[[int], None] | None = None,
    engine: Engine = LOCAL,
    folder: Path | None = None,
) -> tuple[Index, Marks | None]:
    """The index with common n-grams marked; when the data has several sources, also which rows of each piece may hold an item."""
    common = common_in_benchmarks(index)
    files = [file for dataset in datasets for file in dataset.row_files]
    names = duckdb.execute(SOURCES, [[str(file) for file in files]]).fetchall()
    if len(names) < 2:
        return with_common(index, common), None
    marks: Marks = {}
    first = np.full(len(common), -1, np.int32)
    work = Marker(Scratches(index), {name: i for i, (name,) in enumerate(names)}, fields)
    for piece, (found, grams, users, several) in over_pieces(files, work, threads, engine, folder):
        marks[piece] = found
        common[several] = True
        common[grams] |= (first[grams] >= 0) & (first[grams] != users)
        first[grams] = np.where(first[grams] < 0, users, first[grams])
        if on_rows:
            on_rows(piece.rows)
    return with_common(index, common), marks


@dataclass(frozen=True)
class Marker:
    """The first look at a piece."""

    scratches: Scratches
    number: dict[str, int]  # of each source
    fields: tuple[Field, ...]

    def __call__(self, piece: Piece) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The rows that may hold an item; the n-grams that a source uses on its own, the first such source, and those that two use."""
        found = [np.zeros(0, bool)]
        with self.scratches.borrowed() as scratch:
            scratch.first_user.fill(-1)
            scratch.common.fill(False)
            for batch in read_piece(piece, ["source", *self.fields]):
                users = np.array([self.number[s] for s in batch.column("source").to_pylist()], np.int32)
                found.append(mark_batch(batch, self.scratches.index, scratch, users, self.fields))
            used = np.flatnonzero(scratch.first_user >= 0).astype(np.int32)
            return np.flatnonzero(np.concatenate(found)), used, scratch.first_user[used], np.flatnonzero(scratch.common)


def common_in_benchmarks(index: Index) -> np.ndarray:
    """For each n-gram: do two benchmarks use it on their own."""
    scratch = match.scratch_for(index.table)
    owner = index.table.owner
    table = index.table
    counts = np.diff(table.posting_at)
    of = np.append(owner[table.postings[:, 1]], 0)
    several = np.minimum.reduceat(of, table.posting_at[:-1]) != np.maximum.reduceat(of, table.posting_at[:-1])
    table = table._replace(  # only n-grams of two benchmarks can matter; and what is held is told by n-grams alone
        postings=table.postings[np.repeat(several, counts)],
        posting_at=np.concatenate([[0], np.cumsum(np.where(several, counts, 0))]),
        aligned=np.zeros(0, np.int32),
    )
    each = np.arange(len(index.texts) + 1)
    texts = RowTexts(each, each, each, index.texts)
    scan_texts(texts, replace(index, table=table), scratch, owner, skip_own=True)
    return scratch.common


def with_common(index: Index, common: np.ndarray) -> Index:
    """The index with these n-grams marked; items made of nothing else must stand by themselves."""
    table = index.table
    own = np.zeros(len(table.unit_at) - 1, bool)
    begins = table.gram_of >= 0
    np.logical_or.at(own, table.unit_of[begins], ~common[table.gram_of[begins]])
    stricter = np.array([match.NEVER, match.SENTENCE, match.WHOLE_TURN, match.WHOLE_TURN], np.uint8)
    whole = np.where(own, table.whole, stricter[table.whole])
    return replace(index, table=table._replace(common=common, whole=whole))
