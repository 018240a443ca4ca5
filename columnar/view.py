"""SQL over dataset directories: opens one or more as DuckDB views over their files, read-only and locked.

    connect(["out/tiny"]).sql("SELECT source, count(*) FROM rows GROUP BY 1")

Views of a dataset: `rows` (rows with every sidecar's columns beside them), `text` (the row files alone: fast by id),
`dropped`, `hits_NAME` for each evidence table, and those over its JSON files (columnar.jsonviews).
With several datasets each is a schema (`tiny.rows`), the first two also `a.rows` and `b.rows`; the first one's views need no prefix.
A part that a dataset does not have is an empty view with the usual columns. Nothing is copied: a view reads its files when asked.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from columnar.errors import StoreError
from columnar.jsonviews import json_views, literal, quoted
from columnar.record import SCHEMA
from columnar.store import Dataset, open_dataset

# Sidecar columns whose names say nothing without their stage; like those that two sidecars share, they appear as STAGE_COLUMN.
AMBIGUOUS = {"reason", "verdict", "keep", "score", "cluster", "detail", "key"}
COMMANDS = {  # what writes the columns of a stage
    "signals": "python -m curation.build_mix CONFIG --out OUT",
    "dedup": "python -m curation.dedup {path}",
    "decontam": "python -m decontam.scan {path} --benchmarks NAMES",
    "select": "python -m curation.build_mix CONFIG --out OUT",
}
STORY = pa.schema([("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
EVIDENCE = {
    "decontam": pa.schema(
        [(name, pa.string()) for name in ("id", "field", "benchmark", "item_id", "item_field", "rule")]
        + [(name, pa.float64()) for name in ("coverage_item", "coverage_row")]
        + [(name, pa.int64()) for name in ("turn", "longest_run", "start", "end", "item_start", "item_end")]
    ),
    "duplicates": pa.schema(
        [(name, pa.string()) for name in ("id", "source", "kept_id", "kept_source", "kind")]
        + [(name, pa.float64()) for name in ("jaccard", "estimate")]
        + [("band", pa.int64())]
    ),
}


def connect(
    dirs: Sequence[Path | str] | Path | str, names: Sequence[str] | None = None, memory: str | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection that sees these datasets and nothing else: no other file, no network, no settings.

    Make a `cursor()` of it for every thread, and close it at the end. When files change (`stamp`), connect again.

    Args:
        names: what to call the datasets; default their manifests' names, made unique.
        memory: DuckDB's memory limit, such as "4GB"; more goes to temporary files. Default: half of the machine's, at most 8 GB.

    Raises:
        StoreError: not a dataset, or a sidecar that does not belong to its rows.
    """
    paths = [dirs] if isinstance(dirs, str | Path) else list(dirs)
    datasets = [open_dataset(path) for path in paths]
    schemas = schema_names(datasets, names)
    connection = duckdb.connect(config={"python_enable_replacements": "false"})
    try:
        files: set[str] = set()
        for number, (dataset, schema) in enumerate(zip(datasets, schemas, strict=True)):
            aliases = (["main"] if number == 0 else []) + (["ab"[number]] if len(datasets) > 1 and number < 2 else [])
            _create(connection, dataset, schema, aliases)
            files |= {str(file) for file in data_files(dataset)}
        _lock(connection, files, memory)
    except BaseException:
        connection.close()
        raise
    return connection


def data_files(dataset: Dataset) -> list[Path]:
    """Every file the views may read, whether it exists yet or not, as absolute paths."""
    root = dataset.path.resolve()
    parquet = [f for part in ("rows", "cols", "dropped", "hits") for f in sorted((root / part).glob("*.parquet"))]
    return [*parquet, *(root / name for name in ("manifest.json", "flags.jsonl", "rejects.jsonl"))]


def stamp(dirs: Iterable[Path | str]) -> tuple[tuple[str, int, int], ...]:
    """(file, size, modified in ns) of everything the views show: when it differs, results kept from before are stale."""
    found = []
    for directory in dirs:
        for file in data_files(Dataset(Path(directory), {})):
            if file.is_file():
                state = file.stat()
                found.append((str(file), state.st_size, state.st_mtime_ns))
    return tuple(found)


