"""lm-eval's samples become results of our own shape; the lines are those that lm-eval 0.4 writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from columnar.errors import InputError
from training import evaluate, lmeval
from training.results import read_scores


def sample(number: int, acc: float, **more: Any) -> dict[str, Any]:
    asked = {"gen_args_0": {"arg_0": f"{number} + 1 =", "arg_1": "2"}, "gen_args_1": {"arg_0": f"{number} + 1 =", "arg_1": "3"}}
    resps = [[["-1.2", "False"]], [["-0.7", "True"]]]
    return {"doc_id": number, "target": "0", "arguments": asked, "resps": resps, "filtered_resps": ["-1.2"], "acc": acc, **more}


def write(folder: Path, values: list[float]) -> Path:
    inside = folder / "lm_eval" / "model"
    inside.mkdir(parents=True)
    (inside / "samples_toy_sum_2026-01-01T00-00-00.1.jsonl").write_text(
        "".join(json.dumps(sample(i, v)) + "\n" for i, v in enumerate(values))
    )
    return folder / "lm_eval"


def test_two_runs_of_lm_eval_are_compared_item_by_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, values in (("a", [0.0] * 8 + [1.0]), ("b", [1.0] * 8 + [0.0])):
        folder = write(tmp_path / name, values)
        assert lmeval.main(lmeval.arguments().parse_args(["--read", str(folder), "--out", str(tmp_path / name)])) == 0
    scores, identity = read_scores(tmp_path / "a" / "toy_sum")
    assert scores["8"] == 1 and sum(scores.values()) == 1 and identity["task"]["name"] == "lm-eval/toy_sum"
    capsys.readouterr()
    evaluate.main(
        evaluate.arguments().parse_args(["--compare", str(tmp_path / "a" / "toy_sum"), str(tmp_path / "b" / "toy_sum"), "--json"])
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["wins"], found["losses"]) == (8, 1) and found["p"] == pytest.approx(20 / 512)


def test_samples_that_say_nothing_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no samples"):
        lmeval.sample_files(tmp_path)
    folder = write(tmp_path, [1.0])
    path = lmeval.sample_files(folder)[0][1]
    path.write_text(json.dumps({"doc_id": 1, "target": "x", "perplexity": 3}) + "\n")
    with pytest.raises(InputError, match="no metric that is known"):
        lmeval.read_samples("toy_sum", path)
