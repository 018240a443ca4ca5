"""GSM8K-style numbers: what must pass, what must fail, and hostile text."""

from __future__ import annotations

from fractions import Fraction

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.verifiers import verify
from generation.verifiers.numbers import numbers

RIGHT = [
    ("18", "16 - 3 - 4 = 9 and 9 * 2 = <<9*2=18>>18\n#### 18"),
    ("18", "So she makes $18 every day."),
    ("18", "The answer is $18.00."),
    ("18", "\\boxed{18}"),
    ("18", "**Answer:** 18"),
    ("18", "A: 18"),
    ("18", "The final answer is $18$. I hope it is correct."),
    ("18", "<answer>18 dollars</answer>"),
    ("18", "#### 18 eggs"),
    ("18", "The answer is 9 * 2 = 18."),
    ("18", "The answer is 12. Wait, I forgot six. The answer is 18."),
    ("1,234", "#### 1234"),
    ("1234567", "It costs 1,234,567 dollars"),
    ("-10", "The balance is -10"),
    ("-10", "The balance is $-10"),
    ("-10", "The balance is -$10"),
    ("-10", "x = -10"),
    ("-10", "x = - 10"),
    ("-10", "The temperature is −10"),
    ("-10", "It is negative 10"),
    ("10", "Pages 5-10"),
    ("10", "The range goes from 5 - 10"),
    ("10", "- 5 cats\n- 10"),
    ("19", "He caught COVID-19"),
    ("0.5", "\\boxed{\\frac{1}{2}}"),
    ("1/2", "The answer is 0.5"),
    ("2.5", "The answer is 2 1/2"),
    ("2.5", "The answer is 2½ cups"),
    ("50", "The answer is 50%"),
    ("0.5", "The answer is 50%"),
    ("5000000", "The answer is 5 million people"),
    ("1500", "about 1.5 \\times 10^3"),
    ("18", "Earlier I said #### 17.\n#### 18"),
    ("18", "<think>The answer is 20</think>The answer is 18"),
    ("7", "Janet sells 16 eggs. A: 7 eggs"),
    ("30", "The answer is: $\\boxed{30}$ minutes."),
    ("18", "The answer is １８"),
    ("8", "He needs 8 L of H2O"),
    ("18", "The answer is 18, which is 2 more than 16."),
    ("18", "The answer is 18 more than John has."),
    ("18", "The answer is 18 in 2 weeks."),
    ("18", "The answer is 18!"),
    ("18", "The answer is 18. That is all."),
    ("18", "The answer is 18. No doubt."),
    ("18", "5 hours = 300 minutes, so the answer is 36 half hours = 18 hours"),
    ("500000", "The answer is 5 hundred thousand"),
    ("5000000", "The answer is 5 Million"),
    ("-18", "The answer is 18 degrees below zero."),
    ("0.75", "The answer is 3/4"),
    ("6", "The answer is 1/2 dozen"),
    ("18", "The answer is 1\u200b8"),
    ("72", "In May she sold 24. Altogether 48+24 = 72 clips in 2 months.\n#### 72"),
]
WRONG = [
    ("18", "#### 17"),
    ("18", "18 is what I computed first, but it is 17."),
    ("18", "The answer is 18 or 20."),
    ("18", "The answer is 17 or 18."),
    ("18", "The answer is either 18 dollars or 20 dollars."),
    ("18", "#### 17, 18"),
    ("18", "#### 18, 19"),
    ("18", "#### 18-20"),
    ("18", "\\boxed{18 \\text{ or } 20}"),
    ("18", "#### 18 #### 19"),
    ("18", "The answer is not 18."),
    ("18", "\\boxed{18}, or maybe \\boxed{20}"),
    ("18", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19"),
    ("18", "The answer is 9 * 2."),
    ("18", "The answer is -18"),
    ("-10", "5-10"),
    ("-10", "The answer is 5-10"),
    ("-10", "Pages 5 -10"),
    ("-10", "- 10"),
    ("-10", "The answer is 10"),
    ("18", "The answer is 1.8"),
    ("18", "The answer is 180"),
    ("18", "The answer is 0018000"),
    ("5", "The answer is 5 million"),
    ("18", "It was 7:18"),
    ("18", "It was on 12/18/2020"),
    ("18", "version 2.18.1"),
    ("2", "H2O"),
    ("18", ""),
    ("18", "   \n "),
    ("18", "eighteen apples or so"),
    ("18", "The answer is x18"),
    ("18", "\\boxed{}"),
    ("18", "#### "),
    ("0.5", "The answer is 5%"),
    ("0", "The answer is nothing"),
    ("18", "<think>The answer is 18"),
    ("18", "<think>18</think>"),
    ("18", "The answer is 18/0"),
    ("18", "17 <!-- 18 -->"),
    ("17", "118" + " " * 3998),
    ("18", "#### 19 = 18"),
    ("18", "The answer is greater than 18."),
    ("18", "The answer is at least 18"),
    ("18", "\\boxed{x > 18}"),
    ("18", "\\boxed{\\geq 18}"),
    ("18", "The answer is ±18"),
    ("18", "\\boxed{\\pm 18}"),
    ("18", "The answer is 18 dollars more than 20."),
    ("18", "The answer is 18 if it rains, else 20"),
    ("18", "The answer is 18; no, 19."),
    ("18", "The answer is 18, no, 19."),
    ("18", "The answer is 18. No, 19."),
    ("18", "The answer is 18. Or 19."),
    ("18", "\\boxed{18} or 19"),
    ("18", "The answer is 18. The answer is unknown."),
    ("18", "18 perhaps. The answer is not known"),
    ("18", "The answer is 36/2"),
    ("18", "\\boxed{\\frac{36}{2}}"),
    ("0.5", "\\boxed{\\frac{1.5}{3}}"),
    ("18", "The answer is 18²"),
    ("18", "\\boxed{18x}"),
    ("18", "The answer is 18 hundred"),
    ("18", "The answer is 18 Million"),
    ("18", "The answer is $18M"),
    ("18", "The answer is 18 lakh"),
    ("18", "The answer is 18 degrees below zero"),
    ("18", "The answer is 18 remainder 2"),
    ("18", "The answer is 18 and a half"),
    ("18", "The answer is 18 feet 6 inches"),
    ("18", "The answer is 18 eggs, 19 ducks"),
    ("18", "The answer is $" + ". " * 200_000 + "$17"),
    ("18", "9" * 100_000),
    ("18", "\\boxed{" * 50_000),
    ("18", "<answer>" * 50_000),
    ("18", "The answer is " * 20_000 + "17"),
]


@pytest.mark.parametrize(("gold", "said"), RIGHT)
def test_right(gold: str, said: str) -> None:
    verdict = verify({"verifier": "gsm8k", "ground_truth": gold}, said)
    assert verdict.passed and verdict.score == 1.0, verdict.reason
    assert verdict.parts[0].rule, "the extraction rule is told"


@pytest.mark.parametrize(("gold", "said"), WRONG)
def test_wrong(gold: str, said: str) -> None:
    verdict = verify({"verifier": "gsm8k", "ground_truth": gold}, said)
    assert not verdict.passed and verdict.score == 0.0 and not verdict.error, verdict
    assert verdict.reason


def test_rule_that_fired_is_returned() -> None:
    for said, rule in [
        ("\\boxed{4}", "boxed"),
        ("#### 4", "hash"),
        ("<answer>4</answer>", "tag"),
        ("Answer: 4", "phrase"),
        ("so 4", "last_number"),
    ]:
        assert verify({"verifier": "gsm8k", "ground_truth": "4"}, said).parts[0].rule == rule


def test_marked_only_refuses_a_bare_number() -> None:
    row = {"verifier": "gsm8k", "ground_truth": '{"answer": "4", "marked": true}'}
    assert not verify(row, "so 4").passed
    assert verify(row, "#### 4").passed


def test_bad_ground_truth_is_an_error_and_not_a_zero() -> None:
    for truth in ("", "no number here", "either 3 or 4", None):
        verdict = verify({"verifier": "gsm8k", "ground_truth": truth}, "#### 3")
        assert verdict.error and verdict.score != verdict.score and not verdict.passed


@settings(max_examples=300, deadline=None)
@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["#### {}", "The answer is {}.", "\\boxed{{{}}}", "so we get {}", "= {}", "<answer>{}</answer>"]),
)
def test_every_integer_in_every_form(value: int, form: str) -> None:
    row = {"verifier": "gsm8k", "ground_truth": str(value)}
    assert verify(row, form.format(value)).passed
    assert verify(row, form.format(f"{value:,}")).passed
    assert not verify(row, form.format(value + 1)).passed
    if value:
        assert not verify(row, form.format(-value)).passed


@settings(max_examples=300, deadline=None)
@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=500))
def test_fractions_are_exact(value: Fraction) -> None:
    sign = "-" if value < 0 else ""
    text = f"\\boxed{{{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}}}"
    assert verify({"verifier": "gsm8k", "ground_truth": str(value)}, text).passed
    assert not verify({"verifier": "gsm8k", "ground_truth": str(value + Fraction(1, 997))}, text).passed


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_a_verdict(text: str) -> None:
    numbers(text)
    assert verify({"verifier": "gsm8k", "ground_truth": "18"}, text).error == ""


def test_agreement_with_labelled_model_solutions(shared) -> None:
    rows = pq.read_table(shared / "completions" / "gsm8k_model_solutions.parquet").to_pylist()
    sides = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    differ = [
        (i, side)
        for i, row in enumerate(rows[::4])
        for side in sides
        if verify({"verifier": "gsm8k", "ground_truth": row["ground_truth"]}, row[side]["solution"]).passed != row[side]["is_correct"]
    ]
    assert differ == []
