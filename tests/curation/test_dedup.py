"""What duplicate removal promises: nothing is removed below the threshold, planted duplicates go, the right copy stays, always the same."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from duplicates import grams, jaccard, make, marks, message, real_rows, sft
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from columnar import cli
from columnar.config import parse
from columnar.errors import ConfigError, StoreError
from columnar.record import texts_of
from columnar.store import Dataset, open_dataset
from curation import dedup, verify
from curation.dedup import DedupConfig, NearConfig
from curation.duplicate_report import report, search, write
from curation.lsh import choose_bands, recall

TEXT = " ".join(
    [
        "the quick brown fox jumps over the lazy dog while seven small cats watch from a warm red roof and think about dinner tonight",
        "nobody in this quiet street would believe how many animals meet there after the last lamp has gone out for good",
        "yet every morning the baker finds fresh paw marks in his flour and smiles without ever asking where they came from",
    ]
)


def variant(edits: int, seed: int = 0, text: str = TEXT) -> str:
    """The text with so many of its words replaced."""
    words, rng = text.split(), random.Random(seed)
    for i in rng.sample(range(len(words)), edits):
        words[i] = f"w{rng.randrange(10**9)}"
    return " ".join(words)


def run(datasets: list[Dataset], **config) -> pl.DataFrame:
    """Marks of all datasets, one under the other."""
    checked = parse(DedupConfig, config, "test")
    found, everything = search(datasets, checked)
    write(found, everything, checked)
    return pl.concat([marks(dataset) for dataset in datasets])


def check(rows: list[dict], table: pl.DataFrame, threshold: float, by: str = "row") -> None:
    """Every mark is true: the kept row is kept, the Jaccard is the one of the texts and reaches the threshold."""
    place = {i: n for n, i in enumerate(table["id"])}
    sets = [grams(row, by=by) for row in rows]
    for mine, line in zip(sets, table.iter_rows(named=True), strict=True):
        if line["reason"] is None:
            assert line["kept_id"] is None and line["jaccard"] is None and line["cluster"] in (None, line["id"])
            continue
        assert line["cluster"] == line["kept_id"]
        kept = place[line["kept_id"]]
        assert table["reason"][kept] is None and table["cluster"][kept] == line["kept_id"]
        true = jaccard(mine, sets[kept])
        if line["reason"] == "near_duplicate":
            assert true >= threshold
            assert line["jaccard"] == pytest.approx(true, abs=1e-12)
        else:
            assert line["reason"] == "exact_duplicate" and line["jaccard"] == 1.0


def test_planted_duplicates(tmp_path):
    rows = [
        sft("Tell me", TEXT),
        sft("tell  ME", TEXT.upper()),  # exact: case and white space do not count
        sft("Tell me", variant(1)),  # near
        sft("Tell me", variant(20)),  # too far
        sft("Tell me", "something else entirely that has nothing to do with any of it"),
    ]
    table = run([make(tmp_path / "d", rows)], near=True)
    assert table["reason"].to_list() == [None, "exact_duplicate", "near_duplicate", None, None]
    assert table["kept_id"].to_list()[1:3] == [table["id"][0]] * 2
    check(rows, table, 0.7)
    hits = pl.read_parquet(tmp_path / "d" / "hits" / "duplicates.parquet")
    assert hits["kind"].to_list() == ["exact", "near"] and hits["band"].to_list()[0] is None
    assert abs(hits["estimate"][1] - hits["jaccard"][1]) < 0.2


def test_no_drift_along_a_chain(tmp_path):
    """a~b, b~c, c~d, but d is far from a: a chain of pairs must not remove it for a's sake."""
    words = TEXT.split()
    texts = [" ".join(words[8 * i :] + [f"x{j}" for j in range(8 * i)]) for i in range(5)]
    rows = [sft("", text) for text in texts]
    sets = [grams(row) for row in rows]
    assert jaccard(sets[0], sets[1]) >= 0.7 > jaccard(sets[0], sets[2])
    table = run([make(tmp_path / "d", rows)], near={"num_perm": 128, "bands": 128, "rows": 1})
    check(rows, table, 0.7)
    assert table["reason"].to_list() == [None, "near_duplicate", None, "near_duplicate", None]


