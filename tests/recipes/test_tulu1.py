"""Tülu 1 at its smallest: sets and mixes become models, a skill table and win rates; a judge's bias shows in what they go with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import ROOT, Toy, figures

from columnar.config import load
from recipes.rooms import RecipeConfig, Rooms
from recipes.taste import correlations, taste
from recipes.tulu1 import Tulu1Config
from recipes.world.exam import answers_of, marks

SMALL = {
    "world.files.exam.rows": 12, "world.files.tasks.rows": 40, "world.files.chats.rows": 30, "alone": "[tasks]",
    "mixes": "{both: [tasks, chats]}", "train.set.num_train_epochs": 1, "pretraining": "null",
}  # fmt: skip


toy = Toy("tulu1", SMALL)
TOY, PAPER, run = toy.config, toy.paper, toy.run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.finish(tmp_path_factory.mktemp("whole") / "run")


def test_sets_and_mixes_become_models(whole: Path) -> None:
    both = figures(whole, "data_both")["sources"]
    assert set(both) == {"tasks", "chats"} and both["tasks"] == figures(whole, "data_tasks")["sources"]["tasks"]
    learnt = figures(whole, "both")
    assert 0 < learnt["learnt"] < learnt["tokens"], "the loss is on the answers alone"
    tokenizers = {(whole / name / "tokenizer.json").read_bytes() for name in ("base/model", "tasks", "both")}
    assert len(tokenizers) == 1, "all models share one"
    assert {line["model"] for line in figures(whole, "taste")["models"]} == {"tasks", "both"}
    report = (whole / "report.md").read_text()
    for part in ("**Simulated**", "Funnel of the sets", "Models and skills", "A judge's taste", "with unique words", "data_both --> both"):
        assert part in report, part


def test_killed_anywhere_and_run_again_gives_the_same_report(whole: Path, tmp_path: Path) -> None:
    toy.killed_then_finished(whole, tmp_path / "run")


def test_another_config_is_said_before_any_work(whole: Path) -> None:
    done = run(whole, "--set=train.set.learning_rate=0.001")
    assert done.returncode == 2 and "tasks, exam_tasks, both, exam_both" in done.stderr


def test_a_biased_judges_wins_go_with_words_and_a_fair_ones_with_skill(tmp_path: Path) -> None:
    """The paper's warning, on speakers whose skill and wordiness pull apart."""
    speakers = {
        "best": {"skill": 0.95}, "good": {"skill": 0.8, "wordy": 0.3}, "fair": {"skill": 0.6, "wordy": 0.5},
        "poor": {"skill": 0.4, "wordy": 0.7}, "worst": {"skill": 0.2, "wordy": 0.9},
    }  # fmt: skip
    others = {"davinci": {"skill": 0.6, "wordy": 0.4}, "judge": {"judge": {}}, "fond": {"judge": {"length_bias": 0.6}}}
    world = {"models": speakers | others, "files": {"exam": {"what": "prompts", "rows": 60, "seed": 4}}}
    rooms = Rooms(RecipeConfig.model_validate({"exam": "world:exam", "world": world}), tmp_path, tmp_path)
    with rooms.open():
        for name in ("davinci", *speakers):
            asked = {"prompts": rooms.path("world:exam"), "models": rooms.models(name), "per_prompt": 1, "name": name}
            rooms.generate("respond", asked, tmp_path / name)
        found = taste(rooms, {n: tmp_path / n for n in speakers}, tmp_path / "davinci", ["judge", "fond"], tmp_path / "taste")
    lines = [{**line, "skill": marks(answers_of(tmp_path / line["model"]))["quality"]} for line in found["models"]]
    fair, _, fond, level = correlations(lines, ["judge", "fond"], "skill")
    assert fair["with skill"] > 0.8 and fond["with unique words"] > 0.8 and fond["with skill"] < 0
    assert level["rate"] == "at equal length" and level["models"] == 5


def test_a_set_that_is_not_there(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--set=mixes={both: [tasks, chat]}")
    assert done.returncode == 2 and "no set is called chat" in done.stderr


def test_the_published_size_is_planned_without_a_network(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--dry-run", "--json", config=PAPER)
    assert done.returncode == 0, done.stderr
    plan = {line["step"]: line for line in json.loads(done.stdout)["steps"]}
    assert plan["data_human"]["rows"] == 249806 and plan["data_human_gpt"]["rows"] == 490694, "table 1"
    assert sum(step.startswith("data_") for step in plan) == 14 and plan["taste"]["dollars"] > 100 and plan["human_gpt"]["gpu_hours"] > 10


def test_the_mixes_are_those_of_the_mix_files() -> None:
    """What recipes/mixes/ builds, this recipe trains on."""
    from curation.mix import MixConfig

    config = load(Tulu1Config, PAPER)
    for name, names in config.mixes.items():
        mix = load(MixConfig, ROOT / "recipes" / "mixes" / f"tulu1_{name}.yaml")
        assert {s.name: (s.path, s.where, s.cap) for s in mix.sources} == {
            n: (config.sets[n]["path"], config.sets[n]["where"], config.sets[n]["cap"]) for n in names
        }
