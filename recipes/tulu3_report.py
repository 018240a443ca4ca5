"""What came of a run of recipes.tulu3: funnels, contamination, pairs, curves, exams, claims checked, samples, lineage."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from recipes.report import Report
from recipes.rooms import Rooms
from recipes.steps import Figures, Step
from recipes.tulu3_config import Tulu3Config

STAGES = ("sft", "dpo", "rlvr")
SIMULATED = (
    "**Simulated**: the requests, the writers, the models of the pool and the judge are programs of a small world whose truth is computed, "
    "and the model that learns is tiny. Making, scanning, judging, pairing, verifying and training are the real ones. Requirements are one "
    "of IFEval's (the answer in double quotation marks), because the world's speakers know how to obey it: at toy size they are no unseen "
    "kind. The figures say nothing about Tülu 3 8B."
)


def write_report(config: Tulu3Config, rooms: Rooms, made: list[Step], figures: dict[str, Figures]) -> Path:
    """OUT/report.md with its plots."""
    page = Report(rooms.out, "Tülu 3", "SFT, length-normalised DPO and RL from verifiable rewards (arXiv 2411.15124).")
    if config.world.models:
        page.text(SIMULATED)
    exams = {s.name.removeprefix("exam_"): figures[s.name] for s in made if s.name.startswith("exam_")}
    toy = all("dev" in found and "unseen" in found for found in exams.values())
    if toy:
        claims(page, rooms.out, exams)
        page.lines("stages", {kind: curve(exams, *kind.split(", ")) for kind in KINDS}, "after", "share", "o")
    for name in [s.name for s in made if s.name.startswith("persona_")]:
        page.section(
            f"Rows from personas: {name.removeprefix('persona_')}", rows=[plain(figures[name]) | figures[name].get("rejected", {})]
        )
    funnels(page, figures)
    if "preferences" in figures:
        pairs_of(page, {part: found["pairs"] for part, found in sorted(figures["preferences"].items())})
    page.section("Exams", "Development decided the settings; unseen was looked at after. Shares and means from 0 to 1.")
    page.table(even([{"model": n, "exam": which, **plain(f)} for n, found in exams.items() for which, f in found.items()]))
    if toy:
        page.text("True quality by kind of request, on the unseen exam:")
        page.table(even([{"model": n, **found["unseen"]["families"]} for n, found in exams.items()]))
    if "family" in figures:
        page.section("The mix without one of its sources", rows=figures["family"]["table"])
    page.section("Training")
    for name, what in (("sft", "loss"), ("dpo", "rewards/margins"), ("reward_model", "accuracy"), ("rlvr", "reward")):
        page.curve(name, rooms.out / name / "metrics.jsonl", what)
    if toy:
        page.samples({n: rooms.out / f"exam_{n}" / "unseen" for n in exams})
    page.lineage(made, outside(config))
    return page.write()


KINDS = ("dev, quality", "dev, verifiable", "unseen, quality", "unseen, verifiable")


def curve(exams: dict[str, Figures], which: str, what: str) -> tuple[list[str], list[float]]:
    """A figure over the stages."""
    return [stage.upper() for stage in STAGES], [exams[stage][which][what] for stage in STAGES]


def claims(page: Report, out: Path, exams: dict[str, Figures]) -> None:
    """What the paper claims that a run at this size can check."""
    page.section("What the paper says, and what this run shows")
    stages = {
        f"{b} after {a}, {which}": (a, b, which) for a, b in (*pairwise(STAGES), (STAGES[0], STAGES[-1])) for which in ("dev", "unseen")
    }
    page.gains(
        {said: (out / f"exam_{a}" / which, out / f"exam_{b}" / which) for said, (a, b, which) in stages.items()}, ("quality", "verifiable")
    )
    if "sft_unscanned" in exams:
        page.text("SFT on the mix that was not scanned, which holds the development exam's requests, against SFT on the scanned one:")
        page.gains({f"unscanned, {which}": (out / "exam_sft" / which, out / "exam_sft_unscanned" / which) for which in ("dev", "unseen")})


def funnels(page: Report, figures: dict[str, Figures]) -> None:
    """What went in, what was left out and why, and what the exams lost to it."""
    contaminated = {}
    for name in ("sft_mix", "sft_mix_unscanned", "pairs_mix", "rlvr_prompts"):
        if name in figures:
            mix = figures[name]
            page.section(
                f"Funnel of {name}",
                rows=even([{"source": s, "in": c["in"], **c["dropped"], "out": c["out"]} for s, c in mix["sources"].items()]),
            )
            contaminated[name] = mix["contaminated"]
    page.section("Contamination", "Rows that hold an item of an exam, by the scan (`exam` is the development exam).")
    page.table(even([{"mix": name, "scanned": bool(found), **found} for name, found in contaminated.items()]))


def pairs_of(page: Report, parts: dict[str, Figures]) -> None:
    """Yield, lengths and margins of each part of the preference mix."""
    names = ("prompts", "rows", "yield", "first_place_shared", "equal_texts", "chosen_longer", "length_score_correlation")
    page.section("Pairs", rows=[{"part": part, **{n: found.get(n) for n in names}} for part, found in parts.items()])
    wins: dict[str, dict[str, float]] = {}
    for found in parts.values():
        for model, counts in found["models"].items():
            line = wins.setdefault(model, {})
            for key, value in counts.items():
                if isinstance(value, int):
                    line[key] = line.get(key, 0) + value
    page.text("Who wrote the chosen and the rejected answers; `policy` is the SFT model:")
    page.table(even([{"model": model, **counts} for model, counts in sorted(wins.items())]))
    margins: dict[str, float] = {}
    for found in parts.values():
        for edge, count in found["margins"].items():
            margins[edge] = margins.get(edge, 0) + count
    if margins:
        page.bars("margins", margins, "pairs by margin of their scores")


def outside(config: Tulu3Config) -> dict[str, list[str]]:
    """Per step the data that came from outside."""
    sft, rl = config.sft, config.rlvr
    out = {f"persona_{p.name}": [p.personas] for p in sft.personas}
    out["sft_mix"] = [*([sft.mix] if sft.mix else []), *(s["path"] for s in sft.sources.values())]
    out["preferences"] = [p.prompts["path"] for p in config.preferences.parts if p.prompts]
    out["rlvr_prompts"] = [e for e in (rl.mix, rl.prompts, *(s["path"] for s in rl.sources.values())) if e]
    return {name: sorted(set(entries)) for name, entries in out.items() if entries}


def plain(figures: Figures) -> dict[str, Any]:
    """The numbers and words of figures, without what hangs below and without the clock."""
    return {k: v for k, v in figures.items() if isinstance(v, int | float | str) and k not in ("seconds", "stopped", "out", "directory")}


def even(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table with the same columns, `out` last."""
    names = list(dict.fromkeys(k for row in rows for k in row if k != "out"))
    last = ["out"] if any("out" in row for row in rows) else []
    return [{k: row.get(k, 0 if last else None) for k in [*names, *last]} for row in rows]
