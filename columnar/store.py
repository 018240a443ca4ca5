"""A dataset is a directory: rows written once, row-aligned sidecar columns, evidence tables, and a manifest written last.

    rows/*.parquet        the text, zstd, 10k rows a row group; the order of rows is: files by name, then position
    cols/STAGE.parquet    sidecar columns of one annotator: `id` and its columns, one line a row, in the order of rows/
    hits/NAME.parquet     evidence with a grain of its own: n-gram hits, duplicate pairs, judge calls
    flags.jsonl  rejects.jsonl  manifest.json

Two kinds of stage and no others: rows -> rows (a new directory) and rows -> columns (columnar.annotate: one sidecar). A stage is a
plain function with a VERSION; its key hashes name, VERSION, resolved config and the content of its inputs. Same key = skip.
Every file appears whole or not at all (written beside, then renamed); `manifest.json` comes last: its existence means complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from columnar.errors import StoreError
from columnar.filesystem import place, url_of

SCHEMA_VERSION = 1
ROW_GROUP = 10_000
SHARD_ROWS = 100_000
opened: set[Path] = set()  # datasets, by this command: where to look when data cannot be decoded (columnar.damage)


@dataclass(frozen=True)
class Dataset:
    """A complete dataset directory, opened for reading."""

    path: Path
    manifest: dict[str, Any]

    @property
    def row_files(self) -> list[Path]:
        """The row files in row order."""
        return sorted((self.path / "rows").glob("*.parquet"))

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.manifest["identity"]["rows"])

    @property
    def content(self) -> str:
        """A hash of what the rows say: what depends on this dataset is stale when it changes."""
        return str(self.manifest["identity"]["rows_sha256"])

    def sidecar(self, stage: str) -> Path:
        """Where the columns of a stage are (they may not exist)."""
        return self.path / "cols" / f"{stage}.parquet"


def open_dataset(path: Path | str) -> Dataset:
    """Open a complete dataset directory: a local one, or s3://, gs://, hf://datasets/, of which the mirror is brought up to date.

    Raises:
        StoreError: no such directory, or no manifest (not a dataset, or one whose writing was cut off).
    """
    path = place(path)
    if url_of(path):
        from columnar.remote import fetch

        fetch(path)
    manifest = path / "manifest.json"
    if not path.is_dir():
        raise StoreError(f"{path}: no such directory", "make a dataset with: python -m columnar.load FILE --out DIR")
    if not manifest.is_file():
        known = (path / "rows").is_dir()
        raise StoreError(
            f"{path}: no manifest.json: " + ("the dataset is incomplete (its writing was cut off)" if known else "not a dataset directory"),
            "run the command that makes it again: it goes on from the files that are whole" if known else None,
        )
    try:
        data = json.loads(manifest.read_text(encoding="utf-8"))
        found = data["schema"]
    except (ValueError, KeyError) as error:
        raise StoreError(f"{manifest}: damaged, or not a manifest of ours", "run the command that makes it again") from error
    if found != SCHEMA_VERSION:
        raise StoreError(f"{path}: schema {found}, this version reads {SCHEMA_VERSION}", "build the dataset again with this version")
    opened.add(path)
    return Dataset(path, data)


def read_batches(dataset: Dataset, columns: list[str] | None = None, rows: int = ROW_GROUP) -> Iterator[pa.RecordBatch]:
    """The rows in row order, at most `rows` a batch; columns the dataset does not have are left out."""
    for file in dataset.row_files:
        parquet = pq.ParquetFile(file)
        names = None if columns is None else [c for c in columns if c in parquet.schema_arrow.names]
        yield from parquet.iter_batches(batch_size=rows, columns=names)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; on success it becomes `path` in one step, on failure nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys, in one step."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def stage_key(name: str, stage_version: int, config: Any, inputs: Any) -> str:
    """16 hex that change whenever the stage's output could: its name, VERSION, resolved config, inputs' content."""
    text = json.dumps([name, stage_version, config, inputs], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table_writer(path: Path, schema: pa.Schema, metadata: dict[str, str] | None = None) -> pq.ParquetWriter:
    """A Parquet writer with the house's settings; the bytes depend on nothing but the data and the metadata."""
    if metadata:
        schema = schema.with_metadata({**(schema.metadata or {}), **metadata})
    vectors = [f"{f.name}.list.element" for f in schema if pa.types.is_fixed_size_list(f.type)]
    if not vectors:
        return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, write_statistics=True)
    # signatures and embeddings never repeat: looking for repetitions would cost more than everything else
    plain = [f.name for f in schema if not pa.types.is_nested(f.type)]
    encoding = dict.fromkeys(vectors, "BYTE_STREAM_SPLIT")
    return pq.ParquetWriter(
        path, schema, compression="zstd", compression_level=1, use_dictionary=plain, column_encoding=encoding, write_statistics=plain
    )


