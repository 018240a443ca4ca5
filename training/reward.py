"""Reward models: a number for an answer, learnt from pairs of which one is better (Bradley-Terry), with Llama 2's margins.

    python -m training.reward out/pairs --model tiny --out out/rm --set margin=large --set grades='[4, 2, 1]'
    python -m training.reward out/pairs --model out/sft --out out/safety_rm --config recipes/training/llama2_chat_rm_safety.yaml

`margin: small | large` asks strong pairs to lie further apart (arXiv 2307.09288, table 27). How strong a pair is says `meta.strength`
(significantly, better, slightly, negligibly); without it `grades` puts the difference of the two scores into these four bins.
Accuracy on held-out pairs is told by strength: a model that only sees the easy ones is not a good one.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from typing import Any, Literal

from columnar import store
from columnar.cli import emit, run, say, table
from columnar.config import Config
from columnar.errors import ConfigError, InputError
from training import data
from training.run import Job, arguments, failures, main_process, open_job
from training.settings import Settings

STRENGTHS = ("significantly", "better", "slightly", "negligibly")
MARGINS = {
    "small": dict(zip(STRENGTHS, (1.0, 2 / 3, 1 / 3, 0.0), strict=True)),
    "large": dict(zip(STRENGTHS, (3.0, 2.0, 1.0, 0.0), strict=True)),
}


class Share(Config):
    """All pairs of the main sources, and so many of the others, drawn evenly, that they make up `share` of the whole."""

    main: list[str]
    others: list[str] | None = None
    share: float = 0.5


class RewardSettings(Settings):
    """A reward model's own keys."""

    margin: Literal["none", "small", "large"] = "none"
    grades: tuple[float, float, float] | None = None  # differences of scores from which a pair counts as significantly, better, slightly
    mix: Share | None = None


def strength_of(line: dict[str, Any], grades: tuple[float, float, float] | None) -> str | None:
    """One of STRENGTHS, or None when nothing tells. `meta.strength` may be longer: `slightly better`."""
    said = str(line["strength"] or "").lower().split()
    if said and said[0] in (*STRENGTHS, "unsure"):
        return said[0] if said[0] != "unsure" else "negligibly"
    if grades is None or line["difference"] is None:
        return None
    return next((name for name, least in zip(STRENGTHS, grades, strict=False) if line["difference"] >= least), STRENGTHS[-1])


def drawn(dataset: store.Dataset, mix: Share, seed: int) -> set[str]:
    """The ids of the training rows that a mix of sources takes; the same for the same seed, whatever the order of the rows.

    Raises:
        ConfigError: sources that are not there, or a share that cannot be reached.
    """
    by_source: dict[str, list[str]] = {}
    for rows in data.rows_of(dataset, "train"):
        for row in rows:
            by_source.setdefault(row["source"], []).append(row["id"])
    others = mix.others if mix.others is not None else sorted(set(by_source) - set(mix.main))
    unknown = sorted(set(mix.main + others) - set(by_source))
    if unknown or not 0 <= mix.share < 1:
        raise ConfigError(
            f"mix: no such source: {', '.join(unknown)}" if unknown else f"mix.share: {mix.share}, expected 0 to below 1",
            str(sorted(by_source)),
        )
    main = [i for source in mix.main for i in by_source[source]]
    pool = sorted((i for source in others for i in by_source[source]), key=lambda i: hashlib.sha256(f"{seed}/{i}".encode()).digest())
    wanted = round(len(main) * mix.share / (1 - mix.share))
    if wanted > len(pool):
        say(f"warning: mix wants {wanted:,} pairs of {', '.join(others)}, there are {len(pool):,}")
    return {*main, *pool[:wanted]}


