"""The preference parts of bench.learning: reward models with and without margins, DPO and its length-normalised form.

The toy world: an answer is a row of words; the truth prefers the larger share of `good` among them. Length does not count, but in the
pairs the better answer is the longer one in three of four cases, as with human raters: what falls for length shows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from bench.learning import Bench, Measure, Part, answers, command, curve
from bench.learning_supervised import PARSER as SFT_PARSER
from bench.learning_supervised import SETTINGS, said
from training import arithmetic, dpo, reward, sft, tiny
from training.run import arguments

SHOWN = {"reward": "chosen minus rejected reward while training", "dpo": "held-out pairs ranked right (ties at step 0)"}
REWARD_PARSER, DPO_PARSER = arguments("training.reward", None), arguments("training.dpo", None)
FLIPPED = {"significantly": 0.03, "better": 0.1, "slightly": 0.2, "negligibly": 0.35}  # how often raters err, by how clear the case is


def answer(rng: random.Random, good: int, words: int) -> str:
    """So many words, so many of them `good`."""
    text = ["good"] * good + ["bad"] * (words - good)
    rng.shuffle(text)
    return " ".join(text)


def quality(text: str) -> float:
    """The truth: the share of `good`; an empty answer has none."""
    words = text.split()
    return words.count("good") / len(words) if words else 0.0


def pair(number: int, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"Say something, {number}."}]
    return {
        "kind": "pair",
        "prompt": asked,
        "chosen": said("", chosen)["messages"][1:],
        "rejected": said("", rejected)["messages"][1:],
        **more,
    }


def rated(rng: random.Random, number: int, noise: bool) -> dict[str, Any]:
    """A pair of six-word answers, its strength by how many `good` they differ; raters err when `noise`."""
    best = rng.randint(1, 6)
    worst = rng.randint(0, best - 1)
    strength = reward.STRENGTHS[max(0, 4 - (best - worst))]
    sides = [answer(rng, best, 6), answer(rng, worst, 6)]
    if noise and rng.random() < FLIPPED[strength]:
        sides.reverse()
    return pair(number, *sides, meta=json.dumps({"strength": strength}))


def ranks(bench: Bench) -> Iterator[Measure]:
    """Reward models on noisy pairs, judged on clean held-out ones."""
    found: dict[str, dict[str, list[float]]] = {margin: {"accuracy": [], "strong": [], "weak": []} for margin in ("none", "large")}
    curves = {}
    for seed in bench.seeds:
        rng = random.Random(f"{seed}/rated")
        rows, held_out = [rated(rng, n, True) for n in range(1200)], [rated(rng, n, False) for n in range(300)]
        source = arithmetic.write(bench.folder("reward", seed, "data"), "pairs", rows, {"seed": seed}, held_out)
        start = bench.folder("reward", seed, "start")
        tiny.make(source.path, start, bench.size, seed)
        for margin, kept in found.items():
            settings = {**SETTINGS, "learning_rate": 1e-3, "num_train_epochs": 4, "margin": margin, "seed": seed}
            out = command(reward, REWARD_PARSER, source.path, start, bench.folder("reward", seed, margin), settings)
            curves[f"margins: {margin}#{seed}"] = curve(out, "margin")
            report = {
                line["strength"]: line
                for line in json.loads((out / "manifest.json").read_text())["identity"]["counts"]["held_out_by_strength"]
            }
            kept["accuracy"].append(report["all"]["accuracy"])
            kept["strong"].append(report["significantly"]["difference"])
            kept["weak"].append(report["negligibly"]["difference"])
    yield Measure("reward", "accuracy on held-out pairs", found["none"]["accuracy"], above=0.5, curves=curves, shown=SHOWN["reward"])
    yield Measure("reward", "accuracy on held-out pairs, large margins", found["large"]["accuracy"], above=0.5)
    apart = {margin: [s - w for s, w in zip(kept["strong"], kept["weak"], strict=True)] for margin, kept in found.items()}
    more = [large - none for large, none in zip(apart["large"], apart["none"], strict=True)]
    yield Measure("reward", "strong pairs' difference of rewards over weak pairs': large margins minus none", more, above=0)


def long_and_short(rng: random.Random, number: int) -> dict[str, Any]:
    """A pair whose better answer is longer in three of four cases."""
    while True:
        lengths = rng.randint(2, 12), rng.randint(2, 12)
        chosen, rejected = (answer(rng, rng.randint(0, n), n) for n in lengths)
        if quality(chosen) > quality(rejected) and (lengths[0] > lengths[1]) == (rng.random() < 0.75):
            return pair(number, chosen, rejected)


LOSSES = {"sigmoid": {"loss_type": "sigmoid", "beta": 0.1}, "sigmoid_norm": {"loss_type": "sigmoid_norm", "beta": 5.0}}


def prefers(bench: Bench) -> Iterator[Measure]:
    """DPO from an SFT model that answers at random: margins on held-out pairs, win rate under the truth, length."""
    names = ("margin", "accuracy", "wins", "length")
    found: dict[str, dict[str, list[float]]] = {loss: {name: [] for name in names} for loss in LOSSES}
    curves = {}
    for seed in bench.seeds:
        rng = random.Random(f"{seed}/words")
        rows = [said(f"Say something, {n}.", answer(rng, rng.randint(0, k), k)) for n in range(800) for k in [rng.randint(2, 12)]]
        talk = arithmetic.write(bench.folder("dpo", seed, "talk"), "talk", rows, {"seed": seed})
        start = bench.folder("dpo", seed, "start")
        tiny.make(talk.path, start, bench.size, seed)
        policy = command(
            sft, SFT_PARSER, talk.path, start, bench.folder("dpo", seed, "sft"), {**SETTINGS, "num_train_epochs": 12, "seed": seed}
        )
        pairs = [long_and_short(rng, n) for n in range(700)]
        source = arithmetic.write(bench.folder("dpo", seed, "pairs"), "pairs", pairs[:600], {"seed": seed}, pairs[600:])
        asked = [[{"role": "user", "content": f"Say something, {n}."}] for n in range(1000, 1300)]
        before = answers(policy, asked, 24, temperature=1.0, seed=seed)
        for loss, kept in found.items():
            settings = {
                **SETTINGS,
                **LOSSES[loss],
                "learning_rate": 3e-4,
                "num_train_epochs": 3,
                "eval_strategy": "steps",
                "eval_steps": 10,
                "seed": seed,
            }
            out = command(dpo, DPO_PARSER, source.path, policy, bench.folder("dpo", seed, loss), settings)
            curves[f"{loss}#{seed}"] = curve(out, "eval_rewards/accuracies")
            kept["margin"].append(curve(out, "eval_rewards/margins")[-1][1])
            kept["accuracy"].append(curve(out, "eval_rewards/accuracies")[-1][1])
            after = answers(out, asked, 24, temperature=1.0, seed=seed)
            kept["wins"].append(sum(_win(a, b) for a, b in zip(after, before, strict=True)) / len(asked))
            kept["length"].append(sum(len(a.split()) for a in after) / sum(len(b.split()) for b in before))
    for loss, kept in found.items():
        shown = curves if loss == "sigmoid" else {}
        yield Measure(
            "dpo", f"{loss}: chosen above rejected on held-out pairs", kept["accuracy"], above=0.5, curves=shown, shown=SHOWN["dpo"]
        )
        yield Measure("dpo", f"{loss}: margin of implicit rewards on held-out pairs", kept["margin"], above=0)
        yield Measure("dpo", f"{loss}: win rate against SFT under the true rule", kept["wins"], above=0.5)
        yield Measure("dpo", f"{loss}: length of answers, SFT = 1", kept["length"], above=0.5, below=2)
    longer = [a - b for a, b in zip(found["sigmoid"]["length"], found["sigmoid_norm"]["length"], strict=True)]
    yield Measure("dpo", "length: sigmoid minus sigmoid_norm, with pairs that favour the longer answer", longer, above=0)


def _win(a: str, b: str) -> float:
    return 0.5 if quality(a) == quality(b) else float(quality(a) > quality(b))


PARTS: dict[str, Part] = {"reward": ranks, "dpo": prefers}
