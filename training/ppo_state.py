"""The models of a PPO run: loaded, optimised, checkpointed, saved.

models = Models(job, steps)      policy, reference, value, optimizer, scheduler
models.resume(checkpoint)        the step to go on from; only what is learnt is in a checkpoint
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, get_scheduler
from trl.trainer.utils import disable_dropout_in_model

from columnar import cli, store
from columnar.errors import ConfigError
from training.rlvr import end_tokens
from training.run import Job, align, main_process, max_parameters


class Models:
    """What is learnt (policy and value), what stays (the reference), and how it is stepped."""

    def __init__(self, job: Job, steps: int) -> None:
        config = job.settings
        gpu = torch.cuda.is_available()
        bf16 = config.bf16 if config.bf16 is not None else gpu and torch.cuda.is_bf16_supported()
        self.accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=not gpu)
        if not gpu and max_parameters(job.model) < 20_000_000:
            torch.set_num_threads(1)
        self.job, self.tokenizer = job, job.coder.tokenizer
        torch.manual_seed(config.seed)
        policy = AutoModelForCausalLM.from_pretrained(job.model, **job.model_kwargs())
        value = load_value(config.value_model or config.reward.reward_model or job.model, job.model_kwargs())
        lora = job.peft()
        if lora is None:
            self.reference = AutoModelForCausalLM.from_pretrained(job.model, **job.model_kwargs()).to(self.accelerator.device).eval()
        else:
            from peft import get_peft_model

            small = job.peft("TOKEN_CLS")
            small.exclude_modules = ["score"]  # the head is one row: it is trained whole
            policy, value = get_peft_model(policy, lora), get_peft_model(value, small)
            self.reference = None  # the policy without its addition
        for model in (policy, value):
            align(model, self.tokenizer)
            disable_dropout_in_model(model)
            for part in model.modules():
                if isinstance(getattr(part, "attention_dropout", None), float):  # not a module of its own in most families
                    part.attention_dropout = 0.0
            if config.gradient_checkpointing if config.gradient_checkpointing is not None else gpu:
                model.gradient_checkpointing_enable()
                model.enable_input_require_grads()
        self.ends = sorted(end_tokens(policy, self.tokenizer))
        learnt = [p for model in (policy, value) for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=config.learning_rate, eps=1e-5, weight_decay=config.weight_decay)
        updates = steps * config.ppo_epochs * config.mini_batches
        self.scheduler = get_scheduler(config.lr_scheduler_type, optimizer, round(config.warmup_ratio * updates), updates)
        self.policy, self.value, self.optimizer = self.accelerator.prepare(policy, value, optimizer)
        self.learnt, self.best = learnt, (-math.inf, "")

    def train(self, mode: bool) -> None:
        """To learn (gradient checkpointing is on where it is wanted) or to answer; there is no dropout either way."""
        self.policy.train(mode)
        self.value.train(mode)

    def _state(self) -> dict[str, Any]:
        models = {"policy": self.policy, "value": self.value}
        return {
            name: {k: v.detach().cpu().clone() for k, v in self.accelerator.unwrap_model(model).named_parameters() if v.requires_grad}
            for name, model in models.items()
        }

    def _restore(self, state: dict[str, Any]) -> None:
        for name, model in (("policy", self.policy), ("value", self.value)):
            self.accelerator.unwrap_model(model).load_state_dict(state[name], strict=False)

    def remember_best(self, step: int, reward: float) -> None:
        """Keep these weights if they did better on the dev set than any before."""
        if reward > self.best[0]:
            self.best = (reward, f"step {step}")
            write_tensors(self.job.out / "best.pt", self._state())

    def checkpoint(self, step: int) -> None:
        """Where a killed run goes on; the two newest are kept."""
        here = self.job.out / "checkpoints" / f"checkpoint-{step}"
        more = {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict(), "best": self.best}
        write_tensors(here / "state.pt", self._state() | more)
        if main_process():
            store.write_json(here / "trainer_state.json", {"global_step": step})  # last: with it the checkpoint is whole
            for old in sorted(here.parent.glob("checkpoint-*"), key=lambda p: int(p.name[11:]))[:-2]:
                shutil.rmtree(old)

    def resume(self, checkpoint: Path | None) -> int:
        """The step to go on from: the checkpoint's, or 0."""
        if checkpoint is None:
            return 0
        state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
        self._restore(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.best = tuple(state["best"])
        cli.say(f"going on from {checkpoint.name}")
        return int(checkpoint.name[11:])

    def save(self) -> str | None:
        """The best policy (the last one without a dev set) in OUT, the value model in OUT/value; which step it is of."""
        best = self.job.out / "best.pt"
        if self.best[1]:
            self._restore(torch.load(best, map_location="cpu", weights_only=True))
        if main_process():
            lora = self.job.settings.lora
            for model, place in ((self.policy, self.job.out), (self.value, self.job.out / "value")):
                model = self.accelerator.unwrap_model(model)
                (model.merge_and_unload() if lora is not None and lora.merge else model).save_pretrained(place)
                self.tokenizer.save_pretrained(place)
            best.unlink(missing_ok=True)
        return self.best[1] or None


def load_value(path: str, kwargs: dict[str, Any]) -> Any:
    """A value for every token: a reward model's weights and head, or a policy's weights and a head of zeros.

    Raises:
        ConfigError: an architecture without a head for tokens.
    """
    try:
        model, info = AutoModelForTokenClassification.from_pretrained(path, num_labels=1, output_loading_info=True, **kwargs)
    except ValueError as error:
        raise ConfigError(f"value_model {path}: {error}", "expected a reward model or a causal language model of a known family") from error
    if "score.weight" in info["missing_keys"]:
        model.score.weight.data.zero_()
    if model.score.bias is not None:
        model.score.bias.data.zero_()
    return model


def write_tensors(path: Path, state: dict[str, Any]) -> None:
    """torch.save in one step, by the first process."""
    if main_process():
        with store.whole_file(path) as temporary:
            torch.save(state, temporary)
