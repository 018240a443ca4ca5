"""PPO's rollouts against plain forward passes, its value model against the reward model it came from, and whole runs."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from running import command, lines

pytest.importorskip("torch")

import torch

from columnar.errors import CaravanError, ConfigError
from training import ppo, reward
from training.ppo_math import up_to_end
from training.run import arguments, open_job


def settings(directory: Path, model: Path, out: Path, **more: Any) -> Any:
    told = [part for key, value in more.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    args = arguments("x", None).parse_args([str(directory), "--model", str(model), "--out", str(out), *told])
    return open_job(args, "ppo", ppo.PpoSettings, ppo.NoMore)


SMALL = {
    "max_completion_length": 4,
    "batch": 8,
    "per_device_train_batch_size": 3,
    "learning_rate": 1e-3,
    "samples_every": 1,
    "eval_steps": 2,
}


FINISHED = {**SMALL, "max_steps": 4, "save_steps": 2, "dev": 3, "mini_batches": 2}


@pytest.fixture(scope="session")
def reward_model(sums: Path, start: Path) -> Path:
    more = {"max_steps": 3, "per_device_train_batch_size": 8, "save_steps": 1000}
    return command(reward, sums / "pairs", start, sums / "rm", **more)


def test_the_defaults_are_the_published_ones() -> None:
    found = ppo.PpoSettings()
    assert (found.gamma, found.lam, found.clip, found.value_weight, found.ppo_epochs, found.mini_batches) == (1.0, 0.95, 0.2, 0.1, 4, 1)
    assert (found.temperature, found.learning_rate, found.beta, found.whiten_rewards, found.whiten_advantages) == (
        1.0,
        3e-7,
        0.05,
        False,
        True,
    )
    assert (found.reward.right, found.reward.no_eos) == (10.0, -10.0)


def test_every_epoch_has_every_prompt_once_in_another_order() -> None:
    epochs = [[i for step in range(3 * e, 3 * e + 3) for i in ppo.order(12, 4, step, seed=1)] for e in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert ppo.order(12, 4, 7, seed=1) == epochs[2][4:8] and ppo.order(12, 4, 0, seed=2) != ppo.order(12, 4, 0, seed=1)


def test_answers_count_up_to_their_first_end() -> None:
    assert up_to_end(torch.tensor([[5, 2, 2, 2], [2, 5, 5, 2], [5, 5, 5, 5]]), [2]).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_a_rollout_holds_what_a_plain_forward_pass_says(sums: Path, start: Path, tmp_path: Path) -> None:
    job = settings(sums / "prompts", start, tmp_path / "run", temperature=0.7, **SMALL)
    run = ppo.Ppo(job, 1)
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in ("1+2", "What is 3 plus 3, please?", "0+0")]
    torch.manual_seed(3)
    found = run.rollout(rows)
    assert torch.allclose(found.logprobs, found.reference, atol=1e-5), "before any step the policy is its reference"
    prompt_width = found.ids.shape[1] - found.tokens.shape[1]
    for i, row in enumerate(rows):
        text = job.coder.tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        alone = job.coder.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert found.ids[i, :prompt_width][found.attention[i, :prompt_width].bool()].tolist() == alone
        said = found.tokens[i][found.mask[i].bool()].tolist()
        with torch.no_grad():
            logits = run.models.policy(torch.tensor([alone + said])).logits[0] / 0.7
            values = run.models.value(torch.tensor([alone + said])).logits[0, :, 0]
        for t, token in enumerate(said):
            at = len(alone) + t - 1
            assert found.logprobs[i, t].item() == pytest.approx(logits[at].log_softmax(-1)[token].item(), abs=1e-4)
            assert found.values[i, t].item() == pytest.approx(values[at].item(), abs=1e-4)
        assert not found.logprobs[i, len(said) :].any() and not found.values[i, len(said) :].any()


def test_the_value_model_is_the_reward_model(sums: Path, reward_model: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from training.ppo_state import load_value

    ids = AutoTokenizer.from_pretrained(reward_model)("1+2 is 3", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        score = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()(ids).logits[0, 0]
        values = load_value(str(reward_model), {}).eval()(ids).logits[0, :, 0]
    assert values[-1].item() == pytest.approx(score.item(), abs=1e-5) and score.item() != 0
    fresh = load_value(str(sums / "start"), {}).eval()
    assert not fresh(ids).logits.any(), "without a reward model nothing is expected at first"


@pytest.fixture(scope="module")
def finished(sums: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ppo") / "run"
    return command(ppo, sums / "prompts", start, out, **FINISHED)


def test_a_run_is_complete(finished: Path, start: Path) -> None:
    from transformers import AutoModelForCausalLM

    identity = json.loads((finished / "manifest.json").read_text())["identity"]
    assert identity["method"] == "ppo" and identity["metrics"]["best_checkpoint"] in ("step 2", "step 4")
    trained = [line for line in lines(finished) if "loss" in line]
    assert {"loss/policy", "loss/value", "kl", "clipped", "value/explained", "verified/gsm8k", "reward"} <= set(trained[0])
    assert trained[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert all(a["tokens"] < b["tokens"] for a, b in itertools.pairwise(trained))
    before, after = (dict(AutoModelForCausalLM.from_pretrained(p).named_parameters()) for p in (start, finished))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (finished / "samples" / "manifest.json").is_file() and (finished / "value" / "config.json").is_file()
    assert not (finished / "best.pt").exists()


def test_a_killed_run_goes_on_as_if_nothing_had_been(finished: Path, sums: Path, start: Path, tmp_path: Path, monkeypatch: Any) -> None:
    learn, out = ppo.Ppo.step, tmp_path / "killed"

    def dies(self: ppo.Ppo, step: int, *more: Any) -> Any:
        if step == 3:
            raise RuntimeError("killed")
        return learn(self, step, *more)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(ppo.Ppo, "step", dies)
        command(ppo, sums / "prompts", start, out, **FINISHED)
    command(ppo, sums / "prompts", start, out, **FINISHED)

    def said(run: Path) -> list[Any]:
        return [[line.get(k) for k in ("step", "loss", "reward", "kl", "eval_reward", "tokens")] for line in lines(run)]

    assert said(out) == said(finished)
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_answers_that_nobody_can_judge_teach_nothing(sums: Path, start: Path, tmp_path: Path) -> None:
    job = settings(sums / "prompts", start, tmp_path / "run", dev=0, value_weight=0.0, reward={"no_eos": None}, **SMALL)
    run = ppo.Ppo(job, 1)
    good = {"id": "a", "source": "s", "prompt": [{"role": "user", "content": "1+2"}], "verifier": "gsm8k", "ground_truth": "3"}
    before = {name: p.detach().clone() for name, p in run.models.policy.named_parameters()}
    line = run.step(0, [{**good, "id": str(i), "ground_truth": "no number"} for i in range(4)], lambda *_: None)
    assert line["unverified/gsm8k"] == 4 and line["loss"] == 0
    assert all(torch.equal(before[name], p) for name, p in run.models.policy.named_parameters())


def test_llama2s_two_reward_models(sums: Path, start: Path, reward_model: Path, tmp_path: Path) -> None:
    more = {"reward_by": "llama2", "reward": {"reward_model": str(reward_model), "no_eos": None}, "safety_model": str(reward_model)}
    out = command(ppo, sums / "prompts", start, tmp_path / "run", max_steps=2, dev=0, safety_sources=["sums"], **more, **SMALL)
    for line in lines(out):
        assert line["reward"] == pytest.approx(0, abs=1e-4), "a whitened reward has mean 0"
    with pytest.raises(ConfigError, match="safety_model"):
        command(ppo, sums / "prompts", start, tmp_path / "b", reward_by="llama2", reward={"reward_model": str(reward_model)})
    with pytest.raises(ConfigError, match="needs a reward model"):
        command(ppo, sums / "prompts", start, tmp_path / "c", reward_by="model")


def test_lora_trains_an_addition_and_saves_an_ordinary_model(sums: Path, start: Path, tmp_path: Path) -> None:
    out = command(ppo, sums / "prompts", start, tmp_path / "run", max_steps=1, dev=0, lora={"r": 4}, **SMALL)
    assert (out / "model.safetensors").is_file() and not (out / "adapter_config.json").exists()


def test_a_loss_that_is_no_number_ends_the_run_unsaved(
    sums: Path,
    start: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(CaravanError, match=r"the loss is (nan|inf)|norm (nan|inf)"):
        command(
            ppo, sums / "prompts", start, tmp_path / "run", max_steps=8, dev=0, **{**SMALL, "learning_rate": 1e30, "max_grad_norm": 1e30}
        )
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_dry_run_trains_nothing(sums: Path, start: Path, tmp_path: Path) -> None:
    args = arguments("x", None).parse_args(
        [str(sums / "prompts"), "--model", str(start), "--out", str(tmp_path / "run"), "--dry-run", "--set", "batch=4"]
    )
    told = ppo.train(open_job(args, "ppo", ppo.PpoSettings, ppo.NoMore))
    assert told["steps"] == 3 and not (tmp_path / "run" / "run.json").exists()
