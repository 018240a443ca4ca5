"""The row: THE schema, and the only place that knows it.

One envelope, exactly one payload, with the column names that Hugging Face and TRL use:

    envelope   id            16 hex: WHICH row (source, place, part); the same on every run, on every machine
               hash          32 hex: WHAT it says (normalised text of the whole row): the exact-duplicate key
               prompt_hash   32 hex: what it ASKS (system and user turns): duplicates by prompt, leak-free splits
               kind, source, origin {uri, revision, split, row}, license, meta (JSON: what was not mapped), parents
    payload    sft         messages (+ tools)
               pair        prompt, chosen, rejected (+ scores and models of both)
               candidates  prompt, candidates
               prompt      prompt (+ verifier, ground_truth)

A row in Python is a plain dict of these columns; absent means null. On disk it is Arrow (`SCHEMA`).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

ROLES = ("system", "user", "assistant", "tool")
KINDS = ("sft", "pair", "candidates", "prompt")

MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("thinking", pa.string()),
        ("tool_calls", pa.string()),  # JSON text: a list of {id, type, function: {name, arguments}}
        ("tool_call_id", pa.string()),
        ("name", pa.string()),
    ]
)
MESSAGES = pa.list_(MESSAGE)
ORIGIN = pa.struct([("uri", pa.string()), ("revision", pa.string()), ("split", pa.string()), ("row", pa.int64())])
RATING = pa.struct([("aspect", pa.string()), ("rating", pa.float64()), ("rationale", pa.string())])
CANDIDATE = pa.struct(
    [
        ("model", pa.string()),
        ("content", pa.string()),
        ("thinking", pa.string()),
        ("finish_reason", pa.string()),
        ("params", pa.string()),  # JSON text: decoding parameters, system principle, ...
        ("ratings", pa.list_(RATING)),
        ("score", pa.float64()),
    ]
)
ENVELOPE = pa.schema(
    [
        ("id", pa.string()),
        ("hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("kind", pa.string()),
        ("source", pa.string()),
        ("origin", ORIGIN),
        ("license", pa.string()),
        ("meta", pa.string()),
        ("parents", pa.list_(pa.string())),
    ]
)
PAYLOADS: dict[str, tuple[str, ...]] = {
    "sft": ("messages", "tools"),
    "pair": ("prompt", "chosen", "rejected", "tools", "chosen_score", "rejected_score", "chosen_model", "rejected_model"),
    "candidates": ("prompt", "candidates", "tools"),
    "prompt": ("prompt", "tools", "verifier", "ground_truth"),
}
SCHEMA = pa.schema(
    [
        *ENVELOPE,
        ("messages", MESSAGES),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("candidates", pa.list_(CANDIDATE)),
        ("tools", pa.string()),
        ("chosen_score", pa.float64()),
        ("rejected_score", pa.float64()),
        ("chosen_model", pa.string()),
        ("rejected_model", pa.string()),
        ("verifier", pa.string()),  # a verifier's name, or JSON: a list of {name, weight}
        ("ground_truth", pa.string()),  # text, or JSON where the verifier takes parameters
    ]
)
_FOREIGN = {kind: frozenset(SCHEMA.names) - frozenset(ENVELOPE.names) - frozenset(own) for kind, own in PAYLOADS.items()}


class Problem(NamedTuple):
    """What is wrong in a row: where (a path such as `messages[2].role`), what is there, what should be."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.expected}"


def schema_of(kinds: Iterable[str]) -> pa.Schema:
    """The columns that rows of these kinds use: the envelope and their payloads, in the order of `SCHEMA`.

    A directory of one kind has no columns of the others, because TRL tells kinds apart by column names.
    """
    wanted = set(ENVELOPE.names).union(*(PAYLOADS[kind] for kind in kinds))
    return pa.schema([field for field in SCHEMA if field.name in wanted])


def row_id(source: str, place: str, row: int, part: int = 0) -> str:
    """Which row: a hash of where it came from, so the same on every run.

    Args:
        place: the file's path inside its source (never an absolute path).
        row: 0-based number of the record in that file.
        part: 0-based number of this row among those that the record gave.
    """
    key = f"{source}\x1f{place}\x1f{row}\x1f{part}" if part else f"{source}\x1f{place}\x1f{row}"
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


