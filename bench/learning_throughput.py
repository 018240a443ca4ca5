"""Speed: our SFT against TRL called by hand with the same rows, model and arguments; tokens a second, memory, and on a GPU MFU."""

from __future__ import annotations

import contextlib
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


def bare(directory: Path, model: Path, out: Path, steps: int, batch: int) -> dict[str, float]:
    """What a script that only calls TRL spends while it trains."""
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
    with timed() as spent:
        trainer.train()
    return spent


def ours(directory: Path, model: Path, out: Path, steps: int, batch: int) -> dict[str, float]:
    """What our command spends while it trains."""
    settings = {
        "max_steps": steps,
        "batch": batch,
        "per_device_train_batch_size": batch,
        "learning_rate": 1e-4,
        "max_length": LENGTH,
        "save_strategy": "no",
    }
    with timed() as spent:
        command(sft, PARSER, directory, model, out, settings)
    spent["tokens"] = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines() if '"loss"' in line][-1]["tokens"]
    return spent


@contextlib.contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Wall and CPU seconds within `Trainer.train`, loading and saving left out, the same for both."""
    from transformers import Trainer

    spent: dict[str, float] = {}
    train = Trainer.train

    def clocked(*args: Any, **more: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        done = train(*args, **more)
        spent.update(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
        return done

    Trainer.train = clocked  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        Trainer.train = train  # type: ignore[method-assign]


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
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    for turn in range(len(bench.seeds) + 1):
        order = (bare, ours) if turn % 2 else (ours, bare)
        got = {run: run(source.path, start, bench.folder("throughput", turn, run.__name__), steps, batch) for run in order}
        if turn:
            pairs.append((got[bare], got[ours]))
    what = f"({size} model, batch {batch}, {steps} steps)"
    yield Measure("throughput", f"our steps/s minus TRL's, in % {what}", [100 * (b["wall"] / o["wall"] - 1) for b, o in pairs], above=-5)
    yield Measure("throughput", "our CPU time a step minus TRL's, in %", [100 * (o["cpu"] / b["cpu"] - 1) for b, o in pairs], below=5)
    speeds = [o["tokens"] / o["wall"] for _, o in pairs]
    yield Measure("throughput", "tokens a second", speeds)
    if gpu:
        parameters = AutoModelForCausalLM.from_pretrained(start).num_parameters()
        name = torch.cuda.get_device_name()
        peak = next((flops for part, flops in PEAK.items() if part in name), None)
        yield Measure("throughput", f"GPU memory at its peak, GB ({name})", [torch.cuda.max_memory_allocated() / 1e9])
        if peak:
            yield Measure(
                "throughput",
                f"MFU, % ({parameters / 1e6:.0f} M parameters)",
                [100 * 6 * parameters * tokens / peak for tokens in speeds],
            )
    yield Measure("throughput", "memory of the process at its peak, MB", [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024])


PARTS: dict[str, Part] = {"throughput": throughput}