def test_removed_rows_of_real_data_are_duplicates_and_the_rest_are_not(tmp_path, shared):
    """Against all pairs in plain Python: precision is exactly 1, recall what the banding promises."""
    rows = real_rows(shared, "t0_p3_subset.parquet", "prompt", "completion", 300)
    rows += real_rows(shared, "evol_codealpaca_4k.parquet", "instruction", "output", 150)
    rows += real_rows(shared, "gpt4_alpaca_1k.parquet", "instruction", "output", 150)
    table = run([make(tmp_path / "d", rows)], near=True)
    check(rows, table, 0.7)
    sets = [grams(row) for row in rows]
    kept = [i for i, reason in enumerate(table["reason"]) if reason is None]
    missed = [
        jaccard(sets[i], sets[j])
        for i, j in combinations(kept, 2)
        if min(len(sets[i]), len(sets[j])) >= 0.7 * max(len(sets[i]), len(sets[j]))
    ]
    missed = [value for value in missed if value >= 0.7]
    found = (table["reason"] == "near_duplicate").sum()
    assert found > 100
    assert len(missed) <= 0.03 * found
    bands = choose_bands(0.7, 112)
    assert all(recall(value, *bands) < 0.999 for value in missed), "only pairs just above the threshold may be missed"


def test_sharegpt_dummy(tmp_path, shared):
    """FastChat's identity questions: 500 chats, few different ones."""
    frame = pl.read_parquet(shared / "instructions" / "sharegpt_dummy_500.parquet")
    roles = {"human": "user", "gpt": "assistant"}
    rows = [
        {"kind": "sft", "source": "s", "messages": [message(roles[turn["from"]], turn["value"]) for turn in chat]}
        for chat in (json.loads(c) if isinstance(c, str) else c for c in frame["conversations"])
    ]
    table = run([make(tmp_path / "d", rows)], near=True, by="prompt", keep="longest")
    check(rows, table, 0.7, by="prompt")
    assert table["reason"].null_count() < 160


texts = st.lists(st.sampled_from(["a", "b", "c", "dd", "É", "什么", "9", ""]), max_size=14).map(" ".join)
some_rows = st.lists(st.tuples(texts, texts, st.sampled_from(["s", "t"])), max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some_rows,
    st.sampled_from(["row", "prompt"]),
    st.sampled_from(["source_order", "longest", "first"]),
    st.sampled_from(["all", "source"]),
    st.sampled_from([0.3, 0.7, 1.0]),
)
def test_marks_are_always_true(tmp_path_factory, lines, by, keep, scope, threshold):
    rows = [sft(q, a, s) for q, a, s in lines]
    folder = tmp_path_factory.mktemp("d")
    dataset = make(folder, rows)
    table = run([dataset], by=by, keep=keep, scope=scope, near={"threshold": threshold, "num_perm": 64, "bands": 64, "rows": 1, "ngram": 2})
    place = {i: n for n, i in enumerate(table["id"])}
    for row, line in zip(rows, table.iter_rows(named=True), strict=True):
        if line["reason"] is None:
            continue
        kept = rows[place[line["kept_id"]]]
        assert table["reason"][place[line["kept_id"]]] is None
        assert scope == "all" or kept["source"] == row["source"]
        assert jaccard(grams(row, 2, by), grams(kept, 2, by)) >= threshold or line["reason"] == "exact_duplicate"
        if keep == "longest":
            assert length(kept) >= length(row)
        else:
            assert place[line["kept_id"]] < place[line["id"]]
    said = pl.read_parquet(
        dataset.row_files[0], columns=["hash" if by == "row" else "prompt_hash", *(["source"] if scope == "source" else [])]
    )
    assert not said.filter(table["reason"].is_null()).is_duplicated().any(), "no two kept rows say the same"


def length(row: dict) -> int:
    return sum(len(text) for *_, text in texts_of(row))


def test_the_result_does_not_depend_on_shards_blocks_or_memory(tmp_path, shared, monkeypatch):
    rows = real_rows(shared, "t0_p3_subset.parquet", "prompt", "completion", 600)
    whole = run([make(tmp_path / "a" / "d", rows)], near=True, keep="longest")
    monkeypatch.setattr(verify, "BLOCK_ROWS", 7)
    monkeypatch.setattr(verify, "BLOCK_WORDS", 3000)
    monkeypatch.setattr("curation.duplicate_search.IN_MEMORY", 0)
    assert run([make(tmp_path / "b" / "d", rows, shard_rows=90)], near=True, keep="longest").equals(whole)
    assert (whole["reason"] == "near_duplicate").sum() > 50


