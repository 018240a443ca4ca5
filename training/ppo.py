"""PPO in one file: answers are sampled and rewarded, a value model says what was to be expected, and the policy moves by what was better.

    python -m training.ppo out/sums/prompts --model out/sft --out out/ppo --set max_steps=100
    python -m training.ppo out/rlvr_mix --model out/dpo --out out/ppo --config recipes/training/tulu3_8b_rlvr.yaml

Each step: `batch` prompts (a new order every epoch) -> an answer each -> its reward -> minus beta times the KL from the reference, token
by token -> advantages (GAE) -> `ppo_epochs` passes of the clipped losses. The arithmetic is in ppo_math.py.

    reward_by: verifier   the row's verifiers (Tülu 3: 10, 0, and -10 without an end)          `reward: {...}`, see training/verified.py
               model      a reward model's score                                               `reward: {reward_model: DIR}`
               llama2     helpfulness and safety models, piecewise, logits whitened             + `safety_model`, `safety_sources`

The value model starts from a reward model (Tülu 3 found it better than the policy), else from the policy with a zero head. Dropout is
off. A step's seed follows from the run's seed and the step: a killed run goes on as if nothing had been. With `accelerate launch`
there is one process a device, and gradients, whitening and metrics are over all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from columnar import cli
from columnar.errors import ConfigError
from training import samples
from training.metrics import read as read_metrics
from training.rlvr import split
from training.run import Job, Settings, arguments, failures, main_process, open_job
from training.template import encode_prompts
from training.verified import Judged, VerifiedReward, Verifier, breakdown

if TYPE_CHECKING:
    from torch import Tensor


class PpoSettings(Settings):
    """Every key of PPO's config; the defaults are Tülu 3's (table 21) where it has them."""

    reward_by: Literal["verifier", "model", "llama2"] = "verifier"
    reward: VerifiedReward = VerifiedReward()
    safety_model: str | None = None
    safety_sources: tuple[str, ...] = ()  # prompts of these sources are about safety
    value_model: str | None = None
    dev: int | str = 64
    samples_every: int = 20
    learning_rate: float = 3e-7
    lr_scheduler_type: str = "linear"
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_steps: int = -1
    num_train_epochs: float = 1.0
    batch: int | None = 64  # answers a step, over all devices
    per_device_train_batch_size: int = 8  # answers at once through the models
    ppo_epochs: int = 4
    mini_batches: int = 1
    max_prompt_length: int = 1024
    max_completion_length: int = 256
    temperature: float = Field(1.0, gt=0)
    beta: float = 0.05
    kl_estimator: Literal["k1", "k3"] = "k1"
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    value_weight: float = 0.1
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    eval_steps: int = 40
    save_steps: int = 40
    seed: int = 42
    bf16: bool | None = None  # None: where the GPU can
    gradient_checkpointing: bool | None = None  # None: on a GPU


WATCHED = ("clipped", "approx_kl")


@dataclass
class NoMore:
    """There is no TRL config of PPO: all keys are ours."""


def order(n: int, batch: int, step: int, seed: int) -> list[int]:
    """Which prompts step `step` takes: every epoch a new shuffle of all n, from the seed and the epoch alone."""
    out = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, n)
        out.append(_shuffled(n, epoch, seed)[place])
    return out


@lru_cache(maxsize=2)
def _shuffled(n: int, epoch: int, seed: int) -> list[int]:
    return random.Random(f"{seed}/{epoch}").sample(range(n), n)


@dataclass
class Rollout:
    """The answers of one step and what was known when they were given; (answers, time) tensors, 0 in the padding."""

    ids: Tensor  # prompt (padded on the left) and answer (padded on the right)
    attention: Tensor
    tokens: Tensor  # the answers alone
    mask: Tensor
    logprobs: Tensor
    reference: Tensor
    values: Tensor


class Ppo:
    """The models and the two halves of a step: `rollout` and `learn`."""

    def __init__(self, job: Job, steps: int) -> None:
        from training.ppo_state import Models

        self.job, self.config, self.tokenizer = job, job.settings, job.coder.tokenizer
        self.reward = Verifier(job.settings.reward)
        self.models = Models(job, steps)
        self.accelerator, self.device, self.ends = self.models.accelerator, self.models.accelerator.device, self.models.ends

    def mine(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """This process's share of a batch."""
        return rows[self.accelerator.process_index :: self.accelerator.num_processes]

    def step(self, step: int, rows: list[dict[str, Any]], keep: Callable[..., None]) -> dict[str, Any]:
        """Sample, reward, learn; returns the step's metrics."""
        import torch

        purpose = f"{self.config.seed}/{step}/{self.accelerator.process_index}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:6]))
        rollout = self.rollout(rows)
        answers, judged = self.judge(rows, rollout)
        keep(step, rows, answers, judged)
        unknown = torch.tensor([one.reward is None for one in judged], device=self.device)
        lengths = rollout.mask.sum(1)
        rollout.mask[unknown] = 0  # what nobody could judge teaches nothing
        line = self.learn(rollout, torch.tensor([one.reward or 0.0 for one in judged], device=self.device))
        known = [one.reward for one in judged if one.reward is not None]
        line |= breakdown(judged, answers, [row["id"] for row in rows])
        line |= {"reward": sum(known) / max(1, len(known)), "num_tokens": int(rollout.attention.sum()) * self.accelerator.num_processes}
        line["completions/mean_length"] = float(lengths.mean())
        return self._over_processes(line)

    def rollout(self, rows: list[dict[str, Any]]) -> Rollout:
        """An answer to each row, with log-probabilities under the policy and its reference, and the values."""
        import torch

        from training.ppo_math import up_to_end

        coder = self.job.coder
        asked = encode_prompts(coder.tokenizer, coder.template, [row["prompt"] for row in rows], [None] * len(rows))
        prompts = self.tokenizer.pad({"input_ids": asked}, padding_side="left", return_tensors="pt").to(self.device)
        policy = self.accelerator.unwrap_model(self.models.policy)
        self.models.train(False)
        with torch.no_grad():
            ids = policy.generate(
                input_ids=prompts["input_ids"],
                attention_mask=prompts["attention_mask"],
                max_new_tokens=self.config.max_completion_length,
                do_sample=True,
                temperature=self.config.temperature,
                top_k=0,
                top_p=1.0,
                repetition_penalty=1.0,
                eos_token_id=self.ends,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            tokens = ids[:, prompts["input_ids"].shape[1] :]
            mask = up_to_end(tokens, self.ends)
            attention = torch.cat([prompts["attention_mask"], mask.long()], 1)
            made = Rollout(ids, attention, tokens, mask, *(torch.zeros_like(mask) for _ in range(3)))
            for part in chunks(len(rows), self.config.per_device_train_batch_size):
                made.logprobs[part] = self._logprobs(policy, made, part) * mask[part]
                made.values[part] = self._values(made, part) * mask[part]
                if self.models.reference is not None:
                    made.reference[part] = self._logprobs(self.models.reference, made, part) * mask[part]
                else:
                    with policy.disable_adapter():
                        made.reference[part] = self._logprobs(policy, made, part) * mask[part]
        return made

    def _inputs(self, rollout: Rollout, part: slice | Tensor) -> dict[str, Any]:
        attention = rollout.attention[part]
        positions = (attention.cumsum(1) - 1).clamp(min=0)  # padding on the left must not shift them
        return {"input_ids": rollout.ids[part], "attention_mask": attention, "position_ids": positions, "use_cache": False}

    def _logprobs(self, model: Any, rollout: Rollout, part: slice | Tensor) -> Tensor:
        from training.ppo_math import logprobs_of

        kept = rollout.tokens.shape[1] + 1
        logits = model(**self._inputs(rollout, part), logits_to_keep=kept).logits
        return logprobs_of(logits[:, -kept:-1], rollout.tokens[part], self.config.temperature)

    def _values(self, rollout: Rollout, part: slice | Tensor) -> Tensor:
        kept = rollout.tokens.shape[1] + 1
        return self.models.value(**self._inputs(rollout, part)).logits[:, -kept:-1, 0].float()  # what is expected before each token

    def judge(self, rows: list[dict[str, Any]], rollout: Rollout, whitened: bool = True) -> tuple[list[str], list[Judged]]:
        """The answers as texts, and what each is worth (Llama 2's reward whitened over the batch, or as it is)."""
        import torch

        from training.ppo_math import llama2_reward, no_end

        config, said = self.config, [t[m.bool()] for t, m in zip(rollout.tokens, rollout.mask, strict=True)]
        answers = self.tokenizer.batch_decode(said, skip_special_tokens=True)
        ended = [int(t[-1]) in self.ends for t in said]
        if config.reward_by == "verifier":
            return answers, self.reward.judge(rows, answers, ended)
        helpful = scores = self._scored(config.reward.reward_model, rows, answers)
        if config.reward_by == "llama2":
            safe = self._scored(config.safety_model, rows, answers)
            about = torch.tensor([row["source"] in config.safety_sources for row in rows], device=self.device)
            scores = llama2_reward(helpful, safe, about, total=self._total if whitened else None)
        if config.reward.no_eos is not None:
            scores = no_end(scores, torch.tensor(ended, device=self.device), config.reward.no_eos)
        return answers, [Judged(*each) for each in zip(scores.tolist(), [None] * len(rows), helpful.tolist(), ended, strict=True)]

    def _scored(self, model: str, rows: list[dict[str, Any]], answers: list[str]) -> Tensor:
        import torch

        from generation.judge_local import reward_scores

        talks = [[*row["prompt"], {"role": "assistant", "content": answer}] for row, answer in zip(rows, answers, strict=True)]
        size = self.config.per_device_train_batch_size
        return torch.tensor([score for part in chunks(len(talks), size) for score in reward_scores(model, talks[part])], device=self.device)

    def learn(self, rollout: Rollout, scores: Tensor) -> dict[str, float]:
        """Advantages, and `ppo_epochs` passes of the clipped losses over them; returns the means of what was seen."""
        import torch

        from training.ppo_math import advantages, kl_per_token, masked_mean, masked_variance, policy_loss, token_rewards, value_loss, whiten

        config, mask = self.config, rollout.mask
        kl = kl_per_token(rollout.logprobs, rollout.reference, config.kl_estimator) * mask
        rewards = token_rewards(scores, kl, mask, config.beta)
        if config.whiten_rewards:
            rewards = whiten(rewards, mask, shift=False, total=self._total)
        gains, returns = advantages(rewards, rollout.values, mask, config.gamma, config.lam)
        unexplained = masked_variance(returns - rollout.values, mask) / masked_variance(returns, mask).clamp(min=1e-8)
        if config.whiten_advantages:
            gains = whiten(gains, mask, total=self._total)
        seen: list[dict[str, float]] = []
        self.models.train(True)
        for _ in range(config.ppo_epochs):
            for mini in torch.randperm(len(mask)).to(self.device).chunk(config.mini_batches):
                tokens = mask[mini].sum().clamp(min=1)
                for part in chunks(len(mini), config.per_device_train_batch_size):
                    where = mini[part]
                    share = mask[where].sum() / tokens  # so that micro-batches add up to the mean over the mini-batch's tokens
                    moved = policy_loss(
                        self._logprobs(self.models.policy, rollout, where), rollout.logprobs[where], gains[where], mask[where], config.clip
                    )
                    off = value_loss(self._values(rollout, where), rollout.values[where], returns[where], mask[where], config.value_clip)
                    loss = moved.loss + config.value_weight * off
                    self.accelerator.backward(loss * share)
                    told = {"loss": loss, "loss/policy": moved.loss, "loss/value": off, **dict(zip(WATCHED, moved[1:], strict=True))}
                    seen.append({name: float((value * share).detach()) for name, value in told.items()})
                norm = self.accelerator.clip_grad_norm_(self.models.learnt, config.max_grad_norm)
                self.models.optimizer.step()
                self.models.scheduler.step()
                self.models.optimizer.zero_grad()
        updates = config.ppo_epochs * config.mini_batches
        line = {name: sum(one[name] for one in seen) / updates for name in seen[0]}
        line |= {"grad_norm": float(norm), "learning_rate": self.models.scheduler.get_last_lr()[0], "kl": float(masked_mean(kl, mask))}
        return line | {"value/mean": float(masked_mean(rollout.values, mask)), "value/explained": 1 - float(unexplained)}

    def evaluate(self, dev: Any) -> dict[str, float]:
        """The mean reward of one answer to each dev prompt, sampled with the same seed every time."""
        import torch

        torch.manual_seed(self.config.seed)
        rows, rewards = self.mine(list(dev)), []
        for part in chunks(len(rows), self.config.batch or 64):
            judged = self.judge(rows[part], self.rollout(rows[part]), whitened=False)[1]  # whitened, every policy would have 0
            rewards += [one.reward for one in judged if one.reward is not None]
        return self._over_processes({"eval_reward": sum(rewards) / max(1, len(rewards))})

    def _total(self, value: Tensor) -> Tensor:
        return self.accelerator.reduce(value, reduction="sum")

    def _over_processes(self, line: dict[str, Any]) -> dict[str, Any]:
        from accelerate.utils import gather_object

        lines = gather_object([line])
        return {name: sum(x[name] for x in lines if name in x) / sum(name in x for x in lines) for name in line}


def train(job: Job) -> dict[str, Any]:
    """Train and save the best checkpoint; returns the run's identity, or the plan of a dry run.

    Raises:
        ConfigError: prompts without verifiers, or a reward that names no model.
    """
    from training.watch import Watch

    config = job.settings
    _check(config)
    prompts, dev, counts = split(job, needs_verifier=config.reward_by == "verifier")
    steps = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * len(prompts) / config.batch)
    reduction = "mean over the answers' tokens of a mini-batch, advantages whitened over the step"
    if job.dry:
        return _plan(job, counts, reduction, steps)
    if not job.begin():
        return {}
    with failures(job):
        run = Ppo(job, steps)
        start = run.models.resume(job.checkpoint())
        kept = samples.Samples(job.out, config.samples_every if main_process() else 0, start=start)
        state = SimpleNamespace(is_world_process_zero=main_process(), global_step=start, max_steps=steps, log_history=[])
        watch = Watch(job.out, steps)
        watch.on_train_begin(None, state, None)
        if main_process():
            cli.say(f"learning rate {config.learning_rate:g}, loss: {reduction}; {steps:,} steps of {config.batch} answers")
        last: dict[str, Any] = {}

        def log(line: dict[str, Any]) -> None:
            last.update(line)
            state.log_history.append(line)
            watch.on_log(None, state, None, logs=dict(line))

        if dev is not None and start == 0:
            log(run.evaluate(dev))
        tokens = 0
        for step in range(start, steps):
            rows = [prompts[i] for i in order(len(prompts), config.batch, step, config.seed)]
            line = run.step(step, run.mine(rows), kept.keep)
            state.global_step, tokens = step + 1, tokens + line["num_tokens"]
            log(line | {"num_tokens": tokens})
            watch.bar.add(1, note=f"reward {line['reward']:.2f}")
            at_end = step + 1 == steps
            if dev is not None and ((step + 1) % config.eval_steps == 0 or at_end):
                scores = run.evaluate(dev)
                log(scores)
                run.models.remember_best(step + 1, scores["eval_reward"])
            if (step + 1) % config.save_steps == 0 and not at_end:
                run.models.checkpoint(step + 1)
        best = run.models.save()
    metrics = {k: v for k, v in last.items() if k not in ("step", "epoch")}
    metrics |= {"alarms": samples.alarms(read_metrics(job.out / "metrics.jsonl")), "best_checkpoint": best}
    counts |= {"verified": run.reward.seen, "unverified": dict(run.reward.unverified.most_common(20))}
    if main_process():
        for alarm in metrics["alarms"]:
            cli.say(f"watch: {alarm}")
        samples.write_samples(job.out, job.out.name, job.key)
    return job.finish(reduction, counts, metrics)


