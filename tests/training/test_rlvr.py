"""Rewards from verifiers, and runs of GRPO and RLOO on them: rewarded as promised, resumed as if nothing had been, watched."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from running import command, lines

pytest.importorskip("trl")

from columnar.errors import CaravanError, ConfigError
from columnar.store import open_dataset, read_batches
from generation.verifiers import workers
from training import rlvr
from training.samples import Samples, alarms
from training.verified import VerifiedReward, Verifier, breakdown, reward_function

SMALL = {"max_completion_length": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "eval_steps": 2, "samples_every": 1}


def row(verifier: str, truth: str, ident: str = "a") -> dict[str, Any]:
    prompt = [{"role": "user", "content": "2+2?"}]
    return {"id": ident, "source": "s", "prompt": prompt, "verifier": verifier, "ground_truth": truth}


def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> dict[str, str]:
    (tmp_path / "my_checks.py").write_text("def check(completion, truth, prompt):\n" + textwrap.indent(textwrap.dedent(body), "    "))
    workers._end_idle()  # a worker that runs already would not see the module
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return {"mine": "my_checks:check"}


def rewards(config: VerifiedReward, rows: list[dict[str, Any]], answers: list[str], ended: list[bool]) -> list[float | None]:
    return [one.reward for one in Verifier(config).judge(rows, answers, ended)]


def test_right_wrong_and_without_an_end() -> None:
    config = VerifiedReward(processes=1)
    assert rewards(config, [row("gsm8k", "4")] * 3, ["It is 4.", "It is 5.", "It is 4 4 4"], [True, True, False]) == [10.0, 0.0, -10.0]
    assert rewards(config.model_copy(update={"no_eos": None}), [row("gsm8k", "4")], ["It is 4."], [False]) == [10.0]


def test_several_verifiers_in_one_batch_each_keep_their_own_truth() -> None:
    mixed = [row("gsm8k", "4"), row("exact", "blue", "b"), row("math", "\\frac12", "c")]
    verifier = Verifier(VerifiedReward(processes=1))
    assert verifier.check(mixed) == {"gsm8k": 1, "exact": 1, "math": 1}
    judged = verifier.judge(mixed, ["4", "red", "so \\boxed{0.5}"], [True] * 3)
    assert [one.reward for one in judged] == [10.0, 0.0, 10.0]
    told = breakdown(judged, ["4", "red", "so"], ["a", "b", "c"])
    assert told["verified/gsm8k"] == 1 and told["verified/exact"] == 0 and told["verified/math"] == 1


def test_partial_credit_is_given_when_it_is_asked_for() -> None:
    wanted = json.dumps({"constraints": [{"id": "punctuation:no_comma"}, {"id": "change_case:english_lowercase"}]})
    answer = ["all small, with a comma"]
    assert rewards(VerifiedReward(processes=1), [row("ifeval", wanted)], answer, [True]) == [0.0]
    assert rewards(VerifiedReward(processes=1, partial_credit=True), [row("ifeval", wanted)], answer, [True]) == [5.0]


def test_a_crashing_verifier_gives_no_reward_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = own(tmp_path, monkeypatch, "if 'boom' in completion:\n    import os; os._exit(3)\nreturn completion == 'yes'")
    verifier = Verifier(VerifiedReward(own=names, processes=1))
    judged = verifier.judge([row("mine", "x")] * 3, ["yes", "boom", "no"], [True] * 3)
    assert [one.reward for one in judged] == [10.0, None, 0.0]
    assert verifier.unverified.total() == 1 and "crashed" in next(iter(verifier.unverified))
    assert breakdown(judged, ["yes", "boom", "no"], ["a"] * 3)["unverified/mine"] == 1


def test_a_hanging_verifier_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from generation.verifiers import dispatch

    monkeypatch.setattr(dispatch, "OWN_TIMEOUT", 3.0)
    names = own(tmp_path, monkeypatch, "import time\nif 'wait' in completion:\n    time.sleep(600)\nreturn True")
    verifier = Verifier(VerifiedReward(own=names, processes=1))
    assert [one.reward for one in verifier.judge([row("mine", "x")] * 3, ["yes", "wait", "no"], [True] * 3)] == [10.0, None, 10.0]
    assert "timed out" in next(iter(verifier.unverified))


def test_a_verifier_that_never_works_ends_the_run_with_the_reason() -> None:
    broken = [row("gsm8k", "no number here")] * 64
    with pytest.raises(CaravanError, match=r"64 of 64 answers could not be verified.*expected one number"):
        Verifier(VerifiedReward(processes=1)).judge(broken, ["4"] * 64, [True] * 64)


def test_the_end_is_read_from_the_tokens() -> None:
    function = reward_function(Verifier(VerifiedReward(processes=1)), {7})
    columns = {"id": ["a", "a"], "source": ["s"] * 2, "verifier": ["gsm8k"] * 2, "ground_truth": ["4"] * 2}
    said = [[{"role": "assistant", "content": "4"}]] * 2
    found = function([row("gsm8k", "4")["prompt"]] * 2, said, [[5, 7], [5, 6]], **columns)
    assert found == [10.0, -10.0]


def test_unknown_verifiers_are_errors_before_any_work(dataset: Any, model: Path, tmp_path: Path) -> None:
    rows = [{"kind": "prompt", "prompt": row("x", "4")["prompt"], "verifier": "gsm9k", "ground_truth": "4"} for _ in range(3)]
    with pytest.raises(ConfigError, match="gsm9k"):
        command(rlvr, dataset(rows).path, model, tmp_path / "out")
    assert not (tmp_path / "out" / "run.json").exists()


def test_unknown_keys_and_algorithms_are_errors(sums: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_generation"):
        command(rlvr, sums / "prompts", start, tmp_path / "a", num_generation=4)
    with pytest.raises(ConfigError, match="expected grpo or rloo"):
        command(rlvr, sums / "prompts", start, tmp_path / "b", algorithm="ppo")


GRPO = {**SMALL, "max_steps": 8, "num_generations": 4, "dev": 3}


@pytest.fixture(scope="module")
def grpo(sums: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight steps of two prompts each; with nine prompts the second epoch begins with the fifth step. A checkpoint every second step."""
    return command(rlvr, sums / "prompts", start, tmp_path_factory.mktemp("grpo") / "run", **GRPO)