_SPACES = bytes.maketrans(b"\t\n\r\x0b\x0c", b"     ")


def normalise(text: str) -> bytes:
    """Text as the exact-duplicate key sees it: NFKC, lower case, every run of white space one space, none at the ends."""
    if text.isascii():
        raw = text.lower().encode().translate(_SPACES)
        while b"  " in raw:
            raw = raw.replace(b"  ", b" ")
        return raw.strip()
    return " ".join(unicodedata.normalize("NFKC", text).lower().split()).encode("utf-8", "surrogatepass")


def text_hash(texts: Iterable[str]) -> str:
    """32 hex of the normalised texts: equal exactly when every text is equal after `normalise`."""
    return _digest([normalise(text) for text in texts])


def texts_of(row: dict[str, Any]) -> list[tuple[str, int, str, str]]:
    """Every text of a row as (field, turn, role, text): what is hashed, scanned and searched, in one place.

    `field` is messages, prompt, chosen, rejected or candidates; `turn` counts within the field.
    """
    out = []
    for field in ("messages", "prompt", "chosen", "rejected"):
        for turn, message in enumerate(row.get(field) or ()):
            out.append((field, turn, message["role"], message.get("content") or ""))
    for turn, candidate in enumerate(row.get("candidates") or ()):
        out.append(("candidates", turn, "assistant", candidate.get("content") or ""))
    return out


def seal(row: dict[str, Any], place: str, part: int = 0) -> dict[str, Any]:
    """Give a row its id and both hashes (`source` and `origin` must be set); returns the same dict."""
    row["id"] = row_id(row["source"], place, row["origin"]["row"], part)
    return rehash(row)


def rehash(row: dict[str, Any]) -> dict[str, Any]:
    """Set `hash` and `prompt_hash` from the text; returns the same dict. Each text is normalised once, for both."""
    everything: list[bytes] = [row["kind"].encode()]
    asked: list[bytes] = []
    for field, _, role, text in texts_of(row):
        said = normalise(text)
        everything += (field.encode(), role.encode(), said)
        if role in ("user", "system") and field in ("messages", "prompt"):
            asked += (role.encode(), said)
    for message in row.get("messages") or row.get("chosen") or ():
        if message.get("tool_calls"):
            everything.append(normalise(message["tool_calls"]))
    if row["kind"] == "prompt":
        everything += (normalise(row.get("verifier") or ""), normalise(row.get("ground_truth") or ""))
    row["hash"], row["prompt_hash"] = _digest(everything), _digest(asked)
    return row


def _digest(parts: list[bytes]) -> str:
    return hashlib.blake2b(b"\x1f".join(parts), digest_size=16).hexdigest()


def validate(row: dict[str, Any]) -> list[Problem]:
    """Everything wrong with a row, each with the path to the field; empty when it is good."""
    problems: list[Problem] = []
    kind = row.get("kind")
    if kind not in KINDS:
        return [Problem("kind", repr(kind), "one of " + ", ".join(KINDS))]
    for field in sorted(_FOREIGN[kind].intersection(row)):
        if row[field] is not None:
            problems.append(Problem(field, "a value", f"nothing: it does not belong to kind {kind}"))
    for field in _TEXTS:
        if field in row and not isinstance(row[field], str | None):
            problems.append(Problem(field, describe(row[field]), "text or nothing"))
    for field in ("chosen_score", "rejected_score"):
        if field in row and not _is_score(row[field]):
            problems.append(Problem(field, describe(row[field]), "a number or nothing"))
    if kind == "sft":
        problems += conversation_problems(row.get("messages"), "messages", must_end="assistant")
    else:
        problems += conversation_problems(row.get("prompt"), "prompt", must_end=None)
    if kind == "pair":
        for side in ("chosen", "rejected"):
            problems += conversation_problems(row.get(side), side, must_end="assistant", first=("assistant", "tool"))
    if kind == "candidates":
        candidates = row.get("candidates")
        if not isinstance(candidates, list) or not candidates:
            problems.append(Problem("candidates", describe(candidates), "a list of at least one candidate"))
        else:
            for i, candidate in enumerate(candidates):
                problems += _candidate_problems(candidate, f"candidates[{i}]")
    return problems


_TEXTS = ("source", "license", "tools", "chosen_model", "rejected_model", "verifier", "ground_truth")
_MORE = ("thinking", "tool_calls", "tool_call_id", "name")


