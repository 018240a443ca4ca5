"""Amounts, draws and splits: exact, nested, and independent of order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columnar.config import parse
from columnar.errors import ConfigError
from curation.mix import MixConfig, MixSource, Validation, draw, draw_keys, validation_cut

IDS = st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=1, max_size=200).map(lambda x: np.array(x, np.uint64))


def source(**amount: object) -> MixSource:
    return MixSource.model_validate({"name": "s", "path": "x.jsonl", **amount})


def drawn(wanted: MixSource, ids: np.ndarray, tokens: np.ndarray, seed: int, piece: int = 7) -> np.ndarray:
    """Which of these rows a draw takes, looked at in pieces."""
    parts = [slice(start, start + piece) for start in range(0, len(ids), piece)]
    return draw(wanted, lambda: [(ids[part], tokens[part]) for part in parts], seed).takes(ids)


def held_out_of(prompts: np.ndarray, validation: Validation, seed: int, piece: int = 7) -> np.ndarray:
    """Which of the rows with these prompts go to validation."""
    parts = [slice(start, start + piece) for start in range(0, len(prompts), piece)]
    return validation_cut(validation, lambda: [prompts[part] for part in parts], seed).takes(prompts)


def tokens_of(ids: np.ndarray) -> np.ndarray:
    return (ids % np.uint64(50) + np.uint64(1)).astype(np.uint32)


@given(IDS, st.data(), st.integers(0, 5))
def test_rows_asked_are_rows_delivered_and_smaller_is_a_subset(ids: np.ndarray, data: st.DataObject, seed: int) -> None:
    many = data.draw(st.integers(1, len(ids)))
    few = data.draw(st.integers(1, many))
    larger = drawn(source(rows=many), ids, tokens_of(ids), seed)
    smaller = drawn(source(rows=few), ids, tokens_of(ids), seed)
    assert (larger.sum(), smaller.sum()) == (many, few)
    assert not (smaller & ~larger).any()


@given(IDS, st.integers(0, 5), st.randoms())
def test_a_draw_does_not_depend_on_the_order_of_rows(ids: np.ndarray, seed: int, random: object) -> None:
    shuffled = ids.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    half = source(fraction=0.5)
    assert set(ids[drawn(half, ids, tokens_of(ids), seed)]) == set(shuffled[drawn(half, shuffled, tokens_of(shuffled), seed)])


@given(IDS, st.data())
def test_tokens_never_exceed_the_budget_and_leave_less_than_a_row(ids: np.ndarray, data: st.DataObject) -> None:
    tokens = tokens_of(ids)
    budget = data.draw(st.integers(1, int(tokens.sum())))
    try:
        taken = drawn(source(tokens=budget), ids, tokens, 0)
    except ConfigError as error:
        assert "the first row drawn has" in str(error) and budget < tokens.max()
        return
    assert tokens[taken].sum() <= budget
    if not taken.all():
        assert tokens[taken].sum() + 50 >= budget


def test_asking_for_too_much_says_how_much_there_is() -> None:
    ids = np.arange(10, dtype=np.uint64)
    with pytest.raises(ConfigError, match="s: rows: 11 asked, 10 available") as caught:
        drawn(source(rows=11), ids, tokens_of(ids), 0)
    assert "repeat makes more" in str(caught.value.hint)
    with pytest.raises(ConfigError, match=r"s: tokens: 1,000 asked, 55 available in 10 rows"):
        drawn(source(tokens=1000), ids, tokens_of(ids), 0)


def test_a_cap_is_no_demand() -> None:
    ids = np.arange(10, dtype=np.uint64)
    assert drawn(source(cap=100), ids, tokens_of(ids), 0).sum() == 10
    assert drawn(source(cap=4), ids, tokens_of(ids), 0).sum() == 4


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ({"rows": 5, "fraction": 0.5}, "give exactly one of rows, fraction, tokens, all; found rows and fraction"),
        ({"all": True, "tokens": 9}, "found tokens and all"),
        ({"fraction": 1.5}, "less than or equal to 1"),
        ({"rows": 0}, "greater than 0"),
        ({"repeat": 0}, "greater than or equal to 1"),
        ({"all": False}, "leave the source out"),
    ],
)
def test_wrong_amounts_are_refused(amount: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(MixConfig, {"name": "m", "kind": "sft", "sources": [{"name": "s", "path": "x", **amount}]}, "m.yaml")


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two sources are called s"):
        parse(MixConfig, {"name": "m", "kind": "sft", "sources": [{"name": "s", "path": "x"}, {"name": "s", "path": "y"}]}, "m.yaml")


@given(st.lists(st.integers(0, 30), max_size=300), st.integers(1, 100))
def test_equal_prompts_never_stand_on_both_sides(prompts: list[int], wanted: int) -> None:
    keys = np.array(prompts, np.uint64)
    for validation in (Validation(rows=wanted), Validation(fraction=0.3)):
        if validation.rows and 0 < len(prompts) <= wanted:
            with pytest.raises(ConfigError, match="nothing would be left to train on"):
                held_out_of(keys, validation, 7)
            continue
        held_out = held_out_of(keys, validation, 7)
        assert not set(keys[held_out]) & set(keys[~held_out])
        assert validation.rows is None or held_out.sum() <= wanted


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=100, unique=True))
def test_a_fraction_split_moves_nobody_when_rows_are_added(prompts: list[int]) -> None:
    before = held_out_of(np.array(prompts[:-1], np.uint64), Validation(fraction=0.4), 3)
    after = held_out_of(np.array(prompts, np.uint64), Validation(fraction=0.4), 3)
    assert (after[:-1] == before).all()


def test_draw_keys_are_spread_and_differ_by_purpose() -> None:
    ids = np.arange(100_000, dtype=np.uint64)
    one, other = draw_keys(ids, 1, "sample:a"), draw_keys(ids, 1, "sample:b")
    assert len(np.unique(one)) == len(ids)
    for keys in (one, other, draw_keys(ids, 2, "sample:a")):
        share = np.bincount((keys >> np.uint64(60)).astype(int), minlength=16) / len(ids)
        assert abs(share - 1 / 16).max() < 0.005
    assert abs(np.corrcoef(one.astype(float), other.astype(float))[0, 1]) < 0.02
