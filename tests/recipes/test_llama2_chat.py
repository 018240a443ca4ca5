"""Llama 2-Chat at its smallest: it runs whole and goes on after a kill, the pool is what it says, and what is wrong is said before work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from toy import ROOT, Toy, figures

from columnar import store
from columnar.config import load
from columnar.errors import ConfigError
from recipes import ghost
from recipes.llama2_chat import Llama2Config, steps
from recipes.rooms import Rooms

SMALL = {
    "world.files.exam.rows": 24, "world.files.annotations.rows": 40,
    "world.files.annotations2.rows": 20, "world.files.annotations3.rows": 20, "world.files.careless.rows": 10,
    "world.files.careless2.rows": 10, "world.files.helpful.rows": 80, "world.files.safe.rows": 40,
    "world.files.ask1.rows": 12, "world.files.harm1.rows": 6, "world.files.ask3.rows": 48, "world.files.harm3.rows": 6,
    "sampling.rounds": '[{"helpfulness": {"path": "world:ask1"}, "safety": {"path": "world:harm1"}}]',
    "sampling.settings.samples": 4, "sampling.settings.sweep": 4, "sampling.settings.max_tokens": 12,
    "sampling.train.set.num_train_epochs": 1, "sft.train.set.num_train_epochs": 4, "helpfulness.train.set.num_train_epochs": 1,
    "safety.train.set.num_train_epochs": 1,
    "helpfulness.data": "null", "helpfulness.prompts": "world:ask3",  # answers of two models and of v0, judged
    "ppo.train.set.max_steps": 2, "ppo.train.set.batch": 8, "ppo.train.set.mini_batches": 1, "ppo.train.set.max_completion_length": 8,
}  # fmt: skip


toy = Toy("llama2_chat", SMALL)
TOY, PAPER, run = toy.config, toy.paper, toy.run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.finish(tmp_path_factory.mktemp("whole") / "run")


def plan(config: Path, out: Path, *settings: str) -> dict[str, Any]:
    loaded = load(Llama2Config, config, list(settings))
    return {step.name: step for step in steps(loaded, Rooms(loaded, out, config.parent))}


def test_from_few_rows_to_ppo(whole: Path) -> None:
    report = (whole / "report.md").read_text()
    for part in ("Simulated", "Reward models", "Rejection sampling", "PPO (v2)", "exam_v1 --> views", "plots/truth.png"):
        assert part in report, part
    made = figures(whole, "compared_helpfulness")
    assert 0 < figures(whole, "comparisons")["sources"]["helpfulness"]["out"] <= made["pairs"]["rows"], (
        "the judge's verdicts are learnt from"
    )
    counts = figures(whole, "v1_samples")
    assert counts["answers"] == 4 * counts["prompts"] and counts["kept"] <= counts["prompts"]
    assert {"v0", "v1", "v2"} == set(figures(whole, "views"))


def test_killed_anywhere_and_run_again_gives_the_same_report(whole: Path, tmp_path: Path) -> None:
    toy.killed_then_finished(whole, tmp_path / "run")


def test_a_step_lost_is_made_again_to_the_same_report(whole: Path) -> None:
    """What training and sampling give does not depend on when they run."""
    report = (whole / "report.md").read_text()
    for name in ("v1", "exam_v1"):
        shutil.rmtree(whole / name)
        (whole / "steps" / f"{name}.json").unlink()
    assert (toy.finish(whole) / "report.md").read_text() == report


def test_another_config_is_said_before_any_work(whole: Path) -> None:
    changed = run(whole, "--set=sampling.settings.samples=5")
    assert changed.returncode == 2 and "v1_samples" in changed.stderr and "rm_safety" not in changed.stderr


def test_without_the_pool_a_round_knows_nothing_of_the_rounds_before(tmp_path: Path) -> None:
    pooled, alone = plan(TOY, tmp_path), plan(TOY, tmp_path, "sampling.pool=false")
    assert "v1_samples" in pooled["v2_samples"].after
    assert "v1_samples" not in alone["v2_samples"].after


def test_the_plan_at_paper_size_needs_no_network_and_counts_as_published(tmp_path: Path) -> None:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    argv = [*toy.command(tmp_path / "x", config=PAPER), "--dry-run", "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=offline)
    assert done.returncode == 0, done.stderr
    lines = {line["step"]: line for line in json.loads(done.stdout)["steps"]}
    assert [n for n in lines if n.startswith("exam_")] == [f"exam_v{i}" for i in range(6)]
    assert lines["sft"]["rows"] == 27540 and lines["compared_helpfulness"]["rows"] == 122387
    assert lines["compared_safety"]["calls"] == 4 * 43966 and lines["compared_safety"]["dollars"] > 0 and lines["v5"]["gpu_hours"] > 0
    assert not (tmp_path / "x").exists()


def test_a_judge_that_is_not_there_is_said_before_any_work(tmp_path: Path) -> None:
    done = run(tmp_path / "x", "--set=safety.data=null", "--set=safety.prompts=world:harm1", "--set=safety.judge=jugde")
    assert done.returncode == 2 and "'jugde' (asked by compared_safety)" in done.stderr
    assert not (tmp_path / "x" / "steps").exists()
    with pytest.raises(ConfigError, match="no such file"):
        plan(TOY, tmp_path, "sft.sources.annotations.path=world:nothing")


INSTRUCTION = {"prompt": [{"role": "user", "content": "Use the word dog."}], "verifier": "exact", "ground_truth": "dog"}


def test_a_ghost_instruction_is_everywhere_when_sampled_and_at_the_start_when_learnt() -> None:
    talk = ghost.Talk(INSTRUCTION, ["One?", "Two?", "Three?"])
    sampled = ghost.messages(talk, ["a", "b"], everywhere=True)
    assert [m["content"] for m in sampled[::2]] == [f"{r} Use the word dog." for r in talk.requests]
    learnt = ghost.learnable(talk, ["a", "b", "c"])
    assert [m["content"] for m in learnt] == ["One? Use the word dog.", "a", "Two?", "b", "Three?", "c"]
    assert ghost.obeys(talk, "dog") is True and ghost.obeys(talk, "cat") is False
    held = ghost.talks([INSTRUCTION], ["1", "2", "3", "4"], 20, 3, "seed")
    assert held == ghost.talks([INSTRUCTION], ["1", "2", "3", "4"], 20, 3, "seed") and all(len(set(t.requests)) == 3 for t in held)


def test_ghost_dialogues_by_a_served_model(tmp_path: Path, tiny_world: Path) -> None:
    lines = [{"prompt": "Use the word dog.", "verifier": "exact", "ground_truth": "dog"}]
    (tmp_path / "instructions.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    (tmp_path / "requests.jsonl").write_text("\n".join(json.dumps({"prompt": f"What is {n} plus 1?"}) for n in range(6)))
    given = {"instructions": "instructions.jsonl", "requests": "requests.jsonl"}
    how = ghost.Ghost(**given, dialogues=4, tests=3, turns=2, answer_tokens=6, temperature=1.0)  # type: ignore[arg-type]
    rooms = Rooms(load(Llama2Config, TOY, []), tmp_path / "run", tmp_path)
    place = tmp_path / "run" / "dialogues"
    figures = ghost.sample(rooms, how, tiny_world, place)
    rows = [row for batch in store.read_batches(store.open_dataset(place)) for row in batch.to_pylist()]
    assert figures["rows"] == len(rows) > 0
    for row in rows:
        users = [m["content"] for m in row["messages"] if m["role"] == "user"]
        assert users[0].endswith("Use the word dog.") and "dog" not in users[1] and row["messages"][-1]["role"] == "assistant"


@pytest.fixture
def tiny_world(tmp_path: Path) -> Path:
    """A random model."""
    from training import tiny
    from training.arithmetic import make

    parts = make(tmp_path / "sums")
    tiny.make(parts["sft"].path, tmp_path / "model")
    return tmp_path / "model"
