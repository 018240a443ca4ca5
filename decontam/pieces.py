"""The row groups of row files as pieces of work, decoded a few MB at a time; each thread or process with marks of its own.

for piece, made in over_pieces(dataset.row_files, work, threads=4): ...
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from columnar.engine import LOCAL, Engine, places_in
from decontam.index import Index
from decontam.match import Scratch, scratch_for

BATCH_BYTES = 16 << 20  # rows are decoded in batches of about this much text
Result = TypeVar("Result")


class Piece(NamedTuple):
    """A row group of a row file."""

    file: Path
    group: int
    rows: int
    batch_rows: int  # decode so many rows at a time

    def __str__(self) -> str:
        return f"{self.file}, row group {self.group}"


def pieces_of(files: list[Path]) -> list[Piece]:
    """The row groups of row files, in row order."""
    pieces = []
    for file in files:
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            part = metadata.row_group(group)
            each = max(part.total_byte_size // max(part.num_rows, 1), 1)
            pieces.append(Piece(file, group, part.num_rows, int(min(max(BATCH_BYTES // each, 1), 65_536))))
    return pieces


def read_piece(piece: Piece, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """A piece's rows, a few MB at a time; columns the file lacks are left out. Of turns only role and content are read."""
    with pq.ParquetFile(piece.file) as parquet:
        paths = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
        names = [path for path in paths if path in columns or (path.split(".")[0] in columns and path.endswith((".role", ".content")))]
        yield from parquet.iter_batches(piece.batch_rows, row_groups=[piece.group], columns=names, use_threads=False)


class Scratches:
    """Marks for whoever needs some: made when there are none free, and left behind when the work goes to another process."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._free: queue.SimpleQueue[Scratch] = queue.SimpleQueue()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Scratch]:
        """Marks for one piece of work."""
        try:
            scratch = self._free.get_nowait()
        except queue.Empty:
            scratch = scratch_for(self.index.table)
        try:
            yield scratch
        finally:
            self._free.put(scratch)

    def __reduce__(self) -> tuple[Any, ...]:
        return Scratches, (self.index,)


def over_pieces(
    files: list[Path], work: Callable[[Piece], Result], threads: int, engine: Engine = LOCAL, folder: Path | None = None
) -> Iterator[tuple[Piece, Result]]:
    """`work` of every piece of row files, results in row order.

    Args:
        threads: pieces at once in this process.
        folder: where a cluster puts results: all its machines must see it. It is the caller's to remove.
    """
    assert folder or not engine.remote
    pieces = pieces_of([file.resolve() for file in files])
    places = places_in(folder or Path(), len(pieces))
    yield from zip(pieces, engine.map(work, pieces, places, threads=threads, held=True), strict=True)
