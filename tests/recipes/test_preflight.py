"""Before a recipe begins: names, files, keys, servers and commands that cannot go well are said at once, and cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from columnar.config import parse
from columnar.errors import ConfigError
from recipes.rooms import RecipeConfig, Rooms, Train
from recipes.steps import Step, perform
from recipes.world.serve import dials, serving


def rooms(tmp: Path, **settings: Any) -> Rooms:
    return Rooms(parse(RecipeConfig, settings, "test"), tmp / "run", tmp)


def asks(*names: str) -> list[Step]:
    return [Step("answers", "asked", lambda place: {}, asks=names)]


def test_a_sound_config_passes(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text("{}\n")
    with serving(dials({"teacher": {}})) as url:
        checked = rooms(tmp_path, models=[{"name": "teacher", "base_url": url}], policy_server="python -m x {model} {port}")
        checked.check(asks("teacher"), ["seeds.jsonl", "*.jsonl", "hf://datasets/a/b", None])


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    checked = rooms(tmp_path, models=[{"name": "judge"}], base="./nowhere", tasks=["gsm8x"], policy_server="serve {modl}")
    with pytest.raises(ConfigError) as said:
        checked.check(asks("juge"), ["seeds.jsonl"], [Train(config="training/none.yaml")], live=False)
    for part in (
        "'juge' (asked by answers); did you mean 'judge'?",
        "seeds.jsonl: no such",
        "none.yaml: no such",
        "./nowhere",
        "gsm8x",
        "modl",
    ):
        assert part in str(said.value), part


def test_a_key_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("THEIR_KEY", raising=False)
    models = [{"name": "gpt"}, {"name": "theirs", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "THEIR_KEY"}]
    with pytest.raises(ConfigError, match=r"(?s)OPENAI_API_KEY is not set.*THEIR_KEY is not set"):
        rooms(tmp_path, models=models).check(asks("gpt", "theirs"))
    rooms(tmp_path, models=models).check(asks("gpt", "theirs"), live=False)
    rooms(tmp_path, models=models).check(asks())  # nobody asks them


def test_a_server_that_is_not_there_or_serves_another_model(tmp_path: Path) -> None:
    with serving(dials({"teacher": {}})) as url, pytest.raises(ConfigError, match="does not serve 'judge'; it serves teacher"):
        rooms(tmp_path, models=[{"name": "judge", "base_url": url}]).check(asks("judge"))
    with pytest.raises(ConfigError, match="does not answer"):
        rooms(tmp_path, models=[{"name": "teacher", "base_url": url}]).check(asks("teacher"))


def test_the_server_of_a_step_that_is_done_need_not_run(tmp_path: Path) -> None:
    checked = rooms(tmp_path, models=[{"name": "teacher", "base_url": "http://127.0.0.1:9/v1"}])
    with pytest.raises(ConfigError):
        checked.check(asks("teacher"))
    perform(asks("teacher"), checked.out)
    checked.check(asks("teacher"))


def test_the_command_that_serves_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such command"):
        rooms(tmp_path, policy_server="vlmm-no-such serve {model} --port {port}").check([])
    with pytest.raises(ConfigError, match="expected a command with"):
        rooms(tmp_path, policy_server="vllm serve").check([], live=False)


def test_a_dial_or_a_file_of_the_world_that_is_not_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="skil"):
        rooms(tmp_path, world={"models": {"teacher": {"skil": 1}}}).check([])
    with pytest.raises(ConfigError, match="no such file"):
        rooms(tmp_path, exam="world:exam").check([])