def schema_names(datasets: Sequence[Dataset], names: Sequence[str] | None = None) -> list[str]:
    """One name a dataset: as given, else from the manifests, else (when those agree) from the directories; unique whatever the case."""
    wanted = list(names) if names else [str(d.manifest["identity"].get("name") or d.path.resolve().name) for d in datasets]
    if len(wanted) != len(datasets):
        raise StoreError(f"{len(wanted)} names for {len(datasets)} datasets")
    if not names and len({name.casefold() for name in wanted}) < len(wanted):
        wanted = [d.path.resolve().name for d in datasets]
    taken = {"main", "temp", "system", "memory", "pg_catalog", "information_schema", "a", "b"}
    unique = []
    for number, name in enumerate(wanted):
        base = name = name or "dataset"
        count = 1
        own = "ab"[number] if number < 2 else None
        while name.casefold() in taken and not (name == own and count == 1 and own not in unique):
            count += 1
            name = f"{base}_{count}"
        taken.add(name.casefold())
        unique.append(name)
    return unique


def _create(connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: str, aliases: list[str]) -> None:
    for name in (schema, *aliases):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(name)}")
    for view, select in views(dataset).items():
        try:
            connection.execute(f"CREATE VIEW {quoted(schema)}.{quoted(view)} AS {select}")
        except duckdb.Error as error:  # a file that is damaged where only DuckDB looks
            raise StoreError(
                f"{dataset.path}: view {view}: {str(error).strip()}", "run the command that makes the dataset again"
            ) from error
        for alias in aliases:
            if alias != schema:
                connection.execute(f"CREATE VIEW {alias}.{quoted(view)} AS FROM {quoted(schema)}.{quoted(view)}")


def _lock(connection: duckdb.DuckDBPyConnection, files: set[str], memory: str | None) -> None:
    """From here on only these files can be read, none written (but DuckDB's own temporary ones), and no setting changed."""
    if memory is None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory = f"{min(machine // 2, 8 << 30) >> 20}MiB"
    connection.execute(f"SET memory_limit = {literal(memory)}")
    connection.execute(f"SET temp_directory = {literal(str(Path(tempfile.gettempdir()) / f'caravan-sql-{uuid.uuid4().hex}'))}")
    connection.execute("SET max_temp_directory_size = '50GiB'")
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, sorted(files)))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def views(dataset: Dataset) -> dict[str, str]:
    """The SELECT behind each view of a dataset.

    Raises:
        StoreError: row files or sidecars are missing, damaged or out of step.
    """
    root = dataset.path.resolve()
    hits = {file.stem: [file] for file in sorted((root / "hits").glob("*.parquet"))}
    found = {
        "rows": rows_view(dataset),
        "text": f"SELECT * FROM {_parquet(_row_files(dataset))}",
        "dropped": _completed(sorted((root / "dropped").glob("*.parquet")), pa.schema([*SCHEMA, *STORY]), "dropped"),
    }
    for name in sorted({*hits, *EVIDENCE}):
        found[f"hits_{name}"] = _completed(hits.get(name, []), EVIDENCE.get(name, pa.schema([])), f"hits/{name}")
    return found | json_views(root)


