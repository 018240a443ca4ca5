"""MATH answers: equivalent forms pass, everything a model might hand in instead fails, and sympy cannot hang the caller."""

from __future__ import annotations

import random

import pyarrow.parquet as pq
import pytest

from generation.verifiers import VERIFIERS, verify
from generation.verifiers import math as maths

RIGHT = [
    ("\\dfrac{1}{2}", "\\frac12"),
    ("\\frac{1}{2}", "0.5"),
    ("1/2", "\\frac{1}{2}"),
    ("x=5", "5"),
    ("5", "x = 5"),
    ("1{,}000", "1000"),
    ("1,000", "1000"),
    ("90^\\circ", "90"),
    ("\\$5.00", "5"),
    ("5 \\text{ cm}", "5"),
    ("50\\%", "50"),
    ("+2", "2"),
    ("\\sqrt{18}", "3\\sqrt{2}"),
    ("\\frac{1}{\\sqrt2}", "\\frac{\\sqrt2}{2}"),
    ("(x+1)^2", "x^2+2x+1"),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})"),
    ("\\{3,2\\}", "2,3"),
    ("3, 2", "2,3"),
    ("\\text{(B)}", "B"),
    ("\\text{Evelyn}", "Evelyn"),
    ("y=1+2x", "y=2x+1"),
    ("3+4i", "4i+3"),
    ("6 - 5i", "6-5i"),
    ("1 \\frac12", "\\frac32"),
    ("\\frac{10}{4}", "2.5"),
    ("-\\frac{1}{2}", "\\frac{-1}{2}"),
    ("4210", "4210_5"),
    ("\\begin{bmatrix}1\\\\2\\end{bmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ("x \\in [0,1]", "[0,1]"),
    ("(-\\infty, 3)", "(-\\infty,3)"),
    ("1.5 \\times 10^3", "1500"),
    ("x=1 \\text{ or } x=2", "1,2"),
    ("19, 43", "19 \\text{ and }43"),
    ("0.1\\overline{6}", "\\frac16"),
    ("99\\pi", "99\\pi \\text{ square inches}"),
    ("2 345", "2345"),
    ("0.5x", "\\frac{x}{2}"),
    ("\\text{Even}", "\\text{even}"),
    ("2\\sin(x)", "2\\sin x"),
    ("\\frac{2}{4}", "\\frac12"),
]
WRONG = [
    ("17 \\cdot 23", "391"),
    ("17*23", "391"),
    ("\\log_2 8", "3"),
    ("\\binom{5}{2}", "10"),
    ("5!", "120"),
    ("2^{10}", "1024"),
    ("\\sqrt{16}", "4"),
    ("\\sin 60^\\circ", "\\frac{\\sqrt{3}}{2}"),
    ("\\sum_{i=1}^{4} i", "10"),
    ("2 \\text{ or } 3", "2"),
    ("2,3", "2"),
    ("2", "2,3"),
    ("(3,2)", "(2,3)"),
    ("[0,1)", "(0,1)"),
    ("\\pi", "3.14159"),
    ("3.14159", "\\pi"),
    ("0.333", "\\frac13"),
    ("2=2", "2"),
    ("x=2=3", "3"),
    ("x^2-x^2+5", "5"),
    ("3 \\pm 2", "1"),
    ("\\frac{1}{0}", "\\infty"),
    ("\\infty-\\infty", "0"),
    ("11_2", "11_3"),
    ("y=5", "x=5"),
    ("i", "-i"),
    ("\\text{all}", "\\text{none}"),
    ("2k", "2k+1"),
    ("x<3", "x>3"),
    ("", "0"),
    ("\\text{}", "0"),
    ("10+1", "11"),
    ("-5", "5"),
    ("5x", "5"),
    ("1,2,3,4", "4"),
    ("n", "1"),
    ("\\gcd(12, 18)", "6"),
    ("2 3", "23"),
    ("782/2", "391"),
    ("\\frac{782}{2}", "391"),
    ("--391", "391"),
    ("|391|", "391"),
    ("391?", "391"),
    ("391-", "391"),
    ("1.41421356237", "\\sqrt{2}"),
    ("3.4641016", "2\\sqrt{3}"),
    ("7.389056", "e^2"),
    ("eevn", "\\text{even}"),
    ("\\text{WV}", "\\text{VW}"),
    ("e \\cdot s \\cdot y", "\\text{yes}"),
    ("20 June", "\\text{June 20}"),
    ("1,1,2", "1,2"),
    ("x=1 \\text{ or } x=3", "1,2"),
]


