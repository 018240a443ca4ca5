"""Reward models: Llama 2's margins, mixes of sources, and accuracy by how clear a pair is."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from columnar import cli
from columnar.errors import ConfigError
from columnar.store import Dataset
from tests.training.conftest import Writer, pair
from training import metrics, reward
from training.run import arguments


def train(source: Dataset, model: Path, out: Path, *settings: str) -> int:
    quick = ("batch=8", "learning_rate=3e-3", "max_length=128", "num_train_epochs=3")
    told = [part for s in (*quick, *settings) for part in ("--set", s)]
    argv = [str(source.path), "--model", str(model), "--out", str(out), *told]
    return cli.run(reward.main, arguments("training.reward", ""), argv)


@pytest.mark.parametrize(
    ("said", "difference", "expected"),
    [
        ("Significantly better", None, "significantly"),
        ("unsure", 9.0, "negligibly"),
        (None, 4.0, "significantly"),
        (None, 3.9, "better"),
        (None, 1.0, "slightly"),
        (None, 0.0, "negligibly"),
        ("odd", 2.0, "better"),
        (None, None, None),
    ],
)
def test_how_strong_a_pair_is(said: str | None, difference: float | None, expected: str | None) -> None:
    assert reward.strength_of({"strength": said, "difference": difference}, (4, 2, 1)) == expected


def test_the_tables_of_the_paper() -> None:
    assert list(reward.MARGINS["small"].values()) == [1, 2 / 3, 1 / 3, 0]
    assert list(reward.MARGINS["large"].values()) == [3, 2, 1, 0]


def test_the_margin_is_in_the_loss(pairs: Dataset, model: Path, tmp_path: Path) -> None:
    first = {}
    for margin in ("none", "small", "large"):
        assert train(pairs, model, tmp_path / margin, f"margin={margin}", "grades=[3, 2, 1]", "max_steps=1", "batch=32") == 0
        first[margin] = next(line["loss"] for line in metrics.read(tmp_path / margin / "metrics.jsonl") if "loss" in line)

    def expected(margin: str) -> float:  # a fresh head gives all answers nearly the same reward; eight pairs of each strength
        return sum(math.log1p(math.exp(m)) for m in reward.MARGINS[margin].values()) / 4

    assert first["none"] == pytest.approx(math.log(2), abs=0.02)
    assert first["small"] == pytest.approx(expected("small"), abs=0.02)
    assert first["large"] == pytest.approx(expected("large"), abs=0.03)


def test_a_run_tells_accuracy_by_strength(pairs: Dataset, model: Path, tmp_path: Path) -> None:
    assert train(pairs, model, tmp_path / "rm", "margin=small", "grades=[3, 2, 1]", "center_rewards_coefficient=0.01") == 0
    identity = json.loads((tmp_path / "rm" / "manifest.json").read_text())["identity"]
    report = {line["strength"]: line for line in identity["counts"]["held_out_by_strength"]}
    assert list(report) == [*reward.STRENGTHS, "all"]
    assert report["all"]["pairs"] == 8 and report["all"]["accuracy"] == 1.0
    assert "centred by 0.01" in identity["loss_reduction"]


def test_margins_need_strengths(dataset: Writer, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = dataset([pair("a", "b", "c"), pair("d", "e", "f", chosen_score=3.0, rejected_score=1.0)])
    assert train(source, model, tmp_path / "rm", "margin=small", "grades=[3, 2, 1]") == 2
    assert "1 of 2 pairs do not tell how strong they are" in capsys.readouterr().err


@pytest.fixture
def mixed(dataset: Writer) -> Dataset:
    sources = ["help"] * 30 + ["safe"] * 60 + ["open"] * 60
    return dataset([pair(f"q{n}", "a", "b", source=source) for n, source in enumerate(sources)])


def counted(source: Dataset, mix: reward.Share, seed: int = 1) -> Counter[str]:
    from training.data import rows_of

    taken = reward.drawn(source, mix, seed)
    return Counter(row["source"] for rows in rows_of(source, "train") for row in rows if row["id"] in taken)


def test_helpfulness_takes_as_much_again_of_the_rest(mixed: Dataset) -> None:
    found = counted(mixed, reward.Share(main=["help"], share=0.5))
    assert found["help"] == 30 and found["safe"] + found["open"] == 30
    assert min(found["safe"], found["open"]) >= 8  # drawn evenly


def test_safety_takes_a_tenth_of_helpfulness(mixed: Dataset) -> None:
    share = reward.Share(main=["safe", "open"], others=["help"], share=0.1)
    assert counted(mixed, share)["help"] == 13
    assert reward.drawn(mixed, share, 1) == reward.drawn(mixed, share, 1) != reward.drawn(mixed, share, 2)


def test_an_unknown_source_is_told(mixed: Dataset) -> None:
    with pytest.raises(ConfigError, match="no such source: helpful") as error:
        reward.drawn(mixed, reward.Share(main=["helpful"]), 1)
    assert "help" in str(error.value.hint)


def test_a_tie_is_half_right() -> None:
    report: list[dict[str, Any]] = reward.by_strength(["better", "better", "slightly"], [1.0, -1.0, 0.0])
    assert [(line["strength"], line["accuracy"]) for line in report] == [("better", 0.5), ("slightly", 0.5), ("all", 0.5)]
