"""Source files read to their end before any of their rows counts: what `ingest` gives, kept in an Arrow file until it is written.

    with ingested(engine, [(spec, files, shape, samples), ...], folder) as parts:
        for part in parts[0](file): ...                # as ingest(file, ...) would have given it

So it goes on a cluster: a source of many files loads on many workers, one large file on one. Workers decode, check and seal; the driver
writes the row files, whose places and bytes depend on all rows in order. And so it goes anywhere under `on_bad_file: skip`: a file that
turns out to be damaged gives a text, its problem, and none of the rows before the damage.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from columnar.engine import Engine
from columnar.errors import InputError
from columnar.files import SourceFile, SourceSpec, unchanged
from columnar.formats.shape import Record, Shape
from columnar.ingest import Part, Reject, ingest
from columnar.record import schema_of
from columnar.store import stage_key, whole_file

Source = tuple[SourceSpec, list[SourceFile], Shape, list[Record]]
Told = list[tuple[list[Reject], int]] | str  # of each part its rejects and how many records it had; or what is wrong with the file
Parts = Callable[[SourceFile], Iterator[Part] | str]


class FileBlock(NamedTuple):
    """A file of a source, and where its rows go."""

    source: int
    file: SourceFile
    rows: Path
    limit: int | None = None

    def __str__(self) -> str:
        return self.file.uri


@dataclass(frozen=True)
class Ingester:
    """The reading of a file."""

    sources: list[tuple[SourceSpec, Shape, list[Record]]]

    def __call__(self, block: FileBlock) -> Told:
        """Write the rows of each part, and tell of the rest.

        Raises:
            InputError: the file cannot be read to its end, and `on_bad_file` is not `skip`; or it changed meanwhile.
        """
        spec, shape, samples = self.sources[block.source]
        schema = schema_of(shape.kinds)
        told = []
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        try:
            with whole_file(block.rows) as temporary, pa.ipc.new_file(temporary, schema, options=options) as writer:
                for part in ingest(block.file, shape, spec, schema, samples, block.limit):
                    writer.write_batch(part.rows)
                    told.append((part.rejects, part.records))
        except InputError as error:
            if spec.on_bad_file == "fail":
                raise
            return str(error).removeprefix(f"{block.file.path}: ").replace(str(block.file.path), block.file.uri)
        unchanged(block.file)  # before the result counts under the hash the file had
        return told


def kept(rows: Path, told: Told) -> Iterator[Part] | str:
    """What a block gave, from its file; or what is wrong with it."""
    if isinstance(told, str):
        return told
    return _parts(rows, told)


def _parts(rows: Path, told: list[tuple[list[Reject], int]]) -> Iterator[Part]:
    with pa.memory_map(str(rows)) as mapped, pa.ipc.open_file(mapped) as reader:
        for number, (rejects, records) in enumerate(told):
            yield Part(reader.get_batch(number), rejects, records)


@contextlib.contextmanager
def ingested(engine: Engine, sources: list[Source], folder: Path, on_file: Callable[[SourceFile], None]) -> Iterator[list[Parts]]:
    """What the files of each source hold; read by all workers before this begins, gone after it has ended well.

    Args:
        folder: where it lies meanwhile, under names that change with the file and its source: after a failure, files that are as
            they were are not read again.
    """
    files = [(number, file) for number, (_, mine, *_) in enumerate(sources) for file in mine if file.problem is None]
    about = [[spec.model_dump(exclude={"path"}), shape.name, shape.kinds] for spec, _, shape, _ in sources]
    places = [
        folder.absolute() / f"{stage_key('file', 1, about[number], [f.place, f.uri, f.revision, f.sha256])}.result" for number, f in files
    ]
    blocks = [FileBlock(number, file, place.with_suffix(".arrow")) for (number, file), place in zip(files, places, strict=True)]
    work = Ingester([(spec, shape, samples) for spec, _, shape, samples in sources])
    told: dict[tuple[int, str], tuple[Path, Told]] = {}
    for block, parts in zip(blocks, engine.map(work, blocks, places), strict=True):
        told[block.source, block.file.place] = block.rows, parts
        on_file(block.file)

    def parts_of(source: int) -> Parts:
        return lambda file: kept(*told[source, file.place])

    yield [parts_of(number) for number in range(len(sources))]
    shutil.rmtree(folder, ignore_errors=True)