def _is_score(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > 1e308)


def _candidate_problems(candidate: Any, path: str) -> list[Problem]:
    if not isinstance(candidate, dict):
        return [Problem(path, describe(candidate), "a candidate")]
    problems = []
    if not isinstance(candidate.get("content"), str):
        problems.append(Problem(f"{path}.content", describe(candidate.get("content")), "text"))
    for key in ("model", "thinking", "finish_reason", "params"):
        if not isinstance(candidate.get(key), str | None):
            problems.append(Problem(f"{path}.{key}", describe(candidate[key]), "text or nothing"))
    if not _is_score(candidate.get("score")):
        problems.append(Problem(f"{path}.score", describe(candidate["score"]), "a number or nothing"))
    ratings = candidate.get("ratings")
    if ratings is not None:
        good = isinstance(ratings, list) and all(
            isinstance(r, dict)
            and isinstance(r.get("aspect"), str | None)
            and isinstance(r.get("rationale"), str | None)
            and _is_score(r.get("rating"))
            for r in ratings
        )
        if not good:
            problems.append(Problem(f"{path}.ratings", describe(ratings), "a list of {aspect, rating, rationale}"))
    return problems


def conversation_problems(messages: Any, path: str, must_end: str | None, first: tuple[str, ...] = ("system", "user")) -> list[Problem]:
    """The rules of a conversation: known roles, text in every turn (or tool calls), system only first, user and assistant in turn."""
    if not isinstance(messages, list):
        return [Problem(path, describe(messages), "a list of messages")]
    if not messages:
        return [Problem(path, "an empty list", "at least one message")]
    problems = []
    before: str | None = None
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            problems.append(Problem(f"{path}[{i}]", describe(message), "a message"))
            continue
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in ROLES:
            problems.append(Problem(f"{path}[{i}].role", describe(role), "one of " + ", ".join(ROLES)))
        elif before is None and role not in first:
            problems.append(Problem(f"{path}[{i}].role", repr(role), " or ".join(first) + " first"))
        elif role == "system" and i > 0:
            problems.append(Problem(f"{path}[{i}].role", "'system' after the first turn", "a system message only at the start"))
        elif role == before and role in ("user", "assistant"):
            other = "assistant" if role == "user" else "user"
            problems.append(Problem(f"{path}[{i}]", f"two {role} messages in a row", f"{other} after {role}"))
        elif role == "tool" and before not in ("assistant", "tool") and not (i == 0 and "tool" in first):
            problems.append(Problem(f"{path}[{i}].role", f"'tool' after {before!r}", "a tool message after an assistant's call"))
        if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            problems.append(Problem(f"{path}[{i}].content", describe(content), "text"))
        if len(message) > 2:
            for key in _MORE:
                if not isinstance(message.get(key), str | None):
                    problems.append(Problem(f"{path}[{i}].{key}", describe(message[key]), "text or nothing"))
        before = role
    if must_end and not problems and before != must_end:
        problems.append(Problem(f"{path}[{len(messages) - 1}].role", repr(before), f"{must_end} last"))
    return problems


def describe(value: Any) -> str:
    """A value in an error message: its type, and its beginning when that helps."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "…")
    if isinstance(value, bool | int | float):
        return f"{type(value).__name__} {value!r}"
    return "bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"


def to_batch(rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """Rows as one Arrow batch; columns absent from a row become null.

    Built column by column and flattened by hand: several times faster than `RecordBatch.from_pylist` on nested chat data.
    """
    return pa.RecordBatch.from_arrays([_array([row.get(field.name) for row in rows], field.type) for field in schema], schema=schema)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """A column of Python values as an Arrow array, going down structs and lists without Arrow's slow type guessing."""
    if pa.types.is_list(kind):
        offsets, flat = [0], []
        for value in values:
            if value:
                flat.extend(value)
            offsets.append(len(flat))
        nulls = pa.array([value is None for value in values], pa.bool_())
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _array(flat, kind.value_type), type=kind, mask=nulls)
    if pa.types.is_struct(kind):
        fields = [_array([None if v is None else v.get(f.name) for v in values], f.type) for f in kind]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=pa.array([v is None for v in values], pa.bool_()))
    return pa.array(values, kind)
