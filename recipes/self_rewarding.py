"""Self-Rewarding Language Models (arXiv 2401.10020): a model that answers, judges its own answers, and learns from the difference.

python -m recipes.self_rewarding recipes/self_rewarding.toy.yaml --out runs/self_rewarding     # a few minutes on two cores, no hub
python -m recipes.self_rewarding recipes/self_rewarding.paper.yaml --out runs/self_rewarding --dry-run

section 2.1, M1      instruction examples (IFT), and judging examples (EFT) from ranked answers: the judge's words where its scores put
                     the answers into the people's order, the most common score thinned; fine-tuning on both
section 2.2          new prompts by Self-Instruct from a fixed writer, N answers of M_t to each, each judged k times by M_t itself
section 2.3, M_t+1   the best against the worst, ties dropped, DPO from M_t; or fine-tuning on the best alone (`pairs: {output: sft}`)
section 3            every model sits the exam, is measured as a judge on held-out rankings, and meets the model before it head to head

`judge: self` lets M_t judge. A list names other judges, one a round: at toy size a model cannot read a rubric, so programs whose dials are
set stand in for its judging. The run ends where too few prompts give a pair: a judge that sees no difference cannot teach.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from columnar import cli
from columnar.config import load
from columnar.errors import CaravanError
from recipes.duel import duel
from recipes.eft import write_rows
from recipes.rooms import Rooms, Train
from recipes.self_rewarding_config import SelfRewardingConfig, of_round
from recipes.self_rewarding_report import candidate_figures, write_report
from recipes.steps import Enough, Figures, Step, arguments

TOKENS = 500  # of a prompt with its answer, for the plan


def steps(config: SelfRewardingConfig, rooms: Rooms) -> list[Step]:
    """The method section."""
    loop, eft, out, seed = config.loop, config.eft, rooms.out, config.seed
    made: list[Step] = []

    def add(name: str, does: str, work: Any, after: tuple[str, ...], settings: Any, size: Any = None, asks: tuple[str, ...] = ()) -> None:
        made.append(Step(name, does, work, after, settings, size, asks))

    def source(given: dict[str, Any], name: str) -> dict[str, Any]:
        amount = {} if {"rows", "fraction", "tokens", "all"} & set(given) else {"all": True}
        return {"name": name, **given, "path": rooms.path(given["path"]), **amount}

    def mix(name: str, kind: str, sources: list[dict[str, Any]], place: Path, **rules: Any) -> Figures:
        return rooms.mix({"name": name, "kind": kind, "sources": sources, "decontam": rooms.held_out(), **rules}, place)

    def made_here(*names: str) -> list[dict[str, Any]]:
        return [{"name": name, "path": str(out / name), "all": True} for name in names]

    def named(*judges: str | None) -> tuple[str, ...]:
        return tuple(j for j in judges if j and j != "self")

    def ift(place: Path) -> Figures:
        if not config.ift.best_of:
            return mix("ift", "sft", [source(config.ift.source, "ift")], place, select={"empty": "NOT empty"})
        figures = mix("ift", "candidates", [source(config.ift.source, "ift")], place / "ranked")
        return {**figures, "best": rooms.pairs({"candidates": str(place / "ranked"), "pairs": {"output": "sft"}, "name": "ift"}, place)}

    def judged(t: int | None, judge: str, work: Any) -> Any:
        """`work(judge, models)` with whoever judges: a model of the config, or M_t (None: the model tuned on IFT alone), served."""
        rule = {"mode": "additive", "model": "policy" if judge == "self" else judge, **loop.judging}
        if judge != "self":
            return work(rule, rooms.models(judge))
        with rooms.serve(out / (f"m{t}" if t else "baseline"), out / (f"judge_m{t}" if t else "judge_baseline")) as policy:
            return work(rule, [policy])

    def eft_judged(place: Path) -> Figures:
        asked = {"candidates": str(out / "rankings"), "seed": seed, "name": "eft"}
        ask = lambda rule, models: rooms.generate("judge", {**asked, "judge": rule, "models": models}, place)  # noqa: E731
        return dict(judged(None, eft.judge if eft else "self", ask))

    def sft_mix(place: Path) -> Figures:
        taught = [{"name": "eft", "path": str(out / "eft" / "eft.jsonl"), "all": True}] if eft else []
        return mix("sft", "sft", made_here("ift") + taught, place)

    def prompts(t: int, place: Path) -> Figures:
        wanted = of_round(loop.prompts, t)
        size = {"until": {"rows": wanted, "candidates": 40 * wanted}, "requests": loop.requests, "threshold": loop.threshold}
        told = {
            "seeds": {"path": str(out / "ift")},
            "instances": 0,
            "classify": False,
            "seed": 1000 * seed + t,
            "params": loop.writing,
            **size,
        }
        return dict(rooms.generate("self_instruct", {"name": "prompts", "models": rooms.models(loop.writer), **told}, place))

    def feedback(t: int, place: Path) -> Figures:
        name = of_round(loop.judge, t)
        rule = {"mode": "additive", "model": "policy" if name == "self" else name, "samples": loop.times, **loop.judging}
        answers = {"pool": ["policy"], "per_prompt": 1, "samples": loop.answers, "params": loop.params}
        asked = {
            "prompts": str(out / f"prompts_{t}"),
            **answers,
            "judge": rule,
            "pairs": loop.pairs,
            "seed": seed + t,
            "name": f"round_{t}",
        }
        with rooms.serve(out / f"m{t}", place) as policy:
            models = [policy, *(rooms.models(name) if name != "self" else [])]
            try:
                rooms.generate("preferences", {**asked, "models": models}, place)
            except CaravanError:
                if not (place / "report.json").is_file():  # else it failed because nobody gave a pair: that is a finding
                    raise
        pairs = json.loads((place / "report.json").read_text(encoding="utf-8"))
        figures = {"pairs": pairs, **candidate_figures(place / "candidates")}
        if pairs["yield"] < loop.least_yield or not pairs["rows"]:
            why = ", ".join(f"{n:,} {reason}" for reason, n in pairs["without"].items())
            raise Enough(
                f"the yield collapsed in round {t}: {pairs['rows']:,} of {pairs['prompts']:,} prompts gave a pair ({why}; least_yield "
                f"is {loop.least_yield:g}). M{t} as a judge sees no difference between its answers; teach it to judge (eft)",
                figures,
            )
        return figures

    def round_mix(t: int, place: Path) -> Figures:
        if loop.positive:
            return mix("positive", "sft", made_here("sft_mix", *[f"feedback_{i}" for i in range(1, t + 1)]), place)
        return mix("pairs", "pair", made_here(f"feedback_{t}"), place, select={"same_answers": "NOT same_answers"})

    def tune(name: str, does: str, data: str, rows: float) -> None:
        work = lambda place: rooms.train("sft", config.sft, out / data, config.base, place)  # noqa: E731
        add(name, does, work, (data,), rooms.training(config.sft), training(config.sft, rows))

    def training(train: Train, rows: float, passes: int = 1) -> dict[str, float | None]:
        return {"rows": rows, "gpu_hours": rooms.gpu_hours(rows * TOKENS, passes * float(train.set.get("num_train_epochs", 1)))}

    def ranked(name: str, does: str, given: dict[str, Any]) -> None:
        work = lambda place: mix(name, "candidates", [source(given, name)], place)  # noqa: E731
        add(name, does, work, (), [given, rooms.fingerprint(given["path"]), held, seed], {"rows": given.get("rows") or given.get("cap")})

    def examine(t: int) -> None:
        exam, judge = [held, config.tasks], of_round(loop.judge, t)
        add(f"exam_m{t}", f"M{t} sits the exam", lambda place: rooms.exam(out / f"m{t}", place), (f"m{t}",), exam)
        if config.held_out is not None:

            def measure(place: Path) -> Figures:
                ask = lambda rule, models: rooms.agreement({**rule, "samples": loop.times}, models, out / "held_out", place)  # noqa: E731
                return dict(judged(t, judge, ask))

            known = [judge, rooms.speaking(judge), loop.times, loop.judging, seed]
            after = ("held_out", *((f"m{t}",) if judge == "self" else ()))
            add(f"judging_m{t}", f"M{t} as a judge, on held-out rankings", measure, after, known, None, named(judge))

    held = rooms.fingerprint(config.exam)
    rows = float(config.ift.source.get("rows") or config.ift.source.get("cap") or 0)
    add(
        "ift",
        "instruction examples",
        ift,
        (),
        [config.ift.model_dump(), rooms.fingerprint(config.ift.source["path"]), held, seed],
        {"rows": rows},
    )
    if config.held_out is not None:
        ranked("held_out", "ranked answers to measure judges on", config.held_out)
    if eft is not None:
        ranked("rankings", "ranked answers to learn judging from", eft.rankings)
        if eft.judge == "self":
            tune("baseline", "fine-tuning on IFT alone", "ift", rows)
        after = ("rankings", "baseline") if eft.judge == "self" else ("rankings",)
        who = [eft.judge, rooms.speaking(eft.judge), loop.judging, seed]
        add("eft_judged", "a judge scores the ranked answers", eft_judged, after, who, None, named(eft.judge))
        work = lambda place: write_rows(out / "rankings", out / "eft_judged", place / "eft.jsonl", seed)  # noqa: E731
        add("eft", "kept where it agrees with the people", work, ("rankings", "eft_judged"), seed)
    add("sft_mix", "IFT and EFT together", sft_mix, ("ift", *(("eft",) if eft else ())), held)
    tune("m1", "fine-tuning on both", "sft_mix", rows)
    examine(1)
    for t in range(1, config.rounds + 1):
        wanted, judge = of_round(loop.prompts, t), of_round(loop.judge, t)
        who = [loop.writer, rooms.speaking(loop.writer), wanted, loop.requests, loop.threshold, loop.writing, seed]
        size = {"rows": wanted, "calls": wanted / 4}
        add(f"prompts_{t}", "new prompts by Self-Instruct", partial(prompts, t), ("ift",), who, size, (loop.writer,))
        known = [
            loop.model_dump(include={"answers", "params", "times", "judging", "pairs", "least_yield"}),
            judge,
            rooms.speaking(judge),
            seed,
        ]
        size = {"rows": wanted, "calls": wanted * loop.answers * (1 + loop.times)}
        add(
            f"feedback_{t}",
            f"M{t} answers, is judged, gives pairs",
            partial(feedback, t),
            (f"m{t}", f"prompts_{t}"),
            known,
            size,
            named(judge),
        )
        rounds = range(1, t + 1) if loop.positive else (t,)
        before = ("sft_mix",) if loop.positive else ()
        add(
            f"pairs_{t}",
            "what the exam holds is left out",
            partial(round_mix, t),
            (*before, *(f"feedback_{i}" for i in rounds)),
            [held, loop.positive],
        )
        method, start = ("sft", config.base) if loop.positive else ("dpo", str(out / f"m{t}"))
        work = partial(lambda t, method, start, place: rooms.train(method, loop.train, out / f"pairs_{t}", start, place), t, method, start)
        after = (f"pairs_{t}", *(() if loop.positive else (f"m{t}",)))
        size = training(loop.train, wanted, 1 if loop.positive else 3)  # DPO: two answers, and the reference reads them once
        add(f"m{t + 1}", f"M{t + 1} from M{t}", work, after, rooms.training(loop.train), size)
        examine(t + 1)
        if config.referee is not None:
            both = {f"m{i}": out / f"exam_m{i}" for i in (t, t + 1)}
            after = (f"exam_m{t}", f"exam_m{t + 1}")
            work = partial(duel, rooms, both, config.referee)
            calls = 2 * (config.exam_rows or 0)  # both orders
            size = {"calls": calls or None, "dollars": rooms.dollars(config.referee, calls, 3 * TOKENS, 60)}
            add(f"duel_{t}", f"M{t + 1} against M{t}", work, after, rooms.speaking(config.referee), size, named(config.referee))
    return made


def main(args: argparse.Namespace) -> int:
    """Run the recipe."""
    config = load(SelfRewardingConfig, args.config, args.settings)
    rooms = Rooms(config, args.out, args.config.parent)
    made = steps(config, rooms)
    sources = [config.ift.source, config.eft.rankings if config.eft else {}, config.held_out or {}]
    rooms.check(made, [source.get("path") for source in sources], [config.sft, config.loop.train], live=not args.dry_run)
    return rooms.carry_out(made, args, lambda figures: write_report(config, rooms, made, figures))


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments("self_rewarding", __doc__)))