def graded(job: Job, prepared: data.Prepared) -> Any:
    """The columns with `strength` settled and, when margins are asked for, `margin`.

    Raises:
        InputError: margins are asked for and some pair does not tell how strong it is.
    """
    names = [strength_of(line, job.settings.grades) for line in prepared.dataset.select_columns(["strength", "difference"])]
    columns = prepared.dataset.remove_columns(["strength", "difference"]).add_column("strength", [name or "unknown" for name in names])
    if job.settings.margin == "none":
        return columns
    missing = names.count(None)
    if missing:
        raise InputError(
            f"margin {job.settings.margin}: {missing:,} of {len(names):,} pairs do not tell how strong they are",
            "give pairs meta.strength, or scores and the setting grades, for example grades=[4, 2, 1] for scores of 1 to 10",
        )
    table = MARGINS[job.settings.margin]
    return columns.add_column("margin", [table[name] for name in names if name])


def train(job: Job) -> dict[str, Any]:
    """Train and save; returns the run's identity, or the plan of a dry run."""
    from trl import RewardConfig, RewardTrainer

    from training.plan import limited, plan

    mix, seed = job.settings.mix, job.settings.seed or 42
    prepared = job.prepared("train", "reward", limit=limited(job), keep=drawn(job.dataset, mix, seed) if mix else None)
    held_out = job.prepared("validation", "reward", limit=limited(job))
    settings = job.trainer_arguments(RewardConfig, evaluates=bool(held_out.counts.kept), max_length=None)
    centred = f", centred by {settings.center_rewards_coefficient:g}" if settings.center_rewards_coefficient else ""
    reduction = f"mean over pairs of -log sigmoid(difference - margin), margins: {job.settings.margin}{centred}"
    if job.dry:
        return plan(job, settings, prepared.counts, reduction, rows_per_item=2)
    columns = graded(job, prepared).remove_columns("strength")
    tested = graded(job, held_out) if held_out.counts.kept else None
    if not job.begin():
        return {}
    if main_process():
        say(f"learning rate {settings.learning_rate:g}, loss: {reduction}")
    with failures(job):
        trainer = RewardTrainer(
            model=job.model,
            args=settings,
            train_dataset=columns,
            eval_dataset=tested.remove_columns("strength") if tested else None,
            processing_class=job.coder.tokenizer,
            peft_config=job.peft("SEQ_CLS"),
            callbacks=job.callbacks(),
        )
    metrics = job.train(trainer)
    counts: dict[str, Any] = {"train": vars(prepared.counts), "validation": vars(held_out.counts)}
    if tested:
        report = by_strength(tested["strength"][:], differences(trainer, tested))
        counts["held_out_by_strength"] = report
        metrics["eval_accuracy"] = report[-1]["accuracy"]
        if main_process():
            say(table(report))
    return job.finish(reduction, counts, metrics)


def differences(trainer: Any, columns: Any) -> list[float]:
    """The trained model's reward of the better answer minus that of the worse one, pair by pair."""
    import torch

    model, size, out = trainer.model.eval(), trainer.args.per_device_eval_batch_size, []
    for start in range(0, len(columns), size):
        lines = [columns[i] for i in range(start, min(start + size, len(columns)))]
        batch = trainer.data_collator([{k: line[k] for k in ("chosen_ids", "rejected_ids")} for line in lines])
        with torch.no_grad():
            rewards = model(**{k: v.to(model.device) for k, v in batch.items()}, use_cache=False).logits.squeeze(-1).float()
        chosen, rejected = rewards.chunk(2)
        out += (chosen - rejected).tolist()
    return out


def by_strength(strengths: list[str], found: list[float]) -> list[dict[str, Any]]:
    """Pairs, accuracy and mean difference of rewards for each strength, strongest first, and for all. A tie is half right."""
    lines = []
    for name in (*STRENGTHS, "unknown", "all"):
        values = [d for s, d in zip(strengths, found, strict=True) if name in ("all", s)]
        if values:
            right = sum((d > 0) + 0.5 * (d == 0) for d in values)
            lines.append({"strength": name, "pairs": len(values), "accuracy": right / len(values), "difference": sum(values) / len(values)})
    return lines


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from trl import RewardConfig

    told = train(open_job(args, "reward", RewardSettings, RewardConfig))
    if args.json:
        emit(told)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, arguments("training.reward", __doc__)))
