"""Tülu 1 (How Far Can Camels Go, arXiv 2306.04751): what instruction sets teach, alone and together, by skill and by a judge's taste.

python -m recipes.tulu1 recipes/tulu1.toy.yaml --out runs/tulu1        # minutes on two cores, no hub
python -m recipes.tulu1 recipes/tulu1.paper.yaml --out runs/tulu1 --dry-run

section 3   every set in one chat format; the Human and the Human+GPT mix are their sets put together
section 4   one base model, fine-tuned on every set and on every mix; the loss is on what the assistant says, in every turn
section 5   a table of models and skills; win rates against one reference model by each of the `judges`, beside their correlation with
            length and with the number of different words: a judge that likes those can hide what a model cannot do
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field, model_validator

from columnar import cli
from columnar.config import Config, load
from recipes.report import Report
from recipes.rooms import RecipeConfig, Rooms, Train
from recipes.steps import Figures, Step, arguments
from recipes.taste import correlations, taste
from training.tiny import SIZES


class Pretraining(Config):
    """What stands for the pretraining of a base model that is made here: a source of text, and how it is learnt."""

    source: dict[str, Any]
    train: Train = Train()


class Tulu1Config(RecipeConfig):
    """The recipe's settings.

    Attributes:
        pretraining: of a base that is a size; left out = random weights.
        sets: instruction sets by name, each a source as in a mix. mixes: names of their sets.
        alone: sets that get a model of their own; left out = all of them.
        select: rules that rows must satisfy. tokens: of a row, of every set or of each, for the plan.
        reference: the model that everyone is compared with. judges: who compare, in both orders.
        questions: of the exam, for the plan, where it is not the world's.
    """

    pretraining: Pretraining | None = None
    sets: dict[str, dict[str, Any]]
    mixes: dict[str, list[str]]
    alone: list[str] | None = None
    select: dict[str, str] = Field(default_factory=lambda: {"empty": "NOT empty"})
    tokens: int | dict[str, int] = 60
    train: Train = Train()
    reference: str | None = None
    judges: list[str] = Field(default_factory=list)
    questions: int = 0

    @model_validator(mode="after")
    def _known(self) -> Tulu1Config:
        if unknown := {name for names in self.mixes.values() for name in names}.union(self.alone or ()) - set(self.sets):
            raise ValueError(f"no set is called {', '.join(sorted(unknown))}; sets: {', '.join(self.sets)}")
        if both := set(self.sets) & set(self.mixes):
            raise ValueError(f"{', '.join(sorted(both))}: the name of a set and of a mix")
        return self

    def taught(self) -> dict[str, list[str]]:
        """The models, by what they are taught: names of sets."""
        return {name: [name] for name in (self.sets if self.alone is None else self.alone)} | self.mixes

    def length(self, names: list[str]) -> float:
        """Tokens of a row of sets together, as far as the config says it."""
        every = {n: self.tokens if isinstance(self.tokens, int) else self.tokens.get(n, 0) for n in names}
        return sum(every[n] * self.rows([n]) for n in names) / (self.rows(names) or 1.0)

    def rows(self, names: list[str]) -> float:
        """Of sets together, as far as the config or the world says it."""
        said = [self.sets[n].get("cap") or self.sets[n].get("rows") for n in names]
        files = [self.world.files.get(str(self.sets[n]["path"]).removeprefix("world:")) for n in names]
        return float(sum(s or (f.rows if f else 0) for s, f in zip(said, files, strict=True)))


def steps(config: Tulu1Config, rooms: Rooms) -> list[Step]:
    """The method section."""
    out, taught, made = rooms.out, config.taught(), list[Step]()
    known: list[Any]
    held, whole = rooms.fingerprint(config.exam), list(config.mixes)[-1] if config.mixes else list(config.sets)[-1]

    def data(names: list[str], place: Path) -> Figures:
        sources = [{"name": n, **config.sets[n], "path": rooms.path(str(config.sets[n]["path"]))} for n in names]
        mix = {"name": place.name, "kind": "sft", "sources": sources, "select": config.select, "max_reject": 0.01}
        return rooms.mix({**mix, "decontam": rooms.held_out()}, place)

    def base(place: Path) -> Figures:
        before = config.pretraining
        if before is None:
            argv: list[str | Path] = [out / f"data_{whole}", "--out", place / "model", "--size", config.base, "--template", "tulu"]
            return dict(rooms.run("training.tiny", *argv))
        source = {"name": "pretraining", **before.source, "path": rooms.path(str(before.source["path"]))}
        mix = {"name": "pretraining", "kind": "sft", "sources": [source], "decontam": rooms.held_out()}
        told = rooms.mix(mix, place / "data")
        rooms.train("sft", before.train, place / "data", config.base, place / "model")
        return told

    def train(name: str, start: str | Path, place: Path) -> Figures:
        return dict(rooms.train("sft", config.train, out / f"data_{name}", start, place)["counts"]["train"])

    def reference(place: Path) -> Figures:
        asked = {"prompts": rooms.path(config.exam or ""), "models": rooms.models(config.reference or ""), "per_prompt": 1}
        params = {"temperature": 0.0, "max_tokens": config.exam_tokens}
        return dict(rooms.generate("respond", {**asked, "params": params, "seed": config.seed, "name": "reference"}, place))

    def tasted(place: Path) -> Figures:
        return taste(rooms, {n: out / f"exam_{n}" for n in taught}, out / "reference", config.judges, place)

    for name, names in taught.items():
        says = f"{' + '.join(names)} in one chat format" if len(names) > 1 else "in the chat format"
        known = [config.select, [config.sets[n] for n in names], rooms.fingerprint(*[config.sets[n]["path"] for n in names]), held]
        made.append(Step(f"data_{name}", says, partial(data, names), (), [*known, config.seed], {"rows": config.rows(names)}))
    small = config.base in SIZES
    if small:  # one tokenizer and one start for all models, as they share a published one at real size
        before = config.pretraining
        known = [config.base, before and [before.source, rooms.fingerprint(str(before.source["path"])), rooms.training(before.train), held]]
        text = () if before else (f"data_{whole}",)
        made.append(Step("base", "a tokenizer and a base model for all", base, text, known))
    start = out / "base" / "model" if small else config.base
    for name, names in taught.items():
        size = rooms.training_size(config.train, config.rows(names), config.length(names))
        after = (f"data_{name}", *(("base",) if small else ()))
        made.append(Step(name, "fine-tuning, loss on the answers", partial(train, name, start), after, rooms.training(config.train), size))
        sat = lambda place, name=name: rooms.exam(out / name, place)  # noqa: E731
        made.append(Step(f"exam_{name}", f"{name} sits the exam", sat, (name,), [held, config.tasks, config.exam_tokens]))
    if config.judges and config.reference and config.exam:
        exam = config.world.files.get(config.exam.removeprefix("world:"))
        asked = float(exam.rows if exam else config.questions)
        size = rooms.calls(config.reference, asked, 50, 200, rows=asked)
        known = [config.reference, rooms.speaking(config.reference), held, config.exam_tokens, config.seed]
        made.append(Step("reference", "the model that all are compared with answers", reference, (), known, size, (config.reference,)))
        calls = asked * len(taught) * 2
        cost = [rooms.dollars(j, calls, 700, 60) for j in config.judges]
        size = {"rows": asked * len(taught), "calls": calls * len(config.judges), "dollars": None if None in cost else sum(cost)}  # type: ignore[arg-type]
        after = (*(f"exam_{n}" for n in taught), "reference")
        known = [config.judges, rooms.speaking(*config.judges), config.seed]
        made.append(Step("taste", "judges compare every answer with the reference's", tasted, after, known, size, tuple(config.judges)))
    return made


def write_report(config: Tulu1Config, rooms: Rooms, made: list[Step], figures: dict[str, Figures]) -> Path:
    """What came of it."""
    page = Report(rooms.out, "Tülu 1", "What instruction sets teach, alone and together (How Far Can Camels Go, arXiv 2306.04751).")
    if config.world.files:
        page.text(
            "**Simulated**: the sets are written, the reference model spoken and the answers judged by programs of a small world whose "
            "truth is computed; skills are its kinds of requests; the models that learn are tiny. The figures say nothing about real sets."
        )
    taught = config.taught()
    funnel: dict[str, dict[str, Any]] = {}
    for name in taught:
        for source, c in figures[f"data_{name}"]["sources"].items():
            funnel[source] = {"set": source, "in": c["in"], **c["dropped"], "out": c["out"]}
    columns = list(dict.fromkeys(k for line in funnel.values() for k in line if k != "out"))
    page.section("Funnel of the sets", rows=[{k: line.get(k, 0) for k in [*columns, "out"]} for line in funnel.values()])
    counts = [
        {"model": n, "sets": " + ".join(s), **{k: figures[n][k] for k in ("kept", "cut", "tokens", "learnt")}} for n, s in taught.items()
    ]
    page.section("What was learnt", "Tokens of the rows, and those that the loss is on: what the assistant says, and its end.", rows=counts)
    lines = [skills(n, figures[f"exam_{n}"]) for n in taught]
    page.section("Models and skills", best(lines, taught, config.mixes), rows=lines)
    page.grid("skills", {str(line["model"]): {k: v for k, v in line.items() if k != "model"} for line in lines}, "score")
    if "taste" in figures:
        by = {str(line["model"]): line["average"] for line in lines}
        rates = [{"average skill": by[line["model"]], **line} for line in figures["taste"]["models"]]
        page.section(
            "A judge's taste",
            f"Wins in percent against {config.reference}, both orders asked, a disagreement is a tie; plain, and as they would be at equal "
            "length (arXiv 2404.04475). Spearman's correlations are over the models, few as they are.",
            rows=[{"model": line["model"], **line} for line in rates],
        )
        page.table(correlations(rates, config.judges, "average skill"))
        for what in ("average skill", "unique words"):
            at = {j: {line["model"]: (line[what], line[f"wins, {j}"]) for line in rates} for j in config.judges}
            page.scatter(f"wins_by_{what.replace(' ', '_')}", at, what, "wins, %")
    if config.exam:
        page.samples({n: rooms.out / f"exam_{n}" for n in [*list(taught)[:2], *config.mixes]})
    page.lineage(made, {f"data_{n}": [str(config.sets[s]["path"]) for s in names] for n, names in taught.items()})
    return page.write()


def skills(name: str, exam: Figures) -> dict[str, Any]:
    """A model's line: each kind of the world's requests, each task of training.evaluate, their mean."""
    scores = dict(exam.get("families") or {})
    for found in (one for value in exam.values() if isinstance(value, list) for one in value):
        scores[found["task"]["name"]] = round(found["scores"]["metrics"][found["task"]["metric"]]["value"], 3)
    return {"model": name, **scores, "average": round(fmean(scores.values()), 3) if scores else None}


def best(lines: list[dict[str, Any]], taught: dict[str, list[str]], mixes: dict[str, list[str]]) -> str:
    """Who is best where, in a sentence."""
    names = [k for k in lines[0] if k not in ("model", "average")]
    single = [line for line in lines if line["model"] not in mixes]
    first = {k: max(line[k] for line in lines) for k in names}
    won = {str(line["model"]): sum(line[k] == first[k] > 0 for k in names) for line in lines}
    top = max(lines, key=lambda line: line["average"] or 0.0)["model"] if lines else ""
    alone = max((sum(line[k] == first[k] > 0 for k in names) for line in single), default=0)
    told = ", ".join(f"{name} in {count}" for name, count in won.items() if count)
    found = f"The best average is {top}'s. Best, or equal to the best, of {len(names)} skills: {told}."
    return f"{found} No set alone is best in more than {alone}."


def main(args: argparse.Namespace) -> int:
    """Run the recipe."""
    config = load(Tulu1Config, args.config, args.settings)
    rooms = Rooms(config, args.out, args.config.parent)
    made = steps(config, rooms)
    more = [config.pretraining] if config.pretraining else []
    sources = [*config.sets.values(), *(m.source for m in more)]
    rooms.check(made, [str(s["path"]) for s in sources], [config.train, *(m.train for m in more)], live=not args.dry_run)
    return rooms.carry_out(made, args, lambda figures: write_report(config, rooms, made, figures))


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments("tulu1", __doc__)))