def test_source_order_longest_and_score(tmp_path):
    a = make(tmp_path / "a", [sft("Q", TEXT, "a")])
    b = make(tmp_path / "b", [sft("Q", TEXT + " indeed", "b")])
    kept = {}
    for keep in ("source_order", "longest"):
        for order in ([a, b], [b, a]):
            table = run(order, near=True, keep=keep)
            assert table["reason"].null_count() == 1
            kept[keep, order[0].path.name] = "ab" if table.filter(pl.col("reason").is_null())["id"][0] == marks(a)["id"][0] else "ba"
    assert kept == {("source_order", "a"): "ab", ("source_order", "b"): "ba", ("longest", "a"): "ba", ("longest", "b"): "ba"}
    pair = {"kind": "pair", "source": "p", "prompt": [message("user", TEXT)]}
    sides = {"chosen": [message("assistant", "yes")], "rejected": [message("assistant", "no")]}
    pairs = [{**pair, **sides, "chosen_score": score} for score in (1.0, None, 5.0, float("nan"))]
    dataset = make(tmp_path / "p", pairs)
    assert run([dataset], keep="highest_score", score="chosen_score")["reason"].to_list() == [
        "exact_duplicate",
        "exact_duplicate",
        None,
        "exact_duplicate",
    ]
    with pytest.raises(ConfigError, match=r"no column judge\.overall"):
        run([dataset], keep="highest_score", score="judge.overall")


def test_kinds_meet_by_prompt_only(tmp_path):
    """An SFT row and an RLVR prompt are different rows, but ask the same."""
    chat = make(tmp_path / "chat", [sft(TEXT, "yes")])
    task = make(tmp_path / "task", [{"kind": "prompt", "source": "t", "prompt": [message("user", TEXT)]}])
    near = make(tmp_path / "near", [{"kind": "prompt", "source": "t", "prompt": [message("user", variant(1))]}])
    assert run([chat, task], near={"threshold": 0.5})["reason"].to_list() == [None, None]
    assert run([chat, task, near], by="prompt", near=True)["reason"].to_list() == [None, "exact_duplicate", "near_duplicate"]


def test_system_prompts_do_not_make_rows_alike(tmp_path):
    system = message("system", TEXT * 20)
    rows = [{"kind": "sft", "source": "s", "messages": [system, *sft(f"Question {i}", f"Answer {i * i}")["messages"]]} for i in range(5)]
    dataset = make(tmp_path / "d", rows)
    assert run([dataset], near=True)["reason"].null_count() == 5
    assert run([dataset], near={"system": True})["reason"].null_count() == 1


def test_rows_that_ask_nothing_are_not_duplicates_by_prompt(tmp_path):
    rows = [
        {"kind": "pair", "source": "p", "prompt": [], "chosen": [message("assistant", f"{i}")], "rejected": [message("assistant", "x")]}
        for i in range(3)
    ]
    assert run([make(tmp_path / "d", rows)], by="prompt", near=True)["reason"].null_count() == 3


def test_against_marks_only_mine(tmp_path):
    evals = make(tmp_path / "evals", [sft(TEXT, ""), sft(TEXT, ""), sft("What is 2 + 2 in the usual numbers?", "")])
    mine = make(
        tmp_path / "mine",
        [sft(variant(1), "a"), sft(variant(1), "b"), sft("Unrelated question about the weather in Rome", "c"), sft(TEXT, "d")],
    )
    table = run([mine], by="prompt", near=True, against=[str(evals.path)])
    ids = evals_ids(evals)
    assert table["reason"].to_list() == ["near_duplicate", "near_duplicate", None, "exact_duplicate"]
    assert table["kept_id"].to_list() == [ids[0], ids[0], None, ids[0]]
    assert not (evals.path / "hits").exists() and not evals.sidecar("dedup").exists()
    found, _ = search([mine], parse(DedupConfig, {"by": "prompt", "near": True, "against": [str(evals.path)]}, "t"))
    assert report(found, parse(DedupConfig, {"against": [str(evals.path)]}, "t"))["sources"][0]["against"] == 3


def evals_ids(dataset: Dataset) -> list[str]:
    return pl.read_parquet(dataset.row_files[0], columns=["id"])["id"].to_list()


def test_hostile_rows(tmp_path):
    long = "word " * 2_000_000
    rows = [
        sft(long, long),
        sft(long, long + "x"),
        sft("", ""),
        sft("...", "!"),
        sft("?!", "—"),
        sft("a" * 100_000, ""),
        sft("\x00", "\x01"),
    ]
    table = run([make(tmp_path / "d", rows)], near=True)
    assert table["reason"].to_list() == [None] + [None] * 6, "one n-gram against two is a Jaccard of a half; symbols have no n-grams"


