"""What a run will take, said before it starts: steps, tokens, memory."""

from __future__ import annotations

import math
import os
import shutil
from typing import TYPE_CHECKING, Any

from columnar.cli import say, table
from training.data import Counts

if TYPE_CHECKING:
    from training.run import Job

SAMPLE = 20_000  # rows tokenised for a dry run; beyond that the figures are scaled up


def limited(job: Job) -> int | None:
    """How many rows a dry run tokenises."""
    return SAMPLE if job.dry else None


def plan(job: Job, settings: Any, counts: Counts, reduction: str, copies: int = 1, rows_per_item: int = 1) -> dict[str, Any]:
    """Print and return the plan.

    Args:
        copies: models of this size held in memory: the trained one, a reference, a teacher.
        rows_per_item: sequences through the model for each row (2 for pairs).
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    scale = max(1.0, job.dataset.rows / counts.rows) if counts.rows == SAMPLE else 1.0
    rows, tokens = counts.kept * scale, counts.tokens * scale
    packed = bool(getattr(settings, "packing", False))
    if packed:
        rows = math.ceil(tokens / (job.coder.view.max_length or 1))
    batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * world
    an_epoch = max(1, math.ceil(rows / batch))
    steps = settings.max_steps if settings.max_steps > 0 else math.ceil(an_epoch * settings.num_train_epochs)
    memory = estimate_memory(job, settings, counts, copies, rows_per_item)
    told = {
        "method": job.method,
        "model": job.model,
        "parameters": memory.pop("parameters"),
        "rows": round(rows),
        "estimated": scale > 1 or packed,
        "batch": batch,
        "steps": steps,
        "epochs": round(steps / an_epoch, 3),
        "tokens": round(tokens * steps / an_epoch),
        "learnt_tokens": round(counts.learnt * scale * steps / an_epoch),
        "learning_rate": settings.learning_rate,
        "loss": reduction,
        "gigabytes_a_device": memory,
        "disk_free_gb": round(shutil.disk_usage(_existing(job)).free / 1e9, 1),
    }
    say(table([{"what": k, "value": _show(v)} for k, v in told.items()]))
    return told


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _existing(job: Job) -> Any:
    path = job.out.resolve()
    while not path.exists():
        path = path.parent
    return path


def estimate_memory(job: Job, settings: Any, counts: Counts, copies: int, rows_per_item: int) -> dict[str, Any]:
    """Gigabytes on each device, to within a third or so: weights, gradients, Adam's two moments, activations, a checkpoint on disk.

    Weights and gradients have the width of `dtype`, Adam's moments too; with bf16 arithmetic activations have two bytes. With gradient
    checkpointing a layer keeps its input only. FSDP and ZeRO-3 share everything but the activations.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(job.model)
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    text = config.get_text_config()
    width = 2 if job.settings.dtype == "bfloat16" else 4
    lora = job.settings.lora
    trained = parameters if lora is None else min(parameters, 14 * lora.r * text.hidden_size * text.num_hidden_layers)
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true" or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    shards = int(os.environ.get("WORLD_SIZE", "1")) if sharded else 1
    longest = min(job.coder.view.max_length or 1 << 30, max(1, counts.tokens // max(1, counts.kept)) * 4)
    if getattr(settings, "packing", False):
        longest = job.coder.view.max_length or longest
    at_once = settings.per_device_train_batch_size * longest * rows_per_item
    bytes_a_value = 2 if settings.bf16 else 4
    inner = getattr(text, "intermediate_size", 4 * text.hidden_size)
    a_layer = at_once * (10 * text.hidden_size + 3 * inner) * bytes_a_value
    kept = (
        at_once * text.hidden_size * bytes_a_value * text.num_hidden_layers + a_layer
        if settings.gradient_checkpointing
        else a_layer * text.num_hidden_layers
    )
    parts = {
        "weights": parameters * width * copies / shards,
        "gradients": trained * width / shards,
        "optimizer": 2 * trained * width / shards,
        "activations": kept,
    }
    total = sum(parts.values())
    checkpoint = parameters * width + 2 * trained * width if lora is None else 3 * trained * width
    rounded = {name: round(value / 1e9, 2) for name, value in {**parts, "total": total, "checkpoint_on_disk": checkpoint}.items()}
    return {"parameters": parameters, **rounded}
