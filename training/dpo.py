"""Direct preference optimisation: the better answer of a pair made likelier than the worse one, measured against a reference.

    python -m training.dpo out/pairs --model tiny --out out/dpo
    python -m training.dpo out/pairs --model out/sft --out out/dpo --set loss_type=sigmoid_norm --set beta=5

    loss_type   sigmoid        DPO (arXiv 2305.18290): log-ratios summed over an answer's tokens, beta about 0.1
                sigmoid_norm   Tülu 3's: their mean over the tokens, so that length does not count; beta 5
                ipo            arXiv 2310.12036, and every other loss of TRL's
    nll_weight  adds that much of the chosen answer's likelihood (RPO, arXiv 2404.19733)

The reference's log-probabilities are computed once, before training, and kept beside the tokens. A report says which of the answers the
policy wrote itself, and how likely it finds the others: preference data work best close to the policy (arXiv 2411.15124, section 5).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from columnar.cli import emit, run, say, table
from columnar.errors import ConfigError
from training.run import Job, arguments, failures, main_process, open_job
from training.settings import Settings

# what a loss does with the log-ratios of an answer's tokens
OVER_TOKENS = {"sigmoid_norm": "mean over tokens", "ipo": "mean over tokens"}


class DpoSettings(Settings):
    """DPO's own keys."""

    loss_type: str | list[str] = "sigmoid"
    loss_weights: list[float] | None = None
    nll_weight: float = 0.0
    policy: tuple[str, ...] = ()  # names under which the rows know the model that is trained


def losses(job: Job) -> dict[str, Any]:
    """TRL's loss_type and loss_weights."""
    kinds = [job.settings.loss_type] if isinstance(job.settings.loss_type, str) else list(job.settings.loss_type)
    weights = list(job.settings.loss_weights or [1.0] * len(kinds))
    if len(weights) != len(kinds):
        raise ConfigError(f"loss_weights: {len(weights)} weights for {len(kinds)} losses")
    if job.settings.nll_weight:
        kinds, weights = [*kinds, "sft"], [*weights, job.settings.nll_weight]
    return {"loss_type": kinds, "loss_weights": weights if len(kinds) > 1 else None}


def described(settings: Any) -> str:
    """The loss in words."""
    weights = settings.loss_weights or [1.0]
    parts = [
        f"{weight:g} x {kind} ({OVER_TOKENS.get(kind, 'sum over tokens')})"
        for kind, weight in zip(settings.loss_type, weights, strict=True)
    ]
    return f"mean over pairs of {' + '.join(parts).replace('sft (sum over tokens)', 'sft (mean over tokens)')}, beta {settings.beta:g}"


def policy_report(dataset: Any, policy: list[str]) -> list[dict[str, Any]]:
    """One line for each model that wrote answers: how many, chosen how often, and how likely the reference finds them, per token."""
    seen: dict[str, dict[str, float]] = {}
    for line in dataset:
        for side in ("chosen", "rejected"):
            entry = seen.setdefault(line[f"{side}_model"] or "(unknown)", {"answers": 0, "chosen": 0, "tokens": 0, "logp": 0.0})
            entry["answers"] += 1
            entry["chosen"] += side == "chosen"
            entry["tokens"] += len(line[f"{side}_ids"])
            entry["logp"] += line.get(f"ref_{side}_logps") or 0.0
    known = "ref_chosen_logps" in dataset.column_names
    return [
        {
            "model": model,
            "on_policy": None if model == "(unknown)" else model in policy,
            "answers": int(e["answers"]),
            "chosen": e["chosen"] / e["answers"],
            "tokens": e["tokens"] / e["answers"],
            "logp_per_token": e["logp"] / e["tokens"] if known and e["tokens"] else None,
        }
        for model, e in sorted(seen.items(), key=lambda item: -item[1]["answers"])
    ]


def train(job: Job) -> dict[str, Any]:
    """Train and save; returns the run's identity, or the plan of a dry run."""
    from trl import DPOConfig, DPOTrainer

    from training.plan import limited, plan

    class Tokenised(DPOTrainer):
        """Takes the columns as they are: they are tokens already, those that `training.data` shows."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    prepared = job.prepared("train", "dpo", limit=limited(job))
    held_out = job.prepared("validation", "dpo", limit=limited(job))
    settings = job.trainer_arguments(
        DPOConfig, bool(held_out.counts.kept), {"precompute_ref_log_probs": True}, max_length=None, **losses(job)
    )
    reduction = described(settings)
    if job.dry:
        return plan(job, settings, prepared.counts, reduction, copies=1 if settings.precompute_ref_log_probs else 2, rows_per_item=2)
    if not job.begin():
        return {}
    if main_process():
        say(f"learning rate {settings.learning_rate:g}, loss: {reduction}")
    with failures(job):  # the reference is computed here
        trainer = Tokenised(
            model=job.model,
            args=settings,
            train_dataset=prepared.dataset,
            eval_dataset=held_out.dataset if held_out.counts.kept else None,
            processing_class=job.coder.tokenizer,
            peft_config=job.peft(),
            callbacks=job.callbacks(),
        )
    report = policy_report(trainer.train_dataset, [job.model, Path(job.model).name, *job.settings.policy])
    if main_process():
        say(table(report))
    metrics = job.train(trainer)
    return job.finish(reduction, {"train": vars(prepared.counts), "validation": vars(held_out.counts), "answers_by_model": report}, metrics)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from trl import DPOConfig

    told = train(open_job(args, "dpo", DpoSettings, DPOConfig))
    if args.json:
        emit(told)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, arguments("training.dpo", __doc__)))
