"""The command and the stage as a user meets them: outputs, keys, exit codes, policy, removal, and input that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hand_made import batch, benchmark, chat

from columnar.errors import ConfigError, InputError, StoreError
from columnar.load import SourceSpec, load_source
from columnar.store import open_dataset, write_manifest
from decontam.benchmarks import load_benchmarks, text_of
from decontam.found import scan_batch
from decontam.index import build_index
from decontam.rules import PRESETS, DecontamConfig
from decontam.scan import main, recheck, scan_dataset

ITEM = "A farmer has seventeen sheep and all but nine of them run away, how many sheep are left on the farm?"
OTHER = "Which of the following countries has the longest border with the smallest neighbour in the whole world?"
FILLER = "Please tell me a long story about number {} and the friends it met along the way to the market."


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def instruction(prompt: str, answer: str = "Well.") -> dict[str, object]:
    return {"instruction": prompt, "input": "", "output": answer}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A dataset with two contaminated rows, and two benchmarks in a YAML."""
    rows = [instruction(FILLER.format(i)) for i in range(30)]
    rows[7] = instruction("Riddle: " + ITEM.upper())
    rows[20] = instruction("Geography", answer="Somebody asked: " + OTHER)
    load_source(SourceSpec(name="mine", path=str(write_jsonl(tmp_path / "rows.jsonl", rows))), tmp_path / "ds")
    write_jsonl(tmp_path / "riddles.jsonl", [{"q": ITEM}, {"q": "unrelated words only here in this one item"}])
    write_jsonl(tmp_path / "borders.jsonl", [{"q": OTHER, "n": 1}])
    (tmp_path / "b.yaml").write_text(
        "benchmarks:\n  riddles: {source: riddles.jsonl, fields: [q]}\n  borders: {source: borders.jsonl, fields: [q], policy: unseen}\n"
    )
    return tmp_path


def config(world: Path, **changes: object) -> DecontamConfig:
    return DecontamConfig(benchmarks=str(world / "b.yaml"), **changes)  # type: ignore[arg-type]


def test_the_command_writes_columns_hits_and_report(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(world / "ds"), "--benchmarks", str(world / "b.yaml")]) == 0
    assert "paraphrase: not checked" in capsys.readouterr().out
    columns = pl.read_parquet(world / "ds/cols/decontam.parquet")
    assert columns.columns == ["id", "contaminated", "benchmark", "coverage", "verdict", "reason"]
    rows = pl.read_parquet(world / "ds/rows/*.parquet")
    assert columns["id"].to_list() == rows["id"].to_list()
    assert columns["contaminated"].arg_true().to_list() == [7, 20]
    hits = pl.read_parquet(world / "ds/hits/decontam.parquet").to_dicts()
    assert [(h["benchmark"], h["turn"], h["coverage_item"]) for h in hits] == [("riddles", 0, 1.0), ("borders", 1, 1.0)]
    text = rows["messages"][7][0]["content"]
    assert text[hits[0]["start"] : hits[0]["end"]] == ITEM.upper().rstrip("?")
    items = pl.read_parquet(world / "ds/hits/decontam_items.parquet")
    assert items.rows() == [("borders", "0", "q", OTHER), ("riddles", "0", "q", ITEM)]
    assert ITEM[hits[0]["item_start"] : hits[0]["item_end"]] == ITEM.rstrip("?")
    report = json.loads((world / "ds/report.json").read_text())
    assert {b["benchmark"]: (b["hit"], b["rows"], b["verdict"]) for b in report["benchmarks"]} == {
        "riddles": (1, 1, "contaminated"),
        "borders": (1, 1, "contaminated"),
    }


@pytest.mark.parametrize(("kind", "code"), [("dev", 4), ("unseen", 4), ("any", 4)])
def test_fail_on(world: Path, kind: str, code: int) -> None:
    assert main([str(world / "ds"), "--benchmarks", str(world / "b.yaml"), "--fail-on", kind]) == code
    only_dev = [str(world / "ds"), "--benchmarks", str(world / "riddles.jsonl"), "--json", "--fail-on", "unseen"]
    assert main(only_dev) == 2  # `q` is no well-known name: it must be named


