"""Questions to open datasets, without Streamlit: one DuckDB connection a dataset (or pair), answers kept until its files change.

    data = open_data(Path("out/tiny"))
    data.run("SELECT source, count(*) FROM rows GROUP BY 1").rows

Nothing is loaded: the connection (columnar.view) reads the Parquet files when asked, every question has a limit on rows and time, and
the same question of the same files is answered from memory.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar.ask import Result, run
from columnar.layout import Layout, layout
from columnar.store import Dataset, open_dataset
from columnar.view import columns_of, connect, schema_names, stamp

if TYPE_CHECKING:
    import duckdb

TIMEOUT = 30.0  # seconds
MAX_ROWS = 1_000
KEPT_ANSWERS = 512
KEPT_BYTES = 64 << 20
MEMORY = "256MiB"  # what DuckDB may hold; more goes to temporary files
OPEN = 4  # datasets held open at once
WRITTEN = ("flags.jsonl", "rejects.jsonl")  # read anew by every question: a change needs no new connection


@dataclass
class Data:
    """Open datasets (one, or the two of a comparison) and the answers they gave."""

    datasets: tuple[Dataset, ...]
    schemas: tuple[str, ...]  # their names in SQL
    connection: duckdb.DuckDBPyConnection
    stamp: tuple[Any, ...]
    layout: Layout  # which file holds each column of `rows`
    columns: dict[str, dict[str, str]]  # of `rows` and `dropped`: column -> SQL type
    _answers: OrderedDict[Any, Result] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def dataset(self) -> Dataset:
        """The (first) dataset."""
        return self.datasets[0]

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.dataset.path

    @property
    def identity(self) -> dict[str, Any]:
        """What its manifest says of its content."""
        found: dict[str, Any] = self.dataset.manifest["identity"]
        return found

    def run(self, sql: str, params: Any = None, max_rows: int | None = MAX_ROWS, timeout: float | None = TIMEOUT) -> Result:
        """The answer to one reading statement, from memory when the files have not changed.

        Raises:
            QueryError: refused, failed, or out of time.
        """
        key = (sql, json.dumps(params, default=str), max_rows, self._changing(sql))
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        answer = run(self.connection, sql, params, max_rows, timeout)
        with self._lock:
            self._answers[key] = answer
            while len(self._answers) > KEPT_ANSWERS or (len(self._answers) > 1 and self._held() > KEPT_BYTES):
                self._answers.popitem(last=False)
        return answer

    def one(self, sql: str, params: Any = None, timeout: float | None = TIMEOUT) -> Any:
        """The first value of the first row, or None."""
        return next(iter(next(iter(self.run(sql, params, 1, timeout).rows), {}).values()), None)

    def forget(self) -> None:
        """Drop the answers kept."""
        with self._lock:
            self._answers.clear()

    def _held(self) -> int:
        return sum(answer.table.nbytes for answer in self._answers.values())

    def _changing(self, sql: str) -> tuple[Any, ...]:
        """The state of the files that are read anew, when the question is about them."""
        if not re.search(r"flags|rejects", sql, re.IGNORECASE):
            return ()
        return tuple(_state(dataset.path / name) for dataset in self.datasets for name in WRITTEN)


_open: OrderedDict[tuple[Path, ...], Data] = OrderedDict()
_opening = threading.Lock()


def open_data(*paths: Path) -> Data:
    """The dataset at a path, or several at once; opened anew when their files have changed.

    Raises:
        StoreError: not a dataset, incomplete, or sidecars out of step.
    """
    key = tuple(path.resolve() for path in paths)
    with _opening:
        now = tuple(line for line in stamp(key) if Path(line[0]).name not in WRITTEN)
        data = _open.get(key)
        if data is None or data.stamp != now:
            data = _connect(key, now)
            _open[key] = data
            while len(_open) > OPEN:
                _open.popitem(last=False)  # a question under way keeps its connection until it is answered
        _open.move_to_end(key)
        return data


def _connect(paths: tuple[Path, ...], now: tuple[Any, ...]) -> Data:
    datasets = tuple(open_dataset(path) for path in paths)
    names = schema_names(datasets)
    connection = connect(paths, names, memory=MEMORY)
    columns = {view: {name: str(kind) for name, kind in columns_of(connection, view).items()} for view in ("rows", "dropped")}
    return Data(datasets, tuple(names), connection, now, layout(datasets[0]), columns)


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return (0, 0)
    return (found.st_size, found.st_mtime_ns)


def find(folder: Path, depth: int = 4, most: int = 200) -> list[Path]:
    """Dataset directories (those with rows/) below a folder, hidden ones and links left out, nearest first."""

    def walk(place: Path, left: int) -> Iterator[Path]:
        try:
            entries = sorted((e for e in os.scandir(place) if e.is_dir(follow_symlinks=False)), key=lambda e: e.name)
        except OSError:
            return
        if any(entry.name == "rows" for entry in entries):
            yield place
        elif left:
            for entry in entries:
                if not entry.name.startswith((".", "__")) and entry.name not in ("node_modules", "site-packages"):
                    yield from walk(Path(entry.path), left - 1)

    found = []
    for path in walk(folder, depth):
        found.append(path)
        if len(found) == most:
            break
    return sorted(found, key=lambda path: (len(path.parts), str(path)))
