"""Flags set in the browser: written to the dataset's flags.jsonl at once, and taken back the same way. No Streamlit.

A session keeps what it did (`Done`), so that undo takes back exactly that, whoever else is flagging at the same time.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.db import Data
from app.state import Condition
from columnar.errors import ConfigError
from columnar.flags import add_flags
from columnar.jsonviews import literal

LABELS = ("bad", "broken", "wrong", "unsafe", "duplicate", "leaked", "good", "check", "seen")  # the keys 1 to 9
MOST = 1_000_000  # rows flagged at once


@dataclass(frozen=True)
class Done:
    """One act of flagging: which rows got or lost which flag."""

    ids: tuple[str, ...]
    flag: str
    taken: bool  # the flag was taken away


def set_flag(directory: Path, ids: Sequence[str], flag: str, note: str = "", undo: bool = False) -> Done:
    """Flag rows, or take their flag away (`undo`); all in one append.

    Raises:
        ConfigError: a flag without a name.
    """
    flag = flag.strip()
    if not flag:
        raise ConfigError("a flag needs a name")
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    entry = {"flag": flag, "who": _who(), "at": now} | ({"note": note} if note else {}) | ({"undo": True} if undo else {})
    add_flags(directory, [{"id": row_id, **entry} for row_id in ids])
    return Done(tuple(ids), flag, undo)


def take_back(directory: Path, done: Done) -> Done:
    """Undo an act: what it flagged loses the flag, what lost a flag has it again."""
    return set_flag(directory, done.ids, done.flag, undo=not done.taken)


def flags_of(data: Data, ids: Iterable[str]) -> dict[str, list[str]]:
    """The flags that hold for these rows."""
    listed = ", ".join(literal(row_id) for row_id in ids)
    if not listed:
        return {}
    found: dict[str, list[str]] = {}
    for row in data.run(f"SELECT id, flag FROM flags WHERE id IN ({listed})", max_rows=None).rows:
        found.setdefault(str(row["id"]), []).append(str(row["flag"]))
    return found


def ids_of(data: Data, view: str, where: Condition) -> list[str]:
    """The rows that the filters leave.

    Raises:
        ConfigError: more than can be flagged at once.
    """
    result = data.run(f"SELECT id FROM {view} WHERE {where.sql}", where.params, max_rows=MOST, timeout=120)
    if result.truncated:
        raise ConfigError(
            f"more than {MOST:,} rows: flags are for rows that people looked at", "for rows by rule, write the rule into the mix: select:"
        )
    ids: list[str] = result.table.column("id").to_pylist()
    return ids


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "unknown"
