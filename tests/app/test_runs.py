"""Runs are read while they are written: curves, costs, answers, and files that are half there."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from app.curves import curve
from app.runs import POINTS, find_runs, pace, read_run
from generation.cache import Cache


def write_lines(path: Path, lines: list[object], tail: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)


def test_curves_come_from_whole_lines_only(tmp_path: Path) -> None:
    lines: list[object] = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "note": "x", "flag": True}, [1], {"step": 2, "loss": 1.4}]
    write_lines(tmp_path / "metrics.jsonl", [*lines, {"step": 3, "eval_loss": float("nan"), "loss": None}], '{"step": 4, "lo')
    run = read_run(tmp_path)
    assert run.curves() == {"loss": [(1.0, 2.0), (2.0, 1.4)]}
    assert run.unread == 1  # the list; the half line is still being written
    assert not run.finished


def test_long_curves_are_thinned_and_keep_their_end(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [{"step": n, "loss": 1 / (n + 1)} for n in range(3 * POINTS)])
    points = read_run(tmp_path).curves()["loss"]
    assert len(points) <= POINTS + 1
    assert points[0][0] == 0 and points[-1][0] == 3 * POINTS - 1


def test_runs_are_found_below_a_folder_the_newest_first(tmp_path: Path) -> None:
    write_lines(tmp_path / "a" / "b" / "metrics.jsonl", [{"step": 1}])
    write_lines(tmp_path / "new" / "costs.jsonl", [{"dollars": 1}])
    write_lines(tmp_path / ".hidden" / "metrics.jsonl", [{"step": 1}])
    write_lines(tmp_path / "d1" / "d2" / "d3" / "d4" / "metrics.jsonl", [{"step": 1}])
    (tmp_path / "loop").symlink_to(tmp_path)
    import os

    os.utime(tmp_path / "a" / "b" / "metrics.jsonl", (1, 1))
    assert find_runs([tmp_path, tmp_path / "a"]) == [tmp_path / "new", tmp_path / "a" / "b"]
    assert find_runs([tmp_path / "nothing"]) == []


def test_answers_and_costs_of_a_generation_that_still_runs(tmp_path: Path) -> None:
    with Cache(tmp_path / "replies.sqlite"):
        pass
    with sqlite3.connect(tmp_path / "replies.sqlite") as database:
        for n in range(30):
            database.execute(
                "INSERT INTO replies VALUES (?, 0, ?, '', ?, 10, 20, ?, 0.1, '{}')",
                (f"k{n}", "teacher" if n % 2 else "judge", "ok" if n else "truncated", 1000.0 + n),
            )
        database.execute("INSERT INTO failures VALUES ('f', 'judge', '', 'timeout', 'slow', 0, 1000)")
    write_lines(tmp_path / "costs.jsonl", [{"dollars": 1.25}, {"dollars": 0.5}, {"dollars": None}])
    run = read_run(tmp_path)
    assert [(line["model"], line["answers"], line["not_ok"]) for line in run.calls] == [("judge", 15, 1), ("teacher", 15, 0)]
    assert run.failures == {"timeout": 1}
    assert run.dollars == 1.75
    assert sum(answers for _, answers, _ in pace(tmp_path)) == 30


def test_a_damaged_cache_or_manifest_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "replies.sqlite").write_bytes(b"not a database")
    (tmp_path / "manifest.json").write_text("{")
    run = read_run(tmp_path)
    assert run.calls == [] and run.counts == {} and pace(tmp_path) == []


def test_a_curve_shows_its_names_as_text_and_survives_flat_lines() -> None:
    drawn = curve("<b>loss</b>", {"<script>": [(1, 2.0), (2, 2.0)], "other": [(1, 1e300), (2, -1e300)]})
    assert "<script>" not in drawn and "<b>loss" not in drawn
    assert "&lt;script&gt; 2" in drawn
