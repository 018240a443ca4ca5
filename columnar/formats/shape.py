"""What a shape is: how one family of foreign records is recognised and turned into our payloads.

    match(fields, samples)  the mapping in words for the person at the terminal, or None: these records are something else
    rows(record)            the rows of one record: {kind, payload columns, "meta": what was not mapped}; raises `Bad` with the path

A shape changes no text: it moves strings, and joins two of them with one blank line where a record holds them apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from columnar.record import Problem, describe

Record = dict[str, Any]
Draft = dict[str, Any]


class Shape(NamedTuple):
    """One family of records."""

    name: str
    kinds: tuple[str, ...]
    match: Callable[[set[str], list[Record]], str | None]
    rows: Callable[[Record], list[Draft]]


class Bad(Exception):
    """A record (or one of the rows it gives) does not have the shape it should; carries where and why."""

    def __init__(self, path: str, found: str, expected: str) -> None:
        super().__init__(path)
        self.problem = Problem(path, found, expected)


def text(record: Record, field: str, path: str | None = None) -> str:
    """A field that must be text."""
    value = record.get(field)
    if type(value) is not str:
        raise Bad(path or field, describe(value), "text")
    return value


def optional(record: Record, field: str) -> str:
    """A field that may be absent, null or text; the empty string when it is not there."""
    value = record.get(field)
    if value is None:
        return ""
    if type(value) is not str:
        raise Bad(field, describe(value), "text or nothing")
    return value


def listed(record: Record, field: str) -> list[Any]:
    """A field that must be a list; JSON text of a list counts, since tables cannot hold irregular nesting otherwise."""
    value = decoded(record.get(field))
    if not isinstance(value, list):
        raise Bad(field, describe(value), "a list")
    return value


def decoded(value: Any) -> Any:
    """JSON text of a list or an object as the value itself; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return value
    return value


def number(value: Any, path: str) -> float | None:
    """A score: a number, a number as text, or nothing (null, empty text)."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    raise Bad(path, describe(value), "a number")


def rest(record: Record, *used: str) -> Record:
    """What a record holds beside the mapped fields."""
    return {key: value for key, value in record.items() if key not in used}


def joined(*parts: str) -> str:
    """The parts that are not empty, a blank line between them."""
    return "\n\n".join(part for part in parts if part)


def user(content: str) -> dict[str, Any]:
    """A user message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    """An assistant message."""
    return {"role": "assistant", "content": content}


def asked(content: str, system: str = "") -> list[dict[str, Any]]:
    """A prompt: the system message if there is one, then the user's."""
    return [{"role": "system", "content": system}, user(content)] if system else [user(content)]


def first_of(fields: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of `names` that is among the fields."""
    known = set(fields)
    return next((name for name in names if name in known), None)
