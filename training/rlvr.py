"""Reinforcement learning with verifiable rewards, by TRL's GRPO or RLOO: sample answers, verify them, make the better ones likelier.

    python -m training.rlvr out/sums/prompts --model out/sft --out out/rlvr --set max_steps=200
    python -m training.rlvr out/rlvr_mix --model out/dpo --out out/rlvr --config recipes/training/tulu3_1_8b_grpo.yaml --dry-run

Rows of kind `prompt` name their verifiers; one run may mix as many as there are. `dev` prompts are held out: the checkpoint that does
best on them is the model that is kept. OUT/samples is a dataset directory of answers to look at (`python -m app OUT/samples`), and
`alarms` in the manifest says what looks gamed: length, distance from the reference, one verifier paid for by another.

On a GPU with vLLM: `--set use_vllm=true --set vllm_mode=colocate` (or `server`, after `trl vllm-serve --model M`).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from columnar import cli, store
from columnar.config import override, read_yaml
from columnar.errors import ConfigError
from training import data, samples
from training.metrics import read as read_metrics
from training.run import Job, Settings, arguments, main_process, open_job
from training.verified import VerifiedReward, Verifier, reward_function

if TYPE_CHECKING:
    from datasets import Dataset


class RlvrSettings(Settings):
    """RLVR's own keys; all others are TRL's (num_generations, beta, max_completion_length, loss_type, ...).

    Attributes:
        dev: prompts held out of the training set (by a hash of their id), or a dataset directory of prompts; 0 = none. A dataset with a
            validation split needs none.
        samples_every: steps between two looks at the answers (0 = none are kept).
    """

    algorithm: Literal["grpo", "rloo"] = "grpo"
    reward: VerifiedReward = VerifiedReward()
    dev: int | str = 64
    samples_every: int = 20


DEFAULTS = {
    "beta": 0.05,
    "learning_rate": 1e-6,
    "num_generations": 8,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "max_completion_length": 256,
    "eval_strategy": "steps",
    "eval_steps": 50,
    "metric_for_best_model": "eval_reward",
    "greater_is_better": True,
}
REDUCTIONS = {
    "grpo": "mean over the answers' tokens of a step (TRL's dapo; loss_type changes it), reward normalised within each prompt",
    "rloo": "mean over answers, each the sum of its tokens, against the mean reward of the prompt's other answers",
}


def hold_out(prompts: Dataset, dev: int, seed: int) -> tuple[Dataset, Dataset | None]:
    """(train, dev): the `dev` prompts with the smallest hash of seed and id, at most a quarter of all."""
    count = min(dev, len(prompts) // 4)
    if not count:
        return prompts, None
    ids = prompts["id"]
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}\x1fdev\x1f{ids[i]}".encode()).digest())
    return prompts.select(sorted(order[count:])), prompts.select(sorted(order[:count]))


def split(job: Job, needs_verifier: bool = True) -> tuple[Dataset, Dataset | None, dict[str, Any]]:
    """The prompts to train on, those to choose the checkpoint by, and what was counted.

    Raises:
        ConfigError: a prompt without a verifier, or with an unknown one.
    """
    prepared = job.prepared("train", "prompts")
    counts = {"train": vars(prepared.counts)}
    train, dev = prepared.dataset, None
    if isinstance(job.settings.dev, str):
        other = Job(**{**vars(job), "dataset": store.open_dataset(job.settings.dev), "out": job.out / "dev"})
        held = other.prepared("train", "prompts")
        dev, counts["dev"] = held.dataset, vars(held.counts)
    elif data.split_files(job.dataset, "validation"):
        held = job.prepared("validation", "prompts")
        dev, counts["dev"] = held.dataset if held.counts.kept else None, vars(held.counts)
    else:
        train, dev = hold_out(train, job.settings.dev, job.settings.seed or 0)
        counts["dev"] = {"rows": len(dev) if dev is not None else 0}
    used = Verifier(job.settings.reward).check([*train, *(dev or [])]) if needs_verifier else {}
    return train, dev, {**counts, "verifiers": dict(used)}


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token id that ends an answer."""
    config = getattr(model, "generation_config", None)
    known = config.eos_token_id if config is not None else None
    return {tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])} - {None}


