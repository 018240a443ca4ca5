"""Zephyr (arXiv 2310.16944): a teacher's dialogues, feedback on four models' answers, and two fine-tunings.

python -m recipes.zephyr recipes/zephyr.toy.yaml --out runs/zephyr        # minutes on two cores, no hub
python -m recipes.zephyr recipes/zephyr.paper.yaml --out runs/zephyr --dry-run

section 3, dSFT   prompts from seeds by Self-Instruct; the teacher answers, refines the request, answers again, and talks on with a
                  simulated user; rows that decline or shout are left out; fine-tuning on what is left
section 3, AIF    four models answer every prompt, a judge scores them; the best against one of the others, drawn
section 3, dDPO   direct preference optimisation from the dSFT model
section 5         both models sit the same exam; the ablation (`ablate: true`): DPO from the base model, without dSFT
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from columnar import cli
from columnar.config import Config, load
from recipes.report import Report
from recipes.rooms import RecipeConfig, Rooms, Train
from recipes.steps import Figures, Step, arguments
from training.tiny import SIZES

SHOUTS = "len([m for m in messages if m.content = upper(m.content) AND m.content <> lower(m.content)]) = 0"
RULES = {"refusal": "NOT refusal", "capitals": SHOUTS}


class Dsft(Config):
    """Distilled supervised fine-tuning.

    Attributes:
        seeds: tasks by people, for Self-Instruct. data: or a source of dialogues that exist (UltraChat), in place of making them.
        prompts: so many are made, by so many requests at once, each less like the others than `threshold` (ROUGE-L).
        refinements: of each request. turns: least and most answers of a conversation with a simulated user; of `conversations` prompts.
        select: rules that rows must satisfy (a reason, and SQL over its columns).
        tokens: of a row, for the plan.
    """

    seeds: str | None = None
    data: dict[str, Any] | None = None
    teacher: str = "teacher"
    prompts: int = 500
    requests: int = 32
    threshold: float = 0.7
    refinements: int = 1
    turns: tuple[int, int] = (1, 3)
    conversations: int | None = None
    select: dict[str, str] = Field(default_factory=lambda: dict(RULES))
    tokens: int = 60
    train: Train = Train()


class Feedback(Config):
    """AI feedback and dDPO.

    Attributes:
        prompts: to be answered; left out = those of dSFT. data: or a source of pairs that exist (UltraFeedback, binarized).
        pool: the models that answer. judge, pairs: as in generation.preferences. limit: of prompts. select: rules that pairs must satisfy.
        tokens: of a pair, both sides, for the plan.
    """

    prompts: str | None = None
    data: dict[str, Any] | None = None
    pool: list[str] = Field(default_factory=list)
    judge: dict[str, Any] = Field(default_factory=lambda: {"mode": "overall", "model": "judge"})
    pairs: dict[str, Any] = Field(default_factory=lambda: {"rule": "best_vs_random_lower"})
    limit: int | None = None
    select: dict[str, str] = Field(
        default_factory=lambda: {"same_answers": "NOT same_answers", "no_margin": "chosen_score > rejected_score"}
    )
    tokens: int = 100
    train: Train = Train()


class ZephyrConfig(RecipeConfig):
    """The recipe's settings."""

    dsft: Dsft = Dsft()
    feedback: Feedback = Feedback()
    ablate: bool = False


