"""The kernel against the plain-Python twin: the same (row, item, coverage), spans that are the matched text, whatever the batches."""

from __future__ import annotations

from dataclasses import replace

import ngram_oracle as oracle
import pyarrow as pa
import pytest
from hand_made import batch, benchmark, chat
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import match
from decontam.found import own_sentence, scan_batch
from decontam.index import build_index
from decontam.rules import PRESETS, Rule, tokens_aligned, tokens_needed

WORDS = ["a", "B", "c's", "dé", "e—f", "中文", "ไทย", "x_1", "…", "\n", "🙂"]
text = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
COVERAGE = Rule("plain", "-", n=3, coverage=((1, 0.3),))


def hits_of(rule: Rule, items: list[str], rows: list[list[str]]) -> dict[tuple[str, int, str], dict[str, object]]:
    """Hits by (row id, turn, item)."""
    index = build_index([benchmark(items)], rule)
    _, hits = scan_batch(batch([chat(*turns, ident=str(i)) for i, turns in enumerate(rows)]), index)
    return {(h["id"], h["turn"], h["item_id"]): h for h in hits.to_pylist()}


@settings(max_examples=150, deadline=None)
@given(st.lists(text, min_size=1, max_size=5), st.lists(st.lists(text, min_size=1, max_size=3), min_size=1, max_size=3))
def test_coverage_is_that_of_the_oracle(items: list[str], rows: list[list[str]]) -> None:
    found = hits_of(COVERAGE, items, rows)
    expected = {}
    for r, turns in enumerate(rows):
        said = [oracle.words(t) for t in turns]
        for i, item in enumerate(items):
            tokens = oracle.words(item)
            count = sum(oracle.covered(tokens, said, 3))
            if count and count >= tokens_needed(COVERAGE, pa.array([len(tokens)]).to_numpy())[0]:
                for t, turn in enumerate(said):
                    if any(oracle.covered(tokens, [turn], 3)):
                        inverse = sum(oracle.covered(turn, [tokens], 3)) / len(turn)
                        expected[str(r), t, str(i)] = (count / len(tokens), inverse, oracle.longest_run(tokens, turn))
    assert {k: (h["coverage_item"], h["coverage_row"], h["longest_run"]) for k, h in found.items()} == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(text, min_size=1, max_size=4), st.lists(text, min_size=1, max_size=3))
def test_spans_are_the_matched_text_on_both_sides(items: list[str], turns: list[str]) -> None:
    for (_, turn, item), hit in hits_of(COVERAGE, items, [turns]).items():
        theirs = oracle.words(turns[turn][hit["start"] : hit["end"]])
        assert theirs == oracle.words(items[int(item)][hit["item_start"] : hit["item_end"]])
        assert len(theirs) == hit["longest_run"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=20).map(" ".join), min_size=1, max_size=4),
    st.lists(st.lists(st.sampled_from("abcd"), max_size=30).map(" ".join), min_size=1, max_size=3),
)
def test_alignment_and_skip_budget_are_those_of_the_oracle(items: list[str], turns: list[str]) -> None:
    near = replace(COVERAGE, coverage=((1, 2.0),), aligned=((1, 0.5),), whole_items=False)
    said = [turn.split() for turn in turns]
    found = {item: hit["coverage_item"] for (_, _, item), hit in hits_of(near, items, [turns]).items()}
    expected = {}
    for i, item in enumerate(map(str.split, items)):
        need = tokens_aligned(near, pa.array([len(item)]).to_numpy())[0]
        if need and (best := oracle.aligned(item, said, 3)) >= need:
            expected[str(i)] = max(best, sum(oracle.covered(item, said, 3))) / len(item)
    assert found == expected

    skip = replace(COVERAGE, skip_budget=2)
    found = {item: hit["coverage_item"] for (_, _, item), hit in hits_of(skip, items, [turns]).items()}
    shares = {str(i): oracle.skip_covered(item, said, 3, 2) / len(item) for i, item in enumerate(map(str.split, items)) if item}
    assert found == {i: share for i, share in shares.items() if share and share >= 0.3 - 1e-12}


