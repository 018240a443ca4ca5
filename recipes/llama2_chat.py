"""Llama 2-Chat (arXiv 2307.09288): two reward models, and versions of a model by rejection sampling and then by PPO.

python -m recipes.llama2_chat recipes/llama2_chat.toy.yaml --out runs/llama2        # a few minutes on two cores, no hub
python -m recipes.llama2_chat recipes/llama2_chat.paper.yaml --out runs/llama2 --dry-run

3.1        fine-tuning on few good rows: version v0
3.2.1      comparisons of two answers with four grades of strength, for helpfulness and for safety apart: data that exist, or answers of
           v0 at several temperatures (and of other models) judged in both orders
3.2.2      two reward models from v0, with margins by strength, each on its own mixture of both kinds of comparisons
3.2.3      v1, v2, ...: K answers to each prompt, the best by the piecewise reward, pooled with all earlier rounds' (`pool: false`: only
           the last round's, which made the paper's third version forget), fine-tuning on them
3.2.3      the last version: PPO with the piecewise reward, whitened
3.3        Ghost Attention, where `ghost` is given: see recipes.ghost
3.4        every version sits the same exam: the truth of it (where there is one), and the reward models' own view
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from columnar import cli
from columnar.config import Config, load
from recipes import ghost
from recipes.ghost import Ghost
from recipes.llama2_report import views, write_report
from recipes.rooms import RecipeConfig, Rooms, Train
from recipes.steps import Figures, Step, arguments

Sources = dict[str, dict[str, Any]]  # of a mix, by name: path, and whatever else curation.mix knows of a source
Settings = dict[str, Any]


class Sft(Config):
    """Few rows, well made (27,540 in the paper)."""

    sources: Sources
    select: dict[str, str] = Field(default_factory=dict)
    rows: float = 0  # how many are expected, for the plan
    train: Train = Train()


class Goal(Config):
    """The comparisons and the reward model of one goal.

    Attributes:
        data: comparisons that exist (as a mix's source); or
        prompts: requests, answered by v0 at these `temperatures` and by the models of `pool`, two answers each, judged by `judge`.
        rows: how many comparisons are expected, for the plan (of prompts: how many are used).
    """

    data: dict[str, Any] | None = None
    prompts: str | None = None
    temperatures: list[float] = Field(default_factory=lambda: [0.7, 1.1])
    pool: list[str] = Field(default_factory=list)
    judge: str = "judge"
    rows: int = 0
    train: Train = Train()


class Sampling(Config):
    """Rejection sampling.

    Attributes:
        rounds: the prompts of each round; sources called `safety...` are scored by the safety model.
        pool: the best answers of all rounds; False = of the last round alone.
        settings: of training.rejection_sampling: samples, temperatures, sweep, max_tokens.
        rows: prompts of a round, for the plan.
    """

    rounds: list[Sources]
    kind: str = "prompt"
    pool: bool = True
    settings: dict[str, Any] = Field(default_factory=dict)
    rows: int = 0
    train: Train = Train()


class Final(Config):
    """PPO, from the last version. `rows`: answers in all, for the plan."""

    prompts: Sources
    kind: str = "prompt"
    rows: int = 0
    train: Train = Train()


class Llama2Config(RecipeConfig):
    """The recipe's settings.

    Attributes:
        tokens: of a prompt with its answer, for the plan.
        validation: the share of comparisons on which the reward models are tested.
    """

    sft: Sft
    helpfulness: Goal
    safety: Goal
    sampling: Sampling
    ppo: Final | None = None
    ghost: Ghost | None = None
    tokens: float = 40.0
    validation: float = 0.1

    @property
    def goals(self) -> dict[str, Goal]:
        """The two goals by name."""
        return {"helpfulness": self.helpfulness, "safety": self.safety}

    @property
    def trainings(self) -> list[Train]:
        """All that is trained, for the check before the run."""
        return [part.train for part in (self.sft, *self.goals.values(), self.sampling, self.ppo, self.ghost) if part]

    @property
    def files(self) -> list[str | None]:
        """All that is read."""
        every = [self.sft.sources, *self.sampling.rounds, *([self.ppo.prompts] if self.ppo else [])]
        compared = [g.data["path"] if g.data else g.prompts for g in self.goals.values()]
        told = [self.ghost.instructions, self.ghost.requests] if self.ghost else []
        return [source["path"] for sources in every for source in sources.values()] + compared + told


def steps(config: Llama2Config, rooms: Rooms) -> list[Step]:
    """The method section."""
    out, sft, rounds = rooms.out, config.sft, config.sampling
    exam = [rooms.fingerprint(config.exam), config.tasks, config.seed]
    models = ("rm_helpfulness", "rm_safety")
    made: list[Step] = []

    def mix(name: str, does: str, kind: str, sources: Sources, after: tuple[str, ...] = (), **more: Any) -> None:
        listed = [{"name": source, **s, "path": rooms.path(s["path"])} for source, s in sources.items()]
        rules = {"name": name, "kind": kind, "sources": listed, **more}
        outside = {source: s for source, s in sources.items() if not s["path"].startswith(str(out))}
        known = [outside, rooms.fingerprint(*(s["path"] for s in outside.values())), kind, more, *exam]
        made.append(Step(name, does, lambda place: rooms.mix({**rules, "decontam": rooms.held_out()}, place), after, known))

    def train(name: str, does: str, method: str, data: str, start: str, how: Train, rows: float, more: Settings | None = None) -> None:
        told, tokens = Train(config=how.config, set={**how.set, **(more or {})}), rows * config.tokens
        # of PPO: sampling, five models that read the answers (a third of a pass each), and two that learn from them
        passes = 4.0 if method == "ppo" else float(how.set.get("num_train_epochs") or 1)
        size = {"rows": rows or None, "gpu_hours": rooms.gpu_hours(tokens, passes)}
        scorers = models if method == "ppo" else ()
        model = config.base if start == "base" else out / start
        after = (data, *scorers) if start == "base" else (data, start, *scorers)
        made.append(Step(name, does, lambda place: rooms.train(method, told, out / data, model, place), after, rooms.training(how), size))

    def sits(name: str, model: str) -> None:
        made.append(Step(f"exam_{name}", f"{name} sits the exam", lambda place: rooms.exam(out / model, place), (model,), exam))

    # 3.1 supervised fine-tuning
    mix("sft_mix", "few good rows", "sft", sft.sources, select={"empty": "NOT empty", **sft.select}, dedup={"exact": True})
    train("sft", "v0: fine-tuning", "sft", "sft_mix", "base", sft.train, sft.rows)
    sits("v0", "sft")

    # 3.2.1, 3.2.2 comparisons and reward models
    compared: Sources = {name: {"all": True, **goal.data} for name, goal in config.goals.items() if goal.data}
    for name, goal in config.goals.items():
        if not goal.data:
            compared[name] = {"all": True, "path": str(out / f"compared_{name}")}
            known = [goal.model_dump(exclude={"train"}), rooms.speaking(*goal.pool, goal.judge), rooms.fingerprint(goal.prompts)]
            dollars = rooms.dollars(goal.judge, 2 * goal.rows, 3 * config.tokens, 60)
            size = {"rows": goal.rows, "calls": 4.0 * goal.rows, "dollars": dollars}
            work, who = partial(compare, config, rooms, name), (*goal.pool, goal.judge)
            made.append(Step(f"compared_{name}", f"two answers graded for {name}", work, ("sft",), [known, config.seed], size, who))
    after = tuple(f"compared_{name}" for name, goal in config.goals.items() if not goal.data)
    rules: Settings = {"select": {"same_answers": "NOT same_answers"}, "validation": {"fraction": config.validation}}
    mix("comparisons", "both kinds of comparisons", "pair", compared, after, **rules)
    for name, goal in config.goals.items():
        train(f"rm_{name}", f"the {name} reward model", "reward", "comparisons", "sft", goal.train, 2 * goal.rows)

    # 3.2.3 rejection sampling, round by round
    start = "sft"
    for number, sources in enumerate(rounds.rounds, 1):
        name, rows = f"v{number}", rounds.rows * (number if rounds.pool else 1)
        mix(f"{name}_prompts", "prompts that are not the exam's", rounds.kind, sources, dedup={"exact": True})
        pooled = tuple(f"v{i}_samples" for i in range(1, number)) if rounds.pool else ()
        calls = rounds.rows * rounds.settings.get("samples", 8)
        size = {"rows": rounds.rows, "calls": calls, "gpu_hours": rooms.gpu_hours(calls * config.tokens, 1 / 3)}
        does = "the best of K answers of the version before" + (", and of earlier rounds" if pooled else "")
        work = partial(sample, config, rooms, number, start, pooled)
        made.append(Step(f"{name}_samples", does, work, (f"{name}_prompts", start, *models, *pooled), [rounds.settings, config.seed], size))
        train(name, "fine-tuning on the best", "sft", f"{name}_samples", start, rounds.train, rows)
        sits(name, name)
        start = name

    # 3.2.3 PPO
    if config.ppo is not None:
        name, final = f"v{len(rounds.rounds) + 1}", config.ppo
        mix(f"{name}_prompts", "prompts that are not the exam's", final.kind, final.prompts, dedup={"exact": True})
        reward = {"reward_by": "llama2", "reward": {"reward_model": str(out / models[0])}, "safety_model": str(out / models[1])}
        reward["safety_sources"] = [n for n in final.prompts if n.startswith("safety")]
        train(name, "PPO with the piecewise reward", "ppo", f"{name}_prompts", start, final.train, final.rows, reward)
        sits(name, name)
        start = name

    made += ghost.steps(rooms, config.ghost, start) if config.ghost else []  # 3.3

    versions = [s.name.removeprefix("exam_") for s in made if s.name.startswith("exam_")]
    if config.exam is not None:
        after = (*models, *(f"exam_{version}" for version in versions))
        made.append(Step("views", "what the reward models say of every version", partial(views, rooms, versions), after))
    return made


def compare(config: Llama2Config, rooms: Rooms, name: str, place: Path) -> Figures:
    """Two answers to each prompt, of v0 at different temperatures or of other models, and which is how much better."""
    goal = config.goals[name]
    with rooms.serve(rooms.out / "sft", place) as policy:
        params = [{"temperature": t, "max_tokens": config.exam_tokens} for t in goal.temperatures]
        own = [{**policy, "name": f"v0-{p['temperature']:g}", "model": policy["name"], "params": p} for p in params]
        wanted = {"prompts": {"path": rooms.path(goal.prompts or ""), "limit": goal.rows or None}, "per_prompt": 2, "name": place.name}
        asked = {"models": [*own, *rooms.models(*goal.pool, goal.judge)], "pool": [*(m["name"] for m in own), *goal.pool]}
        judge = {"judge": {"mode": "strength", "model": goal.judge, "aspects": [name]}, "pairs": {"rule": "best_vs_worst"}}
        return rooms.generate("preferences", {**wanted, **asked, **judge, "seed": config.seed}, place)


def sample(config: Llama2Config, rooms: Rooms, number: int, start: str, pooled: tuple[str, ...], place: Path) -> Figures:
    """One round of rejection sampling: K answers of `start`, the best by the piecewise reward, of this round and the `pooled` ones."""
    rounds, out = config.sampling, rooms.out
    scored = {"score_by": "reward", "reward_model": str(out / "rm_helpfulness"), "safety_model": str(out / "rm_safety")}
    about = sorted({name for sources in rounds.rounds for name in sources if name.startswith("safety")})
    given = {"seed": config.seed + number, **rounds.settings, **scored, "safety_sources": about}
    given["pool"] = [str(out / name) for name in pooled]
    return rooms.reject(out / f"v{number}_prompts", out / start, given, place)


def main(args: argparse.Namespace) -> int:
    """Run the recipe."""
    config = load(Llama2Config, args.config, args.settings)
    rooms = Rooms(config, args.out, args.config.parent)
    made = steps(config, rooms)
    rooms.check(made, config.files, config.trainings, live=not args.dry_run)
    return rooms.carry_out(made, args, lambda figures: write_report(config, rooms, made, figures))


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments("llama2_chat", __doc__)))
