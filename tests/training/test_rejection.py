"""Rejection sampling: exact expectations, rounds pooled, and whole rounds with a real model; ablations and charts."""

from __future__ import annotations

import itertools
import json
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("openai")

from columnar.errors import CaravanError, ConfigError, InputError, StoreError
from columnar.store import open_dataset, read_batches, write_json
from training import ablate, rejection_sampling
from training.plot import Curve, ticks, write_chart
from training.rejection_sampling import best_of, curve, order_statistic


def run(*args: Any, **settings: Any) -> int:
    told = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return rejection_sampling.main(rejection_sampling.arguments().parse_args([*map(str, args), *told]))


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for batch in read_batches(open_dataset(path)) for row in batch.to_pylist()]


def test_expected_order_statistics_are_means_over_all_draws() -> None:
    values = [0.3, 1.0, -2.0, 1.0, 0.5, 4.0]
    for k in range(1, 7):
        draws = [sorted(d) for d in itertools.combinations(values, k)]
        for rank in range(1, k + 1):
            assert order_statistic(values, k, rank) == pytest.approx(statistics.fmean(d[rank - 1] for d in draws))
    found = curve([values, [1.0, 2.0]], [1, 2, 3])
    first = [statistics.fmean(max(d) for d in itertools.combinations(values, k)) for k in (1, 2, 3)]
    assert found["max"] == pytest.approx([(first[0] + 1.5) / 2, (first[1] + 2.0) / 2, first[2]])
    assert found["median"][2] == pytest.approx(statistics.fmean(statistics.median(d) for d in itertools.combinations(values, 3)))


def candidates(prompt: str, *scored: tuple[str, float | None]) -> dict[str, Any]:
    made = [{"content": text, "score": score, "params": None} for text, score in scored]
    asked = [{"role": "user", "content": prompt}]
    return {"parents": [prompt], "prompt": asked, "candidates": made, "source": "s", "origin": None, "license": None}


def test_the_best_of_all_rounds_is_kept() -> None:
    first = [candidates("a", ("old best", 3.0), ("poor", 0.0)), candidates("b", ("only", 1.0)), candidates("c", ("bad", 0.0))]
    second = [candidates("a", ("new", 2.0)), candidates("b", ("equal, newer", 1.0)), candidates("c", ("unscored", None))]
    kept = {row["parents"][0]: (row["messages"][-1]["content"], json.loads(row["meta"])["round"]) for row in best_of([first, second], 1.0)}
    assert kept == {"a": ("old best", 0), "b": ("equal, newer", 1)}


