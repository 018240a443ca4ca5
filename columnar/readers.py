"""A file -> its raw records, each with its number, its line and, where it cannot be read, what is wrong. Constant memory.

for record in read(Path("chats.jsonl.gz")): record.row, record.line, record.value, record.problem
"""

from __future__ import annotations

import contextlib
import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import pyarrow as pa

from columnar.errors import InputError
from columnar.files import file_type
from columnar.record import Problem, describe

BLOCK = 1 << 22
_DECODE = msgspec.json.Decoder().decode


class RawRecord(NamedTuple):
    """One record of a file: `value` when it could be read, else `problem`."""

    row: int  # 0-based number of the record
    line: int  # 1-based line where it begins; for tables the 1-based number of the record
    raw: bytes | str
    value: dict[str, Any] | None
    problem: Problem | None = None


def open_bytes(path: Path) -> IO[bytes]:
    """A file's bytes, uncompressed by its suffix."""
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.name.endswith(".zst"):
        return pa.input_stream(str(path), compression="zstd")
    return path.open("rb")


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """What decoders say of a file that is cut off or damaged, as an `InputError`; what the system says (permissions, disk) passes."""
    try:
        yield
    except (EOFError, zlib.error, zipfile.BadZipFile, OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = str(error).strip().split("\n")[0]
        raise InputError(f"{path}: cannot be read to its end: {said}", "the file is cut off or damaged: fetch it again") from error


def read(path: Path, header: bool | None = None) -> Iterator[RawRecord]:
    """Every record of a file, in order.

    Raises:
        InputError: the file is empty, damaged (cut-off gzip, a list that never ends, no Parquet file), or its type is not one we read.
    """
    kind = file_type(path)
    if kind in (".csv", ".tsv", ".xlsx", ".parquet"):
        from columnar import tables

        reader = {".parquet": tables.read_parquet, ".xlsx": tables.read_xlsx}.get(kind)
        with damage(path):
            yield from reader(path) if reader else tables.read_delimited(path, "\t" if kind == ".tsv" else ",", header)
    elif kind in (".jsonl", ".ndjson", ".json"):
        for row, (line, raw) in enumerate(pieces(path)):
            yield decode(row, line, raw)
    else:
        raise InputError(f"{path}: not a type we read")


def pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """The JSON text of every record of a json or jsonl file, with the 1-based line on which it begins."""
    for lines, raws in blocks(path):
        yield from zip(lines, raws, strict=True)


def blocks(path: Path) -> Iterator[tuple[Sequence[int], list[bytes]]]:
    """The same, many records at a time: the lines they begin on, their texts; never empty.

    Raises:
        InputError: the file is empty, its compression is damaged, or the list that it is does not end.
    """
    some = False
    with damage(path), open_bytes(path) as file:
        head = file.read(BLOCK)
        refuse_utf16(path, head)
        if head.startswith(b"\xef\xbb\xbf"):
            head = head[3:]
        first = head.lstrip()
        if file_type(path) == ".json" and first.startswith(b"["):
            chosen = _in_blocks(_elements(file, head))
        elif file_type(path) == ".json" and first.startswith(b"{") and not _is_lines(first):
            chosen = iter([([1], [head + file.read()])])
        else:
            chosen = _lines(file, head)
        for block in chosen:
            some = True
            yield block
    if not some:
        raise InputError(f"{path}: the file is empty", "expected at least one record")


def refuse_utf16(path: Path, head: bytes) -> None:
    """What spreadsheets call Unicode: said of the file, because record by record it would look like nonsense."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: text encoded as UTF-16, expected UTF-8", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW_FILE")


def _in_blocks(records: Iterator[tuple[int, bytes]]) -> Iterator[tuple[Sequence[int], list[bytes]]]:
    lines: list[int] = []
    raws: list[bytes] = []
    size = 0
    for line, raw in records:
        lines.append(line)
        raws.append(raw)
        size += len(raw)
        if size >= BLOCK:
            yield lines, raws
            lines, raws, size = [], [], 0
    if raws:
        yield lines, raws


def _is_lines(head: bytes) -> bool:
    """Does a .json file that begins with an object hold one object a line?"""
    line = head.split(b"\n", 1)[0]
    try:
        _DECODE(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _lines(file: IO[bytes], head: bytes) -> Iterator[tuple[Sequence[int], list[bytes]]]:
    number, rest, block = 1, b"", head
    while block:
        raws = (rest + block).split(b"\n")
        rest = raws.pop()
        if raws:
            lines: Sequence[int] = range(number, number + len(raws))
            number += len(raws)
            if b"" in raws or any(map(bytes.isspace, raws)):  # empty lines hold no record
                kept = [(line, raw) for line, raw in zip(lines, raws, strict=True) if raw and not raw.isspace()]
                lines, raws = [line for line, _ in kept], [raw for _, raw in kept]
            if raws:
                yield lines, raws
            block = file.read(BLOCK)
        else:  # a line longer than a block: read on without splitting again and again what is there
            longer = [rest]
            while (block := file.read(BLOCK)) and b"\n" not in block:
                longer.append(block)
            rest = b"".join(longer)
    if rest and not rest.isspace():
        yield [number], [rest]


# one JSON string (group 1 is empty when the buffer ends inside it), or one bracket or comma
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[{}\[\],]', re.DOTALL)


def _elements(file: IO[bytes], head: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a JSON list, one at a time; what is malformed inside an element is its own problem.

    Raises:
        EOFError: the list is never closed.
    """
    start = at = head.index(b"[") + 1
    buffer, line, depth = head, 1 + head[:start].count(b"\n"), 0
    while True:
        for token in _TOKEN.finditer(buffer, at):
            sign = token.group()
            if sign[0] == 34:
                if not token.group(1):
                    at = token.start()
                    break
            elif sign in b"{[":
                depth += 1
            elif depth == 0 and sign in b",]":
                element = buffer[start : token.start()]
                text = element.lstrip()
                if text or sign == b",":
                    yield line + element[: len(element) - len(text)].count(b"\n"), text.rstrip()
                line += element.count(b"\n")
                start = token.end()
                if sign == b"]":
                    tail = (buffer[start:] + file.read()).strip()
                    if tail:
                        yield line, tail
                    return
            elif sign in b"}]":
                depth = max(depth - 1, 0)
            at = token.end()
        block = file.read(BLOCK)
        if not block:
            raise EOFError(f"a list that is never closed (line {line + buffer[start:].rstrip().count(10)} is the last)")
        buffer, at, start = buffer[start:] + block, at - start, 0


def decode(row: int, line: int, raw: bytes) -> RawRecord:
    """One record from its JSON text, strictly: malformed text, invalid UTF-8, lone surrogates and duplicate keys are problems."""
    try:
        value = _DECODE(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return RawRecord(row, line, raw, None, why(raw, error))
    if type(value) is not dict:
        return RawRecord(row, line, raw, None, Problem("", describe(value), "an object"))
    if quotes(raw) != 2 * strings(value):
        twice = duplicate_key(raw)
        if twice is not None:
            return RawRecord(row, line, raw, None, Problem(twice, "this key twice in one object", "each key once"))
    return RawRecord(row, line, raw, value)


def why(raw: bytes, error: Exception) -> Problem:
    """A decoder's complaint in the words of a user."""
    if isinstance(error, UnicodeDecodeError):
        return Problem("", "invalid UTF-8", "text encoded as UTF-8")
    if isinstance(error, RecursionError):
        return Problem("", "JSON nested too deeply", "a record")
    said = str(error)
    if re.search(rb"\\u[dD][89a-fA-F]", raw) and ("truncated" in said or "surrogate" in said or "escape" in said):
        return Problem("", "half of a surrogate pair (\\ud800 to \\udfff)", "whole characters")
    if re.search(rb"[:\[,]\s*-?(NaN|Infinity)", raw) and "invalid character" in said:
        return Problem("", "NaN or Infinity, which JSON does not have", "a number or null")
    if "truncated" in said:
        return Problem("", "a record that is cut off", "a whole JSON object")
    return Problem("", said.removeprefix("JSON is malformed: ").lower(), "a JSON object")


def quotes(raw: bytes) -> int:
    """How many quotation marks delimit strings: every `"` less the escaped ones; -1 when backslashes make that uncertain."""
    if b"\\" not in raw:
        return raw.count(b'"')
    if b'\\\\"' in raw:
        return -1
    return raw.count(b'"') - raw.count(b'\\"')


def strings(value: Any) -> int:
    """How many strings a decoded value holds, keys counted: fewer than the text had means that a key came twice."""
    if type(value) is str:
        return 1
    if type(value) is dict:
        return len(value) + sum(map(strings, value.values()))
    if type(value) is list:
        return sum(map(strings, value))
    return 0


def duplicate_key(raw: bytes) -> str | None:
    """The exact check, for the few records whose quotation marks do not add up: the first key that an object has twice."""
    import json

    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) < len(items):
            seen: set[str] = set()
            twice.extend(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return made

    json.loads(raw, object_pairs_hook=pairs)
    return twice[0] if twice else None
