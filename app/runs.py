"""What runs left behind, read while they run: the costs and progress of generation, the curves of training. No Streamlit.

    for run in find_runs([Path("out"), Path("runs")]): print(run.path, run.steps[-1:], run.dollars)

A generation run leaves costs.jsonl (a line a session), replies.sqlite (every answer as it comes) and, at its end, a manifest; a
training run leaves metrics.jsonl. A line that is half written or not JSON is left out, and counted.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILES = ("metrics.jsonl", "costs.jsonl", "replies.sqlite")
TAIL = 8 << 20  # bytes of a log that are read, from its end
POINTS = 2_000  # of a curve; more are thinned out
CALLS = """
    SELECT model, count(*) AS answers, sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens,
      sum(outcome <> 'ok') AS not_ok, min(at) AS first, max(at) AS last
    FROM replies GROUP BY model ORDER BY model
"""
PACE = """
    SELECT CAST((at - ?) / ? AS INTEGER) * ? AS at, count(*) AS answers, sum(completion_tokens) AS tokens FROM replies GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True)
class Run:
    """A folder that a run wrote to."""

    path: Path
    steps: list[dict[str, Any]] = field(default_factory=list)  # of training, in order
    costs: list[dict[str, Any]] = field(default_factory=list)  # one line a session of generation
    calls: list[dict[str, Any]] = field(default_factory=list)  # one line a model, from the replies so far
    failures: dict[str, int] = field(default_factory=dict)  # outcome -> calls without an answer
    counts: dict[str, Any] = field(default_factory=dict)  # of the manifest; empty while it runs
    unread: int = 0  # lines that are not JSON

    @property
    def finished(self) -> bool:
        """Whether its manifest was written."""
        return bool(self.counts)

    @property
    def dollars(self) -> float:
        """What all sessions spent."""
        return float(sum(_number(line.get("dollars")) or 0 for line in self.costs))

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Every figure of training by name: (step, value), the last value of a step, thinned out to `POINTS`."""
        found: dict[str, dict[float, float]] = {}
        for number, line in enumerate(self.steps, 1):
            step = _number(line.get("step"))
            for name, value in line.items():
                known = _number(value)
                if name != "step" and known is not None:
                    found.setdefault(name, {})[step if step is not None else float(number)] = known
        return {name: _thinned(sorted(points.items())) for name, points in found.items()}


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    every = -(-len(points) // POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def find_runs(folders: Iterable[Path], depth: int = 3, most: int = 200, looked_at: int = 5_000) -> list[Path]:
    """The folders below these that a run wrote to, each once, the newest first; at most `looked_at` folders are opened."""
    found: dict[Path, float] = {}
    seen: set[Path] = set()

    def walk(place: Path, left: int) -> Iterator[Path]:
        if place in seen or len(seen) >= looked_at:
            return
        seen.add(place)
        with contextlib.suppress(OSError):
            entries = list(os.scandir(place))
            if any(entry.name in FILES and entry.is_file() for entry in entries):
                yield place
            for entry in entries if left else ():
                if (
                    entry.is_dir(follow_symlinks=False)
                    and not entry.name.startswith((".", "__"))
                    and entry.name not in ("rows", "cols", "hits")
                ):
                    yield from walk(Path(entry.path), left - 1)

    for folder in folders:
        for path in walk(folder.resolve(), depth):
            times = [(path / name).stat().st_mtime for name in FILES if (path / name).is_file()]
            found[path] = max(times, default=0.0)
            if len(found) >= most:
                break
    return sorted(found, key=lambda path: (-found[path], str(path)))


def read_run(path: Path) -> Run:
    """Everything a run left in its folder; what is missing or cannot be read is empty."""
    steps, bad_steps = _lines(path / "metrics.jsonl")
    own = path / "costs.jsonl"
    costs, bad_costs = _lines(own if own.is_file() else path / "candidates" / "costs.jsonl")  # where generation.preferences leaves them
    calls, failures = _replies(path / "replies.sqlite")
    return Run(path, steps, costs, calls, failures, _counts(path / "manifest.json"), bad_steps + bad_costs)


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a log, and how many lines are none; of a very long log only the end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")[1 if size > TAIL else 0 :]
    except OSError:
        return [], 0
    found, bad = [], 0
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            bad += number < len(lines) - 1  # the last one may be in the middle of being written
    return found, bad


def _counts(path: Path) -> dict[str, Any]:
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))["identity"]["counts"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return counts if isinstance(counts, dict) else {}


def _asked(path: Path, sql: str, params: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    """An answer of a run's cache of replies, opened for reading only; nothing when it cannot be read."""
    if not path.is_file():
        return []
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            database.row_factory = sqlite3.Row
            return [dict(line) for line in database.execute(sql, params)]
    except sqlite3.Error:
        return []


def _replies(path: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    failures = _asked(path, "SELECT outcome, count(*) AS n FROM failures GROUP BY 1 ORDER BY 2 DESC")
    return _asked(path, CALLS), {str(line["outcome"]): line["n"] for line in failures}


def pace(path: Path, bins: int = 60) -> list[tuple[float, int, int]]:
    """Answers and completion tokens over time: (seconds since the first, answers, tokens), about `bins` of them."""
    span = _asked(path / "replies.sqlite", "SELECT min(at) AS first, max(at) AS last FROM replies")
    if not span or span[0]["first"] is None:
        return []
    first, last = span[0]["first"], span[0]["last"]
    width = max(1.0, (last - first) / bins)
    lines = _asked(path / "replies.sqlite", PACE, (first, width, width))
    return [(line["at"], line["answers"], line["tokens"] or 0) for line in lines]