@pytest.mark.parametrize("rows", [[], [("q", "a")], [("", "")] * 3])
def test_small_inputs(tmp_path, rows):
    table = run([make(tmp_path / "d", [sft(q, a) for q, a in rows])], near=True)
    assert len(table) == len(rows) and table["reason"].null_count() == min(1, len(rows))


def test_families_are_fast(tmp_path):
    """50,000 identical rows, 20,000 near-copies of one, 20,000 that share nothing: seconds (a quadratic search takes hours)."""
    rng = np.random.default_rng(0)
    words = [" ".join(f"w{n}" for n in line) for line in rng.integers(0, 10**9, (20_000, 12)).tolist()]
    rows = [sft("Q", TEXT)] * 50_000 + [sft("Q", variant(1, seed)) for seed in range(20_000)] + [sft("Q", text) for text in words]
    table = run([make(tmp_path / "d", rows)], near=True)
    counts = dict(table.group_by("reason").len().iter_rows())
    assert counts["exact_duplicate"] + counts["near_duplicate"] >= 49_999 + 19_500 and counts[None] >= 20_001
    assert not (table["jaccard"] < 0.7).any()


def test_thousands_of_rows_in_a_bucket_that_are_no_duplicates(tmp_path):
    """A template with different fillings: everyone shares a band with everyone, nobody is near."""
    rng = np.random.default_rng(1)
    rows = [sft(TEXT, " ".join(f"w{n}" for n in line)) for line in rng.integers(0, 10**9, (5_000, 20)).tolist()]
    table = run([make(tmp_path / "d", rows)], near={"num_perm": 64, "bands": 64, "rows": 1})
    assert table["reason"].null_count() == 5_000


def test_configs_that_make_no_sense_are_refused():
    for data, message_part in [
        ({"near": {"threshold": 0}}, "greater than 0"),
        ({"near": {"bands": 10}}, "bands and rows belong together"),
        ({"near": {"bands": 30, "rows": 5}}, "need 150 permutations"),
        ({"by": "prompt", "near": {"by": "row"}}, "near.by must be prompt"),
        ({"semantic": {}}, "exactly one of embeddings"),
        ({"treshold": 1}, "unknown key"),
    ]:
        with pytest.raises(ConfigError, match=message_part):
            parse(DedupConfig, data, "test")
    assert parse(DedupConfig, {"by": "prompt", "near": True}, "t").near == NearConfig(by="prompt")
    assert parse(DedupConfig, {"near": False}, "t").near is None


def command(*arguments: str | Path) -> int:
    return cli.run(dedup.main, dedup.parser(), [str(a) for a in arguments])


def test_the_command(tmp_path, capsys):
    a = make(tmp_path / "a", [sft("Q", TEXT, "one"), sft("Q", variant(1), "two")])
    b = make(tmp_path / "b", [sft("Q", variant(1, 5), "three"), sft("Q", "x", "three")])
    assert command(a.path, b.path, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "semantic: not checked" in printed.err and "largest_cluster" in printed.out
    assert pl.read_parquet(tmp_path / "out" / "duplicates.parquet")["kept_source"].to_list() == ["one", "one"]
    assert pl.read_parquet(b.path / "hits" / "duplicates.parquet").height == 1
    signed = a.sidecar("minhash").stat().st_mtime_ns
    before = a.sidecar("dedup").read_bytes()
    assert command(a.path, b.path, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert {s["source"]: s["near"] for s in made["sources"]} == {"one": 0, "two": 1, "three": 1}
    assert a.sidecar("minhash").stat().st_mtime_ns == signed, "signatures are reused"
    assert a.sidecar("dedup").read_bytes() == before, "the same run gives the same bytes"
    assert command(tmp_path / "nothing") == 1 and command(a.path, a.path) == 2 and command(a.path, "--threshold", "2") == 2


def test_unsigned_datasets_are_refused(tmp_path):
    from curation.duplicate_keys import keys_of
    from curation.duplicate_search import find_duplicates

    dataset = open_dataset(make(tmp_path / "d", [sft("a", "b")]).path)
    config = DedupConfig(near=NearConfig())
    with pytest.raises(StoreError, match="no signatures"):
        find_duplicates(keys_of([dataset], [0], config), [dataset], config)
