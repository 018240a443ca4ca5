"""Every file of the real test data loads as it is, and says again every text that it had."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from columnar.formats import detect, named
from columnar.load import SourceSpec, iter_records, load_source
from columnar.record import validate
from columnar.store import open_dataset, read_batches

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDERS = ("raw", "instructions", "preferences", "personas", "completions", "benchmarks")
FILES = sorted(str(p.relative_to(DATA)) for folder in FOLDERS for p in (DATA / folder).glob("*") if p.is_file())
ROWS = 3000


def texts(value: Any) -> list[str]:
    """Every string in a raw value; not its keys, and not the roles and part types, which become ours."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [t for k, v in value.items() if k not in ("role", "from", "type") for t in texts(v)]
    if isinstance(value, list):
        return [t for v in value for t in texts(v)]
    return []


def said(row: dict[str, Any]) -> str:
    """Everything a row says, its meta decoded, one text after the other."""
    row = {**row, "meta": json.loads(row["meta"] or "{}")}
    parts = texts(row)
    for part in list(parts):  # tool calls, parameters and tables hold JSON text of their own
        if part[:1] in "[{":
            try:
                parts += texts(json.loads(part))
            except ValueError:
                continue
    return "\n".join(parts)


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_loads_whole(name: str, tmp_path: Path) -> None:
    spec = SourceSpec(name="real", path=str(DATA / name), limit=ROWS)
    counts = load_source(spec, tmp_path / "out")
    assert counts["in"] == counts["rows"] + counts["rejects"]
    assert counts["rejects"] == len((tmp_path / "out/rejects.jsonl").read_text().splitlines())
    rows = [row for batch in read_batches(open_dataset(tmp_path / "out")) for row in batch.to_pylist()]
    assert len(rows) == counts["rows"] > 0
    assert len({row["id"] for row in rows}) == len(rows)
    assert not [p for row in rows[:200] for p in validate(row)]
    by_record: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_record.setdefault(row["origin"]["row"], []).append(row)
    for _, number, record in islice(iter_records(spec), 300):
        if number not in by_record:
            continue  # rejected, and the raw record is in rejects.jsonl
        whole = "\n".join(said(row) for row in by_record[number])
        for text in texts(record):
            if "[|Human|]" in text or text.startswith("\n\nHuman:"):
                continue  # whole dialogues in a string: taken apart, see test_formats
            if text[:1] in "[{" and text not in whole:
                assert all(inner in whole for inner in texts(json.loads(text)))
            elif text.strip():
                assert text in whole, text[:200]


@pytest.mark.parametrize(
    ("name", "shape", "kinds"),
    [
        ("raw/alpaca_5000.json", "alpaca", {"sft"}),
        ("raw/gsm8k_test.jsonl", "prompt_completion", {"sft"}),
        ("raw/glaive_toolcall_en_demo.json", "sharegpt", {"sft"}),
        ("raw/v1_sft_demo.jsonl", "messages", {"sft"}),
        ("raw/hh_rlhf_harmless_base_test.jsonl.gz", "chosen_rejected", {"pair"}),
        ("raw/kto_en_demo.json", "unpaired", {"candidates"}),
        ("raw/llmbar_natural.json", "comparison", {"pair"}),
        ("preferences/autoj_pairwise_test.parquet", "comparison", {"pair", "candidates"}),
        ("raw/mmlu_abstract_algebra_test.csv", "benchmark", {"prompt"}),
        ("personas/synthetic_persona_chat_valid.parquet", "persona", {"prompt"}),
    ],
)
def test_shapes_are_what_a_user_expects(name: str, shape: str, kinds: set[str], shared: Path) -> None:
    records = [record for _, _, record in islice(iter_records(str(shared / name)), 50)]
    found, _ = detect(records)
    assert found == shape
    assert {row["kind"] for record in records for row in named(found).rows(record)} <= kinds


def test_a_comparison_goes_the_way_its_judge_went(shared: Path) -> None:
    """Auto-J counts from 0 with 2 for a tie, LLMBar from 1; the known label counts come out."""
    kinds = []
    for _, _, record in iter_records(str(shared / "preferences/autoj_pairwise_test.parquet")):
        (row,) = named("comparison").rows(record)
        kinds.append(row["kind"])
        if row["kind"] == "pair":
            assert row["chosen"][0]["content"] == record["response 1" if record["label"] == 0 else "response 2"]
    assert (kinds.count("pair"), kinds.count("candidates")) == (520 + 499, 373)
    for _, _, record in iter_records(str(shared / "preferences/llmbar.parquet")):
        (row,) = named("comparison").rows(record)
        assert row["chosen"][0]["content"] == record[f"output_{record['label']}"]


def test_tool_calls_and_thoughts_are_kept_apart_from_the_answer(shared: Path) -> None:
    records = [record for _, _, record in iter_records(str(shared / "raw/reason_tool_use_demo_50.jsonl"))]
    rows = [named("messages").rows(record)[0] for record in records]
    messages = [m for row in rows for m in row["messages"]]
    assert sum(bool(m.get("thinking")) for m in messages) > 50
    calls = [json.loads(m["tool_calls"]) for m in messages if m.get("tool_calls")]
    assert calls
    assert all("name" in call["function"] for call in calls[0])
    assert all(json.loads(row["tools"]) for row in rows if row["tools"])