def _check(config: PpoSettings) -> None:
    if config.reward_by != "verifier" and not config.reward.reward_model:
        raise ConfigError(f"reward_by: {config.reward_by} needs a reward model", "set reward.reward_model=DIR (python -m training.reward)")
    if config.reward_by == "llama2" and not config.safety_model:
        raise ConfigError("reward_by: llama2 needs safety_model, a reward model that scores safety")
    parts = config.mini_batches * int(os.environ.get("WORLD_SIZE", "1"))
    if not config.batch or config.batch % parts:
        raise ConfigError(f"batch {config.batch}: expected a multiple of mini_batches times processes ({parts})")


def _plan(job: Job, counts: dict[str, Any], reduction: str, steps: int) -> dict[str, Any]:
    from training.data import Counts
    from training.plan import plan

    config = job.settings
    accumulated = max(1, config.batch // config.per_device_train_batch_size)
    known = {"gradient_checkpointing": bool(config.gradient_checkpointing), "bf16": bool(config.bf16), "max_steps": steps}
    told = SimpleNamespace(**{**config.model_dump(), **known, "gradient_accumulation_steps": accumulated})
    return plan(job, told, Counts(**counts["train"]), reduction, copies=3)


def chunks(n: int, size: int) -> Iterator[slice]:
    """0..n in slices of at most `size`."""
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    told = train(open_job(args, "ppo", PpoSettings, NoMore))
    if args.json:
        cli.emit(told)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments("training.ppo", __doc__)))
