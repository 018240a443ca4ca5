"""Narrow columns of every row (ids, keys, counts), on disk: memory holds a piece of one at a time, whatever the number of rows.

In:   numpy arrays of the next rows, column by column. Out: the same numbers, a range or single rows of a column at a time.

    rows = Narrow(); rows.append(id=ids, n_chars=chars)
    for part in spans(0, 27): rows.read("id", part)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from columnar.record import text_hash
from columnar.store import ROW_GROUP

PIECE = 100 * ROW_GROUP  # rows looked at together


def spans(start: int, stop: int) -> Iterator[slice]:
    """start..stop, a piece at a time."""
    for first in range(start, stop, PIECE):
        yield slice(first, min(first + PIECE, stop))


class Narrow:
    """Columns in temporary files that go when this goes; a column may have more rows than another."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[IO[bytes], np.dtype[Any]]] = {}

    def append(self, **columns: npt.NDArray[Any]) -> None:
        """The numbers of the next rows; a column keeps the type that it begins with."""
        for name, values in columns.items():
            if name not in self._files:
                self._files[name] = tempfile.TemporaryFile(prefix=f"{name}-"), values.dtype  # noqa: SIM115 - lives as long as this
            file, kind = self._files[name]
            file.write(np.ascontiguousarray(values, kind).data)
            file.flush()

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return name in self._files

    def _kind(self, name: str) -> np.dtype[Any]:
        return self._files[name][1] if name in self._files else np.dtype(np.uint64)  # of no rows at all

    def read(self, name: str, part: slice) -> npt.NDArray[Any]:
        """A column's numbers of these rows."""
        if part.start == part.stop:
            return np.zeros(0, self._kind(name))
        file, kind = self._files[name]
        size = (part.stop - part.start) * kind.itemsize
        got = os.pread(file.fileno(), size, part.start * kind.itemsize)
        if len(got) != size:
            raise OSError(f"the temporary file of column {name} was cut short")
        return np.frombuffer(got, kind)

    def take(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A column's numbers of single rows, in the order given."""
        taken = np.empty(len(rows), self._kind(name))
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        done = 0
        while done < len(rows):
            first = int(ascending[done])
            end = int(np.searchsorted(ascending, first + PIECE))
            read = self.read(name, slice(first, int(ascending[end - 1]) + 1))
            taken[order[done:end]] = read[ascending[done:end] - first]
            done = end
        return taken


NOTHING = text_hash([])  # the prompt_hash of rows that ask nothing: they are not duplicates of each other


def hexadecimal(texts: pl.Series) -> npt.NDArray[np.uint64]:
    """Numbers from 16 hexadecimal digits each."""
    return texts.str.to_integer(base=16, dtype=pl.UInt64).to_numpy()


def exact_key(hashes: pl.Series) -> dict[str, npt.NDArray[np.uint64]]:
    """Both halves of `hash` or `prompt_hash`, by which rows are exact duplicates; zero for what duplicates nothing."""
    digits = pl.select(pl.when(hashes != NOTHING).then(hashes).otherwise(pl.lit("0" * 32))).to_series()
    return {"high": hexadecimal(digits.str.slice(0, 16)), "low": hexadecimal(digits.str.slice(16))}


def hex_ids(numbers: npt.NDArray[np.uint64]) -> pa.StringArray:
    """Ids as rows have them: 16 hexadecimal digits."""
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * 16
    digits = numbers.astype(">u8").tobytes().hex().encode()
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(digits))