def steps(config: ZephyrConfig, rooms: Rooms) -> list[Step]:
    """The method section."""
    dsft, aif, out, seed = config.dsft, config.feedback, rooms.out, config.seed
    teacher, judge = dsft.teacher, str(aif.judge.get("model", ""))
    pool = aif.pool or [m for m in rooms.known() if m not in (teacher, judge)]
    asked = aif.limit or dsft.prompts
    made: list[Step] = []

    def add(name: str, does: str, work: Any, after: tuple[str, ...], settings: Any, size: Any = None, asks: tuple[str, ...] = ()) -> None:
        made.append(Step(name, does, work, after, settings, size, asks))

    def prompts(place: Path) -> Figures:
        told = {"name": "prompts", "seeds": {"path": rooms.path(dsft.seeds or "")}, "models": rooms.models(teacher), "instances": 0}
        size = {"until": {"rows": dsft.prompts, "candidates": 40 * dsft.prompts}, "requests": dsft.requests, "threshold": dsft.threshold}
        return dict(rooms.generate("self_instruct", {**told, **size, "classify": False, "seed": seed}, place))

    def dialogues(mode: str, place: Path) -> Figures:
        limit = dsft.conversations if mode == "chat" else None
        told = {"name": mode, "prompts": {"path": str(out / "prompts"), "limit": limit}, "models": rooms.models(teacher), "seed": seed}
        more = {"refinements": dsft.refinements} if mode == "refine" else {"turns": list(dsft.turns)}
        return dict(rooms.generate("dialogue", {**told, "mode": mode, **more}, place))

    def dsft_mix(place: Path) -> Figures:
        taught = [dsft.data] if dsft.data else [{"path": str(out / n)} for n in ("refined", "conversations")]
        names = ["dialogues"] if dsft.data else ["refined", "conversations"]
        sources = [{"name": n, **t, "path": rooms.path(t["path"])} for n, t in zip(names, taught, strict=True)]
        rules = {"select": {"empty": "NOT empty", **dsft.select}, "dedup": {"exact": True}, "decontam": rooms.held_out()}
        return rooms.mix({"name": "dsft", "kind": "sft", "sources": sources, **rules}, place)

    def feedback(place: Path) -> Figures:
        wanted = {"prompts": {"path": rooms.path(aif.prompts) if aif.prompts else str(out / "prompts"), "limit": aif.limit}}
        answers = {"models": rooms.models(*pool, judge), "pool": pool, "per_prompt": 4, "judge": aif.judge, "pairs": aif.pairs}
        rooms.generate("preferences", {**wanted, **answers, "seed": seed}, place)
        return dict(json.loads((place / "report.json").read_text(encoding="utf-8")))

    def pairs_mix(place: Path) -> Figures:
        source = {**aif.data, "path": rooms.path(aif.data["path"])} if aif.data else {"path": str(out / "feedback")}
        mix = {"name": "pairs", "kind": "pair", "sources": [{"name": "pairs", **source}], "select": aif.select}
        return rooms.mix({**mix, "decontam": rooms.held_out()}, place)

    def train(method: str, how: Train, mix: str, start: str | Path, place: Path) -> Figures:
        return dict(rooms.train(method, how, out / mix, start, place))

    held = rooms.fingerprint(config.exam)
    talks = dsft.conversations or dsft.prompts
    rows = float((dsft.data or {}).get("cap") or dsft.prompts + talks)
    if dsft.data is None:
        who = [dsft.prompts, dsft.threshold, dsft.requests, seed, rooms.fingerprint(dsft.seeds), rooms.speaking(teacher)]
        size = rooms.calls(teacher, asked / 4, 700, 300, rows=dsft.prompts)
        add("prompts", "prompts from seeds, by Self-Instruct", prompts, (), who, size, (teacher,))
        size = rooms.calls(teacher, dsft.prompts * (2 * dsft.refinements + 1), 300, 300, rows=dsft.prompts)
        add(
            "refined",
            "the teacher answers, refines, answers",
            partial(dialogues, "refine"),
            ("prompts",),
            dsft.refinements,
            size,
            (teacher,),
        )
        size = rooms.calls(teacher, talks * (sum(dsft.turns) - 1), 600, 200, rows=talks)
        work = partial(dialogues, "chat")
        add("conversations", "the teacher and a simulated user", work, ("prompts",), [dsft.turns, talks], size, (teacher,))
    before = () if dsft.data else ("refined", "conversations")
    known = [dsft.select, dsft.data, held, seed, *rooms.fingerprint((dsft.data or {}).get("path"))]
    add("dsft_mix", "what declines, shouts, repeats or is in the exam left out", dsft_mix, before, known, {"rows": rows})
    size = rooms.training_size(dsft.train, rows, dsft.tokens)
    work = partial(train, "sft", dsft.train, "dsft_mix", config.base)
    add("dsft", "fine-tuning on the dialogues", work, ("dsft_mix",), rooms.training(dsft.train), size)
    if aif.data is None:
        who = [rooms.fingerprint(aif.prompts), aif.model_dump(exclude={"train", "select"}), rooms.speaking(*pool, judge), seed]
        cost = [rooms.dollars(m, asked * 4 / len(pool), 200, 300) for m in pool] + [rooms.dollars(judge, asked, 1600, 100)]
        size = {"rows": asked, "calls": 5 * asked, "dollars": None if None in cost else sum(map(float, cost))}  # type: ignore[arg-type]
        does = "four models answer, a judge scores, pairs are drawn"
        add("feedback", does, feedback, () if aif.prompts else ("prompts",), who, size, (*pool, judge))
    pairs = float((aif.data or {}).get("cap") or asked)
    known = [aif.select, aif.data, held, seed, *rooms.fingerprint((aif.data or {}).get("path"))]
    add("pairs_mix", "equal and exam pairs left out", pairs_mix, () if aif.data else ("feedback",), known, {"rows": pairs})
    size = rooms.training_size(aif.train, pairs, aif.tokens)
    models = {"dsft": None, "ddpo": out / "dsft"}
    if config.ablate:
        models["ddpo_alone"] = out / "dsft" / "start" if config.base in SIZES else Path(config.base)
    for name, start in models.items():
        if start is not None:
            does = "preference optimisation from the dSFT model" if name == "ddpo" else "the ablation: DPO without dSFT"
            work = partial(train, "dpo", aif.train, "pairs_mix", start)
            add(name, does, work, ("dsft", "pairs_mix"), rooms.training(aif.train), size)
        add(f"exam_{name}", f"{name} sits the exam", lambda place, n=name: rooms.exam(out / n, place), (name,), [held, config.tasks])
    return made


