"""`python -m generation.verify`: prompts with completions, candidates, pairs; broken input; the published shape in and out."""
# ruff: noqa: E501

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from columnar.errors import ConfigError
from columnar.record import SCHEMA, schema_of, seal, to_batch
from columnar.store import RowWriter, write_manifest
from generation.verifiers import verify
from generation.verifiers.rlvr import from_published, to_published


def dataset(path: Path, rows: list[dict]) -> Path:
    kind = rows[0]["kind"]
    writer = RowWriter(path, schema_of([kind]))
    for i, row in enumerate(rows):
        row.update(source="made", origin={"uri": "made", "revision": None, "split": None, "row": i})
        seal(row, "made")
    writer.write(to_batch(rows, SCHEMA))
    writer.close()
    write_manifest(path, {"name": "made", "kind": kind, "rows": len(rows), "rows_sha256": writer.content.hexdigest()}, 0.0)
    return path


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def command(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "generation.verify", *map(str, args)], capture_output=True, text=True, check=False)


def sidecar(path: Path) -> pa.Table:
    return pq.read_table(path / "cols" / "verified.parquet")


def prompts(tmp_path: Path) -> tuple[Path, list[dict]]:
    rows = [
        {"kind": "prompt", "prompt": ask("2+2?"), "verifier": "gsm8k", "ground_truth": "4"},
        {"kind": "prompt", "prompt": ask("Half?"), "verifier": "math", "ground_truth": "\\frac12"},
        {"kind": "prompt", "prompt": ask("No commas."), "verifier": "ifeval", "ground_truth": json.dumps({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})},
        {"kind": "prompt", "prompt": ask("Nothing to check"), "verifier": None, "ground_truth": None},
        {"kind": "prompt", "prompt": ask("Broken truth"), "verifier": "gsm8k", "ground_truth": "no number"},
    ]  # fmt: skip
    return dataset(tmp_path / "data", rows), rows


def test_prompts_with_completions(tmp_path: Path) -> None:
    path, rows = prompts(tmp_path)
    lines = [(0, "#### 4"), (0, "#### 5"), (1, "\\boxed{0.5}"), (2, "well, no"), (4, "1")]
    file = tmp_path / "c.jsonl"
    file.write_text(
        "".join(json.dumps({"id": rows[i]["id"], "completion": said}) + "\n" for i, said in lines) + '{"id": "x", "completion": ""}\n'
    )
    done = command(path, "--completions", file, "--workers", 2, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["with_verifier"] == 4 and report["unknown_ids"] == 1
    assert {r["verifier"]: (r["completions"], r["passed"], r["errors"]) for r in report["verifiers"]} == {
        "gsm8k": (3, 1, 1),
        "math": (1, 1, 0),
        "ifeval": (1, 0, 0),
    }
    table = sidecar(path)
    assert table.column("id").to_pylist() == [row["id"] for row in rows]
    assert table.column("scores").to_pylist() == [[1.0, 0.0], [1.0], [0.0], None, [None]]
    assert table.column("passed").to_pylist() == [False, True, False, None, False]
    assert table.column("errors").to_pylist() == [0, 0, 0, None, 1]
    assert json.loads(table.column("detail").to_pylist()[0])[0][0]["rule"] == "hash"
    before = (path / "cols" / "verified.parquet").read_bytes()
    assert "up to date" in command(path, "--completions", file).stderr
    assert command(path, "--completions", file, "--force", "--workers", 1).returncode == 0
    assert (path / "cols" / "verified.parquet").read_bytes() == before, "the number of processes changes nothing"


def test_candidates_and_answers_keep_their_verifier_in_meta(tmp_path: Path) -> None:
    meta = json.dumps({"verifier": "gsm8k", "ground_truth": "4"})
    rows = [
        {
            "kind": "candidates",
            "prompt": ask("2+2?"),
            "meta": meta,
            "candidates": [{"model": m, "content": c} for m, c in (("a", "4"), ("b", "5"))],
        }
    ]
    path = dataset(tmp_path / "candidates", rows)
    assert command(path).returncode == 0
    assert sidecar(path).column("scores").to_pylist() == [[1.0, 0.0]]
    rows = [{"kind": "sft", "messages": [*ask("2+2?"), {"role": "assistant", "content": "It is 4."}], "meta": meta}]
    path = dataset(tmp_path / "sft", rows)
    assert command(path).returncode == 0
    assert sidecar(path).column("passed").to_pylist() == [True]


def test_wrong_use_is_told_before_any_work(tmp_path: Path) -> None:
    path, _ = prompts(tmp_path)
    assert command(tmp_path / "missing").returncode == 1
    assert command(path, "--completions", tmp_path / "missing").returncode == 2
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a", "completion": 3}\n')
    done = command(path, "--completions", bad)
    assert done.returncode == 2 and "bad.jsonl:1" in done.stderr
    assert command(path, "--own", "x").returncode == 2
    unknown = dataset(tmp_path / "unknown", [{"kind": "prompt", "prompt": ask("?"), "verifier": "gsm9k", "ground_truth": "4"}])
    done = command(unknown)
    assert done.returncode == 2 and "gsm8k" in done.stderr and not (unknown / "cols").exists()
    nothing = dataset(tmp_path / "nothing", [{"kind": "prompt", "prompt": ask("?")}])
    assert command(nothing).returncode == 2


def test_a_crashing_and_a_hanging_verifier_cost_their_own_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from generation import verify as cli
    from generation.verifiers import dispatch, workers

    monkeypatch.setattr(dispatch, "OWN_TIMEOUT", 1.5)
    monkeypatch.setattr(workers, "START", 3.0)
    own = {name: f"tests.generation.verifiers.own:{name}" for name in ("die", "hang", "good")}
    names = ["good", "die", "good", "hang", "good", "gsm8k"]
    rows = [{"id": str(i), "verifier": name, "ground_truth": "1", "prompt": ask("?")} for i, name in enumerate(names)]
    verdicts = [v for _, found in cli.judge_batch(rows, {str(i): ["1"] for i in range(6)}, own, 2) for v in found]
    assert [v.passed for v in verdicts] == [True, False, True, False, True, True]
    assert "crashed" in verdicts[1].error and "timed out" in verdicts[3].error


PUBLISHED = [
    ({"dataset": "gsm8k", "ground_truth": "18", "constraint_type": None, "constraint": None}, "So it is 18.", "So it is 17."),
    ({"dataset": "MATH", "ground_truth": "\\frac{1}{2}", "constraint_type": None, "constraint": None}, "\\boxed{0.5}", "\\boxed{5}"),
    (
        {
            "dataset": "ifeval",
            "ground_truth": json.dumps(
                {"func_name": "verify_keyword_frequency", "N": 2, "word": "cat", "quantifier": None, "options": None}
            ),
            "constraint_type": "Keyword Frequency",
            "constraint": "Use cat twice.",
        },
        "a cat and a cat",
        "a category and a cat",
    ),
    (
        {
            "dataset": ["ifeval"],
            "ground_truth": ["[{'instruction_id': ['change_case:english_lowercase', 'keywords:palindrome'], 'kwargs': [None, {}]}]"],
        },
        "my kayak is fast and red",
        "My kayak is fast and red",
    ),
]


@pytest.mark.parametrize(("record", "right", "wrong"), PUBLISHED)
def test_the_published_shape_in_and_out(record: dict, right: str, wrong: str) -> None:
    row = from_published(
        {
            "messages": ask("Do it."),
            **record,
            "ground_truth": record["ground_truth"][0] if isinstance(record["ground_truth"], list) else record["ground_truth"],
        }
    )
    assert verify(row, right).passed and not verify(row, wrong).passed
    out = to_published(row)
    assert set(out) == {"messages", "ground_truth", "dataset", "constraint_type", "constraint"}
    again = from_published(out)
    assert verify(again, right).passed and not verify(again, wrong).passed


def test_the_published_shape_through_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rlvr.jsonl"
    file.write_text("".join(json.dumps({"messages": ask("Do it."), **record}) + "\n" for record, _, _ in PUBLISHED[:3]))
    subprocess.run([sys.executable, "-m", "columnar.load", str(file), "--out", str(tmp_path / "out")], check=True, capture_output=True)
    ids = [i for f in sorted((tmp_path / "out" / "rows").glob("*.parquet")) for i in pq.read_table(f).column("id").to_pylist()]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"id": i, "completion": right}) + "\n" for i, (_, right, _) in zip(ids, PUBLISHED, strict=False)))
    done = command(tmp_path / "out", "--completions", answers)
    assert done.returncode == 0, done.stderr
    assert sidecar(tmp_path / "out").column("passed").to_pylist() == [True] * 3


