"""Source files read on a cluster, each by one worker: what `ingest` gives, kept in an Arrow file until the dataset is written.

    with ingested(engine, [(spec, files, shape, samples), ...], folder) as parts:
        for part in parts[0][file]: ...                # as ingest(file, ...) would have given it

A file is the unit of work: a source of many files loads on many workers, one large file on one. Workers decode, check and seal; the
driver writes the row files, whose places and bytes depend on all rows in order.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from columnar.engine import Engine, places_in
from columnar.files import SourceFile, SourceSpec
from columnar.formats.shape import Record, Shape
from columnar.ingest import Part, Reject, ingest
from columnar.record import schema_of
from columnar.store import whole_file

Source = tuple[SourceSpec, list[SourceFile], Shape, list[Record]]
Parts = Callable[[SourceFile], Iterator[Part]]


class FileBlock(NamedTuple):
    """A file of a source, and where its rows go."""

    source: int
    file: SourceFile
    rows: Path

    def __str__(self) -> str:
        return self.file.uri


@dataclass(frozen=True)
class Ingester:
    """The reading of a file."""

    sources: list[tuple[SourceSpec, Shape, list[Record]]]

    def __call__(self, block: FileBlock) -> list[tuple[list[Reject], int]]:
        """Write the rows of each part; give its rejects and how many records it had."""
        spec, shape, samples = self.sources[block.source]
        schema = schema_of(shape.kinds)
        told = []
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with whole_file(block.rows) as temporary, pa.ipc.new_file(temporary, schema, options=options) as writer:
            for part in ingest(block.file, shape, spec, schema, samples, None):
                writer.write_batch(part.rows)
                told.append((part.rejects, part.records))
        return told


@contextlib.contextmanager
def ingested(engine: Engine, sources: list[Source], folder: Path, on_file: Callable[[SourceFile], None]) -> Iterator[list[Parts]]:
    """What the files of each source hold; read by all workers before this begins, gone after it has ended well."""
    files = [(number, file) for number, (_, mine, *_) in enumerate(sources) for file in mine]
    places = places_in(folder.absolute(), len(files))
    blocks = [FileBlock(number, file, place.with_suffix(".arrow")) for (number, file), place in zip(files, places, strict=True)]
    work = Ingester([(spec, shape, samples) for spec, _, shape, samples in sources])
    told: dict[tuple[int, str], tuple[Path, list[tuple[list[Reject], int]]]] = {}
    for block, parts in zip(blocks, engine.map(work, blocks, places), strict=True):
        told[block.source, block.file.place] = block.rows, parts
        on_file(block.file)

    def parts_of(source: int) -> Parts:
        def parts(file: SourceFile) -> Iterator[Part]:
            rows, counts = told[source, file.place]
            with pa.memory_map(str(rows)) as mapped, pa.ipc.open_file(mapped) as reader:
                for number, (rejects, records) in enumerate(counts):
                    yield Part(reader.get_batch(number), rejects, records)

        return parts

    yield [parts_of(number) for number in range(len(sources))]
    shutil.rmtree(folder, ignore_errors=True)
