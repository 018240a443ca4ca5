"""Zephyr at its smallest: it runs from seeds to two models, goes on when killed, and says what is missing or changed before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import Toy, figures

from columnar.store import open_dataset, read_batches

SMALL = {
    "ablate": "false", "world.files.exam.rows": 12, "dsft.prompts": 40, "dsft.requests": 4, "dsft.train.set.num_train_epochs": 2,
    "feedback.limit": 32, "feedback.train.set.num_train_epochs": 1,
}  # fmt: skip


toy = Toy("zephyr", SMALL)
TOY, PAPER, run = toy.config, toy.paper, toy.run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.finish(tmp_path_factory.mktemp("whole") / "run")


def test_from_seeds_to_two_models(whole: Path) -> None:
    mix, pairs = figures(whole, "dsft_mix"), figures(whole, "feedback")
    assert (
        mix["in"]
        == figures(whole, "refined")["rows"] + figures(whole, "conversations")["rows"]
        == mix["rows"] + sum(mix["dropped"].values())
    )
    assert pairs["prompts"] == 32 and pairs["rows"] + sum(pairs["without"].values()) == 32
    assert pairs["models"]["good"]["chosen"] > pairs["models"]["poor"]["chosen"]
    assert figures(whole, "ddpo")["model"]["name"].endswith("dsft"), "dDPO starts from dSFT"
    assert figures(whole, "exam_ddpo")["answers"] == 12
    report = (whole / "report.md").read_text()
    for part in ("**Simulated**", "Funnel of dsft_mix", "## Pairs", "The exam", "## Samples", "dsft --> ddpo", "world:seeds"):
        assert part in report, part


def test_nothing_that_declines_or_shouts_is_learnt(whole: Path) -> None:
    dropped = figures(whole, "dsft_mix")["dropped"]
    assert dropped["refusal"] and dropped["capitals"], "the teacher does both"
    said = [
        m["content"] for b in read_batches(open_dataset(whole / "dsft_mix"), ["messages"]) for r in b.to_pylist() for m in r["messages"]
    ]
    assert said and not any(text.isupper() or text.startswith("I will not help") for text in said)
    turns = [len(r["messages"]) for b in read_batches(open_dataset(whole / "dsft_mix"), ["messages"]) for r in b.to_pylist()]
    assert {2, 4} <= set(turns), "refined requests and conversations"


def test_killed_anywhere_and_run_again_gives_the_same_report(whole: Path, tmp_path: Path) -> None:
    toy.killed_then_finished(whole, tmp_path / "run")


def test_another_config_is_said_before_any_work(whole: Path) -> None:
    before = (whole / "report.md").stat().st_mtime_ns
    done = run(whole, "--set=feedback.train.set.beta=0.5")
    assert done.returncode == 2 and "ddpo" in done.stderr and "--redo" in done.stderr
    assert (whole / "report.md").stat().st_mtime_ns == before


def test_a_judge_that_is_not_there_is_said_before_any_work(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--set=feedback.judge.model=jugde")
    assert done.returncode == 2 and "jugde" in done.stderr and "did you mean 'judge'" in done.stderr
    assert not (tmp_path / "run" / "steps").exists()


def test_the_published_size_is_planned_without_a_network(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--dry-run", "--json", config=PAPER)
    assert done.returncode == 0, done.stderr
    plan = {line["step"]: line for line in json.loads(done.stdout)["steps"]}
    assert plan["dsft_mix"]["rows"] == 207865 and plan["pairs_mix"]["rows"] == 61135
    assert plan["dsft"]["gpu_hours"] > 1 < plan["ddpo"]["gpu_hours"] and not (tmp_path / "run").exists()
