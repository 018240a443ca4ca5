"""The report of recipes.self_rewarding: what each round gave, how each model answers and judges, and why the run ended."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from columnar.store import open_dataset, read_batches
from recipes.report import Report
from recipes.rooms import Rooms
from recipes.steps import Figures, Step
from recipes.world.exam import answers_of

if TYPE_CHECKING:
    from recipes.self_rewarding_config import SelfRewardingConfig

JUDGE = {"accuracy": "pairwise", "five_best": "5-best", "exact": "exact", "spearman": "Spearman", "kendall": "Kendall"}
PUBLISHED = {  # Table 4 of arXiv 2401.10020 (v1), Llama 2 70B on Open Assistant's rankings
    "published SFT": (0.651, 0.396, 0.101, 0.253, 0.233),
    "published M1": (0.787, 0.415, 0.131, 0.279, 0.253),
    "published M2": (0.804, 0.443, 0.143, 0.331, 0.315),
    "published M3": (0.817, 0.432, 0.143, 0.349, 0.324),
}
SIMULATED = """**Simulated**: the requests, the people's ranked answers, the writer of prompts and the referee are programs of a small world
in which the worth of any answer is computed. **Not simulated**: the models' answers, what is asked of judges and made of their \
replies, scores,
pairs, both trainings, the exam."""
STANDS_IN = """The judge of each round is simulated too: a model of this size cannot read a rubric, so a program whose dials are \
in the config
(`noise`; `flat`, the share of judgements without an opinion; `length_bias`) stands in for M_t's judging. The judging examples are made and
mixed, but nothing that M1 learns from them is used. With `judge: self` the model itself judges."""


def candidate_figures(directory: Path) -> Figures:
    """Of judged candidates: the mean score, how many have each mark (rounded), and how long the answers are."""
    scores: list[float] = []
    words: list[int] = []
    for batch in read_batches(open_dataset(directory), ["candidates"]):
        for row in batch.to_pylist():
            words += [len(c["content"].split()) for c in row["candidates"]]
            scores += [c["score"] for c in row["candidates"] if c["score"] is not None]
    marks = Counter(int(score + 0.5) for score in scores)
    histogram = {str(mark): marks[mark] for mark in range(6)}
    return {
        "answers": len(words),
        "words": round(fmean(words), 2),
        "mean_score": round(fmean(scores), 3) if scores else None,
        "scores": histogram,
    }


def write_report(config: SelfRewardingConfig, rooms: Rooms, made: list[Step], figures: dict[str, Figures]) -> Path:
    """What came of it."""
    page = Report(
        rooms.out, "Self-Rewarding Language Models", "A model that judges its own answers and learns from them (arXiv 2401.10020)."
    )
    if config.world.models:
        page.text(SIMULATED if config.loop.judge == "self" else f"{SIMULATED}\n\n{STANDS_IN}")
    done = [t for t in range(1, config.rounds + 1) if f"feedback_{t}" in figures]
    models = [t for t in range(1, config.rounds + 2) if f"exam_m{t}" in figures]
    _outcome(page, config, figures, models)
    _data(page, figures, done)
    _rounds(page, config, figures, done)
    _models(page, config, rooms.out, figures, models)
    page.section("Training")
    page.curve("m1", rooms.out / "m1" / "metrics.jsonl", "loss")
    for t in models[1:]:
        page.curve(f"m{t}", rooms.out / f"m{t}" / "metrics.jsonl", "loss" if config.loop.positive else "rewards/margins")
    _samples(page, rooms.out, models)
    outside = {"ift": [config.ift.source["path"]]}
    outside |= {"rankings": [config.eft.rankings["path"]]} if config.eft else {}
    outside |= {"held_out": [config.held_out["path"]]} if config.held_out else {}
    page.lineage([step for step in made if step.name in figures], outside)
    return page.write()


def _outcome(page: Report, config: SelfRewardingConfig, figures: dict[str, Figures], models: list[int]) -> None:
    page.section("What came of it")
    if ended := [f["stopped"] for f in figures.values() if f.get("stopped")]:
        page.text(f"**The run ended early**: {ended[0]}.")
    exams = [figures[f"exam_m{t}"] for t in models]
    if len(exams) > 1 and "quality" in exams[0]:
        path = {name: " -> ".join(f"{e[name]:.3f}" for e in exams) for name in ("quality", "correct", "words", "padding")}
        better = exams[-1]["quality"] > exams[0]["quality"]
        longer = exams[-1]["words"] > exams[0]["words"]
        page.text(
            f"From M{models[0]} to M{models[-1]} the true quality on held-out requests went {'up' if better else 'down or nowhere'} "
            f"({path['quality']}; right answers {path['correct']}), and answers got {'longer' if longer else 'no longer'} "
            f"({path['words']} words; sentences that say nothing {path['padding']}). "
            f"One seed ({config.seed}): differences of a few hundredths mean little."
        )


def _data(page: Report, figures: dict[str, Figures], done: list[int]) -> None:
    names = [n for n in ("ift", "rankings", "held_out", "sft_mix", *(f"pairs_{t}" for t in done)) if n in figures]
    rows = []
    for name in names:
        dropped = figures[name]["dropped"]
        why = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items()) or "nothing"
        rows.append({"data": name, "in": figures[name]["in"], "left out": why, "rows": figures[name]["rows"]})
    page.section("Data", "What the exam holds is left out of everything that is trained on (`contaminated`).", rows)
    if "eft" in figures:
        eft = figures["eft"]
        page.section(
            "Judging examples",
            "Of the prompts that were judged, those where the judge's order is the people's; then the most common score is thinned.",
            [{k: eft[k] for k in ("prompts", "judged", "agree", "judgements", "rows")}],
        )
        every = sorted({*eft["scores"], *eft["scores_thinned"]})
        page.table([{"score": mark, "agreed": eft["scores"].get(mark, 0), "kept": eft["scores_thinned"].get(mark, 0)} for mark in every])


def _rounds(page: Report, config: SelfRewardingConfig, figures: dict[str, Figures], done: list[int]) -> None:
    rows, histogram = [], {}
    for t in done:
        made, pairs = figures[f"feedback_{t}"], figures[f"feedback_{t}"]["pairs"]
        rows.append(
            {
                "round": t, "prompts": pairs["prompts"], "answers": made["answers"], "pairs": pairs["rows"], "yield": pairs["yield"],
                "no pair": ", ".join(f"{n:,} {why}" for why, n in pairs["without"].items()) or "·",
                "mean score": made["mean_score"], "words an answer": made["words"],
                "chosen is longer": pairs["chosen_longer"], "chosen / rejected length": pairs["length_ratio"],
            }
        )  # fmt: skip
        histogram[f"round {t}"] = (list(range(6)), [made["scores"][str(mark)] / max(1, made["answers"]) for mark in range(6)])
    page.section("Rounds", "Each round: new prompts, answers of the newest model, judgements, and what gave a pair.", rows)
    if done:
        page.lines("scores", histogram, "score (mean of the judgements)", "share of answers")
        margins = {t: figures[f"feedback_{t}"]["pairs"]["margins"] for t in done}
        page.table([{"round": t, "margins": ", ".join(f"{n:,} of {size}" for size, n in found.items())} for t, found in margins.items()])


def _models(page: Report, config: SelfRewardingConfig, out: Path, figures: dict[str, Figures], models: list[int]) -> None:
    exams = {f"M{t}": {k: v for k, v in figures[f"exam_m{t}"].items() if not isinstance(v, dict)} for t in models}
    page.section(
        "The exam",
        "Held-out requests, answered greedily; `quality` is the true worth, 0 to 1.",
        [{"model": n, **e} for n, e in exams.items()],
    )
    if len(models) > 1 and all("quality" in e for e in exams.values()):
        page.lines(
            "quality", {"true quality": (models, [e["quality"] for e in exams.values()])}, "model", "true quality on held-out requests"
        )
        page.lines("length", {"words an answer": (models, [e["words"] for e in exams.values()])}, "model", "words an answer")
        page.gains({f"M{b} after M{a}": (out / f"exam_m{a}", out / f"exam_m{b}") for a, b in pairwise(models)}, ("quality", "padding"))
    judged = [t for t in models if f"judging_m{t}" in figures]
    if judged:
        lines: list[dict[str, Any]] = []
        for t in judged:
            line = figures[f"judging_m{t}"]
            lines.append({"judge": f"M{t}", **{name: line[key] for key, name in JUDGE.items()}, "unreadable": line["missing"]})
        lines += [
            {"judge": name, **dict(zip(JUDGE.values(), values, strict=True)), "unreadable": None} for name, values in PUBLISHED.items()
        ]
        told = "Against rankings that no model was trained on; the published figures are for other data and stand beside for the shape."
        page.section("The models as judges", told, lines)
    duels = [t for t in models[1:] if f"duel_{t - 1}" in figures]
    if duels:
        told = "Greedy answers to the exam, judged in both orders; orders that disagree are a tie; `lc` is the win rate at equal length."
        page.section("Head to head", told, [_duel(t, figures[f"duel_{t - 1}"]) for t in duels])


def _duel(t: int, found: Figures) -> dict[str, Any]:
    counts = {name: found[name] for name in ("wins", "ties", "losses", "unjudged")}
    return {"models": f"M{t} against M{t - 1}", **counts, "win rate": found["rate"], "lc": found["lc"]}


def _samples(page: Report, out: Path, models: list[int]) -> None:
    if not models:
        return
    said = {f"M{t}": dict(answers_of(out / f"exam_m{t}")) for t in models if (out / f"exam_m{t}" / "manifest.json").is_file()}
    if said:
        asked = sorted(next(iter(said.values())))[:: max(1, len(next(iter(said.values()))) // 6)][:6]
        page.section("Samples", rows=[{"request": q, **{name: answers.get(q) for name, answers in said.items()}} for q in asked])
