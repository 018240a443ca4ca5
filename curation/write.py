"""Writes a decided mix in one pass over the sources: kept rows and their columns in id order, dropped rows with their reasons.

    rows/{train,validation}-00000.parquet   in the order of ids: ids are hashes, so this is a shuffle that adding a source does not disturb
    cols/{signals,...}.parquet              the sidecars, in the same order
    dropped/part-00000.parquet              every other row: envelope, stage, reason, detail, signals; the text unless it only lost a draw

Kept rows go to a bucket for each output shard (on disk once they are many), then each bucket is sorted and written: memory is one shard's.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from columnar.errors import ConfigError
from columnar.record import ENVELOPE, MESSAGE, schema_of
from columnar.store import ROW_GROUP, Dataset, RowWriter, table_writer
from curation.decide import CONTAMINATED, EXACT, NEAR, SEMANTIC, SPLITS, Decisions, Loaded, Output, copy_id
from curation.duplicate_search import Found
from curation.mix import MixConfig
from curation.rules import Rule

SHARD_CHARS = 128_000_000
IN_MEMORY = 256_000_000
OTHER_FILES = 100  # that a process has open beside the shards
TEXTLESS = {"sampled_out", "over_cap", "exact_duplicate", "other_kind"}  # lost a draw, or said word for word by a kept row
MESSAGE_FIELDS = ("messages", "prompt", "chosen", "rejected")
SIDE = "\x1f"  # between a sidecar's name and its column, while they travel together


class Shards(NamedTuple):
    """The output shards: the split of each, and for each split its first one's number and the ids at which the following begin."""

    split: list[str]
    first: dict[int, int]
    bounds: dict[int, npt.NDArray[np.uint64]]

    def of(self, ids: npt.NDArray[np.uint64], split: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
        """The shard of each of these output rows."""
        shard = np.zeros(len(ids), np.uint32)
        for number, first in self.first.items():
            mine = split == number
            shard[mine] = first + np.searchsorted(self.bounds[number], ids[mine], side="right")
        return shard


def plan_shards(decisions: Decisions, shard_rows: int) -> Shards:
    """Cut each split, in id order, into equal shards of at most `shard_rows` rows and about `SHARD_CHARS` characters."""
    counts = np.zeros((len(SPLITS) + 1, 1 << 16), np.int64)  # of rows by the upper 16 bits of their ids
    chars = np.zeros(len(SPLITS) + 1, np.int64)
    for part, rows in _output(decisions):
        counts += np.bincount(_bin(rows), minlength=counts.size).reshape(counts.shape)
        chars += np.bincount(rows.split, decisions.rows.read("n_chars", part)[rows.line - part.start], len(chars)).astype(np.int64)
    split: list[str] = []
    first, begins = {}, {}
    for number, name in SPLITS.items():
        total = int(counts[number].sum())
        if not total and name != "train":
            continue
        count = max(-(-total // shard_rows), -(-int(chars[number]) // SHARD_CHARS), 1)
        first[number] = len(split)
        begins[number] = -(-np.arange(1, count) * total // count)  # places in id order
        split += [name] * count
    return Shards(split, first, _ids_at(decisions, counts, begins))


def _ids_at(
    decisions: Decisions, counts: npt.NDArray[np.int64], places: dict[int, npt.NDArray[np.int64]]
) -> dict[int, npt.NDArray[np.uint64]]:
    """The ids at these places of each split, in id order: only ids whose upper bits may be at one of them are held and sorted."""
    ends = np.cumsum(counts, axis=1)
    wanted = np.zeros(counts.shape, np.bool_)
    for number, mine in places.items():
        wanted[number, np.searchsorted(ends[number], mine, side="right")] = True
    found: dict[int, list[npt.NDArray[np.uint64]]] = {number: [np.zeros(0, np.uint64)] for number in places}
    for _, rows in _output(decisions) if wanted.any() else ():
        near = wanted.ravel()[_bin(rows)]
        for number in places:
            found[number].append(rows.id[near & (rows.split == number)])
    at = {}
    for number, mine in places.items():
        ids = np.sort(np.concatenate(found[number]))
        skipped = np.cumsum(np.where(wanted[number], 0, counts[number]))[np.searchsorted(ends[number], mine, side="right")]
        at[number] = ids[mine - skipped]
    return at


def _bin(rows: Output) -> npt.NDArray[np.int64]:
    return (rows.split.astype(np.int64) << 16) + (rows.id >> np.uint64(48)).astype(np.int64)


def _output(decisions: Decisions) -> Iterator[tuple[slice, Output]]:
    """All rows of the mix, a piece at a time, with the lines they come from."""
    for number in range(len(decisions.repeat)):
        for part in decisions.parts(number):
            yield part, decisions.output(number, part)


def with_sidecars(dataset: Dataset, stages: dict[str, Path]) -> Iterator[pa.RecordBatch]:
    """The rows of a dataset with the columns of its sidecars (stage -> file) beside them, named `stage SIDE column`."""
    sides = [pq.ParquetFile(path).iter_batches(batch_size=ROW_GROUP) for path in stages.values()]
    for file in dataset.row_files:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=ROW_GROUP):
            arrays, names = list(batch.columns), list(batch.schema.names)
            for stage, side in zip(stages, sides, strict=True):
                columns = next(side)
                assert columns.num_rows == batch.num_rows, f"{stage} is out of step with the rows of {dataset.path}"
                arrays += columns.columns[1:]
                names += [f"{stage}{SIDE}{name}" for name in columns.schema.names[1:]]
            yield pa.RecordBatch.from_arrays(arrays, names)


class Buckets:
    """The rows of each output shard, gathered in any order: in memory up to `IN_MEMORY` bytes, beyond that in one Arrow file each."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directory = directory
        _allow_files(count + OTHER_FILES)
        self.writers: list[pa.ipc.RecordBatchFileWriter | None] = [None] * count
        self.waiting: list[list[pa.RecordBatch]] = [[] for _ in range(count)]
        self.bytes = 0

    def put(self, batch: pa.RecordBatch, shards: npt.NDArray[np.uint32]) -> None:
        """Add rows; `shards` tells where each goes and is ascending."""
        edges = np.flatnonzero(np.diff(shards)) + 1
        for start, end in zip([0, *edges], [*edges, len(shards)], strict=True):
            self.waiting[int(shards[start])].append(batch.slice(start, end - start))
        self.bytes += batch.nbytes
        if self.bytes > IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for shard, batches in enumerate(self.waiting):
            if not batches:
                continue
            writer = self.writers[shard]
            if writer is None:
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                writer = self.writers[shard] = pa.ipc.new_file(self.directory / f"{shard}.arrow", batches[0].schema, options=options)
            # as one piece: every batch has a few rows for each shard, and what a piece costs does not depend on its rows
            for piece in pa.Table.from_batches(batches).combine_chunks().to_batches():
                writer.write_batch(piece)
            batches.clear()
        self.bytes = 0

    def take(self, shard: int) -> pa.Table | None:
        """The rows of one shard in id order; they are gone afterwards."""
        batches, self.waiting[shard] = self.waiting[shard], []
        writer = self.writers[shard]
        if writer is not None:
            writer.close()
            path = self.directory / f"{shard}.arrow"
            batches = pa.ipc.open_file(path).read_all().to_batches() + batches
            path.unlink()
        if not batches:
            return None
        table = pa.Table.from_batches(batches)
        return table.take(pc.sort_indices(table.column("id")))


def _allow_files(wanted: int) -> None:
    """Let this process have so many files open.

    Raises:
        ConfigError: the system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < wanted:  # -1: no limit
        if 0 <= hard < wanted:
            raise ConfigError(f"{wanted - OTHER_FILES:,} output shards, and this process may open {hard:,} files", "raise shard_rows")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def write_mix(
    out: Path,
    config: MixConfig,
    sources: list[Loaded],
    decisions: Decisions,
    duplicates: Found | None,
    stages: list[dict[str, Path]],
    on_rows: Callable[[int], None],
) -> RowWriter:
    """Write rows/, cols/ and dropped/ of a mix into `out`; returns the finished row writer.

    Args:
        out: an empty directory.
        stages: for each source the sidecars that travel with its rows; the same stages for all.
    """
    shards = plan_shards(decisions, config.shard_rows)
    buckets = Buckets(out / ".buckets", len(shards.split))
    used = _Used()
    dropped = _Dropped(out / "dropped" / "part-00000.parquet", config, decisions, duplicates)
    for number, source in enumerate(sources):
        line = decisions.starts[number]
        for batch in with_sidecars(source.dataset, stages[number]):
            batch = _all_columns(batch, config.kind)
            end = line + batch.num_rows
            made = decisions.output(number, slice(line, end))
            shard = shards.of(made.id, made.split)
            order = np.argsort(shard, kind="stable")
            if len(order):
                rows = batch.take(pa.array(made.line[order] - line))
                used.see(rows)
                buckets.put(_copies(rows, made.copy[order].tolist()), shard[order])
            gone = np.flatnonzero(decisions.fate[line:end])
            if len(gone):
                dropped.write(batch.take(pa.array(gone)), gone + line)
            line = end
            on_rows(batch.num_rows)
    dropped.close()
    return _write_shards(out, config, shards, buckets, used, stages, sources)


def _all_columns(batch: pa.RecordBatch, kind: str) -> pa.RecordBatch:
    """Sources have the columns of their own kinds; give each all columns of the mix's kind, so that buckets agree."""
    arrays, fields = [], []
    for wanted in schema_of([kind]):
        present = wanted.name in batch.schema.names
        arrays.append(batch.column(wanted.name).cast(wanted.type) if present else pa.nulls(batch.num_rows, wanted.type))
        fields.append(wanted)
    for name in batch.schema.names:
        if SIDE in name:
            arrays.append(batch.column(name))
            fields.append(pa.field(name, batch.schema.field(name).type))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _copies(batch: pa.RecordBatch, numbers: list[int]) -> pa.RecordBatch:
    """Repeated copies get ids of their own and the original as parent; a `copy` number for cols/select travels along."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    if any(numbers):
        ids = columns["id"].to_pylist()
        parents = columns["parents"].to_pylist()
        columns["id"] = pa.array([copy_id(i, c) for i, c in zip(ids, numbers, strict=True)])
        columns["parents"] = pa.array(
            [[i] if c else p for i, c, p in zip(ids, numbers, parents, strict=True)], ENVELOPE.field("parents").type
        )
    columns[f"select{SIDE}copy"] = pa.array(numbers, pa.uint16())
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


class _Used:
    """Which optional columns and message fields hold anything: the rest is left out, since TRL and chat templates trip over nulls."""

    def __init__(self) -> None:
        self.columns: set[str] = set()
        self.message: set[str] = {"role", "content"}

    def see(self, batch: pa.RecordBatch) -> None:
        for name in batch.schema.names:
            column = batch.column(name)
            if column.null_count < len(column):
                self.columns.add(name)
                if name in MESSAGE_FIELDS:
                    flat = pc.list_flatten(column)
                    self.message.update(f.name for i, f in enumerate(flat.type) if flat.field(i).null_count < len(flat))

    def schema(self, kind: str) -> pa.Schema:
        needed = {"messages", "prompt", "chosen", "rejected", "candidates", *ENVELOPE.names}
        message = pa.list_(pa.struct([f for f in MESSAGE if f.name in self.message]))
        fields = [f for f in schema_of([kind]) if f.name in needed or f.name in self.columns]
        return pa.schema([pa.field(f.name, message) if f.name in MESSAGE_FIELDS else f for f in fields])


def _narrow(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the schema's columns, message structs cut to the schema's fields."""
    columns = []
    for wanted in schema:
        column = table.column(wanted.name)
        if wanted.name in MESSAGE_FIELDS and column.type != wanted.type:
            column = pa.chunked_array([_narrow_list(chunk, wanted.type) for chunk in column.chunks], wanted.type)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def _narrow_list(lists: pa.ListArray, kind: pa.ListType) -> pa.ListArray:
    flat = pc.list_flatten(lists)
    structs = pa.StructArray.from_arrays([flat.field(f.name) for f in kind.value_type], fields=list(kind.value_type))
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, structs, type=kind, mask=pc.is_null(lists) if lists.null_count else None)


class _Dropped:
    """The dropped rows, in source and row order."""

    def __init__(self, path: Path, config: MixConfig, decisions: Decisions, duplicates: Found | None) -> None:
        path.parent.mkdir(parents=True)
        self.path, self.config, self.decisions, self.duplicates = path, config, decisions, duplicates
        self.writer: pq.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch, lines: npt.NDArray[np.int64]) -> None:
        rules = [self.decisions.fates[number] for number in self.decisions.fate[lines].tolist()]
        text = pa.array([rule.reason not in TEXTLESS for rule in rules if rule])
        columns = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            stage, _, plain = name.rpartition(SIDE)
            if stage == "signals":
                columns[plain] = column if plain != "preview" else pc.if_else(text, column, pa.nulls(len(column), column.type))
            elif not stage:
                columns[name] = column if name in ENVELOPE.names else pc.if_else(text, column, pa.nulls(len(column), column.type))
        columns["stage"] = pa.array([rule.stage for rule in rules if rule], pa.string())
        columns["reason"] = pa.array([rule.reason for rule in rules if rule], pa.string())
        columns["detail"] = pa.array(self._details(batch, lines, [rule for rule in rules if rule]), pa.string())
        table = pa.table(columns)
        if self.writer is None:
            self.writer = table_writer(self.path, table.schema)
        self.writer.write_table(table, row_group_size=ROW_GROUP)

    def _details(self, batch: pa.RecordBatch, lines: npt.NDArray[np.int64], rules: list[Rule]) -> list[str | None]:
        told: list[str | None] = [self.decisions.details.get(line) or rule.words for line, rule in zip(lines.tolist(), rules, strict=True)]
        for column in {rule.column for rule in rules if rule.column}:
            values = batch.column(f"signals{SIDE}{column}").to_pylist()
            told = [f"{column} = {v}" if r.column == column else t for t, r, v in zip(told, rules, values, strict=True)]
        if CONTAMINATED in rules:
            reasons = batch.column(f"decontam{SIDE}reason").to_pylist()
            told = [why if rule == CONTAMINATED else t for t, rule, why in zip(told, rules, reasons, strict=True)]
        found = [i for i, rule in enumerate(rules) if rule in (EXACT, NEAR, SEMANTIC)]
        if self.duplicates and found:
            for i, detail in zip(found, self.duplicates.details(lines[found]), strict=True):
                told[i] = detail
        return told

    def close(self) -> None:
        if self.writer is None:
            schema = pa.schema([*schema_of([self.config.kind]), ("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
            self.writer = table_writer(self.path, schema)
        self.writer.close()


def _write_shards(
    out: Path, config: MixConfig, shards: Shards, buckets: Buckets, used: _Used, stages: list[dict[str, Path]], sources: list[Loaded]
) -> RowWriter:
    schema = used.schema(config.kind)
    rows = RowWriter(out, schema, shard_rows=1 << 62)
    sides: dict[str, pq.ParquetWriter] = {}
    numbers = {"train": 0, "validation": 0}
    for shard, split in enumerate(shards.split):
        table = buckets.take(shard)
        if table is None:
            table = _nothing(config.kind, sources, stages)
        rows.start_shard(f"{split}-{numbers[split]:05d}")
        numbers[split] += 1
        for batch in _narrow(table, schema).to_batches(ROW_GROUP):
            rows.write(batch)
        rows.close()
        table = table.append_column(f"select{SIDE}split", pa.array([split] * len(table), pa.string()))
        for stage in [*stages[0], "select"]:
            mine = [n for n in table.schema.names if n.startswith(stage + SIDE)]
            side = pa.table([table.column("id"), *(table.column(n) for n in mine)], ["id", *(n.partition(SIDE)[2] for n in mine)])
            if stage not in sides:
                (out / "cols").mkdir(exist_ok=True)
                sides[stage] = table_writer(out / "cols" / f"{stage}.parquet", side.schema)
            sides[stage].write_table(side, row_group_size=ROW_GROUP)
    for stage, writer in sides.items():
        writer.add_key_value_metadata({"stage": stage, "key": "mix", "rows_sha256": rows.content.hexdigest()})
        writer.close()
    shutil.rmtree(buckets.directory, ignore_errors=True)
    return rows


def _nothing(kind: str, sources: list[Loaded], stages: list[dict[str, Path]]) -> pa.Table:
    """An empty shard with all columns (a mix from which everything was dropped can still be opened and asked why)."""
    first = next(with_sidecars(sources[0].dataset, stages[0]), None)
    batch = _all_columns(first.slice(0, 0), kind) if first is not None else pa.RecordBatch.from_pylist([], schema_of([kind]))
    return pa.Table.from_batches([_copies(batch, [])])
