"""Public findings of contamination, reproduced on the shared data (skipped where it is absent)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hand_made import batch, benchmark, chat
from ngram_oracle import words

from columnar.load import SourceSpec, load_source
from columnar.store import Dataset, open_dataset
from decontam.benchmarks import Benchmark, load_benchmarks
from decontam.common import common_in_benchmarks, with_common, without_common
from decontam.found import scan_batch
from decontam.index import Index, build_index
from decontam.rules import PRESETS, DecontamConfig
from decontam.scan import scan_dataset
from decontam.selftest import VERBATIM_FAMILY, flags, mean_recall, recall

LOCAL = Path(__file__).parents[2] / "decontam" / "local.yaml"


@pytest.fixture(scope="session")
def benchmarks(shared: Path) -> dict[str, Benchmark]:
    return {b.name: b for b in load_benchmarks(str(LOCAL), str(shared / "benchmarks"))}


@pytest.fixture(scope="session")
def load(shared: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("loaded")

    def loaded(name: str, limit: int | None = None) -> Dataset:
        path = folder / name.replace("/", "_")
        if not path.exists():
            load_source(SourceSpec(name=Path(name).name, path=str(shared / f"{name}.parquet"), limit=limit), path)
        return open_dataset(path)

    return loaded


def column(shared: Path, name: str, field: str) -> list[str]:
    return pl.read_parquet(shared / f"{name}.parquet")[field].to_list()


def scan_texts(texts: list[str], index: Index) -> list[dict[str, object]]:
    """Hits in texts that are user turns; ids are their numbers."""
    hits = []
    for start in range(0, len(texts), 5000):
        rows = [chat(text, "ok", ident=str(start + i)) for i, text in enumerate(texts[start : start + 5000])]
        hits += scan_batch(batch(rows), index)[1].to_pylist()
    return hits


def test_gsm8k_train_against_test_under_the_tulu3_rule(shared: Path, benchmarks: dict[str, Benchmark]) -> None:
    """The published numbers for 8-grams of spaCy tokens are the same items and rows; coverages differ a little with our tokens."""
    questions = column(shared, "benchmarks/gsm8k_train", "question")
    hits = scan_texts(questions, build_index([benchmarks["gsm8k_test"]], PRESETS["tulu3"]))
    assert {h["item_id"] for h in hits} == {"602", "632"}
    assert len({h["id"] for h in hits}) == 3
    assert {(h["id"], h["item_id"]) for h in hits} >= {("5162", "602"), ("20", "632")}


def test_exactly_half_is_not_more_than_half(shared: Path) -> None:
    """Test item 302 and training row 3052 are the pair at exactly 0.50 with spaCy tokens; here a pair at exactly half of ours."""
    item = " ".join(f"w{i}" for i in range(16))
    half = " ".join([*(f"w{i}" for i in range(8)), "and", "something", "else"])
    assert scan_texts([half], build_index([benchmark([item])], PRESETS["tulu3"])) == []
    reached = scan_texts([half], build_index([benchmark([item])], replace(PRESETS["tulu3"], strict=False)))
    assert [h["coverage_item"] for h in reached] == [0.5]


def truth_benchmarks(shared: Path) -> list[Benchmark]:
    """The items of the ground truth as its README defines them."""
    mmlu = pl.read_parquet(shared / "benchmarks/mmlu.parquet")
    questions = mmlu["question"].to_list()
    made = [benchmark(questions, "mmlu_test"), benchmark(questions, "mmlu_val_dev")]
    made += [benchmark([t[i] for t in column(shared, "benchmarks/mt_bench", "turns")], f"mt_bench_turn{i + 1}") for i in (0, 1)]
    made.append(benchmark([t[0] for t in column(shared, "benchmarks/vicuna_bench", "turns")], "vicuna_bench"))
    user = pl.read_parquet(shared / "benchmarks/self_instruct_user.parquet")
    joined = [f"{i}\n{x[0]['input']}" for i, x in zip(user["instruction"], user["instances"], strict=True)]
    made.append(benchmark(joined, "self_instruct_user"))
    fields = {"gsm8k_test": "question", "gsm8k_train": "question", "math_test": "problem", "math500": "question", "mbpp": "text"}
    fields |= {
        "truthfulqa": "Question",
        "alpaca_eval": "instruction",
        "koala_test": "prompt",
        "wizardlm_testset": "Instruction",
        "xstest": "prompt",
    }
    made += [benchmark(column(shared, f"benchmarks/{name}", field), name) for name, field in fields.items()]
    return made


def every_text(value: object) -> list[str]:
    if isinstance(value, str):
        return every_text(json.loads(value)) if value.startswith('{"message') else [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in values for text in every_text(part)]


@pytest.mark.parametrize("preset", ["exact", "tulu3", "caravan"])
def test_every_verbatim_pair_of_the_ground_truth_is_found(shared: Path, preset: str) -> None:
    pairs = pl.read_parquet(shared / "ground_truth_pairs.parquet")
    texts, place = [], {}
    for (train,), part in pairs.group_by("train", maintain_order=True):
        table = pl.read_parquet(shared / f"{train}.parquet")
        for row in part["row"].unique().sort().to_list():
            place[train, row] = str(len(texts))
            texts.append("\n".join(every_text(table.row(row, named=True))))
    index = build_index(truth_benchmarks(shared), replace(PRESETS[preset], roles=("user",)))
    if index.rule.common:
        index = with_common(index, common_in_benchmarks(index))
    found = {(h["id"], h["benchmark"], h["item_id"]) for h in scan_texts(texts, index)}
    known = {b.name for b in index.benchmarks}
    wanted = {
        (place[train, row], name, str(item))
        for train, row, name, item in pairs.select("train", "row", "benchmark", "item").iter_rows()
        if (train, row) in place and name in known
    }
    assert len(wanted) > 30_000
    texts_of = {b.name: b.texts for b in index.benchmarks}
    missing = wanted - found
    if preset == "tulu3":  # one item ("ΔH = ΔU + PΔV") has 8 tokens without Greek letters, and 7 with them
        missing = {(row, name, item) for row, name, item in missing if len(words(texts_of[name][int(item)][0])) >= 8}
    assert not missing, sorted(missing)[:5]


def test_flan_cot_holds_all_of_gsm8k_train(load, shared: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table = pl.read_parquet(shared / "instructions/flan_v2_cot.parquet")
    gsm = table.filter(pl.col("task") == "gsm8k")["question"].to_list()
    items = benchmark(column(shared, "benchmarks/gsm8k_train", "question"), "gsm8k_train")
    hits = scan_texts(gsm, build_index([items], PRESETS["tulu3"]))
    assert len({h["item_id"] for h in hits}) == 7473


def report_of(dataset: Dataset, shared: Path, names: list[str], preset: str, out: Path) -> dict[str, dict[str, object]]:
    folder = out / "yaml"
    folder.mkdir(exist_ok=True)
    local = pl.Series(LOCAL.read_text().splitlines())
    chosen = [line for line in local if line.strip().split(":")[0] in names]
    (folder / "some.yaml").write_text("\n".join(["benchmarks:", *chosen]))
    wanted = DecontamConfig(benchmarks=str(folder / "some.yaml"), root=str(shared / "benchmarks"), preset=preset)
    report = scan_dataset(dataset, wanted, out, threads=2)
    assert report["paraphrase"] == "not checked"
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report))
    return {b["benchmark"]: b for b in report["benchmarks"]}


def test_superni_mmmlu_holds_mmlu(load, shared: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = report_of(load("instructions/superni_mmmlu"), shared, ["mmlu_test", "humaneval"], "tulu3", tmp_path)
    assert found["mmlu_test"]["hit"] > 7000
    assert found["mmlu_test"]["verdict"] == "contaminated"
    assert found["humaneval"]["verdict"] == "clean"


def test_lima_and_ultrafeedback_hold_gsm8k_items(load, shared: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for name, items in (("instructions/lima", 6), ("preferences/ultrafeedback_bin_1k", 28)):
        for preset in ("tulu3", "caravan"):
            out = tmp_path / name.replace("/", "_") / preset
            out.mkdir(parents=True)
            assert report_of(load(name), shared, ["gsm8k_train"], preset, out)["gsm8k_train"]["hit"] >= items


def test_code_alpaca_against_mbpp_shows_only_by_ngrams(load, shared: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = load("instructions/new_codealpaca_4k")
    hit = {}
    for preset in ("exact", "tulu3"):
        (tmp_path / preset).mkdir()
        hit[preset] = report_of(data, shared, ["mbpp"], preset, tmp_path / preset)["mbpp"]["hit"]
    assert hit["exact"] <= 3
    assert hit["tulu3"] > 20


def test_paraphrased_humaneval_is_not_seen_and_the_report_says_what_was_not_checked(load, shared: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = report_of(load("instructions/rephrased_humaneval_py"), shared, ["humaneval"], "caravan", tmp_path)
    assert found["humaneval"]["hit"] <= 3


def test_dyck_items_cannot_be_seen_and_match_nothing(benchmarks: dict[str, Benchmark]) -> None:
    bbh = benchmarks["bbh"]
    index = build_index([bbh], PRESETS["tulu3"])
    dyck = [i for i, (text,) in enumerate(bbh.texts) if "parentheses are closed properly" in text]
    assert len(dyck) == 250
    assert index.seen[0].same >= 250
    assert scan_texts([bbh.texts[dyck[0]][0], "( [ { < > } ] )"], index) == []


def test_tulu3_counts_what_it_cannot_see(benchmarks: dict[str, Benchmark]) -> None:
    """Under 8 tokens nothing can match: a quarter of TruthfulQA, and nearly all of PopQA."""
    seen = {name: build_index([benchmarks[name]], PRESETS["tulu3"]).seen[0] for name in ("truthfulqa", "popqa")}
    assert 0.2 < seen["truthfulqa"].unseeable / seen["truthfulqa"].items < 0.3
    assert seen["popqa"].unseeable / seen["popqa"].items > 0.75


def test_the_default_rule_finds_what_it_promises_and_flags_little(load, benchmarks: dict[str, Benchmark]) -> None:  # type: ignore[no-untyped-def]
    clean = [load(f"instructions/{name}", limit=6000) for name in ("alpaca_17k", "t0_p3_subset", "natural_instructions_v1")]
    wanted = DecontamConfig(preset="caravan")
    index, _ = without_common(build_index(list(benchmarks.values()), wanted.rule()), clean, wanted.fields, 2)
    found = mean_recall(recall(index, sample=60))
    assert sum(found[edit] for edit in VERBATIM_FAMILY) / len(VERBATIM_FAMILY) >= 0.995
    assert found["1 word in 20"] >= 0.90
    assert found["1 word in 10"] >= 0.78
    lines = flags(index, clean, wanted)
    assert [line["source"] for line in lines if line["flagged"] > 0.002 * line["rows"]] == []
    assert sum(line["rows"] for line in lines) == 18_000


def test_hits_have_the_columns_others_read(benchmarks: dict[str, Benchmark]) -> None:
    _, hits = scan_batch(batch([chat("x", "y")]), build_index([benchmarks["xstest"]], PRESETS["caravan"]))
    names = "id field turn benchmark item_id item_field coverage_item coverage_row longest_run start end item_start item_end rule"
    assert hits.schema.names == names.split()
    assert isinstance(hits, pa.RecordBatch)
