"""What is said about scores holds: against counts by hand, exhaustive enumeration, and simulated coverage."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from training.scores import band, beyond_noise, interval, paired, pass_at_k, student


@pytest.mark.parametrize(("n", "right", "k"), [(5, 2, 1), (6, 3, 2), (7, 1, 3), (8, 0, 4), (6, 6, 6), (20, 4, 10)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(n: int, right: int, k: int) -> None:
    draws = list(itertools.combinations([1] * right + [0] * (n - right), k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(any(d) for d in draws) / len(draws))


def test_pass_at_k_of_too_few_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        pass_at_k(5, 5, 10)


def test_intervals_hold_what_they_promise() -> None:
    rng = random.Random(0)
    for truth, n in ((0.5, 50), (0.9, 100), (0.03, 200)):
        held = 0
        for _ in range(400):
            found = interval([float(rng.random() < truth) for _ in range(n)])
            held += found.low <= truth <= found.high
        assert held / 400 > 0.92


def test_an_interval_of_nothing_but_right_answers_is_not_a_point() -> None:
    found = interval([1.0] * 20)
    assert found.value == 1 and 0.8 < found.low < 0.9 and found.high == 1
    assert interval([math.nan, math.nan]).n == 0
    assert interval([1.0, math.nan, 0.0]).n == 2


def test_the_paired_test_is_mcnemars() -> None:
    first = {str(i): float(i < 50) for i in range(100)}
    second = {str(i): float(i < 60 or i >= 98) for i in range(100)}  # right on 12 more, wrong on none that the first had
    found = paired(first, second)
    assert (found.wins, found.losses, found.n) == (12, 0, 100)
    assert found.p == pytest.approx(2 / 2**12)
    assert found.difference == pytest.approx(0.12) and found.low > 0
    assert found.verdict == "the second is better"
    assert paired(second, first).verdict == "the first is better"


def test_the_same_model_twice_shows_no_difference() -> None:
    scores = {str(i): float(i % 3 == 0) for i in range(60)}
    assert paired(scores, scores).p == 1
    with pytest.raises(ValueError, match="no item in common"):
        paired({"a": 1.0}, {"b": 1.0})


def test_items_that_one_of_them_lacks_are_not_compared() -> None:
    assert paired({"a": 1.0, "b": 0.0, "c": math.nan}, {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}).n == 2


def test_fractional_scores_are_compared_by_sign_flips() -> None:
    first = {str(i): 0.2 for i in range(10)}
    second = {str(i): 0.2 + (0.1 if i < 9 else -0.05) for i in range(10)}
    found = paired(first, second)
    differences = [0.1] * 9 + [-0.05]
    at_least = sum(
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= 0.85 - 1e-9 for signs in itertools.product((1, -1), repeat=10)
    )
    assert found.test == "sign flips" and found.p == pytest.approx(at_least / 2**10)
    rng = random.Random(1)
    noise = [{str(i): rng.random() for i in range(40)} for _ in range(2)]
    assert paired(*noise).p > 0.05


def test_seed_noise() -> None:
    found = band([0.50, 0.52, 0.54])
    assert found.mean == pytest.approx(0.52) and found.spread == pytest.approx(0.02)
    assert found.high - found.mean == pytest.approx(4.303 * 0.02 / math.sqrt(3))
    assert math.isnan(band([0.5]).spread), "one run says nothing about noise"
    assert beyond_noise([0.5, 0.52, 0.54], [0.51, 0.53, 0.55]) is False
    assert beyond_noise([0.5, 0.51, 0.52], [0.71, 0.72, 0.73]) is True
    assert beyond_noise([0.5], [0.9]) is None


def test_students_t() -> None:
    assert student(10) == pytest.approx(2.228, abs=1e-3)
    assert student(30) == pytest.approx(2.0423, abs=1e-3)
    assert student(1000) == pytest.approx(1.9623, abs=1e-3)
