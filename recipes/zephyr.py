"""Zephyr (arXiv 2310.16944): a teacher's dialogues, feedback on four models' answers, and two fine-tunings.

python -m recipes.zephyr recipes/zephyr.toy.yaml --out runs/zephyr        # a few minutes on two cores, no hub
python -m recipes.zephyr recipes/zephyr.paper.yaml --out runs/zephyr --dry-run

section 3, dSFT   prompts from seeds by Self-Instruct; the teacher answers, refines the request, answers again; rows that refuse or are
                  in capitals are left out; fine-tuning on what is left
section 3, AIF    four models answer every prompt, a judge scores them; the best against one of the others, drawn
section 3, dDPO   direct preference optimisation from the dSFT model
section 5         both models sit the same exam; without dSFT, DPO learns nothing (section 5, the ablation): `ablate: true`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pydantic import Field

from columnar import cli
from columnar.config import Config, load
from recipes.report import Report
from recipes.rooms import RecipeConfig, Rooms, Train
from recipes.steps import Figures, Step, arguments, perform, show


class Dsft(Config):
    """Distilled supervised fine-tuning.

    Attributes:
        seeds: tasks by people, for Self-Instruct. data: or dialogues that exist (UltraChat), in place of making them.
        prompts: so many prompts are made. refinements: of each request. select: rules that rows must satisfy.
    """

    seeds: str | None = None
    data: str | None = None
    teacher: str = "teacher"
    prompts: int = 500
    requests: int = 32
    threshold: float = 0.7
    refinements: int = 1
    select: dict[str, str] = Field(default_factory=lambda: {"refusal": "NOT refusal"})
    rows: int | None = None
    train: Train = Train()


class Feedback(Config):
    """AI feedback and dDPO.

    Attributes:
        prompts: to be answered; left out = those of dSFT. data: or pairs that exist (UltraFeedback binarized).
        pool: the models that answer. judge, pairs: as in generation.preferences.
    """

    prompts: str | None = None
    data: str | None = None
    pool: list[str] = Field(default_factory=list)
    judge: dict[str, Any] = Field(default_factory=lambda: {"mode": "overall", "model": "judge"})
    pairs: dict[str, Any] = Field(default_factory=lambda: {"rule": "best_vs_random_lower"})
    limit: int | None = None
    train: Train = Train()


class ZephyrConfig(RecipeConfig):
    """The recipe's settings."""

    dsft: Dsft = Dsft()
    feedback: Feedback = Feedback()
    ablate: bool = False