def write_table(path: Path, table: pa.Table | Iterable[pa.Table], metadata: dict[str, str] | None = None) -> None:
    """A whole Parquet file in one step, of one table or of several (at least one), each of whole row groups."""
    tables = iter([table] if isinstance(table, pa.Table) else table)
    first = next(tables)
    with whole_file(path) as temporary, table_writer(temporary, first.schema, metadata) as writer:
        for piece in itertools.chain([first], tables):
            writer.write_table(piece, row_group_size=ROW_GROUP)


class RowWriter:
    """Writes a dataset's rows as shards `rows/PREFIX-00000.parquet`, keeping count, the hash of the ids and, once closed, of the content.

    Shards are whole or absent. Rows arrive as Arrow batches in their final order; the same rows give the same bytes.
    """

    def __init__(
        self, directory: Path, schema: pa.Schema, prefix: str = "part", shard_rows: int = SHARD_ROWS, row_group: int = ROW_GROUP
    ) -> None:
        self.directory, self.schema, self.prefix, self.shard_rows = directory, schema, prefix, shard_rows
        self.row_group = row_group  # so many rows wait in memory: fewer for rows that are long
        self.rows = 0
        self.shard = 0
        self._name: str | None = None
        self.ids = hashlib.sha256()
        self.content = hashlib.sha256()
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._open: tuple[Path, pq.ParquetWriter, int] | None = None

    def start_shard(self, name: str) -> None:
        """Begin a shard of this name (without `.parquet`) instead of the next number; `close` the one before first."""
        self._name = name

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows (columns in any order; those the schema lacks are left out)."""
        batch = batch.select(self.schema.names).cast(self.schema)
        self.ids.update("".join(batch.column("id").to_pylist()).encode())
        self.rows += batch.num_rows
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        while self._pending_rows >= self.row_group:
            self._flush(self.row_group)

    def _flush(self, rows: int) -> None:
        table = pa.Table.from_batches(self._pending, self.schema)
        # one chunk a column: Parquet's pages, and so the bytes, would otherwise depend on the size of the batches that came in
        group, rest = table.slice(0, rows).combine_chunks(), table.slice(rows)
        self._pending, self._pending_rows = rest.to_batches(), rest.num_rows
        if self._open is None:
            final = self.directory / "rows" / f"{self._name or f'{self.prefix}-{self.shard:05d}'}.parquet"
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = final.with_name(f".{final.name}.tmp")
            self._open = (temporary, table_writer(temporary, self.schema), 0)
        temporary, writer, written = self._open
        writer.write_table(group, row_group_size=self.row_group)
        written += group.num_rows
        self._open = (temporary, writer, written)
        if written >= self.shard_rows:
            self._close_shard()

    def _close_shard(self) -> None:
        assert self._open is not None
        temporary, writer, _ = self._open
        writer.close()
        self.content.update(file_sha256(temporary).encode())  # every byte counts: `hash` does not see case, spaces or meta
        temporary.replace(temporary.with_name(temporary.name[1 : -len(".tmp")]))
        self.shard += 1
        self._open = self._name = None

    def close(self) -> None:
        """Finish the last shard; a dataset without rows still gets one empty file, so that its schema can be read."""
        if self._pending_rows or (self._open is None and (self._name or self.shard == 0)):
            if not self._pending:
                self._pending = [pa.RecordBatch.from_pylist([], self.schema)]
            self._flush(self._pending_rows)
        if self._open is not None:
            self._close_shard()


def sidecar_key(path: Path) -> str | None:
    """The stage key a sidecar or hits file was made under; None when it does not exist or is not ours."""
    if not path.is_file():
        return None
    metadata = pq.read_schema(path).metadata or {}
    key = metadata.get(b"key")
    return key.decode() if key else None


def write_manifest(directory: Path, identity: dict[str, Any], started: float) -> dict[str, Any]:
    """Write manifest.json, the last file of a dataset.

    Args:
        identity: what must be the same on every run: name, kind, stage, key, config, seed, inputs, rows, rows_sha256,
            ids_sha256, counts. The files under rows/ are listed with their hashes here.
        started: `time.time()` at the start; it and the machine go into `circumstance`, which may differ from run to run.
    """
    files = sorted(p for part in ("rows", "dropped") for p in (directory / part).glob("*.parquet"))
    outputs = [{"path": str(p.relative_to(directory)), "bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in files]
    manifest = {
        "schema": SCHEMA_VERSION,
        "identity": {**identity, "outputs": outputs},
        "circumstance": {
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.time() - started, 2),
            "peak_rss_mb": peak_rss_mb(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "versions": {"python": platform.python_version(), **{name: version(name) for name in ("pyarrow", "polars", "duckdb")}},
        },
    }
    write_json(directory / "manifest.json", manifest)
    return manifest


def peak_rss_mb() -> int:
    """The largest memory this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20) if sys.platform == "darwin" else peak // 1024
