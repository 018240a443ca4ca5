"""Which file holds each column of `rows`: the row files, and sidecars beside them line by line or joined by id.

layout(dataset).select()                            the SELECT of the view `rows`
layout(dataset).select({"lang", "n_tokens"})        the same rows with these columns, reading only the files that hold them
layout(dataset).read(5_000_000, 25, ["id"])         rows by their place, without what lies before them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from columnar.errors import StoreError
from columnar.jsonviews import literal, quoted
from columnar.store import Dataset

# Sidecar columns whose names say nothing without their stage; like those that two sidecars share, they appear as STAGE_COLUMN.
AMBIGUOUS = {"reason", "verdict", "keep", "score", "cluster", "detail", "key"}
COMMANDS = {  # what writes the columns of a stage
    "signals": "python -m curation.build_mix CONFIG --out OUT",
    "dedup": "python -m curation.dedup {path}",
    "decontam": "python -m decontam.scan {path} --benchmarks NAMES",
    "select": "python -m curation.build_mix CONFIG --out OUT",
}


@dataclass(frozen=True)
class Sidecar:
    """A file of columns beside the rows."""

    stage: str
    file: Path
    beside: bool  # has exactly these rows, line by line; else joined by id
    names: dict[str, str]  # column -> what it is called in `rows`


@dataclass(frozen=True)
class Layout:
    """The files behind `rows`."""

    files: tuple[Path, ...]
    counts: tuple[int, ...]  # rows of each
    own: tuple[str, ...]  # columns of the row files
    sidecars: tuple[Sidecar, ...]

    @property
    def names_split(self) -> bool:
        """Whether a column `split` is there; else it follows from the names of the row files."""
        return "split" in {name.casefold() for name in (*self.own, *(n for side in self.sidecars for n in side.names.values()))}

    def select(self, wanted: Collection[str] | None = None) -> str:
        """Rows and sidecars side by side. A POSITIONAL JOIN costs little, but every file in it is read, wanted or not.

        Args:
            wanted: columns that must be there; default all. Only the files that hold them are read.
        """
        used = [side for side in self.sidecars if wanted is None or set(side.names.values()) & set(wanted)]
        columns = [f"c{n}.{quoted(column)} AS {quoted(name)}" for n, side in enumerate(used) for column, name in side.names.items()]
        joins = [f"POSITIONAL JOIN {parquet([side.file])} AS c{n}" for n, side in enumerate(used) if side.beside]
        joins += [f"LEFT JOIN {parquet([side.file])} AS c{n} ON r.id = c{n}.id::VARCHAR" for n, side in enumerate(used) if not side.beside]
        given = {"id", *(name for side in used for name in side.names.values())}
        if wanted is not None and used and used[0].beside and set(wanted) <= given and all(side.beside for side in used):
            return f"SELECT {', '.join(['c0.id', *columns])} FROM {parquet([used[0].file])} AS c0 {' '.join(joins[1:])}"
        split = (
            [] if self.names_split else ["replace(regexp_extract(r.filename, '([^/]*?)-[0-9]+[.]parquet$', 1), 'part', 'train') AS split"]
        )
        return " ".join([f"SELECT {', '.join(['r.*', *columns, *split])} FROM {parquet(list(self.files))} AS r", *joins])

    def read(self, start: int, count: int, wanted: Sequence[str]) -> pa.Table | None:
        """Columns of the rows at these places, from the row groups that hold them; None when one is of a sidecar joined by id."""
        table = _rows_at(self.files, start, count, [name for name in wanted if name in self.own])
        for side in self.sidecars:
            columns = {column: name for column, name in side.names.items() if name in wanted}
            if columns and not side.beside:
                return None
            if columns:
                found = _rows_at([side.file], start, count, list(columns))
                table |= {columns[column]: values for column, values in found.items()}
        return pa.table({name: table[name] for name in wanted}) if set(wanted) <= set(table) else None

    def bounds(self, name: str) -> tuple[float, float] | None:
        """The least and greatest number in a column, as the footers of its files state; None when they do not."""
        files, column = list(self.files), name
        for side in self.sidecars:
            if name in side.names.values():
                files, column = [side.file], next(own for own, shown in side.names.items() if shown == name)
        ends: list[float] = []
        for file in files:
            footer = pq.read_metadata(file)
            places = [i for i in range(footer.num_columns) if footer.schema.column(i).path == column]
            for group in range(footer.num_row_groups if places else 0):
                chunk = footer.row_group(group).column(places[0])
                said = chunk.statistics
                if said is None or not said.has_min_max:
                    if said is not None and said.has_null_count and said.null_count == chunk.num_values:
                        continue  # nothing but nulls
                    return None
                ends += [said.min, said.max]
        return (float(min(ends)), float(max(ends))) if ends else None


def _rows_at(files: Sequence[Path], start: int, count: int, columns: list[str]) -> dict[str, pa.ChunkedArray]:
    parts, before = [], 0
    for file in files if columns else []:
        parquet_file = pq.ParquetFile(file, memory_map=True)
        for group in range(parquet_file.num_row_groups):
            rows = parquet_file.metadata.row_group(group).num_rows
            if before < start + count and start < before + rows:
                first = max(start - before, 0)
                parts.append(
                    parquet_file.read_row_group(group, columns, use_threads=False).slice(first, min(start + count - before, rows) - first)
                )
            before += rows
            if before >= start + count:
                break
        if before >= start + count:
            break
    table = pa.concat_tables(parts) if parts else None
    return {name: table.column(name) for name in columns} if table is not None else {}


def layout(dataset: Dataset) -> Layout:
    """How a dataset lies. A sidecar lies beside the rows when it carries their hash and as many lines: that is what makes it right to join
    by position. One without the hash (someone else's) is joined by its ids.

    Raises:
        StoreError: row files or sidecars are missing, damaged or out of step.
    """
    files = row_files(dataset)
    rows = columns_in(files[0], "rows")
    counts = tuple(count_in(file) for file in files)
    if sum(counts) != dataset.rows:
        raise StoreError(
            f"{dataset.path}: rows/ holds {sum(counts):,} rows, manifest.json says {dataset.rows:,}", "run the command that makes it again"
        )
    sidecars = {file.stem: file for file in sorted((dataset.path.resolve() / "cols").glob("*.parquet"))}
    columns = {stage: [c for c in columns_in(file, stage, dataset) if c != "id"] for stage, file in sidecars.items()}
    names = exposed_names(rows, columns)
    return Layout(
        tuple(files),
        counts,
        tuple(rows),
        tuple(
            Sidecar(stage, file, _in_step(dataset, stage, file), {column: names[stage, column] for column in columns[stage]})
            for stage, file in sidecars.items()
        ),
    )


def exposed_names(rows: Sequence[str], sidecars: dict[str, list[str]]) -> dict[tuple[str, str], str]:
    """What each sidecar column is called in `rows`: its own name, or STAGE_COLUMN when that would be unclear or taken."""
    uses = Counter(name.casefold() for name in rows) + Counter(c.casefold() for columns in sidecars.values() for c in columns)
    taken = set(uses)
    names = {}
    for stage, columns in sidecars.items():
        for column in columns:
            name = column
            if column.casefold() in AMBIGUOUS or uses[column.casefold()] > 1:
                name = f"{stage}_{column}"
                while name.casefold() in taken:
                    name += "_"
                taken.add(name.casefold())
            names[stage, column] = name
    return names


def _in_step(dataset: Dataset, stage: str, file: Path) -> bool:
    """True: made for exactly these rows, line by line. False: carries no hash of ours, to be joined by id."""
    footer = pq.read_metadata(file)
    made_for, lines = (footer.metadata or {}).get(b"rows_sha256"), footer.num_rows
    if made_for is None:
        ids = pq.read_table(file, columns=["id"]).column("id")
        if len(ids.unique()) != lines:
            raise StoreError(f"{file}: ids that occur twice, and no hash that ties it to the rows", _repair(dataset, stage, file))
        return False
    if made_for.decode() != dataset.content:
        raise StoreError(f"{file}: the columns of stage {stage!r} were made for other rows than these", _repair(dataset, stage, file))
    if lines != dataset.rows:
        raise StoreError(f"{file}: {lines:,} lines for {dataset.rows:,} rows: damaged", _repair(dataset, stage, file))
    return True


def _repair(dataset: Dataset, stage: str, file: Path) -> str:
    command = COMMANDS.get(stage)
    again = command.format(path=dataset.path) if command else "the command that made it"
    return f"run again: {again} (or delete {file})"


def row_files(dataset: Dataset) -> list[Path]:
    """The row files in row order, as absolute paths."""
    files = sorted((dataset.path.resolve() / "rows").glob("*.parquet"))  # as `data_files` names them: links are not followed
    if not files:
        raise StoreError(f"{dataset.path}: rows/ holds no Parquet file", "run the command that makes it again")
    return files


def columns_in(file: Path, stage: str, dataset: Dataset | None = None) -> list[str]:
    """The columns of a Parquet file of ours.

    Raises:
        StoreError: damaged, or without an id.
    """
    try:
        names = list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{file}: not a whole Parquet file", _repair(dataset, stage, file) if dataset else None) from error
    if "id" not in names and not stage.startswith("hits/"):
        raise StoreError(f"{file}: no column id (columns: {', '.join(names)})", _repair(dataset, stage, file) if dataset else None)
    return names


def count_in(file: Path) -> int:
    """The rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(file).num_rows)


def parquet(files: list[Path], options: str = "") -> str:
    """Parquet files as a source in SQL."""
    return f"read_parquet([{', '.join(literal(str(file)) for file in files)}]{options})"
