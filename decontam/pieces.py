"""Work on the row groups of row files in a pool of threads: bounded memory, results in row order, whatever the number of threads.

for piece, result in over_pieces(dataset.row_files, index, work, threads=4): ...
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

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


def over_pieces(
    files: list[Path], index: Index, work: Callable[[Piece, Scratch], Result], threads: int, scratches: list[Scratch]
) -> Iterator[tuple[Piece, Result]]:
    """`work` of every piece of row files in a pool of threads, results in row order, at most two pieces a thread in flight.

    Args:
        scratches: filled with the threads' marks, one each.
    """
    free: queue.SimpleQueue[Scratch] = queue.SimpleQueue()
    for _ in range(threads):
        scratches.append(scratch_for(index.table))
        free.put(scratches[-1])

    def task(piece: Piece) -> Result:
        scratch = free.get()
        try:
            return work(piece, scratch)
        finally:
            free.put(scratch)

    waiting: deque[tuple[Piece, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for piece in pieces_of(files):
                waiting.append((piece, pool.submit(task, piece)))
                if len(waiting) >= 2 * threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
