"""Steps of a recipe: done once, in order, begun anew only where something changed, and never over a run with other settings unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from columnar.errors import ConfigError
from recipes.report import Report
from recipes.steps import Enough, Figures, Step, keys, perform, plan


def recipe(log: list[str], seed: int = 1, fails: str = "", ends: str = "") -> list[Step]:
    def work(name: str) -> object:
        def do(place: Path) -> Figures:
            log.append(name)
            (place / "made.txt").write_text(name)
            if name == fails:
                raise ConfigError("no")
            if name == ends:
                raise Enough("nothing left to learn", {"yield": 0.0})
            return {"rows": len(name), "a": 1}

        return do

    return [
        Step("data", "made", work("data"), settings=1, size={"rows": 4}),  # type: ignore[arg-type]
        Step("model", "trained", work("model"), ("data",), settings=seed),  # type: ignore[arg-type]
        Step("exam", "sat", work("exam"), ("model",)),  # type: ignore[arg-type]
    ]


def test_done_once(tmp_path: Path) -> None:
    log: list[str] = []
    first = perform(recipe(log), tmp_path)
    assert log == ["data", "model", "exam"] and first["model"] == {"rows": 5, "a": 1}
    again = perform(recipe(log), tmp_path)
    assert json.dumps(again) == json.dumps(first) and len(log) == 3, "in the same order too"
    assert [line["state"] for line in plan(recipe(log), tmp_path)] == ["done"] * 3


def test_goes_on_where_it_failed_and_keeps_what_was_begun(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(ConfigError):
        perform(recipe(log, fails="model"), tmp_path)
    assert [line["state"] for line in plan(recipe(log), tmp_path)] == ["done", "begun", "to do"]
    assert (tmp_path / "model" / "made.txt").is_file()
    perform(recipe(log), tmp_path)
    assert log == ["data", "model", "model", "exam"]


def test_other_settings_are_said_before_anything_is_done(tmp_path: Path) -> None:
    log: list[str] = []
    perform(recipe(log), tmp_path)
    with pytest.raises(ConfigError, match="model, exam"):
        perform(recipe(log, seed=2), tmp_path)
    assert len(log) == 3
    perform(recipe(log, seed=2), tmp_path, redo=True)
    assert log[3:] == ["model", "exam"]


def test_a_step_can_end_the_run(tmp_path: Path) -> None:
    log: list[str] = []
    figures = perform(recipe(log, ends="model"), tmp_path)
    assert figures["model"] == {"yield": 0.0, "stopped": "nothing left to learn"} and "exam" not in figures
    assert perform(recipe(log, ends="model"), tmp_path) == figures and log == ["data", "model"]


def test_the_order_must_make_sense() -> None:
    step = recipe([])[1]
    with pytest.raises(ConfigError, match="not done before"):
        keys([step])


def test_a_report_is_the_same_every_time(tmp_path: Path) -> None:
    def write(place: Path) -> tuple[str, bytes]:
        page = Report(place, "A run", "What came of it.")
        page.section("Rows", rows=[{"in": 1234, "share": 0.5, "name": "a|b"}])
        page.lines("loss", {"a": ([1, 2], [3.0, 2.0]), "b": ([1, 2], [2.0, 1.0])}, "step", "loss")
        page.lineage(recipe([]), {"data": ["hf://somewhere"]})
        return page.write().read_text(), (place / "plots" / "loss.png").read_bytes()

    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first == second
    assert "| 1,234 | 0.5 | a\\|b |" in first[0] and "data --> model" in first[0] and "hf://somewhere" in first[0]
