"""On-policy distillation: the student answers, and learns the teacher's distribution over every next token (arXiv 2306.13649).

    python -m training.distill out/tiny --model tiny --teacher out/sft --out out/student

Prompts are those of any kind of rows. Student and teacher must have the same tokens. `beta` goes from forward KL (0) to reverse KL (1).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from columnar.cli import emit, run, say
from columnar.errors import ConfigError
from training.run import Job, arguments, failures, main_process, open_job
from training.settings import Settings
from training.template import load_tokenizer


class DistillSettings(Settings):
    """Distillation's own keys."""

    max_length: int = 512  # of prompts; longer ones are dropped and counted


def check_teacher(job: Job, teacher: str) -> None:
    """Raises ConfigError when the teacher's tokens are not the student's."""
    theirs, ours = load_tokenizer(teacher).get_vocab(), job.coder.tokenizer.get_vocab()
    if theirs != ours:
        raise ConfigError(
            f"--teacher {teacher}: its {len(theirs):,} tokens are not the student's {len(ours):,}",
            "distributions are over the same tokens; else let it answer (python -m generation.respond) and use training.sft",
        )


def train(job: Job, teacher: str) -> dict[str, Any]:
    """Train and save; returns the run's identity, or the plan of a dry run."""
    from trl import DistillationConfig, DistillationTrainer

    from training.plan import limited, plan

    check_teacher(job, teacher)
    prepared = job.prepared("train", "prompts", limit=limited(job))
    settings = job.trainer_arguments(DistillationConfig, evaluates=False)
    reduction = f"mean over tokens of the generalised Jensen-Shannon divergence, beta {settings.beta:g}"
    if job.dry:
        return plan(job, settings, prepared.counts, reduction, copies=2)
    if not job.begin():
        return {}
    if main_process():
        say(f"learning rate {settings.learning_rate:g}, loss: {reduction}")
    with failures(job):
        trainer = DistillationTrainer(
            model=job.model,
            teacher_model=teacher,
            args=settings,
            train_dataset=prepared.dataset.select_columns(["prompt"]),
            processing_class=job.coder.tokenizer,
            peft_config=job.peft(),
            callbacks=job.callbacks(),
        )
    metrics = job.train(trainer)
    return job.finish(reduction, {"train": vars(prepared.counts), "teacher": teacher}, metrics)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from trl import DistillationConfig

    told = train(open_job(args, "distill", DistillSettings, DistillationConfig), args.teacher)
    if args.json:
        emit(told)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = arguments("training.distill", __doc__)
    made.add_argument("--teacher", required=True, help="a model directory or hub id with the student's tokens")
    return made


if __name__ == "__main__":
    sys.exit(run(main, parser()))
