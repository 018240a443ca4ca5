"""One call: rows name verifiers, unknown names stop everything, a verifier that fails is named and is never a silent 0."""

from __future__ import annotations

import json
import math

import pytest

from columnar.errors import ConfigError
from generation.verifiers import check_rows, resolve, verify

OWN = {name: f"tests.generation.verifiers.own:{name}" for name in ("good", "half", "crash", "die", "hang", "liar", "noisy")}


def test_several_verifiers_are_weighed() -> None:
    row = {"verifier": json.dumps([{"name": "gsm8k", "weight": 3}, {"name": "exact", "ground_truth": "yes"}]), "ground_truth": "18"}
    verdict = verify(row, "The answer is 18")
    assert verdict.score == 0.75 and not verdict.passed
    assert [(p.name, p.weight, p.passed) for p in verdict.parts] == [("gsm8k", 3.0, True), ("exact", 1.0, False)]
    assert "exact" in verdict.reason


@pytest.mark.parametrize(
    "verifier",
    [
        "gsm9k",
        "",
        None,
        "[]",
        "[1]",
        '[{"name": "gsm8k", "weight": 0}]',
        '[{"name": "gsm8k", "wait": 1}]',
        '[{"name": "x"}]',
        "{",
        "os:system",
    ],
)
def test_bad_names_are_errors_before_any_work(verifier: str | None) -> None:
    row = {"id": "r1", "verifier": verifier, "ground_truth": "1"}
    with pytest.raises(ConfigError):
        resolve(row)
    with pytest.raises(ConfigError):
        verify(row, "1")
    with pytest.raises(ConfigError, match="1 rows"):
        check_rows([{"verifier": "gsm8k", "ground_truth": "1"}, row])


def test_unknown_name_suggests_a_known_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gsm8k'"):
        resolve({"verifier": "gsm9k"})


def test_check_rows_counts() -> None:
    assert check_rows([{"verifier": "gsm8k"}, {"verifier": "gsm8k"}, {"verifier": '{"name": "math"}'}]) == {"gsm8k": 2, "math": 1}


def test_own_verifiers_run_apart() -> None:
    def score(name: str) -> float:
        return verify({"verifier": name, "ground_truth": "1"}, "1", OWN).score

    assert score("good") == 1 and score("half") == 0.5
    assert score("noisy") == 1, "what it prints does not get among the answers"


@pytest.mark.parametrize(("name", "says"), [("crash", "KeyError"), ("die", "SIGSEGV|SIGKILL"), ("liar", "expected 0 to 1")])
def test_a_failing_verifier_is_named(name: str, says: str) -> None:
    row = {"verifier": json.dumps([{"name": name}, {"name": "gsm8k"}]), "ground_truth": "1"}
    verdict = verify(row, "1", OWN)
    assert math.isnan(verdict.score) and not verdict.passed
    assert verdict.parts[0].error and any(s in verdict.error for s in says.split("|")) and name in verdict.error
    assert verdict.parts[1].passed, "the other verifier still ran"


def test_a_hanging_verifier_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    from generation.verifiers import dispatch

    monkeypatch.setattr(dispatch, "OWN_TIMEOUT", 1.0)
    verdict = verify({"verifier": "hang", "ground_truth": "1"}, "1", OWN)
    assert "timed out after 1 s" in verdict.error and math.isnan(verdict.score)


def test_reasoning_is_not_the_answer() -> None:
    row = {"verifier": "gsm8k", "ground_truth": "18"}
    assert not verify(row, "<think>18").passed
    assert not verify(row, "<think>18</think>").passed
    assert verify(row, "<think>17</think>18").passed
    assert not verify(row, "x" * 1_000_001 + "18").passed