@settings(max_examples=30, deadline=None)
@given(st.lists(text, min_size=1, max_size=4), st.lists(text, min_size=2, max_size=8), st.integers(1, 3))
def test_results_do_not_depend_on_the_batches(items: list[str], rows: list[str], size: int) -> None:
    index = build_index([benchmark(items)], PRESETS["caravan"])
    made = [chat(t, "yes", ident=str(i)) for i, t in enumerate(rows)]
    whole = scan_batch(batch(made), index)
    parts = [scan_batch(batch(made[i : i + size]), index) for i in range(0, len(made), size)]
    for side in (0, 1):
        assert pa.Table.from_batches([part[side] for part in parts]).to_pylist() == whole[side].to_pylist()


def test_more_evidence_than_there_is_room_for_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [f"the same beginning of all items and then number {i}" for i in range(40)]
    rows = [[items[0], items[1], "nothing"], ["nothing"], [items[2]], items[3:9]]
    roomy = hits_of(COVERAGE, items, rows)
    monkeypatch.setattr(match, "LINES", 1)
    assert hits_of(COVERAGE, items, rows) == roomy
    assert len(roomy) > 300


def test_an_item_spread_over_two_turns_is_one_row() -> None:
    item = "one two three four five six seven eight nine ten eleven twelve"
    found = hits_of(
        replace(COVERAGE, coverage=((1, 1.0),)), [item], [["one two three four five six", "seven eight nine ten eleven twelve"]]
    )
    assert {k: h["coverage_item"] for k, h in found.items()} == {("0", 0, "0"): 1.0, ("0", 1, "0"): 1.0}


def test_sliced_batches_null_fields_and_pairs() -> None:
    item = "how many clips did natalia sell altogether in april and may"
    pair = {
        "id": "p",
        "kind": "pair",
        "source": "s",
        "prompt": chat("hello")["messages"][:1],
        "chosen": [{"role": "assistant", "content": item}],
    }
    pair["rejected"] = [{"role": "assistant", "content": None}]
    candidates = {
        "id": "c",
        "kind": "candidates",
        "source": "s",
        "prompt": pair["prompt"],
        "candidates": [{"content": "no"}, {"content": item.upper()}],
    }
    rows = batch([chat(item), pair, chat("x", "y", ident="z"), candidates]).slice(1)
    columns, hits = scan_batch(rows, build_index([benchmark([item])], PRESETS["caravan"]))
    assert columns.column("contaminated").to_pylist() == [True, False, True]
    assert [(h["id"], h["field"], h["turn"], h["start"], h["end"]) for h in hits.to_pylist()] == [
        ("p", "chosen", 0, 0, len(item)),
        ("c", "candidates", 1, 0, len(item)),
    ]


@pytest.mark.parametrize(
    ("roles", "expected"), [(("user",), [False, True]), (("assistant",), [True, False]), (("system",), [False, False])]
)
def test_only_the_rules_roles_are_read(roles: tuple[str, ...], expected: list[bool]) -> None:
    item = "how many clips did natalia sell altogether in april and may"
    rows = batch([chat("x", item, ident="1"), chat(item, "x", ident="2")])
    columns, _ = scan_batch(rows, build_index([benchmark([item])], replace(PRESETS["tulu3"], roles=roles)))
    assert columns.column("contaminated").to_pylist() == expected


@pytest.mark.parametrize(
    ("found", "stands"),
    [
        ("What is it? Why is the desert sky blue? I wonder.", True),
        ("Why is the desert sky blue", True),
        ("- Why is the desert sky blue\n- Why not", True),
        ('He asked "Why is the desert sky blue?"', True),
        ("Tell me why is the desert sky blue", False),
        ("Why is the desert sky blue in the north?", False),
        ("Why is the desert sky blue's shade. Why is the desert sky blue!", True),
        ("Why is the desert sky blue's shade", False),
    ],
)
def test_short_items_must_be_a_sentence_of_their_own(found: str, stands: bool) -> None:
    start = found.lower().index("why is the desert sky blue")
    assert (own_sentence(found, start, start + len("why is the desert sky blue")) is not None) == stands
    columns, _ = scan_batch(batch([chat(found, "x")]), build_index([benchmark(["Why is the desert sky blue?"])], PRESETS["caravan"]))
    assert columns.column("contaminated").to_pylist() == [stands]


def test_symbols_that_a_short_item_ends_with_belong_to_it() -> None:
    index = build_index([benchmark(["If 12x + 17 = 19, then x ="])], PRESETS["exact"])
    columns, _ = scan_batch(
        batch([chat(f"Solve. If 12x + 17 = 19, then x {rest}", "6", ident=rest) for rest in ("=", "=\n(A)", "is")]), index
    )
    assert columns.column("contaminated").to_pylist() == [True, True, False]
