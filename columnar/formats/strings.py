"""Whole dialogues in one string: Baize `[|Human|] … [|AI|] …` (kind sft) and HH-RLHF `\\n\\nHuman: … \\n\\nAssistant: …` (see pairs).

Markers and the one space after them are taken away and nothing else is: putting them back gives the string again. Where it does
not (other spacing), the whole string is kept in `meta` beside the messages.
"""

from __future__ import annotations

import re
from typing import Any

from columnar.formats.shape import Bad, Draft, Record, Shape, first_of, rest, text

_HH = re.compile(r"\n\n(Human|Assistant): ?")
_BAIZE = re.compile(r"\n?\[\|(Human|AI)\|\] ?")
_ROLES = {"Human": "user", "Assistant": "assistant", "AI": "assistant"}


def _cut(value: str, markers: re.Pattern[str], path: str) -> tuple[str, list[dict[str, Any]]]:
    """What comes before the first marker, and the turns after."""
    pieces = markers.split(value)
    if len(pieces) < 3:
        raise Bad(path, "a string without turns", "turns that begin with a speaker's mark")
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return pieces[0], [{"role": _ROLES[who], "content": said} for who, said in turns]


def hh_turns(value: str, path: str) -> tuple[list[dict[str, Any]], bool]:
    """The turns of an HH-RLHF dialogue, and whether they give the string back byte for byte."""
    before, messages = _cut(value, _HH, path)
    names = {"user": "Human", "assistant": "Assistant"}
    again = before + "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in messages)
    return messages, not before and again == value


def is_hh(value: Any) -> bool:
    """Is this an HH-RLHF dialogue?"""
    return isinstance(value, str) and value.startswith("\n\nHuman:") and "\n\nAssistant:" in value


def _match(fields: set[str], samples: list[Record]) -> str | None:
    field = first_of(fields, ("input", "text", "conversation"))
    if field and samples and all("[|Human|]" in str(r.get(field)) for r in samples[:3]):
        return f"{field}: turns [|Human|] -> user, [|AI|] -> assistant; a last empty [|Human|] is left out"
    return None


def _baize(record: Record) -> list[Draft]:
    field = first_of(record, ("input", "text", "conversation")) or "input"
    value = text(record, field)
    before, messages = _cut(value, _BAIZE, field)
    again = before + "".join(f"\n[|{'Human' if m['role'] == 'user' else 'AI'}|] {m['content']}" for m in messages)
    if messages[-1]["role"] == "user" and not messages[-1]["content"].strip():
        messages.pop()  # the mark after which the crawler's model stopped
    meta = rest(record, field)
    if again != value:
        meta[field] = value
    elif before:
        meta["preamble"] = before
    return [{"kind": "sft", "messages": messages, "meta": meta}]


BAIZE = Shape("baize", ("sft",), _match, _baize)
