"""The fast way through big files of plain chats and instructions: typed decoding, columns instead of dicts, one hashing pass.

    plan(shape, samples) -> Plan or None        only shapes whose records all have the same plain fields
    Plan.batch(raws) -> Fast                    the rows that are certainly good, as an Arrow batch, and which records are not among them

It decides nothing: a record with anything unusual (another field, typed parts, a null, a role out of turn, a key that came twice) is left
to the generic way, which makes the same row of it or says what is wrong. Both ways give the same rows; a property test holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from types import GenericAlias
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from columnar.formats import chat, instruction
from columnar.formats.shape import Record, Shape, first_of
from columnar.hashing import count_quotes
from columnar.readers import duplicate_key, strings
from columnar.record import MESSAGES, ORIGIN, ROLES

_CODE = {foreign: ROLES.index(ours) for foreign, ours in chat.ROLE_OF.items() if foreign not in chat.CALLS}
_SYSTEM, _USER, _ASSISTANT, _TOOL = range(4)
_ROLE_COLUMN = pa.array(ROLES)


class Fast(NamedTuple):
    """Rows of a batch of records: their text, and which records they are."""

    taken: np.ndarray[Any, Any]  # positions of the records in the batch
    texts: pa.Array  # flat
    codes: np.ndarray[Any, Any]  # uint8 for each text: which of ROLES
    starts: np.ndarray[Any, Any]  # first text of each row, and the end
    meta: pa.Array


class Plan(NamedTuple):
    """How the records of one file are decoded and taken apart."""

    decode: Callable[[bytes], Any]
    keys: int  # of each record
    extras: list[str]  # attributes of the decoded struct, by name of the field
    names: list[str]
    chat: bool
    values: list[str]  # attributes that hold text


def plan(shape: Shape, samples: list[Record]) -> Plan | None:
    """A plan where the shape has one and the samples share their fields. Goes by names: on a cluster a shape is a copy of itself."""
    if not samples or any(set(record) != set(samples[0]) for record in samples):
        return None
    fields = sorted(samples[0])
    if shape.name in (chat.MESSAGES.name, chat.SHAREGPT.name):
        return _chat_plan(samples[0], fields)
    if shape.name == instruction.ALPACA.name:
        return _flat_plan(fields, "instruction", "input", "output")
    if shape.name == instruction.DOLLY.name:
        return _flat_plan(fields, "instruction", "context", "response")
    if shape.name == instruction.PROMPT_COMPLETION.name:
        found = instruction._fields(set(fields))
        if found and found[2] is None and isinstance(samples[0][found[0]], str):
            return _flat_plan(fields, found[0], None, found[1])
    return None


def _struct(typed: dict[str, Any], fields: list[str]) -> tuple[Any, list[str]]:
    """A struct of these fields: the typed ones, and the others as they come. Attributes are a0, a1, … since names may be anything."""
    attributes = [f"a{i}" for i in range(len(fields))]
    made = msgspec.defstruct(
        "Record",
        [(a, typed.get(f, Any)) for a, f in zip(attributes, fields, strict=True)],
        rename=dict(zip(attributes, fields, strict=True)),
        forbid_unknown_fields=True,
        gc=False,
    )
    return made, attributes


def _chat_plan(sample: Record, fields: list[str]) -> Plan | None:
    field = first_of(fields, chat.FIELDS)
    if (
        field is None
        or {"tools", "functions", "system", "system_prompt"} & set(fields)
        or not isinstance(sample[field], list)
        or not sample[field]
    ):
        return None
    first = sample[field][0]
    role, content = first_of(first, chat._ROLE), first_of(first, chat._CONTENT)
    if role is None or content is None or len(first) != 2:
        return None
    message: Any = _struct({role: str, content: str}, [role, content])[0]
    record, attributes = _struct({field: GenericAlias(list, (message,))}, fields)
    at = fields.index(field)
    extras = [a for i, a in enumerate(attributes) if i != at]
    names = [f for f in fields if f != field]
    return Plan(msgspec.json.Decoder(record).decode, len(fields), extras, names, True, [attributes[at]])


def _flat_plan(fields: list[str], question: str, more: str | None, answer: str) -> Plan | None:
    if {"history", *instruction.SYSTEM} & set(fields):
        return None
    used = [question, answer] + ([more] if more in fields and more else [])
    record, attributes = _struct(dict.fromkeys(used, str), fields)
    by = dict(zip(fields, attributes, strict=True))
    return Plan(
        msgspec.json.Decoder(record).decode,
        len(fields),
        [by[f] for f in fields if f not in used],
        [f for f in fields if f not in used],
        False,
        [by[f] for f in used],
    )


def batch(plan: Plan, raws: list[bytes]) -> Fast:
    """The records of a batch that take the fast way."""
    decode = plan.decode
    try:
        records = [decode(raw) for raw in raws]
        taken = np.arange(len(raws))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        records, places = [], []
        for i, raw in enumerate(raws):
            try:
                records.append(decode(raw))
                places.append(i)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
        taken = np.array(places, np.int64)
    once = _keys_once(plan, records, [raws[i] for i in taken] if len(taken) < len(raws) else raws)
    if once is not None:
        records, taken = [r for r, ok in zip(records, once, strict=True) if ok], taken[once]
    return _from_chat(plan, records, taken) if plan.chat else _from_fields(plan, records, taken)


def _keys_once(plan: Plan, records: list[Any], raws: list[bytes]) -> np.ndarray[Any, Any] | None:
    """Which records have no key twice; None for all. Every string has two quotation marks, and a key that came twice lost some.

    One sum over the batch suffices when it adds up, because no record can have fewer marks than its strings need.
    """
    held = plan.keys * len(records)
    if plan.chat:
        held += 4 * sum(map(len, (getattr(r, plan.values[0]) for r in records)))
    else:
        held += len(plan.values) * len(records)
    for extra in plan.extras:
        column = [getattr(r, extra) for r in records]
        held += sum([type(v) is str for v in column])
        held += sum(strings(v) for v in column if type(v) is dict or type(v) is list)
    if count_quotes(np.frombuffer(b"".join(raws), np.uint8)) == 2 * held:
        return None
    return np.array([duplicate_key(raw) is None for raw in raws], np.bool_)


def _meta_column(plan: Plan, records: list[Any]) -> pa.Array:
    if not plan.extras:
        return pa.nulls(len(records), pa.string())
    encode = msgspec.json.Encoder().encode
    names, extras = plan.names, plan.extras
    if len(names) == 1:
        name, extra = names[0], extras[0]
        return pa.array([encode({name: getattr(r, extra)}) for r in records], pa.binary()).cast(pa.string())
    return pa.array([encode({n: getattr(r, e) for n, e in zip(names, extras, strict=True)}) for r in records], pa.binary()).cast(
        pa.string()
    )


def _from_fields(plan: Plan, records: list[Any], taken: np.ndarray[Any, Any]) -> Fast:
    question, answer = plan.values[0], plan.values[1]
    if len(plan.values) == 3:
        more = plan.values[2]
        asked = [f"{q}\n\n{m}" if q and m else q or m for q, m in ((getattr(r, question), getattr(r, more)) for r in records)]
    else:
        asked = [getattr(r, question) for r in records]
    n = len(records)
    texts: list[str] = [""] * (2 * n)
    texts[::2], texts[1::2] = asked, [getattr(r, answer) for r in records]
    codes = np.tile(np.array([_USER, _ASSISTANT], np.uint8), n)
    return Fast(taken, pa.array(texts, pa.string()), codes, np.arange(0, 2 * n + 1, 2, dtype=np.int64), _meta_column(plan, records))


def _from_chat(plan: Plan, records: list[Any], taken: np.ndarray[Any, Any]) -> Fast:
    talks = [getattr(r, plan.values[0]) for r in records]
    role_of = _CODE.get
    flat = list(chain.from_iterable(talks))
    codes = np.array([role_of(m.a0, 9) for m in flat], np.uint8)
    starts = np.cumsum([0, *map(len, talks)], dtype=np.int64)
    good = _in_turn(codes, starts)
    if not good.all():
        kept = np.flatnonzero(good)
        return _from_chat(plan, [records[i] for i in kept], taken[kept])
    return Fast(taken, pa.array([m.a1 for m in flat], pa.string()), codes, starts, _meta_column(plan, records))


def _in_turn(codes: np.ndarray[Any, Any], starts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which rows keep the rules of `record.conversation_problems`, by their roles alone."""
    n = len(starts) - 1
    good = starts[1:] > starts[:-1]
    if not len(codes):
        return good
    begins = starts[:-1][good]
    first = np.zeros(len(codes), np.bool_)
    first[begins] = True
    before = np.concatenate([[np.uint8(9)], codes[:-1]])
    wrong = codes > 3
    wrong |= first & (codes > _USER)
    wrong |= ~first & (codes == _SYSTEM)
    wrong |= ~first & (codes == before) & (codes <= _ASSISTANT)
    wrong |= ~first & (codes == _TOOL) & (before < _ASSISTANT)
    row_of = np.repeat(np.arange(n), np.diff(starts))
    good[row_of[wrong]] = False
    ends = starts[1:] - 1
    good &= codes[np.maximum(ends, 0)] == _ASSISTANT
    return good