def test_what_cannot_be_published_is_said() -> None:
    with pytest.raises(ConfigError, match="one"):
        to_published({"prompt": ask("?"), "verifier": '[{"name": "gsm8k"}, {"name": "math"}]', "ground_truth": "4"})
    with pytest.raises(ConfigError, match="unknown verifier"):
        from_published({"messages": ask("?"), "dataset": "mystery", "ground_truth": "4"})


def test_killed_in_mid_run_and_run_again(tmp_path: Path) -> None:
    rows = [{"kind": "prompt", "prompt": ask(f"{i}?"), "verifier": "held", "ground_truth": str(tmp_path)} for i in range(6)]
    path = dataset(tmp_path / "data", rows)
    file = tmp_path / "c.jsonl"
    file.write_text("".join(json.dumps({"id": row["id"], "completion": "1"}) + "\n" for row in rows))
    options = [path, "--completions", file, "--workers", 2, "--own", "held=tests.generation.verifiers.own:held"]
    first = subprocess.Popen([sys.executable, "-m", "generation.verify", *map(str, options)], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert first.poll() is None, "it ended by itself"
        time.sleep(0.01)
    first.kill()
    (tmp_path / "go").touch()
    assert "Traceback" not in first.communicate()[1], "workers that lose their caller end quietly"
    assert not (path / "cols" / "verified.parquet").exists(), "nothing half-written is left"
    done = command(*options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verifiers"] == [{"verifier": "held", "completions": 6, "passed": 6, "errors": 0, "rate": 1.0}]


def test_a_verifier_of_ones_own_that_was_changed_verifies_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    row = {"kind": "prompt", "prompt": ask("?"), "verifier": "mine", "ground_truth": "1"}
    path = dataset(tmp_path / "data", [row])
    answers = tmp_path / "c.jsonl"
    answers.write_text(json.dumps({"id": row["id"], "completion": "1"}) + "\n")
    for verdict in (True, False):
        (tmp_path / "mine_own.py").write_text(f"def check(completion, truth, prompt):\n    return {verdict}\n")
        done = command(path, "--completions", answers, "--own", "mine=mine_own:check")
        assert done.returncode == 0, done.stderr
        assert sidecar(path).column("passed").to_pylist() == [verdict]
    assert "up to date" in command(path, "--completions", answers, "--own", "mine=mine_own:check").stderr
