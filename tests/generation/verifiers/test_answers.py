"""Multiple choice, exact strings and F1: hacks both ways."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.verifiers import verify

OPTIONS = {"A": "a cat", "B": "Paris", "C": "the category", "D": "both A and B"}


def choose(said: str, gold: str = "B", options: dict[str, str] | None = None) -> bool:
    truth = json.dumps({"answer": gold, **({"options": options} if options else {})})
    verdict = verify({"verifier": "choice", "ground_truth": truth}, said)
    assert not verdict.error
    return verdict.passed


@pytest.mark.parametrize(
    "said",
    [
        "B",
        "(B)",
        "B.",
        "**B**",
        "\\boxed{B}",
        "\\boxed{\\text{B}}",
        "The answer is B",
        "The answer is (B).",
        "Answer: B",
        "B) Paris",
        "B. Paris",
        "The capital of France is Paris.\n\nAnswer: (B) Paris",
        "<answer>b</answer>",
        "The correct answer is B because A is wrong.",
        "#### B",
        "I weighed A and C.\nB",
        "The answer is A. No: the answer is B.",
        "Paris",
        "The answer is Paris.",
        "The correct option is B.",
        "The answer is definitely B.",
        "The answer is B, not A.",
        "The answer is B because C is not a city.",
        "The answer is B. A is wrong.",
        "<!-- A --> B",
        "\\boxed{\\textbf{(B)}}",
    ],
)
def test_choice_right(said: str) -> None:
    assert choose(said, options=OPTIONS)


@pytest.mark.parametrize(
    "said",
    [
        "A",
        "",
        "B or C",
        "The answer is B or C",
        "Answer: A, B",
        "Answer: B, C",
        "Answer: B and C",
        "The answer is either A or B",
        "A B C D",
        "A cat sat on a mat.",
        "Because",
        "(A) a cat\n(B) Paris\n(C) the category\n(D) both A and B",
        "A. a cat\nC. the category\nB. Paris",
        "\\boxed{BC}",
        "\\boxed{B, C}",
        "The answer is B/C",
        "The answer is not B.",
        "It could be B.",
        "Paris or a cat",
        "The answer is B. The answer is C.",
        "Bravo",
        "both A and B",
        "the parisian",
        "\\boxed{}",
        "ABCD",
        "E",
        "B\nC",
        "C\n\nB",
        "The answer is B. Or C.",
        "The answer is B. No, C.",
        "The answer is B; C",
        "Answer: B? C? D?",
        "Answer: (B)(C)",
        "Answer: B is wrong",
        "B is incorrect.",
        "The answer is B: wrong. It is C.",
        "The answer is B. The answer is unclear.",
        "C <!-- The answer is B -->",
        "B. a cat",
        "The answer is (B) a cat",
        "B) the category",
    ],
)
def test_choice_wrong(said: str) -> None:
    assert not choose(said, options=OPTIONS)


def test_the_article_a_chooses_nothing() -> None:
    assert not choose("A cat sat on the mat.", "A", OPTIONS)
    assert not choose("A good question indeed.", "A")
    assert choose("A", "A")


def test_gold_may_be_the_text_of_an_option() -> None:
    assert choose("B", "Paris", OPTIONS)
    assert verify({"verifier": "choice", "ground_truth": json.dumps({"answer": "Rome", "options": OPTIONS})}, "B").error


def exact(gold: object, said: str, **more: object) -> bool:
    return verify({"verifier": "exact", "ground_truth": json.dumps({"answer": gold, **more})}, said).passed


@pytest.mark.parametrize(
    "said",
    [
        "cat",
        "Cat",
        " cat. ",
        "The answer is cat.",
        "\\boxed{cat}",
        "<answer>cat</answer>",
        "**cat**",
        '"cat"',
        "#### cat",
        "Answer: cat",
        "CAT!",
        "\\boxed{\\text{cat}}",
        "c\u200bat",
        "ｃａｔ",
    ],
)
def test_exact_right(said: str) -> None:
    assert exact("cat", said)


@pytest.mark.parametrize(
    "said",
    [
        "category",
        "cat dog",
        "a cat or a dog",
        "dog",
        "",
        "The answer is cat or dog",
        "concat",
        "cat\ndog",
        "not cat",
        "The answer is dog. cat?",
        "c a t",
        "cats",
        "<answer>dog</answer> cat",
        "dog<!-- The answer is cat. -->",
        "The answer is cat. No, dog.",
        "The answer is cat, or dog",
        "The answer is cat. Or dog.",
        "cat cat",
        "cat;dog",
        "~~cat~~",
        "\\boxed{cat}\\boxed{dog}",
        "cаt",
        "#### cat\n#### dog",
        "The answer is cat.\nThe answer is unknown",
    ],
)
def test_exact_wrong(said: str) -> None:
    assert not exact("cat", said)


def test_exact_takes_several_golds_and_case() -> None:
    assert exact("St. Louis", "The answer is St. Louis.") and exact("U.S.", "The answer is U.S.")
    assert exact("café", "cafe\u0301"), "one Unicode form"
    assert exact(["USA", "United States"], "united states")
    assert not exact("USA", "usa", case=True)
    assert exact("USA", "USA", case=True)
    assert verify({"verifier": "exact", "ground_truth": '{"answer": ""}'}, "x").error


def f1(gold: object, said: str) -> float:
    return verify({"verifier": "f1", "ground_truth": json.dumps({"answer": gold})}, said).score


def test_f1_scores() -> None:
    assert f1("the cat sat", "The cat sat.") == 1
    assert f1("the cat sat", "cat") == pytest.approx(2 / 3)
    assert f1(["dog", "cat"], "cat") == 1
    assert f1("a", "a") == 1, "an answer of articles only keeps them"
    assert f1("cat", "dog") == 0
    assert f1("cat", "") == 0
    assert f1("cat", "?!") == 0
    assert f1("cat sat", "cat " * 50) < 0.1, "a repeated word is no more recall"
    assert f1("cat", "dog bird cow cat horse pig hen ant bee fox") < 0.2, "listing every word costs precision"
    for hack in (
        "category",
        "concat",
        "catcat",
        "c a t",
        "cats",
        "the a an",
        "cat's",
        "<answer></answer> cat",
        "The answer is dog. cat",
        "cat-dog",
    ):
        assert f1("cat", hack) == 0, hack
    assert f1("cat", "Many words before. The answer is cat.") == 1


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("1.5", "15"),
        ("-5", "5"),
        ("3/4", "34"),
        ("C++", "C"),
        ("C#", "C"),
        ("not guilty", "guilty"),
        ("New York", "not New York"),
        ("yes", "yes no"),
        ("yes", "yes no maybe"),
        ("New York", "New Jersey"),
        ("New York", "New York or Boston"),
        ("New York", "New York New York"),
        ("dog", "cat <!-- dog -->"),
        ("18", "18 19"),
    ],
)
def test_f1_does_not_pass(gold: str, said: str) -> None:
    assert not verify({"verifier": "f1", "ground_truth": json.dumps({"answer": gold})}, said).passed


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("1,500", "1500"),
        ("$5", "5"),
        ("U.S.", "us"),
        ("it's", "its"),
        ("The Who", "who"),
        ("café", "cafe\u0301"),
        ("not guilty", "Not guilty."),
        ("C++", "The answer is C++."),
        ("St. Louis", "The answer is St. Louis."),
    ],
)
def test_f1_passes(gold: str, said: str) -> None:
    assert verify({"verifier": "f1", "ground_truth": json.dumps({"answer": gold})}, said).passed


@pytest.mark.parametrize("threshold", [0, -1, 2, "x", float("nan")])
def test_f1_threshold_is_checked(threshold: object) -> None:
    assert verify({"verifier": "f1", "ground_truth": json.dumps({"answer": "cat", "threshold": threshold})}, "dog").error


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=120), st.sampled_from(["choice", "exact", "f1"]))
def test_any_text_gives_a_verdict(text: str, name: str) -> None:
    verdict = verify({"verifier": name, "ground_truth": "B"}, text)
    assert not verdict.error and 0 <= verdict.score <= 1