def to_batch(
    fast: Fast, schema: pa.Schema, sealed: Any, source: str, license: str | None, origin: dict[str, Any], rows: np.ndarray[Any, Any]
) -> pa.RecordBatch:
    """The Arrow batch of these rows."""
    n = len(fast.taken)
    roles = pa.DictionaryArray.from_arrays(pa.array(fast.codes.astype(np.int32)), _ROLE_COLUMN).cast(pa.string())
    empty = pa.nulls(len(fast.texts), pa.string())
    messages = pa.StructArray.from_arrays([roles, fast.texts, empty, empty, empty, empty], fields=list(MESSAGES.value_type))

    def same(value: str | None) -> pa.Array:
        return pa.nulls(n, pa.string()) if value is None else pa.repeat(pa.scalar(value, pa.string()), n)

    columns = {
        "id": sealed.ids,
        "hash": sealed.hashes,
        "prompt_hash": sealed.prompt_hashes,
        "kind": same("sft"),
        "source": same(source),
        "origin": pa.StructArray.from_arrays(
            [same(origin["uri"]), same(origin["revision"]), same(origin["split"]), pa.array(rows)], fields=list(ORIGIN)
        ),
        "license": same(license),
        "meta": fast.meta,
        "messages": pa.ListArray.from_arrays(pa.array(fast.starts.astype(np.int32)), messages, type=MESSAGES),
    }
    return pa.RecordBatch.from_arrays([columns.get(f.name, pa.nulls(n, f.type)) for f in schema], schema=schema)
