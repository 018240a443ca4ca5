"""Our own rows read back, from a dataset directory or as JSON lines: id, text, origin, licence, meta and parents stay what they are.

{"id": "9f…", "hash": "…", "kind": "sft", "source": "…", "origin": {…}, "messages": […]}
"""

from __future__ import annotations

import msgspec

from columnar.formats.shape import Bad, Draft, Record, Shape
from columnar.record import ENVELOPE, KINDS, PAYLOADS, SCHEMA, describe

_TELLING = {"id", "hash", "kind", "source", "origin"}


def _match(fields: set[str], samples: list[Record]) -> str | None:
    if not fields >= _TELLING or not all(r.get("kind") in KINDS for r in samples):
        return None
    return "our own rows, as they are (source becomes the name of this one)"


def _rows(record: Record) -> list[Draft]:
    kind = record.get("kind")
    if kind not in KINDS:
        raise Bad("kind", describe(kind), "one of " + ", ".join(KINDS))
    if not isinstance(record.get("id"), str) or not isinstance(record.get("origin"), dict):
        raise Bad("id", describe(record.get("id")), "the id and origin of a row")
    for field in ("uri", "revision", "split"):
        if not isinstance(record["origin"].get(field), str | None):
            raise Bad(f"origin.{field}", describe(record["origin"][field]), "text or nothing")
    if type(record["origin"].get("row")) is not int or abs(record["origin"]["row"]) >= 1 << 63:
        raise Bad("origin.row", describe(record["origin"].get("row")), "a number")
    parents = record.get("parents")
    if parents is not None and not (isinstance(parents, list) and all(isinstance(parent, str) for parent in parents)):
        raise Bad("parents", describe(parents), "a list of ids")
    payload = set(PAYLOADS[kind])
    row = {name: value for name, value in record.items() if name in payload or (name in ENVELOPE.names and name != "meta")}
    meta = record.get("meta")
    if isinstance(meta, str):
        try:
            meta = msgspec.json.decode(meta)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Bad("meta", describe(meta), "JSON text") from error
    if not isinstance(meta, dict | None):
        raise Bad("meta", describe(meta), "JSON text of an object")
    extra = {name: value for name, value in record.items() if name not in SCHEMA.names and value is not None}
    row["meta"] = {**(meta or {}), **extra}
    return [row]


def kinds_in(samples: list[Record]) -> tuple[str, ...]:
    """The kinds a set of our rows may hold: those seen, and those that the columns of a table leave room for."""
    telling = {"sft": "messages", "pair": "chosen", "candidates": "candidates", "prompt": "verifier"}
    return tuple(k for k in KINDS if any(r.get("kind") == k or telling[k] in r for r in samples)) or KINDS


ROWS = Shape("rows", KINDS, _match, _rows)
