"""Human flags on rows: `flags.jsonl`, append-only, one JSON object a line: {id, flag, note, who, at} and `"undo": true` to take one back.

add_flags(DIR, [{"id": ..., "flag": "bad"}])      read_flags(DIR) -> the flags that hold
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from columnar.errors import StoreError
from columnar.remote import exchange


def read_flags(directory: Path) -> list[dict[str, Any]]:
    """The flags that hold, in the order they were set: for each (id, flag) the last line wins, and an undo removes it.

    Raises:
        StoreError: a line is not a JSON object with an id and a flag (the last one may be cut off by a crash: then it is left out).
    """
    path = directory / "flags.jsonl"
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    held: dict[tuple[str, str], dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            key = (str(entry["id"]), str(entry["flag"]))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no newline after it: its writing was cut off
                continue
            raise StoreError(
                f"{path}:{number}: found {line[:80]!r}, expected an object with id and flag", "mend or delete the line"
            ) from error
        held.pop(key, None)
        if not entry.get("undo"):
            held[key] = entry
    return list(held.values())


def add_flags(directory: Path, entries: list[dict[str, Any]]) -> None:
    """Append flags under a lock, all or none, so that two windows flagging at once lose nothing."""
    with exchange(directory / "flags.jsonl"):
        _append(directory / "flags.jsonl", entries)


def _append(path: Path, entries: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n" for entry in entries).encode()
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a crash left half a line: end it, so that it spoils no other
                text = b"\n" + text
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
