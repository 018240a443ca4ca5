"""One file -> Arrow batches of good rows, and what was wrong with the others. Bounded memory; the order of the file.

    for part in ingest(file, shape, spec, schema, plan): part.rows, part.rejects, part.records

Big JSON files of plain shapes take the fast way (columnar.fast) for the records it is certain of, the generic way for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from columnar.errors import InputError
from columnar.files import COMPRESSED, SourceFile, SourceSpec, file_type
from columnar.formats.shape import Bad, Draft, Record, Shape
from columnar.readers import RawRecord, blocks, decode, read
from columnar.record import Problem, rehash, seal, to_batch, validate

RAW_CHARS = 2_000  # of a malformed record that are kept
BATCH_ROWS, BATCH_BYTES = 4_000, 16 << 20
PACKED = 3  # JSON is about so many times as large as gzip or zstd make it
FAST_BYTES = 32 << 20  # of text: below this the fast way does not pay for compiling its kernel
PLAIN = 0.5  # share of records that must take the fast way for it to go on


class Reject(NamedTuple):
    """A row that is not good, or (without a line) a whole file: where it is, why, and how its record begins."""

    file: str
    line: int | None
    problem: Problem
    raw: str


class Part(NamedTuple):
    """What a run of records gave."""

    rows: pa.RecordBatch
    rejects: list[Reject]
    records: int


def ingest(file: SourceFile, shape: Shape, spec: SourceSpec, schema: pa.Schema, samples: list[Record], limit: int | None) -> Iterator[Part]:
    """Every record of a file (or the first `limit`) as rows and rejects."""
    plan = None
    if _text_bytes(file) >= FAST_BYTES and not spec.columns and file_type(file.path) in (".jsonl", ".ndjson", ".json"):
        from columnar import fast

        plan = fast.plan(shape, samples)
    try:
        if plan is not None:
            yield from _fast(file, shape, spec, schema, plan, limit)
            return
        for records in _gathered(named_fields(read(file.path, spec.header), spec.columns), limit):
            yield _generic(file, shape, spec, schema, records)
    except InputError as error:
        raise InputError(str(error), f"{error.hint}, or leave out such files whole: on_bad_file: skip") from error


def _text_bytes(file: SourceFile) -> int:
    """About how much text a file holds."""
    return file.bytes * (PACKED if file.path.name.lower().endswith(COMPRESSED) else 1)


def _gathered(records: Iterator[RawRecord], limit: int | None) -> Iterator[list[RawRecord]]:
    """Records in batches, bounded in number and in bytes."""
    batch: list[RawRecord] = []
    size = 0
    for record in islice(records, limit):
        batch.append(record)
        size += len(record.raw) or 1000
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _generic(file: SourceFile, shape: Shape, spec: SourceSpec, schema: pa.Schema, records: list[RawRecord]) -> Part:
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for record in records:
        for made in rows_of(record, file, shape, spec):
            if isinstance(made, Reject):
                rejects.append(made)
            else:
                rows.append(made)
    return Part(to_batch(rows, schema), rejects, len(records))


def rows_of(record: RawRecord, file: SourceFile, shape: Shape, spec: SourceSpec) -> Iterator[dict[str, Any] | Reject]:
    """The rows of one record, sealed; a `Reject` for each that is not good, or for the record when none of it can be used."""
    try:
        drafts = _drafts(record, shape)
    except Bad as bad:
        yield _reject(file, record, bad.problem)
        return
    origin = {"uri": file.uri, "revision": file.revision, "split": spec.split, "row": record.row}
    for part, draft in enumerate(drafts):
        row = {"origin": origin, "license": spec.license, **draft, "source": spec.name}
        if spec.license and "id" in draft:
            row["license"] = spec.license
        problems = validate(row)
        if not problems and row["kind"] not in shape.kinds:
            problems = [Problem("kind", row["kind"], " or ".join(shape.kinds))]
        if problems:
            yield _reject(file, record, problems[0])
            continue
        meta = row.get("meta")
        row["meta"] = meta_text(meta) if meta else None
        yield rehash(row) if "id" in draft else seal(row, file.place, part)


def _drafts(record: RawRecord, shape: Shape) -> list[Draft]:
    if record.value is None:
        assert record.problem is not None
        raise Bad(*record.problem)
    drafts = shape.rows(record.value)
    if not drafts:
        raise Bad("", "a record that gives no row", f"at least one row of kind {' or '.join(shape.kinds)}")
    return drafts


def meta_text(meta: Record) -> str:
    """What was not mapped, as JSON text: its fields in the order of their names, so that equal records give equal text."""
    return msgspec.json.encode(dict(sorted(meta.items())), enc_hook=str).decode()


def _reject(file: SourceFile, record: RawRecord, problem: Problem) -> Reject:
    raw = record.raw or meta_text(record.value or {})
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "backslashreplace")
    return Reject(file.uri, record.line, problem, text[:RAW_CHARS])


def _fast(file: SourceFile, shape: Shape, spec: SourceSpec, schema: pa.Schema, plan: Any, limit: int | None) -> Iterator[Part]:
    import numpy as np

    from columnar import fast, hashing

    leads = [("messages", role) for role in fast.ROLES]
    origin = {"uri": file.uri, "revision": file.revision, "split": spec.split}
    base, plain = 0, True
    for lines, raws in blocks(file.path):
        if limit is not None:
            lines, raws = lines[: limit - base], raws[: limit - base]
            if not raws:
                return
        if not plain:
            yield _generic(file, shape, spec, schema, [decode(base + i, lines[i], raws[i]) for i in range(len(raws))])
            base += len(raws)
            continue
        found = fast.batch(plan, raws)
        rows = base + found.taken
        sealed = hashing.seal_batch("sft", found.texts, found.starts, found.codes, leads, spec.name, file.place, rows)
        good = fast.to_batch(found, schema, sealed, spec.name, spec.license, origin, rows)
        rejects: list[Reject] = []
        if len(found.taken) < len(raws):
            others: list[dict[str, Any]] = []
            places: list[int] = []
            for i in np.setdiff1d(np.arange(len(raws)), found.taken, assume_unique=True).tolist():
                for made in rows_of(decode(base + i, lines[i], raws[i]), file, shape, spec):
                    if isinstance(made, Reject):
                        rejects.append(made)
                    else:
                        others.append(made)
                        places.append(i)
            if others:
                order = np.argsort(np.concatenate([found.taken, places]), kind="stable")
                both = pa.Table.from_batches([good, to_batch(others, schema)], schema).take(pa.array(order))
                good = both.combine_chunks().to_batches()[0]
            plain = len(found.taken) >= PLAIN * len(raws)
        yield Part(good, rejects, len(raws))
        base += len(raws)


def named_fields(records: Iterable[RawRecord], columns: dict[str, str]) -> Iterator[RawRecord]:
    """Records with the user's `columns:` applied: their names become ours, in the record and inside its message lists."""
    ours = {theirs: name for name, theirs in columns.items()}
    for record in records:
        yield record if record.value is None or not columns else record._replace(value=_renamed(record.value, ours))


def _renamed(value: Record, ours: dict[str, str]) -> Record:
    made = {}
    for key, held in value.items():
        if isinstance(held, list) and held and isinstance(held[0], dict):
            held = [{ours.get(k, k): v for k, v in item.items()} if isinstance(item, dict) else item for item in held]
        made[ours.get(key, key)] = held
    return made