def rows_view(dataset: Dataset, window: range | None = None) -> str:
    """Rows and sidecars side by side. A POSITIONAL JOIN costs nothing, but is right only when every sidecar has exactly these rows:
    that is what the hash and the counts are checked for. A sidecar without the hash (someone else's) is joined by its ids.

    Args:
        window: only the rows at these places (from 0, in row order), read without what lies before them.
    """
    files = _row_files(dataset)
    rows = _columns(files[0], "rows")
    counted = sum(_count(file) for file in files)
    if counted != dataset.rows:
        raise StoreError(
            f"{dataset.path}: rows/ holds {counted:,} rows, manifest.json says {dataset.rows:,}", "run the command that makes it again"
        )
    sidecars = {file.stem: file for file in sorted((dataset.path.resolve() / "cols").glob("*.parquet"))}
    columns = {stage: [c for c in _columns(file, stage, dataset) if c != "id"] for stage, file in sidecars.items()}
    names = exposed_names(rows, columns)
    alias = {stage: f"c{number}" for number, stage in enumerate(sidecars)}
    select = ["r.*", *(f"{alias[stage]}.{quoted(column)} AS {quoted(name)}" for (stage, column), name in names.items())]
    if "split" not in {name.casefold() for name in (*rows, *names.values())}:
        # part-00000 of a loaded dataset is all training data until a mix splits it
        select.append("replace(regexp_extract(r.filename, '([^/]*?)-[0-9]+[.]parquet$', 1), 'part', 'train') AS split")
    beside, by_id = "", ""
    for stage, file in sidecars.items():
        if _in_step(dataset, stage, file):
            beside += f" POSITIONAL JOIN {_window([file], window)} AS {alias[stage]}"
        else:
            by_id += f" LEFT JOIN {_parquet([file])} AS {alias[stage]} ON r.id = {alias[stage]}.id::VARCHAR"
    if window is not None:
        select[0] = "r.* EXCLUDE (filename)"
    return f"SELECT {', '.join(select)} FROM {_window(files, window)} AS r{beside}{by_id}"


def _window(files: list[Path], window: range | None) -> str:
    """A source of all rows of some files, or of those at some places: row groups outside are not read."""
    if window is None:
        return _parquet(files)
    parts, before = [], 0
    for file in files:
        count = _count(file)
        start, stop = max(window.start - before, 0), min(window.stop - before, count)
        if start < stop:
            parts.append(f"(SELECT *, filename FROM {_parquet([file])} WHERE file_row_number >= {start} AND file_row_number < {stop})")
        before += count
    return f"({' UNION ALL BY NAME '.join(parts) or f'SELECT *, filename FROM {_parquet(files)} LIMIT 0'})"


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


def _row_files(dataset: Dataset) -> list[Path]:
    files = sorted((dataset.path.resolve() / "rows").glob("*.parquet"))  # as `data_files` names them: links are not followed
    if not files:
        raise StoreError(f"{dataset.path}: rows/ holds no Parquet file", "run the command that makes it again")
    return files


def _columns(file: Path, stage: str, dataset: Dataset | None = None) -> list[str]:
    try:
        names = list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{file}: not a whole Parquet file", _repair(dataset, stage, file) if dataset else None) from error
    if "id" not in names and not stage.startswith("hits/"):
        raise StoreError(f"{file}: no column id (columns: {', '.join(names)})", _repair(dataset, stage, file) if dataset else None)
    return names


def _count(file: Path) -> int:
    return int(pq.read_metadata(file).num_rows)


def _parquet(files: list[Path], options: str = "") -> str:
    return f"read_parquet([{', '.join(literal(str(file)) for file in files)}]{options})"


def _completed(files: list[Path], usual: pa.Schema, part: str) -> str:
    """What the files hold, and the usual columns that none of them has as NULL, so that a saved query works on every dataset."""
    present = {name for file in files for name in _columns(file, part)}
    missing = [f"NULL::{sql_type(field.type)} AS {quoted(field.name)}" for field in usual if field.name not in present]
    if not files:
        return f"SELECT {', '.join(missing)} WHERE false"
    return f"SELECT {', '.join(['*', *missing])} FROM {_parquet(files, ', union_by_name = true')}"


def sql_type(kind: pa.DataType) -> str:
    """An Arrow type of the row's schema as SQL writes it."""
    if pa.types.is_list(kind):
        return sql_type(kind.value_type) + "[]"
    if pa.types.is_struct(kind):
        return "STRUCT(" + ", ".join(f"{quoted(field.name)} {sql_type(field.type)}" for field in kind) + ")"
    return {pa.string(): "VARCHAR", pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN"}[kind]


def columns_of(connection: duckdb.DuckDBPyConnection, view: str = "rows") -> dict[str, Any]:
    """The columns of a view and their SQL types."""
    found = connection.cursor().sql(f"SELECT * FROM {view} LIMIT 0")
    return dict(zip(found.columns, found.types, strict=True))