@pytest.fixture(scope="module")
def first(sums: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rs") / "first"
    assert run(sums / "prompts", "--model", start, "--out", out, samples=6, max_tokens=4, temperatures=[0.5, 1.5], sweep=5) == 0
    return out


def test_a_round_keeps_right_answers_and_draws_its_curve(first: Path) -> None:
    identity = open_dataset(first).manifest["identity"]
    kept, everything = rows_of(first), rows_of(first / "candidates")
    assert identity["kind"] == "sft" and len(kept) == identity["counts"]["kept"] > 0
    assert len(everything) == 12 and all(len(row["candidates"]) == 6 for row in everything)
    for row in kept:
        a, b = row["messages"][0]["content"].split("+")
        assert str(int(a) + int(b)) in row["messages"][-1]["content"]
    curves = json.loads((first / "curve.json").read_text())["curves"]
    assert {c["temperature"] for c in curves} == {0.5, 1.5}
    assert all(c["max"] == sorted(c["max"]) and c["k"] == [1, 2, 4, 6] for c in curves)
    assert ET.parse(first / "curve.svg").getroot().tag.endswith("svg")


def test_a_second_round_pools_with_the_first(first: Path, sums: Path, start: Path, tmp_path: Path) -> None:
    run(sums / "prompts", "--model", start, "--out", tmp_path / "second", samples=1, max_tokens=4, pool=[str(first)], seed=9)
    kept = {row["parents"][0] for row in rows_of(tmp_path / "second")}
    assert kept >= {row["parents"][0] for row in rows_of(first)}, "what an earlier round could do is not forgotten"
    assert open_dataset(tmp_path / "second").manifest["identity"]["counts"]["from_earlier_rounds"] > 0


def test_rounds_scored_otherwise_cannot_be_pooled(first: Path, sums: Path, start: Path, tmp_path: Path) -> None:
    manifest = json.loads((first / "candidates" / "manifest.json").read_text())
    other = tmp_path / "other"
    (other / "candidates").mkdir(parents=True)
    write_json(other / "candidates" / "manifest.json", {**manifest, "identity": {**manifest["identity"], "scorer": "another"}})
    with pytest.raises(StoreError, match="scored by something else"):
        run(sums / "prompts", "--model", start, "--out", tmp_path / "x", samples=1, max_tokens=4, pool=[str(other)])


def test_nothing_good_enough_is_an_error(sums: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(CaravanError, match="good enough"):
        run(sums / "prompts", "--model", start, "--out", tmp_path / "x", samples=1, max_tokens=4, min_score=2)
    with pytest.raises(ConfigError, match="needs reward_model"):
        run(sums / "prompts", "--model", start, "--out", tmp_path / "y", score_by="reward")


def test_a_language_model_scores_a_round(sums: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge is asked for every answer: here one that cannot be read, so nothing is scored and nothing kept."""
    models = [{"name": "judge", "base_url": "http://127.0.0.1:9/v1", "retries": 0, "deadline": 2}]
    judge = {"mode": "overall", "model": "judge"}
    with pytest.raises((CaravanError, InputError), match="nobody answers"):
        run(sums / "dev", "--model", start, "--out", tmp_path / "x", samples=1, max_tokens=4, score_by="judge", judge=judge, models=models)


def test_a_family_becomes_table_10(dataset: Any, model: Path, sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def talk(i: int) -> dict[str, Any]:
        return {"kind": "sft", "messages": [{"role": "user", "content": f"{i}+1"}, {"role": "assistant", "content": str(i + 1)}]}

    for member, n in (("all", 12), ("without-sums", 4)):
        dataset([talk(i) for i in range(n)], name=f"family/{member}")
    family = tmp_path / "family"
    with pytest.raises(InputError, match=r"no family\.json"):
        ablate.members(family, None)
    write_json(family / "family.json", {"members": [{"member": "all"}, {"member": "without-sums"}]})
    given = [
        str(family),
        "--model",
        str(model),
        "--out",
        str(tmp_path / "runs"),
        "--task",
        str(sums / "dev"),
        "--seeds",
        "2",
        "--set",
        "max_steps=2",
    ]
    assert ablate.main(ablate.arguments().parse_args(given)) == 0
    shown = capsys.readouterr().out
    assert "without-sums" in shown and "±" in shown
    told = json.loads((tmp_path / "runs" / "table.json").read_text())
    assert [len(v) for by_task in told["scores"].values() for v in by_task.values()] == [2, 2]
    assert ablate.main(ablate.arguments().parse_args(given)) == 0
    assert "finished already" in capsys.readouterr().err, "what is done is not done again"


def test_differences_are_starred_only_beyond_the_noise() -> None:
    scores = {
        "all": {"a": [0.50, 0.52, 0.51], "b": [0.30, 0.31, 0.29]},
        "without-x": {"a": [0.20, 0.21, 0.22], "b": [0.29, 0.32, 0.30]},
    }
    whole, without = ablate.table(scores)
    assert whole["a"] == "51.0 ± 1.0" and whole["difference"] == ""
    assert without["a"].endswith("(-30.0*)") and not without["b"].endswith("*)")
    assert ablate.table({"all": {"a": [0.5]}, "x": {"a": [0.1]}})[1]["difference"] == "-40.0?"


def test_charts(tmp_path: Path) -> None:
    curves = [Curve("a <b>", [1, 2, 4], [0.1, float("nan"), 0.4], [0.0, 0.1, 0.3], [0.2, 0.3, 0.5]), Curve("c", [1, 4], [0.2, 0.3])]
    write_chart(tmp_path / "x.svg", "T & U", "K", "reward", curves, log_x=True)
    root = ET.parse(tmp_path / "x.svg").getroot()
    lines = [e for e in root.iter() if e.tag.endswith("polyline")]
    assert [len(e.attrib["points"].split()) for e in lines] == [2, 2]
    assert "a <b>" in [e.text for e in root.iter() if e.tag.endswith("text")]
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and ticks(3, 3) == [3]
    with pytest.raises(ValueError, match="nothing to draw"):
        write_chart(tmp_path / "y.svg", "", "", "", [Curve("a", [1], [float("nan")])])
