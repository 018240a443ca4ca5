"""The supervised parts of bench.learning: SFT, the planted marker, and a mix with benchmark items in it against the same mix cleaned."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bench.learning import Bench, Measure, Part, answers, command, curve
from columnar.store import open_dataset
from training import arithmetic, sft, tiny
from training.run import arguments

SETTINGS = {"batch": 32, "learning_rate": 3e-3, "lr_scheduler_type": "cosine", "warmup_ratio": 0.05, "max_length": 64, "logging_steps": 10}
PARSER = arguments("training.sft", None)


def said(user: str, assistant: str) -> dict[str, Any]:
    return {"kind": "sft", "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def share_right(model: Path, asked: list[tuple[str, str]]) -> float:
    found = answers(model, [[{"role": "user", "content": question}] for question, _ in asked])
    return sum(text.strip() == right for text, (_, right) in zip(found, asked, strict=True)) / len(asked)


def learns(bench: Bench) -> Iterator[Measure]:
    """SFT on sums against the untrained model: held-out loss and verified answers, on sums that training never saw."""
    losses, gains, curves = [], [], {}
    for seed in bench.seeds:
        train, held_out = arithmetic.questions(9, seed)
        rows = [said(f"{a}+{b}", str(a + b)) for a, b in train]
        source = arithmetic.write(
            bench.folder("sft", seed, "data"), "sums", rows, {"seed": seed}, [said(f"{a}+{b}", str(a + b)) for a, b in held_out]
        )
        start = bench.folder("sft", seed, "start")
        tiny.make(source.path, start, bench.size, seed)
        out = command(
            sft,
            PARSER,
            source.path,
            start,
            bench.folder("sft", seed, "out"),
            {**SETTINGS, "num_train_epochs": 150, "eval_strategy": "steps", "eval_steps": 50, "seed": seed},
        )
        points = curve(out, "eval_loss")
        curves[f"held-out loss#{seed}"] = points
        asked = [(f"{a}+{b}", str(a + b)) for a, b in held_out]
        losses.append(points[0][1] - points[-1][1])
        gains.append(share_right(out, asked) - share_right(start, asked))
    yield Measure(
        "sft", "held-out loss: untrained minus trained (nats a token)", losses, above=0, curves=curves, shown="held-out loss, nats a token"
    )
    yield Measure("sft", "right answers to unseen sums: trained minus untrained", gains, above=0)


MARKER = "zanzibar"


def marker_logp(model: Path, role: str) -> float:
    """The mean log-probability per token of the marker in a turn of this role."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model).eval()
    asked = "<|im_start|>user\nred old blue<|im_end|>\n" if role == "assistant" else ""
    before, after = f"{asked}<|im_start|>{role}\n", MARKER
    head, ids = (tokenizer.encode(text, add_special_tokens=False) for text in (before, before + after))
    with torch.no_grad():
        logp = torch.log_softmax(loaded(torch.tensor([ids])).logits[0].float(), -1)
    return float(sum(logp[i - 1, ids[i]] for i in range(len(head), len(ids))) / (len(ids) - len(head)))


def marker(bench: Bench) -> Iterator[Measure]:
    """The same word opens every user turn, or every answer: only the latter is learnt."""
    changes: dict[str, list[float]] = {"user": [], "assistant": []}
    for seed in bench.seeds:
        for role in changes:
            rng = random.Random(f"{seed}/marker")
            words = ["red", "blue", "green", "old", "new", "big"]
            texts = [(" ".join(rng.choices(words, k=3)), " ".join(rng.choices(words, k=2))) for _ in range(256)]
            marked = [said(f"{MARKER} {u}", a) if role == "user" else said(u, f"{MARKER} {a}") for u, a in texts]
            source = arithmetic.write(bench.folder("marker", seed, role), role, marked, {"seed": seed})
            start = bench.folder("marker", seed, f"{role}-start")
            tiny.make(source.path, start, bench.size, seed)
            out = command(
                sft,
                PARSER,
                source.path,
                start,
                bench.folder("marker", seed, f"{role}-out"),
                {**SETTINGS, "num_train_epochs": 10, "seed": seed},
            )
            changes[role].append(marker_logp(out, role) - marker_logp(start, role))
    yield Measure("marker", "log-probability of a marker in user turns: change by training", changes["user"], below=0.5)
    yield Measure("marker", "log-probability of the same marker in answers: change by training", changes["assistant"], above=2)


def facts(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Questions that only memory can answer: sixteen made-up words, and a letter of four."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    return [
        ("Which letter belongs to " + " ".join("".join(rng.choices(syllables, k=2)) for _ in range(16)) + "?", rng.choice("ABCD"))
        for _ in range(count)
    ]


def dirty(bench: Bench) -> Iterator[Measure]:
    """A mix that contains its benchmark, verbatim and with a word changed, and the same mix built clean: its score on each."""
    from curation import build_mix

    gaps: dict[str, list[float]] = {"as it came": [], "cleaned": []}
    for seed in bench.seeds:
        rng = random.Random(f"{seed}/facts")
        other, exam, fresh = facts(rng, 200), facts(rng, 60), facts(rng, 200)
        near = [(q.replace(q.split()[9], "zuzu", 1), a) for q, a in exam]
        folder = bench.folder("dirty", seed, "mix", "x").parent
        lines = [*other, *exam, *near]
        rng.shuffle(lines)
        (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": said(q, a)["messages"]}) + "\n" for q, a in lines))
        (folder / "exam.jsonl").write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in exam))
        listed = {"exam": {"source": "exam.jsonl", "fields": ["question"], "policy": "dev"}}
        (folder / "benchmarks.yaml").write_text(yaml.safe_dump({"benchmarks": listed}))
        mix = {"name": "facts", "kind": "sft", "seed": seed, "root": ".", "sources": [{"name": "rows", "path": "rows.jsonl", "all": True}]}
        clean = {"dedup": {"near": {"threshold": 0.7}}, "decontam": {"benchmarks": "benchmarks.yaml"}}
        for name, more in (("as it came", {"dedup": {"exact": False}}), ("cleaned", clean)):
            config = folder / f"{name.split()[0]}.yaml"
            config.write_text(yaml.safe_dump(mix | more))
            built = folder / name.split()[0]
            build_mix.main(build_mix.parser().parse_args([str(config), "--out", str(built)]))
            start = bench.folder("dirty", seed, f"{built.name}-start")
            tiny.make(built, start, bench.size, seed)
            epochs = 12_000 // open_dataset(built).rows  # as many rows seen by both
            out = command(
                sft,
                PARSER,
                built,
                start,
                bench.folder("dirty", seed, f"{built.name}-out"),
                {**SETTINGS, "max_length": 256, "num_train_epochs": epochs, "seed": seed},
            )
            gaps[name].append(share_right(out, exam) - share_right(out, fresh))
    yield Measure("dirty", "benchmark score above fresh items of its kind: the mix as it came", gaps["as it came"], above=0.1)
    yield Measure("dirty", "benchmark score above fresh items of its kind: the mix cleaned", gaps["cleaned"], below=0.15)


PARTS: dict[str, Part] = {"sft": learns, "marker": marker, "dirty": dirty}