def test_a_run_leaves_a_model_a_card_and_answers_to_look_at(grpo: Path) -> None:
    identity = json.loads((grpo / "manifest.json").read_text())["identity"]
    assert identity["counts"]["verifiers"] == {"gsm8k": 12} and identity["counts"]["dev"]["rows"] == 3
    assert identity["metrics"]["best_checkpoint"].startswith("checkpoint-")
    last = [line for line in lines(grpo) if "reward" in line][-1]
    assert {"kl", "verified/gsm8k", "unverified/gsm8k", "answers/without_end", "completions/mean_length"} <= set(last)
    assert [line["step"] for line in lines(grpo) if "eval_reward" in line] == [0, 2, 4, 6, 8]
    kept = open_dataset(grpo / "samples")
    rows = [r for batch in read_batches(kept) for r in batch.to_pylist()]
    assert {json.loads(r["meta"])["step"] for r in rows} == set(range(8))
    assert all(len(r["candidates"]) == 4 and r["candidates"][0]["ratings"][0]["aspect"] == "gsm8k" for r in rows)
    assert {c["score"] for r in rows for c in r["candidates"]} <= {-10.0, 0.0, 10.0}


def test_a_killed_run_goes_on_as_if_nothing_had_been(grpo: Path, sums: Path, start: Path, tmp_path: Path, monkeypatch: Any) -> None:
    keep = Samples.keep

    def dies(self: Samples, step: int, *more: Any) -> None:
        if step == 7:
            raise RuntimeError("killed")
        keep(self, step, *more)

    out = tmp_path / "killed"
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(Samples, "keep", dies)
        command(rlvr, sums / "prompts", start, out, **GRPO)
    assert not (out / "manifest.json").exists()
    command(rlvr, sums / "prompts", start, out, **GRPO)  # from step 6, in the middle of the second epoch

    def said(run: Path) -> list[tuple[int, float, float]]:
        return [(line["step"], line["reward"], line["loss"]) for line in lines(run) if "reward" in line]

    assert said(out) == said(grpo)
    assert (out / "samples.jsonl").read_bytes() == (grpo / "samples.jsonl").read_bytes()


def test_rloo_shuffles_between_epochs_and_sees_every_prompt_in_each(sums: Path, start: Path, tmp_path: Path) -> None:
    more = {**SMALL, "per_device_train_batch_size": 24, "eval_steps": 100}
    out = command(rlvr, sums / "prompts", start, tmp_path / "rloo", algorithm="rloo", max_steps=3, num_generations=2, dev=0, **more)
    assert json.loads((out / "manifest.json").read_text())["identity"]["loss_reduction"].startswith("mean over answers")
    steps: dict[int, list[str]] = {}
    for line in (json.loads(text) for text in (out / "samples.jsonl").read_text().splitlines()):
        steps.setdefault(line["step"], []).append(line["id"])
    assert len(steps) == 3 and len({tuple(ids) for ids in steps.values()}) == 3  # the first four prompts of each epoch


def test_what_looks_gamed_is_said() -> None:
    calm = [{"reward": 1.0 + i / 10, "kl": 0.01, "completions/mean_length": 50, "verified/a": 0.5, "eval_reward": 1.0} for i in range(12)]
    assert alarms(calm) == []
    gamed = [
        {"reward": 1.0 + i, "kl": i / 8, "completions/mean_length": 50 + 20 * i, "verified/a": 0.9 - i / 20, "answers/distinct": 1 - i / 12}
        for i in range(12)
    ]
    said = " ".join(alarms(gamed))
    assert all(word in said for word in ("tokens", "nats", "verified/a fell", "became the same"))
    assert alarms(gamed[:5]) == [], "a few steps say nothing"
