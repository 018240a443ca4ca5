"""Every answer ever paid for, in one SQLite file: keyed by what was asked, committed as it arrives, shared by all runs.

    with Cache("out/replies.sqlite") as cache:
        hit = cache.get(key, max_tokens=512)

The key leaves out max_tokens, so an answer that was complete under a smaller limit also answers a larger one; one that was cut
off answers only the same limit: raising max_tokens asks again for exactly the truncated ones. What failed is remembered beside
it (table `failures`), as the ledger of the run and so that an invalid request is not sent again. Several processes may write
at once (WAL). The file holds answers and tags, never a key of an API and never a prompt.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from columnar.errors import StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT NOT NULL, max_tokens INTEGER NOT NULL,      -- 0: no limit was sent
    model TEXT NOT NULL, tag TEXT NOT NULL, outcome TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    at REAL NOT NULL, seconds REAL NOT NULL, raw TEXT NOT NULL,
    UNIQUE (key, max_tokens)
);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, tag TEXT NOT NULL, outcome TEXT NOT NULL,
    reason TEXT NOT NULL, final INTEGER NOT NULL,        -- final: the same request would fail again
    at REAL NOT NULL
);
"""


class Stored(NamedTuple):
    """One answer in the cache: `raw` is the server's own JSON."""

    outcome: str
    max_tokens: int
    prompt_tokens: int
    completion_tokens: int
    raw: str


class Failure(NamedTuple):
    """Why a request has no answer."""

    outcome: str
    reason: str
    final: bool


class Cache:
    """The answers and the failures; `None` as the path keeps them in memory (nothing survives the process)."""

    def __init__(self, path: Path | str | None) -> None:
        self.path = Path(path) if path is not None else None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(self.path or ":memory:", timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint=4000")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.path}: cannot be used as a cache of replies: {error}", "name another file, or move this one away"
            ) from error

    def get(self, key: str, max_tokens: int | None) -> Stored | None:
        """The answer to this request, if one was paid for that still holds under this limit."""
        rows = self._db.execute(
            "SELECT outcome, max_tokens, prompt_tokens, completion_tokens, raw FROM replies WHERE key = ?", (key,)
        ).fetchall()
        for row in map(Stored._make, rows):
            if row.max_tokens == (max_tokens or 0):
                return row
        for row in map(Stored._make, rows):
            if row.outcome != "truncated" and (not max_tokens or row.completion_tokens <= max_tokens):
                return row
        return None

    def put(
        self,
        key: str,
        max_tokens: int | None,
        model: str,
        tag: str,
        outcome: str,
        prompt_tokens: int,
        completion_tokens: int,
        seconds: float,
        raw: str,
    ) -> None:
        """Keep an answer; when this returns it survives a kill. The first one stays if two processes asked the same."""
        with self._writing():
            self._db.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, max_tokens or 0, model, tag, outcome, prompt_tokens, completion_tokens, time.time(), round(seconds, 4), raw),
            )

    def failure(self, key: str) -> Failure | None:
        """Why the last try of this request gave no answer."""
        row = self._db.execute("SELECT outcome, reason, final FROM failures WHERE key = ?", (key,)).fetchone()
        return Failure(row[0], row[1], bool(row[2])) if row else None

    def put_failure(self, key: str, model: str, tag: str, outcome: str, reason: str, final: bool) -> None:
        """Keep why a request has no answer."""
        with self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?)", (key, model, tag, outcome, reason, int(final), time.time())
            )

    def forget_failure(self, key: str) -> None:
        """An answer came after all."""
        with self._writing():
            self._db.execute("DELETE FROM failures WHERE key = ?", (key,))

    def mean_tokens(self) -> dict[tuple[str, str], float]:
        """How long answers have been, by model and by the first word of their tag."""
        rows = self._db.execute(
            """
            SELECT model, substr(tag, 1, instr(tag || ' ', ' ') - 1) AS kind, avg(completion_tokens)
            FROM replies GROUP BY model, kind
            """
        )
        return {(model, kind): mean for model, kind, mean in rows}

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"{self.path}: a reply could not be written: {error}; the {len(self):,} replies before it are kept",
                "make room on the disk, then run the same command again: it asks only for what is missing",
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
