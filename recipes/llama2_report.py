"""The report of `recipes.llama2_chat`: what was compared, how good the reward models are, what each version is worth and to whom."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import workers
from recipes.report import Report, Series
from recipes.rooms import Rooms
from recipes.steps import Figures, Step
from recipes.world.exam import answers_of

if TYPE_CHECKING:
    from recipes.llama2_chat import Llama2Config

SIMULATED = (
    "**Simulated**: requests, annotations and comparisons come from programs of a small world whose truth is computed, in place of "
    "people; the model has {parameters:,.0f} weights. Training, reward models, sampling, PPO and evaluation are the real ones."
)


def write_report(config: Llama2Config, rooms: Rooms, made: list[Step], figures: dict[str, Figures]) -> Path:
    """What came of it."""
    out, names = rooms.out, [step.name for step in made]
    page = Report(out, "Llama 2-Chat", "Reward models with margins, rejection sampling over rounds, PPO (arXiv 2307.09288).")
    if config.world.files:
        page.text(SIMULATED.format(parameters=config.parameters))
    mixes = [n for n in names if n in ("sft_mix", "comparisons") or n.endswith("_prompts")]
    page.section("Data", "What went into each set and what was left out, the exam's items among it.", rows=_funnel(mixes, figures))
    _comparisons(page, figures)
    _rounds(page, config, out, [n.removesuffix("_samples") for n in names if n.endswith("_samples")], figures)
    _ppo(page, out, [n for n in names if (out / n / "metrics.jsonl").is_file() and f"{n}_samples" not in names and n[1:].isdigit()])
    versions = [n.removeprefix("exam_") for n in names if n.startswith("exam_")]
    _exam(page, config, versions, figures)
    if config.ghost and (tested := figures["ghost_test"]):
        page.section("Ghost Attention", "An instruction given once: the share of answers that obey it, turn by turn.")
        turns = list(range(1, config.ghost.turns + 1))
        page.table(
            [{"model": name, **{f"turn {i}": share for i, share in zip(turns, shares, strict=True)}} for name, shares in tested.items()]
        )
    if config.exam:
        page.section("Samples", "The first held-out requests, answered by the first and by the last version.", rows=_samples(out, versions))
    sources = {
        "sft_mix": _paths(config.sft.sources),
        "comparisons": [g.data["path"] for g in (config.helpfulness, config.safety) if g.data],
    }
    sources |= {f"v{i}_prompts": _paths(found) for i, found in enumerate(config.sampling.rounds, 1)}
    page.lineage(made, sources)
    return page.write()


def views(rooms: Rooms, versions: list[str], place: Path) -> Figures:
    """The mean probability that each reward model gives a version's answers of the exam."""
    return dict(workers.call(scores, rooms.out, versions, threads=rooms.config.threads))


def scores(out: Path, versions: list[str]) -> Figures:
    """Mean probabilities by version and reward model; loads torch."""
    from math import exp
    from statistics import fmean

    from generation.judge_local import reward_scores

    seen: Figures = {}
    for version in versions:
        talks = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in answers_of(out / f"exam_{version}")]
        seen[version] = {}
        for goal in ("helpfulness", "safety"):
            every = [s for i in range(0, len(talks), 64) for s in reward_scores(str(out / f"rm_{goal}"), talks[i : i + 64])]
            seen[version][goal] = round(fmean(1 / (1 + exp(-s)) for s in every), 4)
    return seen


def _paths(sources: dict[str, dict[str, Any]]) -> list[str]:
    return [str(source["path"]) for source in sources.values()]


def _funnel(mixes: list[str], figures: dict[str, Figures]) -> list[dict[str, Any]]:
    reasons = sorted({reason for name in mixes for reason in figures[name]["dropped"]})
    return [{"set": n, "in": (f := figures[n])["in"], **{r: f["dropped"].get(r, 0) for r in reasons}, "out": f["rows"]} for n in mixes]


def _comparisons(page: Report, figures: dict[str, Figures]) -> None:
    page.section("Reward models", "Accuracy on held-out comparisons of both kinds, by how much better the better answer is (table 8).")
    lines = []
    for goal in ("helpfulness", "safety"):
        counts = figures[f"rm_{goal}"]["counts"]
        found = {line["strength"]: line["accuracy"] for line in counts.get("held_out_by_strength", [])}
        lines.append({"model": goal, "pairs": counts["train"]["kept"], **found})
    page.table(lines)


def _rounds(page: Report, config: Llama2Config, out: Path, rounds: list[str], figures: dict[str, Figures]) -> None:
    pooled = "All rounds compete." if config.sampling.pool else "Only the last round's are learnt from (`pool: false`)."
    page.section("Rejection sampling", f"The best of K answers by the piecewise reward. {pooled}")
    shown = ("prompts", "answers", "temperature", "mean_best", "kept", "from_earlier_rounds")
    page.table([{"version": name, **{k: figures[f"{name}_samples"][k] for k in shown}} for name in rounds])
    for name in rounds:
        curves = json.loads((out / f"{name}_samples" / "curve.json").read_text(encoding="utf-8"))["curves"]
        drawn: Series = {f"{what}, T = {c['temperature']:g}": (c["k"], c[what]) for c in curves for what in ("max", "median")}
        page.lines(f"{name}_reward_of_K", drawn, f"K answers of the model before {name}", "reward (logit)")


def _ppo(page: Report, out: Path, versions: list[str]) -> None:
    for name in versions:
        page.section(f"PPO ({name})", "The helpfulness model's score of the sampled answers, and how far the policy moved.")
        page.curve(name, out / name / "metrics.jsonl", "reward_model")
        page.curve(name, out / name / "metrics.jsonl", "kl")


def _exam(page: Report, config: Llama2Config, versions: list[str], figures: dict[str, Figures]) -> None:
    exams, seen = {v: figures[f"exam_{v}"] for v in versions}, figures.get("views", {})
    page.section("The versions", "By the truth of held-out requests, where there is one, and by the reward models (mean probability).")
    lines = []
    for version, marks in exams.items():
        plain = {k: v for k, v in marks.items() if not isinstance(v, dict)}
        tasks = {k: v.get("score") for k, v in marks.items() if k in config.tasks and isinstance(v, dict)}
        lines.append({"version": version, **plain, **tasks, **{f"{goal} model": p for goal, p in seen.get(version, {}).items()}})
    page.table(lines)
    if all("helpful" in m and "safe" in m for m in exams.values()):
        page.points("truth", {v: (m["helpful"], m["safe"]) for v, m in exams.items()}, "truly helpful", "truly safe")
        page.gains(
            {f"{b} after {a}": (page.out / f"exam_{a}", page.out / f"exam_{b}") for a, b in pairwise(exams)}, ("quality", "helpful", "safe")
        )
        page.text("Each kind of request by version: what a version lost is what it no longer learns from.")
        page.table([{"version": v, **m["families"]} for v, m in exams.items()])
    if seen:
        at = {v: (m["helpfulness"], m["safety"]) for v, m in seen.items()}
        page.points("reward_models", at, "helpfulness model", "safety model")


def _samples(out: Path, versions: list[str]) -> list[dict[str, Any]]:
    first, last = (answers_of(out / f"exam_{v}")[:8] for v in (versions[0], versions[-1]))
    return [{"request": q, versions[0]: a, versions[-1]: b} for (q, a), (_, b) in zip(first, last, strict=True)]
