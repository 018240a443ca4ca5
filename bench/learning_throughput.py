"""Speed: our SFT against TRL called by hand with the same rows, model and arguments; tokens a second, memory, and on a GPU MFU."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.learning import Bench, Measure, Part, command
from bench.learning_supervised import PARSER, said
from columnar.store import open_dataset
from training import arithmetic, sft, tiny
from training.data import rows_of

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}  # dense bf16 flop/s by the makers' sheets
STEPS, BATCH, LENGTH = 60, 8, 256


def bare(directory: Path, model: Path, out: Path, steps: int, batch: int) -> float:
    """Steps a second of a script that only calls TRL."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [row for batch_rows in rows_of(open_dataset(directory), "train") for row in batch_rows]
    talks = [{"messages": [{"role": m["role"], "content": m["content"]} for m in row["messages"]]} for row in rows]
    gpu = torch.cuda.is_available()
    settings = SFTConfig(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=1e-4,
        max_length=LENGTH,
        assistant_only_loss=True,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=not gpu,
        bf16=gpu,
        gradient_checkpointing=gpu,
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
        model_init_kwargs={"dtype": "float32"},
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = SFTTrainer(model=str(model), args=settings, train_dataset=Dataset.from_list(talks), processing_class=tokenizer)
    start = time.perf_counter()
    trainer.train()
    return steps / (time.perf_counter() - start)


def ours(directory: Path, model: Path, out: Path, steps: int, batch: int) -> tuple[float, float]:
    """(steps a second, tokens a second) of our command, without loading."""
    settings = {
        "max_steps": steps,
        "batch": batch,
        "per_device_train_batch_size": batch,
        "learning_rate": 1e-4,
        "max_length": LENGTH,
        "save_strategy": "no",
    }
    command(sft, PARSER, directory, model, out, settings)
    last = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines() if '"loss"' in line][-1]
    return steps / last["seconds"], last["tokens"] / last["seconds"]


def throughput(bench: Bench) -> Iterator[Measure]:
    """Both in turn, several times, in the same process; the first round is not counted."""
    import torch
    from transformers import AutoModelForCausalLM

    gpu = torch.cuda.is_available()
    text = "the quick brown fox jumps over the lazy dog while nobody looks "
    rows = [said(f"Tell story {n}. " + text * 3, f"Story {n}: " + text * 12) for n in range(256)]
    source = arithmetic.write(bench.folder("throughput", "data"), "stories", rows, {"seed": 0})
    size = bench.size if gpu or bench.size != "tiny" else "mini"
    start = bench.folder("throughput", "start")
    tiny.make(source.path, start, size)
    steps, batch = (STEPS, BATCH) if not gpu else (200, 32)
    if not gpu:
        torch.set_num_threads(1)
    speeds: list[tuple[float, float, float]] = []
    for turn in range(len(bench.seeds) + 1):
        order = (bare, ours) if turn % 2 else (ours, bare)
        got: dict[Any, Any] = {}
        for run in order:
            got[run] = run(source.path, start, bench.folder("throughput", turn, run.__name__), steps, batch)
        if turn:
            speeds.append((got[bare], *got[ours]))
    yield Measure(
        "throughput", f"our steps/s minus TRL's, in % ({size} model, batch {batch})", [100 * (o / b - 1) for b, o, _ in speeds], above=-5
    )
    yield Measure("throughput", "tokens a second", [tokens for *_, tokens in speeds])
    if gpu:
        parameters = AutoModelForCausalLM.from_pretrained(start).num_parameters()
        name = torch.cuda.get_device_name()
        peak = next((flops for part, flops in PEAK.items() if part in name), None)
        yield Measure("throughput", f"GPU memory at its peak, GB ({name})", [torch.cuda.max_memory_allocated() / 1e9])
        if peak:
            yield Measure(
                "throughput",
                f"MFU, % ({parameters / 1e6:.0f} M parameters)",
                [100 * 6 * parameters * tokens / peak for *_, tokens in speeds],
            )
    yield Measure("throughput", "memory of the process at its peak, MB", [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024])


PARTS: dict[str, Part] = {"throughput": throughput}
