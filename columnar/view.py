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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from columnar.errors import StoreError
from columnar.jsonviews import json_views, literal, quoted
from columnar.layout import columns_in, layout, parquet, row_files
from columnar.record import SCHEMA
from columnar.store import Dataset, open_dataset

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
        "rows": layout(dataset).select(),
        "text": f"SELECT * FROM {parquet(row_files(dataset))}",
        "dropped": _completed(sorted((root / "dropped").glob("*.parquet")), pa.schema([*SCHEMA, *STORY]), "dropped"),
    }
    for name in sorted({*hits, *EVIDENCE}):
        found[f"hits_{name}"] = _completed(hits.get(name, []), EVIDENCE.get(name, pa.schema([])), f"hits/{name}")
    return found | json_views(root)


def _completed(files: list[Path], usual: pa.Schema, part: str) -> str:
    """What the files hold, and the usual columns that none of them has as NULL, so that a saved query works on every dataset."""
    present = {name for file in files for name in columns_in(file, part)}
    missing = [f"NULL::{sql_type(field.type)} AS {quoted(field.name)}" for field in usual if field.name not in present]
    if not files:
        return f"SELECT {', '.join(missing)} WHERE false"
    return f"SELECT {', '.join(['*', *missing])} FROM {parquet(files, ', union_by_name = true')}"


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