def test_any_file_can_be_scanned_and_json_goes_to_stdout(world: Path) -> None:
    command = [sys.executable, "-m", "decontam.scan", str(world / "rows.jsonl"), "--benchmarks", str(world / "b.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rows"]["drop"] == 2
    out = world / "out"
    assert main([str(world / "rows.jsonl"), "--benchmarks", str(world / "b.yaml"), "--out", str(out)]) == 0
    assert (out / "hits/decontam.parquet").is_file()


def test_same_key_is_not_scanned_again_and_changes_are(world: Path) -> None:
    dataset = open_dataset(world / "ds")
    scan_dataset(dataset, config(world))
    before = (world / "ds/cols/decontam.parquet").stat().st_mtime_ns
    scan_dataset(dataset, config(world))
    assert (world / "ds/cols/decontam.parquet").stat().st_mtime_ns == before
    write_jsonl(world / "borders.jsonl", [{"q": "another question that nobody in the data has ever thought of asking", "n": 1}])
    assert scan_dataset(dataset, config(world))["rows"]["drop"] == 1
    assert scan_dataset(dataset, config(world, threshold=0.01))["key"] != scan_dataset(dataset, config(world))["key"]


def test_policy_decides_between_dropping_and_reporting(world: Path) -> None:
    report = scan_dataset(open_dataset(world / "ds"), config(world, policy={"dev": "report"}))
    assert report["rows"] == {"rows": 30, "contaminated": 2, "report": 1, "drop": 1}


def test_recheck_finds_what_was_left(world: Path) -> None:
    scan_dataset(open_dataset(world / "ds"), config(world))
    with pytest.raises(StoreError, match="2 rows still hold"):
        recheck(open_dataset(world / "ds").row_files, config(world), world / "ds")
    recheck(open_dataset(world / "ds").row_files, config(world, policy={"dev": "report", "unseen": "report"}), world / "ds")
    clean = [instruction(FILLER.format(i)) for i in range(5)]
    load_source(SourceSpec(name="clean", path=str(write_jsonl(world / "clean.jsonl", clean))), world / "clean")
    recheck(open_dataset(world / "clean").row_files, config(world), world / "ds")


def test_recheck_leaves_out_the_ngrams_that_the_first_scan_left_out(tmp_path: Path) -> None:
    """What only both sources together show to be common is still common when one of them is gone."""
    stock = "Write a function to check whether the given"
    write_jsonl(tmp_path / "items.jsonl", [{"question": f"{stock} string is {word}"} for word in ("empty", "sorted", "short")])
    for name in "ab":
        rows = [instruction(f"{stock} string has {i} letters in it, {name} {i}") for i in range(5)]
        load_source(SourceSpec(name=name, path=str(write_jsonl(tmp_path / f"{name}.jsonl", rows))), tmp_path / name)
    files = [file for name in "ab" for file in open_dataset(tmp_path / name).row_files]
    (tmp_path / "both/rows").mkdir(parents=True)
    pl.concat([pl.read_parquet(file) for file in files]).write_parquet(tmp_path / "both/rows/part-00000.parquet")
    identity = {"name": "both", "kind": "sft", "rows": 10, "rows_sha256": "both"}
    write_manifest(tmp_path / "both", identity, 0.0)
    wanted = DecontamConfig(benchmarks=str(tmp_path / "items.jsonl"), threshold=0.6)
    report = scan_dataset(open_dataset(tmp_path / "both"), wanted)
    assert (report["common_ngrams"] > 0, report["rows"]["drop"]) == (True, 0)
    assert scan_dataset(open_dataset(tmp_path / "a"), wanted)["rows"]["drop"] == 5  # alone, nothing is common
    recheck(open_dataset(tmp_path / "a").row_files, wanted, tmp_path / "both")


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_gives_the_same_with_any_number_of_threads(world: Path, preset: str) -> None:
    made = []
    for threads in (1, 3):
        out = world / f"{preset}-{threads}"
        scan_dataset(open_dataset(world / "ds"), config(world, preset=preset, roles=["user", "assistant"]), out, threads)
        made.append(
            [
                (out / part).read_bytes()
                for part in ("cols/decontam.parquet", "hits/decontam.parquet", "hits/decontam_items.parquet", "report.json")
            ]
        )
        assert pl.read_parquet(out / "cols/decontam.parquet")["contaminated"].sum() == 2
    assert made[0] == made[1]


def test_common_speech_of_several_sources_is_no_evidence(tmp_path: Path) -> None:
    """Two sources that use a stock opening on their own make it common; a source that copies the item does not."""
    stock = "Write a function to check whether the given"
    items = benchmark([f"{stock} {rest}" for rest in ("string is empty", "year is a leap year", "list is sorted in order")])
    rows = [chat(f"{stock} tree number {i} is balanced", "ok", ident=f"{s}{i}", source=s) for s in "ab" for i in range(5)]
    rows += [chat(items.texts[0][0], "ok", ident="copy", source="c")]
    index = build_index([items], PRESETS["caravan"])
    from decontam.common import with_common
    from decontam.found import mark_batch
    from decontam.match import scratch_for

    scratch = scratch_for(index.table)
    users = pa.array(["abc".index(str(r["source"])) for r in rows], pa.int32()).to_numpy()
    mark_batch(batch(rows), index, scratch, users)
    index = with_common(index, scratch.common)
    assert 0 < index.table.common.sum() <= 5
    columns, hits = scan_batch(batch(rows), index)
    assert set(hits.column("id").to_pylist()) == {"copy"}
    assert columns.column("reason").to_pylist()[-1].startswith("caravan")


@pytest.mark.parametrize(
    ("decide", "row", "found"),
    [("any", "passage", True), ("all", "passage", False), ("all", "both", True), ("any", "question", True)],
)
def test_fields_decide_alone_or_together_and_are_never_averaged(decide: str, row: str, found: bool) -> None:
    fields = {"question": ITEM, "passage": OTHER, "both": f"{OTHER}\n{ITEM}"}
    items = benchmark([[ITEM, OTHER], [ITEM + " Really, tell me at once!", ""]], fields=["question", "passage"], decide=decide)
    columns, hits = scan_batch(batch([chat(fields[row], "ok")]), build_index([items], PRESETS["tulu3"]))
    assert columns.column("contaminated").to_pylist() == [found or row == "question"]
    if row != "passage" and decide == "all":
        assert "1" in hits.column("item_id").to_pylist()  # without a passage, the question alone decides


def test_evidence_fields_do_not_decide() -> None:
    items = benchmark([[ITEM, OTHER]], fields=["question", "solution"], deciding=["question"])
    index = build_index([items], PRESETS["tulu3"])
    alone, _ = scan_batch(batch([chat(OTHER, "ok")]), index)
    assert alone.column("contaminated").to_pylist() == [False]
    _, hits = scan_batch(batch([chat(f"{ITEM}\n\n{OTHER}", "ok")]), index)
    assert hits.column("item_field").to_pylist() == ["question", "solution"]


def test_items_without_tokens_are_counted_and_match_nothing() -> None:
    index = build_index([benchmark(["( [ { <", "", "…", "one"])], PRESETS["tulu3"])
    assert (index.seen[0].items, index.seen[0].empty, index.seen[0].short) == (4, 3, 1)
    columns, _ = scan_batch(batch([chat("( [ { < one", ""), chat("", "")]), index)
    assert columns.column("contaminated").to_pylist() == [False, False]


@pytest.mark.parametrize(
    "text",
    [
        "如何在不伤害植物的情况下给室内植物浇水和施肥？",
        "週末に東京で一番おいしいラーメン屋を教えてください。",
        "ช่วยแนะนำร้านอาหารอร่อยๆ ในเชียงใหม่หน่อยครับ",
    ],
)
def test_scripts_without_spaces(text: str) -> None:
    for preset in ("caravan", "tulu3", "exact"):
        columns, hits = scan_batch(
            batch([chat(f"你好。\n{text}\n谢谢", "ok"), chat(text[: len(text) // 4], "ok")]),
            build_index([benchmark([text])], PRESETS[preset]),
        )
        assert columns.column("contaminated").to_pylist() == [True, False]
        hit = hits.to_pylist()[0]
        assert text.startswith(f"你好。\n{text}\n谢谢"[hit["start"] : hit["end"]])


def test_a_huge_row_and_a_row_of_one_token() -> None:
    huge = "lorem ipsum dolor " * 550_000 + ITEM
    columns, hits = scan_batch(
        batch([chat(huge, "ok"), chat("a " * 2_000_000, "ok")]), build_index([benchmark([ITEM, "a " * 40])], PRESETS["caravan"])
    )
    assert columns.column("contaminated").to_pylist() == [True, True]
    assert hits.column("start").to_pylist()[0] == len(huge) - len(ITEM)


def test_zero_rows_and_binary_junk(tmp_path: Path) -> None:
    index = build_index([benchmark([ITEM])], PRESETS["caravan"])
    columns, hits = scan_batch(batch([]), index)
    assert (columns.num_rows, hits.num_rows) == (0, 0)
    junk = bytes(range(256)).decode("latin-1") * 50 + "\x00\ufffd\U0010ffff"
    assert scan_batch(batch([chat(junk, junk)]), index)[0].column("verdict").to_pylist() == ["clean"]


def test_wrong_benchmarks_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none to look for"):
        load_benchmarks([])
    with pytest.raises(ConfigError, match="did you mean 'gsm8k'"):
        load_benchmarks("gsm9k")
    write_jsonl(tmp_path / "x.jsonl", [{"question": "a"}, {"question": None}])
    (tmp_path / "x.yaml").write_text("benchmarks:\n  x: {source: x.jsonl, fields: [qestion]}\n")
    with pytest.raises(InputError, match="no record has the field 'qestion'") as caught:
        load_benchmarks(str(tmp_path / "x.yaml"))
    assert "question" in str(caught.value.hint)
    (tmp_path / "x.yaml").write_text("benchmarks:\n  x: {source: x.jsonl, field: [question]}\n")
    with pytest.raises(ConfigError, match="did you mean 'fields'"):
        load_benchmarks(str(tmp_path / "x.yaml"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no benchmark files"):
        load_benchmarks(str(tmp_path / "empty"))


def test_a_bare_folder_is_guessed_and_says_what_it_guessed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "one.jsonl", [{"id": "q1", "Question": ITEM, "answer": "nine"}])
    write_jsonl(tmp_path / "two.json", [{"turns": ["first turn", "second turn"], "category": "c"}])
    one, two = load_benchmarks(str(tmp_path))
    assert (one.ids, one.texts, one.guessed) == (["q1"], [[ITEM, "nine"]], "Question decides, evidence: answer")
    assert two.texts == [["first turn\nsecond turn"]]


def test_field_expressions() -> None:
    record = {"a": {"b": ["x", "y"]}, "n": 3, "code": 'def f():\n    """Add numbers.\n    >>> f()\n    """\n'}
    assert [text_of(record, f) for f in ("a.b", "a.b.1", "n", "a.b.0+n", "docstring(code)", "a.z")] == [
        "x\ny",
        "y",
        "3",
        "x\n3",
        "Add numbers.",
        None,
    ]


def test_registry_is_well_formed() -> None:
    from columnar.config import parse, read_yaml
    from decontam.benchmarks import REGISTRY, BenchmarkFile

    registry = parse(BenchmarkFile, read_yaml(REGISTRY), "registry")
    for names in registry.suites.values():
        assert set(names) <= set(registry.benchmarks)
    assert len(registry.suites["tulu3"]) >= 23
    for spec in registry.benchmarks.values():
        assert spec.source.startswith("hf://datasets/")
        assert set(spec.deciding or []) <= set(spec.fields)
