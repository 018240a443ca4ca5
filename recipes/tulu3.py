"""Tülu 3 (arXiv 2411.15124): curated and made prompts, SFT, length-normalised DPO on preferences, RL from verifiable rewards.

python -m recipes.tulu3 recipes/tulu3.toy.yaml --out runs/tulu3        # a few minutes on two cores, no hub
python -m recipes.tulu3 recipes/tulu3.paper.yaml --out runs/tulu3 --dry-run

sections 3, 4   public data and rows written from personas, skill by skill; what the exams hold is left out; fine-tuning
section 5       prompts that SFT used, prompts that it did not, prompts with requirements added; four models answer each, the SFT model
                among them for a part; a judge rates four aspects; the best against a lower one; DPO with the mean over tokens, beta 5
section 6       a reward model from the same pairs begins as PPO's value model; 10 for a verified answer (or GRPO, as in Tülu 3.1)
section 7       development and unseen exams, after each stage, with what the training data held of them
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from columnar import cli
from columnar.config import load
from generation.verifiers.constraints import CONSTRAINTS
from recipes.rooms import Rooms
from recipes.steps import Figures, Step, arguments
from recipes.tulu3_config import Part, Persona, Sources, Tulu3Config
from recipes.tulu3_report import write_report
from training.tasks import find_task


class Tulu3:
    """What the steps do; each method is one of the paper's."""

    def __init__(self, config: Tulu3Config, rooms: Rooms) -> None:
        self.config, self.rooms, self.out = config, rooms, rooms.out
        groups = ["train"] if not config.preferences.constraints else sorted({CONSTRAINTS[c].group for c in config.preferences.constraints})
        others = [c for c in CONSTRAINTS if config.preferences.constraints and c not in config.preferences.constraints]
        self.requirements: dict[str, Any] = {"groups": groups, "exclude": others, "most": min(3, len(config.preferences.constraints) or 3)}

    def persona(self, wanted: Persona, place: Path) -> Figures:
        """Prompts as people of many kinds would write them, and answers; those with requirements are kept when a program agrees."""
        skills = [{**s, "requirements": self.requirements} if s["skill"] == "instruction_following" else s for s in wanted.skills]
        made = {"name": wanted.name, "model": wanted.writer, "answerer": wanted.answerer, "make": "answers", "seed": self.config.seed}
        people = {"path": self.rooms.path(wanted.personas), "license": wanted.license}
        made |= {"personas": people, "skills": skills, "models": self.rooms.models(wanted.writer, wanted.answerer)}
        return dict(self.rooms.generate("persona", made, place))

    def mix(self, kind: str, wanted: Sources, more: dict[str, Path], place: Path, scan: bool = True, dedup: bool = False) -> Figures:
        """A mix of what the config names and of what earlier steps made; rows with exam items are left out."""
        sources = [{"name": n, **s, "path": self.rooms.path(s["path"])} for n, s in wanted.listed(self.rooms).items()]
        sources += [{"name": name, "path": str(path), "all": True} for name, path in more.items()]
        mix: dict[str, Any] = {"name": place.name, "kind": kind, "sources": sources, "max_reject": 0.01}
        mix |= {"select": {"empty": "NOT empty", **wanted.select}} if kind != "prompt" else {}
        mix |= {"dedup": {"exact": True}} if dedup else {}
        held = self.rooms.held_out(unseen=self.config.unseen)
        held = {"benchmarks": self.config.benchmarks, "preset": "tulu3"} if self.config.benchmarks else held
        return self.rooms.mix({**mix, "decontam": held if scan and self.config.decontaminate else None}, place)

    def preferences(self, place: Path) -> Figures:
        """Four answers to every prompt, rated on four aspects; the pairs of each part are a dataset of their own."""
        wanted, rooms = self.config.preferences, self.rooms
        asked = {part.name: self.asked(part, place) for part in wanted.parts}
        common = {"per_prompt": 4, "judge": wanted.judge, "pairs": wanted.pairs, "params": wanted.params, "seed": self.config.seed}
        models = rooms.models(*wanted.pool, wanted.judge["model"])
        figures = {}
        with rooms.serve(self.out / "sft", place) as policy:
            for part in wanted.parts:
                own = {"on_policy": policy["name"], "pool": [policy["name"], *wanted.pool], "models": [*models, policy]}
                who = own if part.on_policy else {"pool": wanted.pool, "models": models}
                prompts = {"prompts": {"path": str(asked[part.name]), "limit": part.limit}, "name": part.name}
                figures[part.name] = rooms.generate("preferences", {**common, **who, **prompts}, place / part.name)
        return figures

    def asked(self, part: Part, place: Path) -> Path:
        """A part's prompts: drawn from the SFT mix, or from a file, with requirements where it says so."""
        drawn = place / f"{part.name}-prompts"
        if part.prompts is None:
            source = {"name": part.name, "path": str(self.out / "sft_mix"), "rows": part.limit}
            self.rooms.mix({"name": part.name, "kind": "sft", "sources": [source]}, drawn)
        path = str(drawn) if part.prompts is None else self.rooms.path(part.prompts["path"])
        spec = {**(part.prompts or {}), "path": path, "limit": part.limit}
        if not part.constrain:
            return Path(path)
        return self.constrain(spec, part.name, place / f"{part.name}-constrained")

    def constrain(self, prompts: dict[str, Any], name: str, place: Path) -> Path:
        """Requirements added to prompts, in words that a program can check."""
        made = {"name": name, "prompts": prompts, "how": "append", "requirements": self.requirements, "seed": self.config.seed}
        self.rooms.generate("constrain", made, place)
        return place

    def rlvr_prompts(self, place: Path) -> Figures:
        """Prompts with verifiers: numbers, exact answers, requirements."""
        wanted = self.config.rlvr
        spec = {"path": self.rooms.path(wanted.prompts or ""), "limit": wanted.constrained}
        more = {"constrained": self.constrain(spec, "constrained", place.with_name("rlvr_constrained"))} if wanted.constrained else {}
        return self.mix("prompt", wanted, more, place)

    def rlvr(self, place: Path) -> Figures:
        """From the DPO model: PPO whose value model starts from the reward model, or GRPO."""
        by, train = self.config.rlvr.by, self.config.rlvr.train
        if by == "ppo":
            train = train.model_copy(update={"set": {**train.set, "value_model": str(self.out / "reward_model")}})
        return dict(self.rooms.train("ppo" if by == "ppo" else "rlvr", train, self.out / "rlvr_prompts", self.out / "dpo", place))

    def exam(self, model: Path, place: Path) -> Figures:
        """The development exam and the unseen one; named tasks are scored without the items that the SFT mix holds, too."""
        config, figures = self.config, {}
        exams = {name: entry for name, entry in (("dev", config.exam), ("unseen", config.unseen)) if entry is not None}
        if exams:
            with self.rooms.serve(model, place) as policy:
                figures = {name: self.rooms.sit(policy, self.rooms.path(entry), place / name) for name, entry in exams.items()}
        scanned = (self.out / "sft_mix" / "hits" / "decontam.parquet").is_file()
        for task in [*config.tasks, *config.unseen_tasks]:
            argv: list[str | Path] = ["--task", task, "--model", model, "--out", place / task.replace("::", "-")]
            argv += ["--mix", self.out / "sft_mix"] if scanned and find_task(task).benchmarks else []
            figures[task] = self.rooms.run("training.evaluate", *argv)
        return figures

    def family(self, place: Path) -> Figures:
        """Table 10: the SFT mix without one source after the other, a model for each."""
        wanted, train = self.config.ablate, self.config.sft.train
        self.rooms.run("curation.ablate", self.out / "sft_mix.yaml", "--out", place, "--sizes", "")
        argv: list[str | Path] = [place, "--model", self.config.base, "--out", place / "runs", "--seeds", str(wanted.seeds)]
        argv += [part for task in wanted.tasks for part in ("--task", task)] + [f"--set={k}={v}" for k, v in train.set.items()]
        argv += ["--config", self.rooms.path(train.config)] if train.config else []
        return dict(self.rooms.run("training.ablate", *argv))


