"""The shipped mixes: every one parses, the published ones add up, the example drops exactly what is planted in it, the local ones run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

from columnar.config import load
from columnar.files import SourceSpec
from columnar.load import iter_records, load_source
from columnar.record import normalise
from curation.mix import MixConfig

ROOT = Path(__file__).resolve().parents[2]
MIXES = ROOT / "recipes" / "mixes"
TINY = MIXES / "tiny"
PLANTED: list[dict[str, Any]] = json.loads((TINY / "planted.json").read_text(encoding="utf-8"))

# what is planted -> the reason it must be dropped for
REASONS = {
    "exact_duplicate": "exact_duplicate",
    "near_duplicate": "near_duplicate",
    "contaminated": "contaminated",
    "refusal": "refusal",
    "self_id": "self_id",
    "empty": "empty",
    "truncated": "truncated",
    "repetition": "repetition",
    "too_long": "max_tokens",
    "draft": "where",
    "same": "same_answers",
}
# totals as published: papers and cards are named in the recipes
PUBLISHED = {
    "tulu1_human": 249_806,
    "tulu1_human_gpt": 490_694,
    "tulu3_sft": 939_344,
    "tulu3_sft_released": 939_343,
    "tulu3_preference_8b": 271_409,
    "tulu3_rlvr": 29_946,
    "zephyr_sft": 207_865,
    "zephyr_preference": 61_135,
}


def planted(what: str) -> list[dict[str, Any]]:
    return [p for p in PLANTED if p["what"] == what]


def build(mix: str, out: Path, *flags: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "curation.build_mix", str(MIXES / f"{mix}.yaml"), "--out", str(out), "--json", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


def rows(directory: Path, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
    return duckdb.sql(f"SELECT {columns} FROM read_parquet('{directory}/*.parquet') WHERE {where}").fetchall()


@pytest.mark.parametrize("path", sorted(MIXES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mix_parses_and_is_called_as_its_file(path: Path) -> None:
    config = load(MixConfig, path)
    assert config.name == path.stem
    assert config.description
    assert all(source.license for source in config.sources) or config.name.startswith("tiny")
    assert f"recipes/mixes/{path.name}" in path.read_text(encoding="utf-8").splitlines()[0], "the first line says how to run it"


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_counts_add_up_to_the_published_total(name: str) -> None:
    config = load(MixConfig, MIXES / f"{name}.yaml")
    assert sum(source.cap or source.rows or 0 for source in config.sources) == PUBLISHED[name]
    assert all(str(source.path).startswith("hf://datasets/") for source in config.sources)


def test_there_are_as_many_sources_as_published() -> None:
    sources = {name: len(load(MixConfig, MIXES / f"{name}.yaml").sources) for name in PUBLISHED}
    assert (sources["tulu1_human"], sources["tulu1_human_gpt"], sources["tulu3_sft"], sources["tulu3_preference_8b"]) == (4, 7, 19, 7)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, Any]]:
    """Every good row of the example by (file, record number); what was rejected is under `problem`."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for path in sorted(p for p in TINY.iterdir() if p.suffix in (".jsonl", ".json", ".gz", ".csv", ".tsv") and p.name != "planted.json"):
        out = tmp_path_factory.mktemp("tiny")
        load_source(SourceSpec(name=path.name, path=str(path), max_reject=0.2), out / "d")
        for row in duckdb.sql(f"SELECT * FROM read_parquet('{out}/d/rows/*.parquet')").fetchall():
            record = dict(zip(duckdb.sql(f"SELECT * FROM read_parquet('{out}/d/rows/*.parquet')").columns, row, strict=True))
            found[path.name, record["origin"]["row"]] = record
        for line in (out / "d" / "rejects.jsonl").read_text(encoding="utf-8").splitlines():
            reject = json.loads(line)
            found[path.name, -reject["line"]] = {"problem": reject}
    return found


def text_of(row: dict[str, Any]) -> str:
    turns = [*(row.get("messages") or ()), *(row.get("prompt") or ()), *(row.get("chosen") or ())]
    return "\n".join(turn["content"] or "" for turn in turns)


def test_planted_exact_duplicates_are_equal_but_for_case_space_and_width(loaded: dict[tuple[str, int], dict[str, Any]]) -> None:
    assert len(planted("exact_duplicate")) >= 12
    for p in planted("exact_duplicate"):
        one, other = loaded[p["file"], p["row"]], loaded[p["of"]["file"], p["of"]["row"]]
        assert normalise(text_of(one)) == normalise(text_of(other))
        assert one["hash"] == other["hash"]
        assert text_of(one) != text_of(other), f"{p['file']}:{p['line']} is copied byte for byte: nothing to normalise"


def test_planted_near_duplicates_differ_in_a_few_words_only(loaded: dict[tuple[str, int], dict[str, Any]]) -> None:
    assert len(planted("near_duplicate")) >= 12
    for p in planted("near_duplicate"):
        one = Counter(normalise(text_of(loaded[p["file"], p["row"]])).split())
        other = Counter(normalise(text_of(loaded[p["of"]["file"], p["of"]["row"]])).split())
        assert 1 <= (one - other).total() + (other - one).total() <= 6
        assert one.total() >= 40


