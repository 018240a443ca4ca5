"""Supervised fine-tuning: the answers of conversations are learnt, token by token, and nothing else is.

    python -m training.sft out/tiny --model tiny --out out/sft
    python -m training.sft out/mix --model meta-llama/Llama-3.1-8B --out out/sft --config recipes/training/tulu3_8b_sft.yaml --dry-run

`loss_reduction: mean` weighs every learnt token of a step alike (TRL's way). `sum` is Tülu 3's: the gradient grows with the number of
tokens, so a learning rate found with it (5e-6) is not one for a mean, and the norm of the gradient must not be clipped to 1.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Literal

from columnar.cli import emit, run, say
from training.run import Job, Settings, arguments, failures, main_process, open_job

REDUCTIONS = {
    "mean": "mean over the learnt tokens of a step",
    "sum": "SUM over learnt tokens (Tülu 3's; learning rates for a mean loss do not fit)",
}


class SftSettings(Settings):
    """SFT's own key."""

    loss_reduction: Literal["mean", "sum"] = "mean"


def train(job: Job) -> dict[str, Any]:
    """Train and save; returns the run's identity, or the plan of a dry run."""
    from trl import SFTConfig

    from training.plan import limited, plan

    prepared = job.prepared("train", "sft", limit=limited(job))
    held_out = job.prepared("validation", "sft", limit=limited(job))
    # rows are cut already; TRL needs the length for packing only
    length = job.coder.view.max_length if job.settings.packing else None
    settings = job.trainer_arguments(SFTConfig, evaluates=bool(held_out.counts.kept), max_length=length)
    reduction = REDUCTIONS[job.settings.loss_reduction]
    if job.dry:
        return plan(job, settings, prepared.counts, reduction)
    if not job.begin():
        return {}
    if main_process():
        say(f"learning rate {settings.learning_rate:g}, loss: {reduction}")
    with failures(job):
        trainer = _trainer(job.settings.loss_reduction)(
            model=job.model,
            args=settings,
            train_dataset=prepared.dataset,
            eval_dataset=held_out.dataset if held_out.counts.kept else None,
            processing_class=job.coder.tokenizer,
            peft_config=job.peft(),
            callbacks=job.callbacks(),
        )
    metrics = job.train(trainer)
    return job.finish(reduction, {"train": vars(prepared.counts), "validation": vars(held_out.counts)}, metrics)


def _trainer(reduction: str) -> type:
    from trl import SFTTrainer

    class SumTrainer(SFTTrainer):
        """The loss of a step is the sum over its tokens, divided by its number of micro-batches as accelerate does."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if num_items_in_batch is None:  # evaluation stays a mean
                return loss
            scale = num_items_in_batch / (self.args.gradient_accumulation_steps * self.accelerator.num_processes)
            return (loss[0] * scale, loss[1]) if return_outputs else loss * scale

    return SumTrainer if reduction == "sum" else SFTTrainer


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from trl import SFTConfig

    told = train(open_job(args, "sft", SftSettings, SFTConfig))
    if args.json:
        emit(told)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, arguments("training.sft", __doc__)))
