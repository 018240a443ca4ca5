"""Tülu 3 at its smallest: it runs from personas to PPO, goes on when killed, and says what cannot go well before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import Toy, figures

from columnar.config import load
from recipes.rooms import Rooms
from recipes.tulu3 import steps
from recipes.tulu3_config import Tulu3Config

PARTS = [
    {"name": "sft_reused", "limit": 24},
    {"name": "if_augmented", "limit": 24, "constrain": True, "on_policy": True, "prompts": {"path": "world:new"}},
]
SMALL = {
    "world.files.dev.rows": 24, "world.files.unseen.rows": 24, "world.files.public.rows": 120, "world.files.logs.rows": 40,
    "world.files.people.rows": 30, "world.files.new.rows": 60, "world.files.verifiable.rows": 40, "sft.train.set.num_train_epochs": 2,
    "preferences.parts": json.dumps(PARTS), "rlvr.by": "ppo", "rlvr.constrained": 16, "rlvr.ppo.set.max_steps": 2,
    "sft.personas": json.dumps([{"name": "skills", "personas": "world:people", "writer": "teacher", "skills": [
        {"skill": "instruction_following", "until": {"rows": 20}}, {"skill": "chat", "until": {"rows": 10}}]}]),
    "ablate.contaminated": "false",
}  # fmt: skip


toy = Toy("tulu3", SMALL)
TOY, PAPER, run = toy.config, toy.paper, toy.run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.finish(tmp_path_factory.mktemp("whole") / "run")


def test_from_personas_to_verified_rewards(whole: Path) -> None:
    assert figures(whole, "persona_skills")["rows"] == 30
    logs = figures(whole, "sft_mix")["sources"]["logs"]
    assert logs["dropped"]["contaminated"] >= 24 * 0.7, "the logs hold the development exam; requests with requirements read otherwise"
    parts = figures(whole, "preferences")
    assert parts["if_augmented"]["candidates"]["models"]["policy"] == 24, "the policy answers every prompt of its part"
    assert "policy" not in parts["sft_reused"]["candidates"]["models"]
    assert all(part["candidates"]["judgements"] == {"ok": 4 * 4 * 24} for part in parts.values()), "four aspects of four answers"
    pairs = figures(whole, "pairs_mix")
    assert pairs["in"] == sum(part["pairs"]["rows"] for part in parts.values()) > 20
    for name in ("sft", "dpo", "rlvr"):
        exam = figures(whole, f"exam_{name}")
        assert exam["dev"]["answers"] == exam["unseen"]["answers"] == 24
    settings = (whole / "rlvr" / "config.yaml").read_text()
    assert f"value_model: {whole / 'reward_model'}" in settings, "PPO's value model starts from the reward model"


def test_the_report(whole: Path) -> None:
    report = (whole / "report.md").read_text()
    for part in (
        "**Simulated**",
        "what this run shows",
        "Funnel of sft_mix",
        "Contamination",
        "Samples",
        "reward_model --> rlvr",
        "IFEval",
    ):
        assert part in report, part
    assert (whole / "plots" / "stages.png").stat().st_size > 5000


def test_killed_anywhere_and_run_again_gives_the_same_report(whole: Path, tmp_path: Path) -> None:
    toy.killed_then_finished(whole, tmp_path / "run")


def test_other_settings_over_an_old_run_are_said_before_any_work(whole: Path) -> None:
    done = run(whole, "--set=preferences.judge.model=good")
    assert done.returncode and "preferences, pairs_mix, dpo, reward_model, rlvr, exam_dpo, exam_rlvr" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("preferences.judge.model=juge", "did you mean 'judge'"),
        ("rlvr.prompts=nowhere.jsonl", "nowhere.jsonl: no such"),
        ("unseen=world:unsen", "the config's world has no such file"),
        ("rlvr.by=reinforce", "ppo"),
    ],
)
def test_what_cannot_go_well_is_said_before_any_work(tmp_path: Path, setting: str, said: str) -> None:
    done = run(tmp_path / "run", f"--set={setting}")
    assert done.returncode and said in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_plan_at_paper_size_needs_no_network_and_adds_up(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--dry-run", "--json", config=PAPER)
    assert done.returncode == 0, done.stderr
    plan = {line["step"]: line for line in json.loads(done.stdout)["steps"]}
    assert plan["sft_mix"]["rows"] == 939_344 and plan["pairs_mix"]["rows"] == 271_409 and plan["rlvr_prompts"]["rows"] == 29_946
    assert plan["preferences"]["calls"] == 8 * 271_409 and plan["preferences"]["dollars"] > 1000
    assert plan["sft"]["gpu_hours"] > plan["dpo"]["gpu_hours"] > 1


def test_by_grpo_there_is_no_reward_model(tmp_path: Path) -> None:
    def named(by: str) -> list[str]:
        config = load(Tulu3Config, PAPER, [f"rlvr.by={by}"])
        return [step.name for step in steps(config, Rooms(config, tmp_path, PAPER.parent))]

    assert [name for name in named("ppo") if name not in named("grpo")] == ["reward_model"]


def test_the_dial_changes_the_mixes_alone(tmp_path: Path) -> None:
    """Personas are not written again when the scan is turned off."""
    from recipes.steps import keys

    scanned, kept = (
        keys(steps(config, Rooms(config, tmp_path, TOY.parent)))
        for config in (load(Tulu3Config, TOY, [f"decontaminate={v}"]) for v in ("true", "false"))
    )
    assert scanned["persona_skills"] == kept["persona_skills"] and scanned["sft_mix"] != kept["sft_mix"]