def test_planted_contamination_holds_the_item(loaded: dict[tuple[str, int], dict[str, Any]]) -> None:
    items: dict[str, str] = {}
    for name, field in (("arithmetic.jsonl", "question"), ("trivia.csv", "question"), ("writing.jsonl", "prompt")):
        for _, _, record in iter_records(TINY / "benchmarks" / name):
            items[record["id"]] = record[field]
    assert len(items) >= 90
    words = lambda text: " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())  # noqa: E731
    assert len(planted("contaminated")) >= 8
    for p in planted("contaminated"):
        assert words(items[p["item"]]) in words(text_of(loaded[p["file"], p["row"]]))
    clean = [words(text_of(row)) for place, row in loaded.items() if "problem" not in row and place not in _places("contaminated")]
    assert not [item for item in items.values() if any(words(item) in text for text in clean)]


def _places(what: str) -> set[tuple[str, int]]:
    return {(p["file"], p["row"]) for p in planted(what)}


def test_exactly_the_planted_malformed_rows_are_rejected(loaded: dict[tuple[str, int], dict[str, Any]]) -> None:
    rejected = {(file, -row) for (file, row), record in loaded.items() if "problem" in record}
    assert rejected == {(p["file"], p["line"]) for p in planted("malformed")}


def test_the_list_for_people_says_what_the_list_for_tests_says() -> None:
    text = (TINY / "PLANTED.md").read_text(encoding="utf-8")
    for p in PLANTED:
        assert f"{p['file']}:{p['line']}" in text
    for what, count in Counter(p["what"] for p in PLANTED).items():
        assert f"({count})" in text, what


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    for mix in ("tiny", "tiny_pairs"):
        build(mix, out / mix)
    return out


@pytest.mark.parametrize("mix", ["tiny", "tiny_pairs"])
def test_the_example_drops_the_planted_rows_for_their_reasons_and_no_others(built: Path, mix: str) -> None:
    mine = [p for p in PLANTED if (p["file"] == "pairs.jsonl") == (mix == "tiny_pairs")]
    wanted = {(p["file"], p["row"], REASONS[p["what"]]) for p in mine if p["what"] in REASONS}
    dropped = rows(built / mix / "dropped", "origin.uri, origin.row, reason", "stage <> 'sample'")
    assert {(Path(uri).name, row, reason) for uri, row, reason in dropped} == wanted
    rejects = [json.loads(line) for line in (built / mix / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(Path(r["file"]).name, r["line"]) for r in rejects} == {(p["file"], p["line"]) for p in mine if p["what"] == "malformed"}


def test_the_example_delivers_the_amounts_it_asks_for(built: Path) -> None:
    counts = dict(rows(built / "tiny" / "rows", "source, count(*)", "true GROUP BY source"))
    different = dict(rows(built / "tiny" / "rows", "source, count(DISTINCT hash)", "true GROUP BY source"))
    assert counts["alpaca"] == 40
    assert different["maths"] == 30
    assert 30 < counts["maths"] <= 60, "each train row twice, held-out rows once"
    assert counts["sharegpt"] == round(0.75 * 24)
    both = f"""
        FROM read_parquet('{built}/tiny/rows/*.parquet') AS r
        JOIN (SELECT DISTINCT id, n_tokens FROM read_parquet('{built}/tiny/cols/signals.parquet')) AS s USING (id)"""
    (tokens,) = duckdb.sql(f"SELECT sum(n_tokens) {both} WHERE source = 'faq'").fetchall()[0]
    assert 700 < tokens <= 1000
    kept = rows(built / "tiny" / "rows", "count(*)", "origin.uri LIKE '%chats.jsonl' AND contains(to_json(messages)::VARCHAR, 'OpenAI')")
    assert kept == [(1,)], "the fair question about OpenAI stays, the claim to be its product goes"


def test_every_turn_of_a_kept_row_is_as_in_the_file(built: Path) -> None:
    chats = {number: record for _, number, record in _good("chats.jsonl")}
    for row, messages in rows(built / "tiny" / "rows", "origin.row, messages", "origin.uri LIKE '%chats.jsonl'"):
        written = [turn["content"] for turn in chats[row]["messages"]]
        read = [turn["content"] for turn in messages]
        assert read == ["".join(part["text"] for part in text) if isinstance(text, list) else text for text in written]


def _good(name: str) -> list[tuple[str, int, dict[str, Any]]]:
    found = []
    for number, line in enumerate((TINY / name).read_text(encoding="utf-8").splitlines()):
        try:
            found.append((name, number, json.loads(line)))
        except ValueError:
            continue
    return found


@pytest.mark.parametrize(("mix", "kind"), [("local_sft", "sft"), ("local_preference", "pair"), ("local_rlvr", "prompt")])
def test_local_mixes_run_on_real_data(shared: Path, tmp_path: Path, mix: str, kind: str) -> None:
    config = load(MixConfig, MIXES / f"{mix}.yaml")
    amounts = [f"{s.name}.rows=50" if s.rows else f"{s.name}.tokens=2000" for s in config.sources if s.rows or s.tokens]
    flags = [flag for amount in amounts for flag in ("--set", f"sources.{amount}")]
    limit = "600" if mix != "local_rlvr" else "27000"  # the GSM8K part of the file begins after 26,000 rows
    manifest = build(mix, tmp_path / mix, "--limit", limit, "--set", "validation.rows=20", *flags)
    assert manifest["identity"]["kind"] == kind
    assert manifest["identity"]["rows"] > 200
    assert {source for (source,) in rows(tmp_path / mix / "rows", "DISTINCT source")} == {s.name for s in config.sources}
    if kind == "prompt":
        assert rows(tmp_path / mix / "rows", "DISTINCT verifier") == [("gsm8k",)]
        assert rows(tmp_path / mix / "rows", "count(*)", "ground_truth IS NULL") == [(0,)]