@pytest.mark.parametrize(("found", "gold"), RIGHT)
def test_equal(found: str, gold: str) -> None:
    assert maths.equal(found, gold)[0]


@pytest.mark.parametrize(("found", "gold"), WRONG)
def test_not_equal(found: str, gold: str) -> None:
    assert not maths.equal(found, gold)[0]


def test_extraction_rules() -> None:
    for said, rule in [
        ("\\boxed{7}", "boxed"),
        ("Final Answer: The final answer is $7$. I hope it is correct.", "phrase"),
        ("so it is $7$", "last_math"),
        ("#### 7", "hash"),
        ("<answer>7</answer>", "tag"),
        ("first \\boxed{3}, corrected: \\boxed{7}", "boxed"),
        ("\\boxed 7", "boxed"),
    ]:
        part = maths.verify(said, {"answer": "7"})
        assert part.passed and part.rule.startswith(rule), (said, part)
    assert not maths.verify("so it is 7", {"answer": "7"}).passed
    assert not maths.verify("so it is $7$", {"answer": "7", "strict": True}).passed
    assert not maths.verify("\\boxed{7} \\boxed{8}", {"answer": "7"}).passed


def test_the_question_handed_back_is_no_answer() -> None:
    for asked, gold, back, answer in [
        ("Factor $x^2 - 1$.", "(x-1)(x+1)", "x^2-1", "(x+1)(x-1)"),
        ("Expand $(x+1)^2$", "x^2+2x+1", "(x+1)^2", "1+2x+x^2"),
        ("Simplify $\\frac{36}{48}$", "\\frac34", "\\dfrac{36}{48}", "\\frac{3}{4}"),
    ]:
        row = {"verifier": "math", "ground_truth": gold, "prompt": [{"role": "user", "content": asked}]}
        assert not verify(row, f"\\boxed{{{back}}}").passed
        assert verify(row, f"\\boxed{{{answer}}}").passed
    row = {"verifier": "math", "ground_truth": "-3", "prompt": [{"role": "user", "content": "Is it $-3$ or $3$?"}]}
    assert verify(row, "\\boxed{-3}").passed, "an answer may be among the choices"


def test_what_is_taken_back_or_hidden_does_not_count() -> None:
    for said in ("$\\boxed{2}$ or $3$", "\\boxed{2}, no, $3$", "\\boxed{3}<!-- \\boxed{2} -->", "\\boxed{2}. Wait, it is $3$"):
        wait = said.replace("Wait, it", "Wait: it")
        assert not maths.verify(wait, {"answer": "2"}).passed, said
    assert maths.verify("It is $\\boxed{2}$. Or see the other method with $3$ steps.", {"answer": "2"}).passed


@pytest.mark.parametrize(
    "bomb", ["10^{10^{10^{10}}}x", "\\boxed{" * 2000 + "}" * 2000, "(" * 5000, "x^" * 400 + "2", "\\frac{" * 300, "x+" * 900 + "1"]
)
def test_bombs_neither_pass_nor_hang(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(VERIFIERS, "math", VERIFIERS["math"]._replace(timeout=3.0))
        assert not verify({"verifier": "math", "ground_truth": "x^2+1"}, f"\\boxed{{{bomb}}}").passed
    assert verify({"verifier": "math", "ground_truth": "x^2+1"}, "\\boxed{1+x^2}").passed, "the next call works"


def test_reference_solutions_and_wrong_pairs(shared) -> None:
    rows = pq.read_table(shared / "benchmarks" / "math_test.parquet").to_pylist()[::10]
    assert all(maths.verify(row["solution"], {"answer": row["solution"]}).passed for row in rows)
    rng = random.Random(0)
    golds = [maths.gold_answer(row["solution"]) for row in rows]
    pairs = [
        (i, j) for i, j in (rng.sample(range(len(rows)), 2) for _ in range(250)) if maths.canonical(golds[i]) != maths.canonical(golds[j])
    ]
    assert not [(golds[i], golds[j]) for i, j in pairs if maths.verify(rows[i]["solution"], {"answer": golds[j]}).passed]