def steps(config: Tulu3Config, rooms: Rooms) -> list[Step]:
    """The method section."""
    do, sft, pref, rl, made = Tulu3(config, rooms), config.sft, config.preferences, config.rlvr, []
    out, exams = rooms.out, [*rooms.fingerprint(config.exam, config.unseen), config.benchmarks, config.decontaminate]

    def add(name: str, does: str, work: Any, after: tuple[str, ...], known: Any, size: Any = None, asks: tuple[str, ...] = ()) -> None:
        made.append(Step(name, does, work, after, [known, config.seed], size, asks))

    def known(wanted: Sources) -> list[Any]:
        sources = wanted.listed(rooms)
        return [sources, rooms.fingerprint(*(s["path"] for s in sources.values())), wanted.select, exams]

    sft_rows, personas = sft.size(rooms), {f"persona_{p.name}": p for p in sft.personas}
    for name, persona in personas.items():
        rows = float(sum(s.get("until", {}).get("rows", 0) for s in persona.skills))
        written, answered = (rooms.calls(m, rows, 300, 400)["dollars"] for m in (persona.writer, persona.answerer or persona.writer))
        size = {"rows": rows, "calls": 2 * rows, "dollars": None if written is None or answered is None else written + answered}
        asks = (persona.writer, *([persona.answerer] if persona.answerer else []))
        who = [persona.model_dump(), rooms.fingerprint(persona.personas), rooms.speaking(*asks), do.requirements]
        add(name, f"rows from personas: {', '.join(s['skill'] for s in persona.skills)}", partial(do.persona, persona), (), who, size, asks)
        sft_rows += rows
    mixed = {name: out / name for name in personas}
    work = partial(do.mix, "sft", sft, mixed, dedup=sft.dedup)
    add("sft_mix", "the SFT mix; rows with exam items left out", work, tuple(mixed), [known(sft), sft.dedup], {"rows": sft_rows})
    train = partial(rooms.train, "sft", sft.train, model=config.base)
    size = rooms.training_size(sft.train, sft_rows, sft.tokens)
    add(
        "sft",
        "supervised fine-tuning",
        lambda place: train(directory=out / "sft_mix", out=place),
        ("sft_mix",),
        rooms.training(sft.train),
        size,
    )
    parts: dict[str, Path] = {}
    if pref.data is None:
        prompts, judge = float(sum(p.limit for p in pref.parts)), str(pref.judge["model"])
        who = [pref.model_dump(exclude={"train", "data"}), rooms.speaking(*pref.pool, judge), do.requirements]
        who += rooms.fingerprint(*(p.prompts["path"] for p in pref.parts if p.prompts))
        costs = [rooms.calls(m, 4 * prompts / max(1, len(pref.pool)), 300, 400)["dollars"] for m in pref.pool]
        costs.append(rooms.calls(judge, 4 * prompts, 2600, 250)["dollars"])
        size = {"rows": prompts, "calls": 8 * prompts, "dollars": round(sum(c or 0.0 for c in costs), 2)}
        does = "four answers a prompt, rated on four aspects, paired"
        add("preferences", does, do.preferences, ("sft",), who, size, (*pref.pool, judge))
        parts = {part.name: out / "preferences" / part.name for part in pref.parts}
    pairs = pref.data or Sources(select={"same_answers": "NOT same_answers"})
    count = pairs.size(rooms) or float(sum(p.limit for p in pref.parts))
    work = partial(do.mix, "pair", pairs, parts)
    add(
        "pairs_mix",
        "the preference mix; rows with exam items left out",
        work,
        ("preferences",) * bool(parts),
        known(pairs),
        {"rows": count},
    )
    size = rooms.training_size(pref.train, count, pref.tokens)
    work = partial(rooms.train, "dpo", pref.train, out / "pairs_mix", out / "sft")
    add("dpo", "length-normalised DPO", work, ("sft", "pairs_mix"), rooms.training(pref.train), size)
    count = rl.size(rooms) + rl.constrained
    asked = [known(rl), rl.constrained, rooms.fingerprint(rl.prompts), do.requirements]
    add("rlvr_prompts", "prompts whose answers a program verifies", do.rlvr_prompts, (), asked, {"rows": count})
    if rl.by == "ppo":
        work = partial(rooms.train, "reward", rl.reward_model, out / "pairs_mix", out / "sft")
        size = rooms.training_size(rl.reward_model, made[-3].size["rows"], pref.tokens)  # type: ignore[index, arg-type]
        add("reward_model", "a reward model, for PPO's value model", work, ("sft", "pairs_mix"), rooms.training(rl.reward_model), size)
    after = ("dpo", "rlvr_prompts", *(("reward_model",) if rl.by == "ppo" else ()))
    passes = 9.0 if rl.by == "ppo" else 2.0  # of training: PPO's four updates of two models; answers are sampled on top of it
    size = {"rows": rl.episodes, "gpu_hours": rooms.gpu_hours(rl.episodes * rl.tokens, passes)}
    add(
        "rlvr",
        f"reinforcement learning from verifiable rewards, by {rl.by.upper()}",
        do.rlvr,
        after,
        [rl.by, rooms.training(rl.train)],
        size,
    )

    def sits(name: str) -> None:
        known_exams = [exams, config.tasks, config.unseen_tasks]
        add(f"exam_{name}", f"{name}: development and unseen exams", partial(do.exam, out / name), ("sft_mix", name), known_exams)

    for name in ("sft", "dpo", "rlvr"):
        sits(name)
    if config.ablate.contaminated:
        work, mix, made_by = partial(do.mix, "sft", sft, mixed, dedup=sft.dedup, scan=False), "sft_mix_unscanned", [known(sft), sft.dedup]
        add(mix, "the ablation: the SFT mix without the scan", work, tuple(mixed), made_by, {"rows": sft_rows})
        add("sft_unscanned", "supervised fine-tuning on it", lambda p: train(directory=out / mix, out=p), (mix,), rooms.training(sft.train))
        sits("sft_unscanned")
    if config.ablate.family:
        add("family", "the SFT mix without one source after the other", do.family, ("sft_mix",), config.ablate.model_dump())
    return made


def main(args: argparse.Namespace) -> int:
    """Run the recipe."""
    config = load(Tulu3Config, args.config, args.settings)
    rooms = Rooms(config, args.out, args.config.parent)
    mixes = [config.sft, config.rlvr, *([config.preferences.data] if config.preferences.data else [])]
    rooms.check([], [mix.mix for mix in mixes], live=False)
    made = steps(config, rooms)
    files = [*(p.personas for p in config.sft.personas), *(p.prompts["path"] for p in config.preferences.parts if p.prompts), config.unseen]
    files += [s["path"] for mix in mixes for s in mix.listed(rooms).values()] + [config.rlvr.prompts]
    rooms.check(
        made, files, [config.sft.train, config.preferences.train, config.rlvr.train, config.rlvr.reward_model], live=not args.dry_run
    )
    return rooms.carry_out(made, args, lambda figures: write_report(config, rooms, made, figures))


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments("tulu3", __doc__)))