def write_report(config: ZephyrConfig, rooms: Rooms, made: list[Step], figures: dict[str, Figures]) -> Path:
    """What came of it."""
    out = rooms.out
    page = Report(out, "Zephyr", "Distilled fine-tuning, AI feedback, direct preference optimisation (arXiv 2310.16944).")
    if config.world.models:
        page.text(
            "**Simulated**: requests, teacher, the four models and the judge are programs of a small world whose truth is computed, and "
            "the model that learns is tiny. Generation, judging, pairing and training are the real ones; the figures say nothing about "
            "Zephyr 7B."
        )
    for name in ("dsft_mix", "pairs_mix"):
        mix = figures[name]
        funnel = [{"source": s, "in": c["in"], **c["dropped"], "out": c["out"]} for s, c in mix["sources"].items()]
        said = f"Rows that hold items of the exam: {sum(mix['contaminated'].values()):,}."
        page.section(f"Funnel of {name}", said, rows=even(funnel))
    if "feedback" in figures:
        page.pairs(figures["feedback"])
    exams = {s.name.removeprefix("exam_"): figures[s.name] for s in made if s.name.startswith("exam_")}
    page.section("The exam", rows=[{"model": n, **{k: v for k, v in f.items() if not isinstance(v, dict)}} for n, f in exams.items()])
    if all("quality" in f for f in exams.values()):
        page.text("True quality by kind of request:")
        page.table([{"model": n, **f["families"]} for n, f in exams.items()])
        against = {"dDPO after dSFT": ("dsft", "ddpo"), "DPO without dSFT, against with it": ("ddpo", "ddpo_alone")}
        page.section("What the paper claims, here")
        page.gains({said: (out / f"exam_{a}", out / f"exam_{b}") for said, (a, b) in against.items() if b in exams}, ("quality", "padding"))
        page.bars("quality", {n: f["quality"] for n, f in exams.items()}, "true quality on held-out requests")
    page.section("Training")
    page.curve("dsft", out / "dsft" / "metrics.jsonl", "loss")
    page.curve("ddpo", out / "ddpo" / "metrics.jsonl", "rewards/margins")
    if config.exam:
        page.samples({n: out / f"exam_{n}" for n in exams})
    taught = [config.dsft.seeds or (config.dsft.data or {}).get("path"), (config.feedback.data or {}).get("path")]
    page.lineage(made, {n: [s] for n, s in zip((made[0].name, "pairs_mix"), taught, strict=True) if s})
    return page.write()


def even(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table with the same columns, the last one last."""
    names = list(dict.fromkeys(k for row in rows for k in row if k != "out"))
    return [{k: row.get(k, 0) for k in [*names, "out"]} for row in rows]


def main(args: argparse.Namespace) -> int:
    """Run the recipe."""
    config = load(ZephyrConfig, args.config, args.settings)
    rooms = Rooms(config, args.out, args.config.parent)
    made = steps(config, rooms)
    sources = [config.dsft.seeds, config.feedback.prompts, *((d or {}).get("path") for d in (config.dsft.data, config.feedback.data))]
    rooms.check(made, sources, [config.dsft.train, config.feedback.train], live=not args.dry_run)
    return rooms.carry_out(made, args, lambda figures: write_report(config, rooms, made, figures))


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments("zephyr", __doc__)))