def steps(config: ZephyrConfig, rooms: Rooms) -> list[Step]:
    """The method section."""
    dsft, aif, out = config.dsft, config.feedback, rooms.out

    def prompts(place: Path) -> Figures:
        made = {"name": "prompts", "seeds": {"path": rooms.path(dsft.seeds or "")}, "models": rooms.models(dsft.teacher), "instances": 0}
        size = {"until": {"rows": dsft.prompts, "candidates": 40 * dsft.prompts}, "requests": dsft.requests, "threshold": dsft.threshold}
        return rooms.generate("self_instruct", {**made, **size, "classify": False, "seed": config.seed}, place)

    def dialogues(place: Path) -> Figures:
        made = {"name": "dialogues", "prompts": {"path": str(out / "prompts")}, "models": rooms.models(dsft.teacher)}
        return rooms.generate("dialogue", {**made, "mode": "refine", "refinements": dsft.refinements, "seed": config.seed}, place)

    def dsft_mix(place: Path) -> Figures:
        source: dict[str, Any] = {"name": "dialogues", "path": rooms.path(dsft.data) if dsft.data else str(out / "dialogues")}
        amount = {"rows": dsft.rows} if dsft.rows else {"all": True}
        rules = {"empty": "NOT empty", **dsft.select}
        mix = {"name": "dsft", "kind": "sft", "sources": [{**source, **amount}], "select": rules, "dedup": {"exact": True}}
        return rooms.mix({**mix, "decontam": rooms.held_out()}, place)

    def dsft_model(place: Path) -> Figures:
        return rooms.train("sft", dsft.train, out / "dsft_mix", config.base, place)

    def feedback(place: Path) -> Figures:
        asked = rooms.path(aif.prompts) if aif.prompts else str(out / "prompts")
        pool = aif.pool or [m for m in rooms.known() if m not in (dsft.teacher, aif.judge.get("model"))]
        wanted = {"prompts": {"path": asked, "limit": aif.limit}, "models": rooms.models(), "pool": pool, "per_prompt": 4}
        return rooms.generate("preferences", {**wanted, "judge": aif.judge, "pairs": aif.pairs, "seed": config.seed}, place)

    def pairs_mix(place: Path) -> Figures:
        source = {"name": "pairs", "path": rooms.path(aif.data) if aif.data else str(out / "feedback"), "all": True}
        rules = {"same_answers": "NOT same_answers", "no_margin": "chosen_score > rejected_score"}
        mix = {"name": "pairs", "kind": "pair", "sources": [source], "select": rules}
        return rooms.mix({**mix, "decontam": rooms.held_out()}, place)

    def ddpo(start: str) -> Any:
        return lambda place: rooms.train("dpo", aif.train, out / "pairs_mix", start, place)

    def exam(model: Path) -> Any:
        return lambda place: rooms.exam(model, place)

    teaching: dict[str, Any] = {"rows": dsft.prompts, "calls": dsft.prompts * (2 * dsft.refinements + 1)}
    judged = {"rows": aif.limit or dsft.prompts, "calls": (aif.limit or dsft.prompts) * 5}
    made: list[Step] = []
    if dsft.data is None:
        files = [*rooms.fingerprint(dsft.seeds), dsft.prompts, dsft.threshold, dsft.requests, config.seed]
        files.append(rooms.speaking(dsft.teacher))
        made.append(Step("prompts", "prompts from seeds, by Self-Instruct", prompts, (), files, {"rows": dsft.prompts}))
        made.append(Step("dialogues", "the teacher answers, refines, answers", dialogues, ("prompts",), dsft.refinements, teaching))
    before = () if dsft.data else ("dialogues",)
    known = [dsft.select, dsft.rows, rooms.fingerprint(dsft.data, config.exam), config.seed]
    made.append(Step("dsft_mix", "refusals, copies and exam items left out", dsft_mix, before, known))
    made.append(Step("dsft", "fine-tuning on the dialogues", dsft_model, ("dsft_mix",), rooms.training(dsft.train)))
    if aif.data is None:
        asked = () if aif.prompts else ("prompts",)
        who = [rooms.fingerprint(aif.prompts), aif.model_dump(exclude={"train"}), rooms.speaking(*rooms.known()), config.seed]
        made.append(Step("feedback", "four models answer, a judge scores, pairs are drawn", feedback, asked, who, judged))
    pairs_after = () if aif.data else ("feedback",)
    made.append(Step("pairs_mix", "equal and unscored pairs left out", pairs_mix, pairs_after, rooms.fingerprint(aif.data, config.exam)))
    made.append(
        Step(
            "ddpo", "preference optimisation from the dSFT model", ddpo(str(out / "dsft")), ("dsft", "pairs_mix"), rooms.training(aif.train)
        )
    )
    models = ["dsft", "ddpo"]
    if config.ablate:
        start = str(out / "dsft" / "start") if config.base in SIZES else config.base
        made.append(Step("ddpo_alone", "the ablation: DPO without dSFT", ddpo(start), ("dsft", "pairs_mix"), rooms.training(aif.train)))
        models.append("ddpo_alone")
    for name in models:
        made.append(
            Step(f"exam_{name}", f"{name} sits the exam", exam(out / name), (name,), [rooms.fingerprint(config.exam), config.tasks])
        )
    return made


SIZES = ("tiny", "mini", "small", "base", "large")


def write_report(config: ZephyrConfig, rooms: Rooms, made: list[Step], figures: dict[str, Figures]) -> Path:
    """What came of it."""
    page = Report(rooms.out, "Zephyr", "Distilled fine-tuning, AI feedback, direct preference optimisation (arXiv 2310.16944).")
    if config.world.models:
        page.text("**Simulated**: requests, teacher, the four models and the judge are programs of a small world whose truth is computed; "
                  "training, generation, judging and pairing are the real ones.")  # fmt: skip
    for name in ("dsft_mix", "pairs_mix"):
        mix = figures[name]
        page.section(f"Funnel of {name}", rows=[{"in": mix["in"], **mix["dropped"], "out": mix["rows"]}])
    if "feedback" in figures:
        pairs = figures["feedback"].get("pairs", figures["feedback"])
        page.section("Pairs", rows=[{k: v for k, v in pairs.items() if isinstance(v, int | float | str)}])
    exams = {s.name.removeprefix("exam_"): figures[s.name] for s in made if s.name.startswith("exam_")}
    page.section("The exam", rows=[{"model": n, **{k: v for k, v in f.items() if not isinstance(v, dict)}} for n, f in exams.items()])
    if all("quality" in f for f in exams.values()):
        page.bars("quality", {n: f["quality"] for n, f in exams.items()}, "true quality on held-out requests")
    for name in ("dsft", "ddpo"):
        page.curve(name, rooms.out / name / "metrics.jsonl", "loss")
    page.lineage(made)
    return page.write()


def main(args: argparse.Namespace) -> int:
    """Run the recipe."""
    config = load(ZephyrConfig, args.config, args.settings)
    rooms = Rooms(config, args.out, args.config.parent)
    made = steps(config, rooms)
    if args.dry_run:
        return show(made, args.out, args.json)
    with rooms.open():
        figures = perform(made, args.out, args.redo)
    path = write_report(config, rooms, made, figures)
    cli.emit(figures) if args.json else cli.say(f"done: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments("zephyr", __doc__)))
