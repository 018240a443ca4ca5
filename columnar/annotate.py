"""A stage over rows: a pure function of a batch -> the sidecar `cols/STAGE.parquet`, one line a row, skipped when its key says it is there.

    annotate([dataset], "signals", VERSION, config, function, columns)

Works on spans of row groups, here or on a cluster (columnar.engine): the lines are the same.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from columnar.engine import LOCAL, Engine, places_in
from columnar.errors import StoreError
from columnar.store import ROW_GROUP, Dataset, sidecar_key, stage_key, table_writer, whole_file

STALE = 3600  # seconds without a write after which a temporary file is a killed run's


class Span(NamedTuple):
    """Row groups of a row file that are worked on together: about `ROW_GROUP` rows."""

    file: Path
    groups: tuple[int, ...]
    rows: int

    def __str__(self) -> str:
        return f"{self.file}, row groups {self.groups[0]} to {self.groups[-1]}"


def spans_of(files: Iterable[Path]) -> list[Span]:
    """The row groups of row files, in row order.

    Raises:
        StoreError: one is no whole Parquet file.
    """
    spans = []
    for file in files:
        try:
            footer = pq.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{file}: not a whole Parquet file ({error})", "run the command that makes the dataset again") from error
        groups: list[int] = []
        rows = 0
        for group in range(footer.num_row_groups):
            more = footer.row_group(group).num_rows
            if groups and rows + more > ROW_GROUP:
                spans.append(Span(file, tuple(groups), rows))
                groups, rows = [], 0
            groups.append(group)
            rows += more
        if rows:
            spans.append(Span(file, tuple(groups), rows))
    return spans


@dataclass(frozen=True)
class Annotator:
    """A stage's work on a span of rows: `function` of each batch, `id` first."""

    stage: str
    function: Callable[[pa.RecordBatch], pa.RecordBatch]
    columns: list[str] | None

    def __call__(self, span: Span) -> list[pa.RecordBatch]:
        """The sidecar's lines for these rows."""
        read = None if self.columns is None else ["id", *(c for c in self.columns if c != "id")]
        with pq.ParquetFile(span.file) as parquet:
            names = None if read is None else [c for c in read if c in parquet.schema_arrow.names]
            batches = parquet.iter_batches(batch_size=ROW_GROUP, row_groups=list(span.groups), columns=names)
            return [self._lines(batch) for batch in batches]

    def empty(self, dataset: Dataset) -> pa.RecordBatch:
        """The columns of a dataset without rows."""
        schema = pq.read_schema(dataset.row_files[0])
        return self._lines(
            pa.RecordBatch.from_pylist([], pa.schema([f for f in schema if self.columns is None or f.name in ("id", *self.columns)]))
        )

    def _lines(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        out = self.function(batch)
        if out.num_rows != batch.num_rows:
            raise StoreError(f"stage {self.stage}: {out.num_rows} rows out for {batch.num_rows} rows in")
        return pa.RecordBatch.from_arrays([batch.column("id"), *out.columns], ["id", *out.schema.names])


def annotate(
    datasets: Sequence[Dataset],
    stage: str,
    stage_version: int,
    config: Any,
    function: Callable[[pa.RecordBatch], pa.RecordBatch],
    columns: list[str] | None = None,
    force: bool = False,
    on_batch: Callable[[int], None] | None = None,
    engine: Engine = LOCAL,
) -> list[Dataset]:
    """Write the sidecar `cols/STAGE.parquet` of each dataset: `function` of each batch of rows, row for row, `id` first.

    Args:
        function: a pure function of a batch; must return as many rows, without `id` (it is added here).
        columns: what to read of the rows (`id` is added); None reads all.
        on_batch: told the number of rows of each batch done, for progress.
        engine: where it is done; a cluster works on the blocks of all datasets at once.

    Returns:
        The datasets that had none under this key.

    Raises:
        StoreError: the function returned another number of rows, or a row file is damaged.
    """
    keys = {dataset.path: stage_key(stage, stage_version, config, dataset.content) for dataset in datasets}
    todo = [dataset for dataset in datasets if force or sidecar_key(dataset.sidecar(stage)) != keys[dataset.path]]
    work = Annotator(stage, function, columns)
    spans = [spans_of(path.resolve() for path in dataset.row_files) for dataset in todo]
    folders = [dataset.path / "cols" / f".{stage}-{keys[dataset.path]}" for dataset in todo]
    places = [place for folder, mine in zip(folders, spans, strict=True) for place in places_in(folder, len(mine))]
    for dataset, folder in zip(todo, folders, strict=True):
        _sweep(dataset.path / "cols", stage, None if force else folder)
    made = engine.map(work, [span for mine in spans for span in mine], places)
    for dataset, folder, mine in zip(todo, folders, spans, strict=True):
        said = {"stage": stage, "key": keys[dataset.path], "rows_sha256": dataset.content}
        with whole_file(dataset.sidecar(stage)) as temporary:
            batches = (batch for _ in mine for batch in next(made))
            first = next(batches, None)
            first = work.empty(dataset) if first is None else first
            with table_writer(temporary, first.schema, said) as writer:
                for batch in itertools.chain([first], batches):
                    writer.write_batch(batch, row_group_size=ROW_GROUP)
                    if on_batch:
                        on_batch(batch.num_rows)
        shutil.rmtree(folder, ignore_errors=True)
    return todo


def _sweep(cols: Path, stage: str, kept: Path | None) -> None:
    """Remove what killed runs of a stage left: results of blocks under other keys, and files that nobody has written to for an hour."""
    for old in cols.glob(f".{stage}-*"):
        if old != kept:
            shutil.rmtree(old, ignore_errors=True)
    for old in cols.glob(f".{stage}.parquet.*.tmp"):
        if time.time() - old.stat().st_mtime > STALE:
            old.unlink(missing_ok=True)
