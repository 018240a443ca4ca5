"""Mixes of pairs and prompts, duplicates and contamination inside a mix, and what TRL sees of each kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STORY = "A fox found a lamp in the old mill by the river, and every night she read the names of lost boats from its light while "


def build(folder: Path, config: dict[str, Any], *args: str, code: int = 0) -> Any:
    (folder / "mix.yaml").write_text(yaml.safe_dump({"name": "m", **config}))
    command = [sys.executable, "-m", "curation.build_mix", str(folder / "mix.yaml"), "--out", str(folder / "out"), "--json", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [r for f in sorted((folder / "out/rows").glob("*.parquet")) for r in pq.read_table(f).to_pylist()]


def dropped(folder: Path) -> dict[str, dict[str, Any]]:
    return {r["id"]: r for r in pq.read_table(folder / "out/dropped").to_pylist()}


def test_pairs_keep_scores_and_have_only_the_columns_of_pairs(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Why {i}?", "chosen": f"Because {i}.", "rejected": "No idea.", "score_chosen": 5 + i, "score_rejected": 3}
        for i in range(3)
    ]
    write(
        tmp_path / "p.jsonl", [*rows, {"prompt": "Tie?", "chosen": "Same.", "rejected": "Same. ", "score_chosen": 4, "score_rejected": 4}]
    )
    build(tmp_path, {"kind": "pair", "sources": [{"name": "p", "path": "p.jsonl"}], "select": {"tie": "NOT same_answers"}})
    out = rows_of(tmp_path)
    assert {(r["chosen_score"], r["rejected_score"]) for r in out} == {(5.0, 3.0), (6.0, 3.0), (7.0, 3.0)}
    assert "messages" not in out[0] and "candidates" not in out[0] and "tools" not in out[0]
    assert set(out[0]["chosen"][0]) == {"role", "content"}
    (tie,) = dropped(tmp_path).values()
    assert (tie["reason"], tie["chosen"][0]["content"]) == ("tie", "Same.")


def test_other_kinds_in_a_source_are_said_not_lost(tmp_path: Path) -> None:
    write(tmp_path / "c.jsonl", [chat("Q?", "A.")])
    write(tmp_path / "p.jsonl", [{"prompt": "Q?", "chosen": "A", "rejected": "B"}])
    sources = [{"name": "c", "path": "c.jsonl"}, {"name": "p", "path": "p.jsonl"}]
    counts = build(tmp_path, {"kind": "sft", "sources": sources})["identity"]["counts"]
    assert counts["by_source"]["p"]["dropped"] == {"other_kind": 1}
    assert counts["out"] == 1


def test_one_dataset_under_two_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "c.jsonl", [chat("Q?", "A."), chat("R?", "B.")])
    subprocess.run([sys.executable, "-m", "columnar.load", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "c")], cwd=ROOT, check=True)
    said = build(tmp_path, {"kind": "sft", "sources": [{"name": "one", "path": "c"}, {"name": "two", "path": "c"}]}, code=2)
    assert "sources one and two: 4 rows have an id in common" in said


def test_prompts_carry_verifier_and_ground_truth(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "1+1?"}],
        "ground_truth": "2",
        "dataset": "gsm8k",
        "constraint_type": None,
        "constraint": None,
    }
    write(tmp_path / "r.jsonl", [row])
    build(tmp_path, {"kind": "prompt", "sources": [{"name": "r", "path": "r.jsonl"}]})
    (out,) = rows_of(tmp_path)
    assert (out["prompt"][0]["content"], out["ground_truth"]) == ("1+1?", "2")
    assert "gsm8k" in out["verifier"]


def test_of_duplicates_the_longest_stays_whatever_the_order_of_sources(tmp_path: Path) -> None:
    near = STORY + "the mill wheel turned and the water told her which of them had come home."
    longer = near + " Nobody believed her."
    write(tmp_path / "a.jsonl", [chat("Tell me a story.", near), chat("Hello  THERE", "Hi!")])
    write(tmp_path / "b.jsonl", [chat("Tell me a story.", longer), chat("hello there", "hi!")])
    sources = [{"name": "a", "path": "a.jsonl"}, {"name": "b", "path": "b.jsonl"}]
    ids = []
    for order in (sources, sources[::-1]):
        config = {"kind": "sft", "sources": order, "dedup": {"near": {"threshold": 0.7}}}
        manifest = build(tmp_path, config, "--force")
        ids.append(manifest["identity"]["ids_sha256"])
        assert {r["messages"][1]["content"] for r in rows_of(tmp_path)} >= {longer}
        gone = dropped(tmp_path)
        assert sorted(r["reason"] for r in gone.values()) == ["exact_duplicate", "near_duplicate"]
        hits = {h["id"]: h for h in pq.read_table(tmp_path / "out/hits/duplicates.parquet").to_pylist()}
        assert hits.keys() == gone.keys()
        kept = {r["id"] for r in rows_of(tmp_path)}
        assert all(h["kept_id"] in kept and h["jaccard"] >= 0.7 for h in hits.values())
    assert ids[0] == ids[1]


def test_keep_source_order_makes_the_order_a_statement(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.jsonl", [chat("Hello there", "Hi!")])
    for first, second in ("ab", "ba"):
        sources = [{"name": first, "path": f"{first}.jsonl"}, {"name": second, "path": f"{second}.jsonl"}]
        build(tmp_path, {"kind": "sft", "sources": sources, "dedup": {"keep": "source_order"}}, "--force")
        assert [r["source"] for r in rows_of(tmp_path)] == [first]


def test_a_reference_dataset_marks_but_is_never_marked(tmp_path: Path) -> None:
    write(tmp_path / "eval.jsonl", [chat("Hello there", "Hi!")])
    subprocess.run(
        [sys.executable, "-m", "columnar.load", str(tmp_path / "eval.jsonl"), "--out", str(tmp_path / "eval")], cwd=ROOT, check=True
    )
    write(tmp_path / "a.jsonl", [chat("hello there", "hi!"), chat("Other", "Thing")])
    build(tmp_path, {"kind": "sft", "sources": [{"name": "a", "path": "a.jsonl"}], "dedup": {"against": ["eval"]}})
    assert [r["messages"][0]["content"] for r in rows_of(tmp_path)] == ["Other"]
    (gone,) = dropped(tmp_path).values()
    assert "of eval" in gone["detail"]


ITEM = "A baker sells seventeen loaves in the morning and twice as many in the afternoon; how many loaves does she sell in one day?"


@pytest.fixture
def leaky(tmp_path: Path) -> dict[str, Any]:
    write(
        tmp_path / "bench.jsonl",
        [{"question": ITEM, "answer": "51"}, {"question": "Which colour has the sky above the clouds at noon in summer?"}],
    )
    write(tmp_path / "a.jsonl", [chat(ITEM.upper(), "51"), chat("A harmless question about bread.", "Bake it.")])
    return {"kind": "sft", "sources": [{"name": "a", "path": "a.jsonl"}], "decontam": {"benchmarks": "bench.jsonl"}}


def test_contamination_is_dropped_with_evidence_and_the_result_scans_clean(tmp_path: Path, leaky: dict[str, Any]) -> None:
    counts = build(tmp_path, leaky)["identity"]["counts"]
    assert counts["by_reason"] == {"contaminated": 1}
    (gone,) = dropped(tmp_path).values()
    assert "bench" in gone["detail"]
    (hit, *_) = pq.read_table(tmp_path / "out/hits/decontam.parquet").to_pylist()
    assert (hit["id"], hit["item_id"]) == (gone["id"], "0")
    assert gone["messages"][hit["turn"]]["content"][hit["start"] : hit["end"]].lower() == ITEM[hit["item_start"] : hit["item_end"]].lower()
    (summary,) = counts["decontam"]["benchmarks"]
    assert (summary["items"], summary["items_hit"], counts["decontam"]["paraphrase"]) == (2, 1, "not checked")
    command = [sys.executable, "-m", "decontam.scan", "out", "--benchmarks", "bench.jsonl", "--fail-on", "any", "--out", "again"]
    assert subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True).returncode == 0


def test_the_written_config_finds_its_benchmarks_again(tmp_path: Path, leaky: dict[str, Any]) -> None:
    first = build(tmp_path, leaky)
    command = [sys.executable, "-m", "curation.build_mix", str(tmp_path / "out/config.yaml"), "--out", str(tmp_path / "x/again"), "--json"]
    again = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert again["identity"]["ids_sha256"] == first["identity"]["ids_sha256"]
    assert again["identity"]["counts"]["by_reason"] == {"contaminated": 1}


def test_two_builds_at_once_take_turns(tmp_path: Path, leaky: dict[str, Any]) -> None:
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"name": "m", **leaky}))
    command = [sys.executable, "-m", "curation.build_mix", str(tmp_path / "mix.yaml"), "--out", str(tmp_path / "out")]
    running = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(3)]
    said = [job.communicate(timeout=300)[1] for job in running]
    assert [job.returncode for job in running] == [0, 0, 0], said
    assert sum("nothing changed" in text for text in said) == 2


def test_a_reported_benchmark_drops_nothing(tmp_path: Path, leaky: dict[str, Any]) -> None:
    leaky["decontam"]["policy"] = {"dev": "report"}
    counts = build(tmp_path, leaky)["identity"]["counts"]
    assert counts["by_reason"] == {}
    assert counts["decontam"]["benchmarks"][0]["items_hit"] == 1


def test_a_changed_benchmark_is_noticed(tmp_path: Path, leaky: dict[str, Any]) -> None:
    build(tmp_path, leaky)
    write(tmp_path / "bench.jsonl", [{"question": "Nothing that anybody would ever ask about any of these loaves or clouds?"}])
    assert build(tmp_path, leaky)["identity"]["counts"]["by_reason"] == {}
