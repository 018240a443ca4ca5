"""The word diff and the shared passages: right, and fast whatever the texts hold."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.diff import word_diff
from app.evidence import merged, shared_passages

TEXT = st.text(alphabet=st.sampled_from("ab c\n.,d日本\u202e<é"), max_size=200)


def words_of(text: str, spans: list[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in spans]


def left(text: str, spans: list[tuple[int, int]]) -> str:
    """The text without the spans and without white space."""
    for start, end in reversed(spans):
        text = text[:start] + " " + text[end:]
    return "".join(text.split())


def test_a_replaced_word_is_marked_on_both_sides() -> None:
    a, b = "The red fox jumps over the dog", "The blue fox jumps over the dog"
    found = word_diff(a, b)
    assert (words_of(a, found.a), words_of(b, found.b)) == (["red"], ["blue"])
    assert found.head == 1
    assert found.same == pytest.approx(12 / 14)


def test_added_and_removed_words_are_marked_on_their_side_only() -> None:
    a, b = "one two three four five six", "one two three and more four five six"
    found = word_diff(a, b)
    assert found.a == []
    assert words_of(b, found.b) == ["and more"]


def test_unlike_texts_share_no_scattered_small_words() -> None:
    a = "Paris is the capital of France, and it lies on the Seine."
    b = "To boil an egg, put it into the water and wait for seven minutes of time."
    found = word_diff(a, b)
    assert words_of(a, found.a) == [a.rstrip(".")]
    assert words_of(b, found.b) == [b.rstrip(".")]


def test_letters_are_words_where_there_are_no_spaces() -> None:
    a, b = "我今天很高兴来到这里", "我昨天很高兴来到这里"
    found = word_diff(a, b)
    assert (words_of(a, found.a), words_of(b, found.b)) == (["今"], ["昨"])


def test_indentation_counts_and_a_single_space_does_not() -> None:
    assert word_diff("if x:\n    go()", "if x:\n        go()").a
    assert word_diff("a b", "a b").same == 1


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT)
def test_what_is_not_marked_is_the_same_on_both_sides(a: str, b: str) -> None:
    found = word_diff(a, b)
    assert left(a, found.a) == left(b, found.b)
    for text, spans in ((a, found.a), (b, found.b)):
        assert all(s < e <= len(text) for s, e in spans)
        assert all(e <= s for (_, e), (s, _) in itertools.pairwise(spans))


@pytest.mark.parametrize("kind", ["repeated", "two words", "unlike", "shuffled"])
def test_long_texts_of_any_kind_are_compared(kind: str) -> None:  # with quadratic work this would not end
    rng = random.Random(1)
    words = [f"w{rng.randrange(3000)}" for _ in range(20_000)]
    a, b = {
        "repeated": ("la " * 30_000, "la " * 29_000 + "lu " * 1000),
        "two words": (" ".join(rng.choice("ab") for _ in range(50_000)), " ".join(rng.choice("ab") for _ in range(50_000))),
        "unlike": (" ".join(words), " ".join(f"v{w}" for w in words)),
        "shuffled": (" ".join(words), " ".join(rng.sample(words, len(words)))),
    }[kind]
    found = word_diff(a, b)
    assert left(a, found.a) == left(b, found.b)
    assert (shared_passages(a, b).covered == 0) == (kind in ("unlike", "shuffled"))


def test_only_the_beginning_of_huge_texts_is_compared_and_that_is_said() -> None:
    found = word_diff("a " * 100, "a " * 100 + "b", most=50)
    assert found.cut
    assert found.same == 1


def test_shared_passages_are_found_without_regard_to_case_and_punctuation() -> None:
    row = "Hello! Please solve: natalia sold clips, to 48 of her friends in April; thanks."
    item = "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May."
    found = shared_passages(row, item)
    assert words_of(row, found.a) == ["natalia sold clips, to 48 of her friends in April"]
    assert words_of(item, found.b) == ["Natalia sold clips to 48 of her friends in April"]
    assert found.covered == pytest.approx(10 / 19)


def test_an_item_shorter_than_a_passage_is_one_passage() -> None:
    found = shared_passages("well, what is love? baby", "What is love?")
    assert found.covered == 1
    assert shared_passages("", "what").covered == 0
    assert shared_passages("what", "").a == []


def test_spans_are_joined_and_cut_to_the_text() -> None:
    assert merged([(5, 9), (0, 3), (2, 4), (8, 100), (20, 30), (7, 7)], 12) == [(0, 4), (5, 12)]
    assert merged([(-5, -1), (3, 2)], 10) == []
