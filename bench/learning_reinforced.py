"""The reinforced parts of bench.learning: GRPO, RLOO, PPO and rejection sampling, each from the same SFT start, on sums.

The start has learnt from conversations of which 40 % are right, so it answers right about a quarter of the time. A method holds when
the whole interval of its factor (verified share after / before, answers sampled at temperature 1) lies above 1.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.learning import Bench, Measure, Part, answers, command, curve
from columnar.store import read_batches
from training import arithmetic, ppo, rejection_sampling, rlvr, sft
from training.run import arguments

SFT = {"batch": 64, "per_device_train_batch_size": 64, "max_steps": 500, "learning_rate": 3e-3, "lr_scheduler_type": "cosine"}
RL = {"batch": 128, "per_device_train_batch_size": 128, "max_steps": 250, "lr_scheduler_type": "constant", "max_completion_length": 6}
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "grpo": (rlvr, {"algorithm": "grpo", "learning_rate": 1e-3, "beta": 0.02, "num_generations": 8}),
    "rloo": (rlvr, {"algorithm": "rloo", "learning_rate": 1e-3, "beta": 0.02, "num_generations": 8}),
    "ppo": (ppo, {"learning_rate": 1e-3, "beta": 0.02, "ppo_epochs": 2, "warmup_ratio": 0.0, "max_steps": 150}),
}
SAMPLES = 8


def start(bench: Bench, seed: int) -> tuple[Path, Path]:
    """(the SFT start, its data), made once for each seed."""
    data, out = bench.folder("reinforced", seed, "sums"), bench.folder("reinforced", seed, "sft")
    if not (out / "manifest.json").is_file():
        arithmetic.make(data, largest=9, copies=40, right=0.4, seed=seed)
        command(sft, arguments("training.sft", None), data / "sft", bench.size, out, {**SFT, "save_steps": 10_000, "seed": seed})
    return out, data


def verified(model: Path, directory: Path) -> float:
    """The share of right answers among eight sampled to each prompt."""
    rows = [row for batch in read_batches(arithmetic.store.open_dataset(directory)) for row in batch.to_pylist()]
    asked = [[{"role": m["role"], "content": m["content"]} for m in row["prompt"]] for row in rows for _ in range(SAMPLES)]
    found = answers(model, asked, tokens=6, temperature=1.0, seed=1)
    return sum(text.strip() == rows[i // SAMPLES]["ground_truth"] for i, text in enumerate(found)) / len(found)


def reinforced(name: str) -> Part:
    """The part of one method."""

    def part(bench: Bench) -> Iterator[Measure]:
        module, settings = METHODS[name]
        told: dict[str, list[float]] = {"before": [], "after": [], "unseen before": [], "unseen after": []}
        curves = {}
        for seed in bench.seeds:
            model, data = start(bench, seed)
            out = bench.folder("reinforced", seed, name)
            more = {**RL, **settings, "dev": 0, "samples_every": 50, "save_steps": 10_000, "seed": seed}
            command(module, arguments(f"training.{name}", None), data / "prompts", model, out, more)
            curves[f"verified answers#{seed}"] = _smooth(curve(out, "verified/gsm8k"))
            for which, directory in (("", "prompts"), ("unseen ", "dev")):
                told[f"{which}before"].append(verified(model, data / directory))
                told[f"{which}after"].append(verified(out, data / directory))
        factors = [after / before for after, before in zip(told["after"], told["before"], strict=True)]
        yield Measure(
            name,
            "verified answers: after / before",
            factors,
            above=1.5,
            curves=curves,
            shown=f"{name}: verified share of the answers sampled",
        )
        for which in told:
            yield Measure(name, f"verified share, {which}", told[which])

    return part


def _smooth(points: list[tuple[float, float]], width: int = 10) -> list[tuple[float, float]]:
    """Means over ten steps: a step's share is of 128 answers."""
    parts = [points[i : i + width] for i in range(0, len(points), width)]
    return [(p[-1][0], sum(y for _, y in p) / len(p)) for p in parts]


def rejected(bench: Bench) -> Iterator[Measure]:
    """Two rounds of rejection sampling, pooled: sample, keep the right answers, learn from them."""
    factors, shares, curves = [], [], {}
    for seed in bench.seeds:
        model, data = start(bench, seed)
        first, points, pool = verified(model, data / "prompts"), [], []
        points.append((0.0, first))
        for number in (1, 2):
            kept = bench.folder("reinforced", seed, f"rs{number}")
            settings = {"samples": 8, "max_tokens": 6, "pool": pool, "seed": seed}
            command(rejection_sampling, rejection_sampling.arguments(), data / "prompts", model, kept, settings)
            out = bench.folder("reinforced", seed, f"rs{number}_sft")
            more = {**SFT, "max_steps": 100, "learning_rate": 1e-3, "batch": 32, "per_device_train_batch_size": 32, "seed": seed}
            model = command(sft, arguments("training.sft", None), kept, model, out, {**more, "save_steps": 10_000})
            pool = [*pool, str(kept)]
            points.append((float(number), verified(model, data / "prompts")))
        curves[f"verified answers#{seed}"] = points
        factors.append(points[-1][1] / first)
        shares.append(points[-1][1])
    what = "verified answers: after two rounds / before"
    shown = "rejection sampling: verified share of its answers"
    yield Measure("rejection", what, factors, above=1.5, curves=curves, shown=shown, over="round")
    yield Measure("rejection", "verified share, after", shares)


PARTS: dict[str, Part] = {**{name: reinforced(name) for name in METHODS}, "rejection": rejected}