def ordered(trainer_class: type) -> type:
    """TRL's trainer with an order of prompts that follows from the seed and the epoch alone: a killed run goes on with the same ones.

    TRL draws each epoch's order from one generator, which a resumed run would start anew in the middle.
    """

    class Ordered(trainer_class):
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            sampler, seed = super()._get_train_sampler(dataset), self.args.seed
            if sampler.shuffle:
                sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(seed * 1_000_003 + epoch)
            return sampler

    Ordered.__name__ = trainer_class.__name__
    return Ordered


def train(job: Job) -> dict[str, Any]:
    """Train and save the best checkpoint; returns the run's identity, or the plan of a dry run.

    Raises:
        ConfigError: rows without verifiers, or settings that do not fit each other.
    """
    import trl

    config, trainer_class = (trl.GRPOConfig, trl.GRPOTrainer) if job.settings.algorithm == "grpo" else (trl.RLOOConfig, trl.RLOOTrainer)
    prompts, dev, counts = split(job)
    defaults = DEFAULTS | ({"load_best_model_at_end": True} if dev is not None else {})
    given = job.trl()
    defaults["save_steps"] = given.get("eval_steps") or given.get("save_steps") or DEFAULTS["eval_steps"]
    settings = job.trainer_arguments(config, evaluates=dev is not None, defaults=defaults, remove_unused_columns=False)
    reduction = REDUCTIONS[job.settings.algorithm]
    if job.dry:
        from training.plan import plan

        return plan(job, settings, data.Counts(**counts["train"]), reduction, copies=1 + bool(settings.beta))
    if not job.begin():
        return {}
    if main_process():
        cli.say(f"learning rate {settings.learning_rate:g}, loss: {reduction}")
        cli.say(f"verifiers: {', '.join(f'{name} {n:,}' for name, n in counts['verifiers'].items())}; beta {settings.beta:g}")
    verifier = Verifier(job.settings.reward)
    start = int(job.checkpoint().name.rpartition("-")[2]) if job.checkpoint() else 0  # type: ignore[union-attr]
    kept = samples.Samples(job.out, job.settings.samples_every if main_process() else 0, start=start)
    held_out = set(dev["id"]) if dev is not None else set()
    ends: set[int] = {job.coder.tokenizer.eos_token_id}

    def keep(step: int, rows: list[dict[str, Any]], *more: Any) -> None:
        if rows[0]["id"] not in held_out:
            kept.keep(step, rows, *more)

    trainer = ordered(trainer_class)(
        model=job.model,
        reward_funcs=[reward_function(verifier, ends, keep)],
        args=settings,
        train_dataset=prompts,
        eval_dataset=dev,
        processing_class=job.coder.tokenizer,
        peft_config=job.peft(),
        callbacks=job.callbacks(),
    )
    ends |= end_tokens(trainer.model, job.coder.tokenizer)
    metrics = job.train(trainer)
    lines = read_metrics(job.out / "metrics.jsonl")
    counts |= {"verified": verifier.seen, "unverified": dict(verifier.unverified.most_common(20))}
    best = trainer.state.best_model_checkpoint
    metrics |= {"alarms": samples.alarms(lines), "best_checkpoint": Path(best).name if best else None}
    if main_process():
        for alarm in metrics["alarms"]:
            cli.say(f"watch: {alarm}")
        if samples.write_samples(job.out, job.out.name, job.key):
            cli.say(f"answers to look at: python -m app {job.out / 'samples'}")
    return job.finish(reduction, counts, metrics)


def algorithm(args: argparse.Namespace) -> str:
    """Which TRL trainer the config names, before the config can be checked against that trainer's keys.

    Raises:
        ConfigError: another name.
    """
    values = override(read_yaml(args.config) if args.config else {}, args.settings)
    name = str(values.get("algorithm", "grpo"))
    if name not in REDUCTIONS:
        raise ConfigError(f"algorithm {name!r}: expected grpo or rloo", "PPO is a command of its own: python -m training.ppo")
    return name


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    import trl

    theirs = trl.GRPOConfig if algorithm(args) == "grpo" else trl.RLOOConfig
    told = train(open_job(args, "rlvr", RlvrSettings, theirs))
    if args.json:
        cli.emit(told)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments("training.rlvr", __doc__)))
