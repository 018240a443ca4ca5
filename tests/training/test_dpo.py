"""DPO: each loss at the point where policy and reference are the same, learning, and whose answers were learnt from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from columnar import cli
from columnar.store import Dataset
from training import distill, dpo, metrics
from training.run import arguments


def train(source: Dataset, model: Path, out: Path, *settings: str) -> int:
    quick = ("batch=8", "learning_rate=1e-3", "max_length=128", "num_train_epochs=2")
    told = [part for s in (*quick, *settings) for part in ("--set", s)]
    argv = [str(source.path), "--model", str(model), "--out", str(out), *told]
    return cli.run(dpo.main, arguments("training.dpo", ""), argv)


def first(out: Path) -> dict[str, Any]:
    return next(line for line in metrics.read(out / "metrics.jsonl") if "loss" in line)


@pytest.mark.parametrize(
    ("settings", "loss"),
    [
        (("loss_type=sigmoid", "beta=0.1"), math.log(2)),
        (("loss_type=sigmoid_norm", "beta=5"), math.log(2)),
        (("loss_type=ipo", "beta=0.1"), 25.0),  # (0 - 1 / (2 beta)) squared
        (("loss_type=sigmoid", "precompute_ref_log_probs=false"), math.log(2)),
    ],
)
def test_the_loss_begins_where_theory_says(pairs: Dataset, model: Path, tmp_path: Path, settings: tuple[str, ...], loss: float) -> None:
    assert train(pairs, model, tmp_path / "dpo", "max_steps=1", *settings) == 0
    assert first(tmp_path / "dpo")["loss"] == pytest.approx(loss, rel=1e-3)


def test_likelihood_of_the_chosen_answer_is_added(pairs: Dataset, model: Path, tmp_path: Path) -> None:
    assert train(pairs, model, tmp_path / "rpo", "max_steps=1", "nll_weight=0.5") == 0
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    # a random model finds every token about equally likely
    assert first(tmp_path / "rpo")["loss"] == pytest.approx(math.log(2) + 0.5 * math.log(vocabulary), rel=0.05)


def test_a_run_prefers_what_was_chosen_and_reports_whose_answers_they_were(pairs: Dataset, model: Path, tmp_path: Path) -> None:
    assert train(pairs, model, tmp_path / "dpo", "policy=[mine]") == 0
    identity = json.loads((tmp_path / "dpo" / "manifest.json").read_text())["identity"]
    assert identity["metrics"]["eval_rewards/accuracies"] == 1.0
    assert identity["metrics"]["eval_rewards/margins"] > 0.01
    report = {line["model"]: line for line in identity["counts"]["answers_by_model"]}
    assert (report["mine"]["on_policy"], report["other"]["on_policy"]) == (True, False)
    assert (report["mine"]["answers"], report["other"]["answers"]) == (16, 48)
    assert report["mine"]["chosen"] == 1.0 and report["other"]["chosen"] == pytest.approx(1 / 3)
    assert -8 < report["mine"]["logp_per_token"] < -5  # a random model: about log(1 / vocabulary)
    assert "sum over tokens" in identity["loss_reduction"]


def test_lora_needs_no_second_model(pairs: Dataset, model: Path, tmp_path: Path) -> None:
    assert train(pairs, model, tmp_path / "lora", "lora={r: 4}", "max_steps=1") == 0
    assert first(tmp_path / "lora")["loss"] == pytest.approx(math.log(2), rel=1e-3)


def test_losses_and_weights_belong_together(pairs: Dataset, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(pairs, model, tmp_path / "x", "loss_type=[sigmoid, sft]", "loss_weights=[1.0]") == 2
    assert "1 weights for 2 losses" in capsys.readouterr().err
    assert train(pairs, model, tmp_path / "y", "loss_type=nothing") == 2


def test_a_student_comes_nearer_to_its_teacher(pairs: Dataset, model: Path, tmp_path: Path) -> None:
    from training import tiny

    teacher = tmp_path / "teacher"
    tokenizer_of = tiny.make_model
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    tokenizer_of(tokenizer, tiny.SIZES["tiny"], seed=5).save_pretrained(teacher)
    tokenizer.save_pretrained(teacher)
    settings = (
        "max_steps=25",
        "learning_rate=5e-3",
        "max_completion_length=8",
        "per_device_train_batch_size=8",
        "beta=0",
        "save_steps=100",
    )
    argv = [str(pairs.path), "--model", str(model), "--teacher", str(teacher), "--out", str(tmp_path / "student")]
    assert cli.run(distill.main, distill.parser(), [*argv, *[part for s in settings for part in ("--set", s)]]) == 0
    losses = [line["loss"] for line in metrics.read(tmp_path / "student" / "metrics.jsonl") if "loss" in line]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_teacher_with_other_tokens_is_refused(pairs: Dataset, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from training import tiny

    tiny.make(pairs.path, tmp_path / "other")
    argv = [str(pairs.path), "--model", str(model), "--teacher", str(tmp_path / "other"), "--out", str(tmp_path / "x")]
    assert cli.run(distill.main, distill.parser(), argv) == 2
    assert "are not the student's" in capsys.readouterr().err
