"""Self-Rewarding at its smallest: it runs from files to M2, goes on when killed, ends with a word when its judge has no opinion."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from toy import Toy, figures

from columnar.config import load
from recipes.eft import agrees, thinned
from recipes.rooms import Rooms
from recipes.self_rewarding import steps
from recipes.self_rewarding_config import SelfRewardingConfig

SMALL = {
    "world.files.ift.rows": 150, "world.files.rankings.rows": 12, "world.files.held_out.rows": 20, "world.files.exam.rows": 16,
    "sft.set.num_train_epochs": 2, "loop.prompts": 24, "loop.requests": 4, "loop.least_yield": 0.02, "rounds": 1,
}  # fmt: skip


toy = Toy("self_rewarding", SMALL)
TOY, PAPER, run = toy.config, toy.paper, toy.run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.finish(tmp_path_factory.mktemp("whole") / "run")


def test_from_files_to_the_second_model(whole: Path) -> None:
    eft, feedback, duel = figures(whole, "eft"), figures(whole, "feedback_1"), figures(whole, "duel_1")
    assert 0 < eft["rows"] <= eft["judgements"] == 3 * eft["agree"]
    assert figures(whole, "sft_mix")["rows"] == figures(whole, "ift")["rows"] + eft["rows"]
    assert feedback["answers"] == 4 * feedback["pairs"]["prompts"] == sum(feedback["scores"].values())
    assert feedback["pairs"]["rows"] + sum(feedback["pairs"]["without"].values()) == feedback["pairs"]["prompts"]
    assert figures(whole, "judging_m1")["accuracy"] > 0.7, "an honest judge orders answers as people do"
    assert duel["wins"] + duel["ties"] + duel["losses"] == figures(whole, "exam_m2")["answers"]
    report = (whole / "report.md").read_text()
    for part in ("**Simulated**", "Judging examples", "Head to head", "Samples", "feedback_1 --> pairs_1", "| M2 |"):
        assert part in report, part
    assert (whole / "plots" / "scores.png").stat().st_size > 5000


def test_killed_anywhere_and_run_again_gives_the_same_report(whole: Path, tmp_path: Path) -> None:
    toy.killed_then_finished(whole, tmp_path / "run")


def test_a_judge_without_an_opinion_ends_the_run(whole: Path, tmp_path: Path) -> None:
    """The published tie collapse; what does not depend on the judge is not done again."""
    out = tmp_path / "run"
    subprocess.run(["cp", "-r", str(whole), str(out)], check=True)
    flat = "--set=world.models.judge_1.judge.flat=1.0"
    refused = run(out, flat)
    assert refused.returncode == 2 and "feedback_1" in refused.stderr and "m1" not in re.split(r"[:, ]+", refused.stderr)
    done = run(out, flat, "--redo")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the yield collapsed in round 1: 0 of 24" in done.stderr + done.stdout
    assert "[7/" not in done.stderr, "M1 is not trained again"
    report = (out / "report.md").read_text()
    assert "**The run ended early**: the yield collapsed in round 1" in report and "all scores equal" in report and "| M2 |" not in report


def test_what_is_missing_is_said_before_any_work(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--set=loop.judge=nobody", "--set=base=./nowhere")
    assert done.returncode == 2
    assert "no model is called 'nobody' (asked by feedback_1, judging_m1, judging_m2)" in done.stderr and "./nowhere" in done.stderr
    assert not (tmp_path / "run" / "steps").exists()
    paper = run(tmp_path / "paper", config=PAPER)
    assert paper.returncode == 2 and "OPENAI_API_KEY" in paper.stderr and "does not answer" in paper.stderr


def test_the_paper_is_planned_without_a_network(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--dry-run", "--json", config=PAPER)
    assert done.returncode == 0, done.stderr
    plan = {line["step"]: line for line in json.loads(done.stdout)["steps"]}
    assert plan["ift"]["rows"] == 3200 and plan["feedback_1"]["calls"] == 5000 * 4 * 4
    assert all(plan[f"m{t}"]["gpu_hours"] > 0 for t in (1, 2, 3)) and "baseline" in plan
    assert plan["duel_1"]["dollars"] > 0


def test_the_variants_are_other_steps(tmp_path: Path) -> None:
    def planned(*settings: str) -> dict[str, tuple[str, ...]]:
        config = load(SelfRewardingConfig, TOY, list(settings))
        return {step.name: step.after for step in steps(config, Rooms(config, tmp_path, TOY.parent))}

    assert "baseline" not in planned() and "baseline" in planned("eft.judge=self")
    assert "eft" not in planned("eft=null") and planned("eft=null")["sft_mix"] == ("ift",)
    positive = planned("loop.pairs={output: sft, min_score: 5}")
    assert positive["pairs_2"] == ("sft_mix", "feedback_1", "feedback_2") and positive["m3"] == ("pairs_2",)
    assert planned("loop.judge=self")["judging_m2"] == ("held_out", "m2")


def test_judgements_are_kept_by_agreement_and_thinned_by_lot() -> None:
    assert agrees([5, 3, 1], [0, -1, -2]) and not agrees([5, 5, 1], [0, -1, -2]) and not agrees([3, 5, 1], [0, -1, -2])
    rows = [{"key": str(i), "score": 4.0 if i < 50 else float(i % 3)} for i in range(80)]
    kept = thinned(rows, 1)
    assert kept == thinned(rows, 1) and sum(row["score"] == 4 for row in kept) == 10 and len(kept) == 40
    assert [row for row in kept if row["score"] != 4] == rows[50:]
