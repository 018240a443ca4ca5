"""The rooms as a recipe uses them: each function runs one command of theirs, as a user would, and gives its figures.

    run = Rooms(config, out, base)          # base: the folder of the config file, where relative paths start
    run.check(steps, [config.seeds], [config.sft])      # names, files, keys, servers: said before any work or money
    with run.open():
        run.generate("self_instruct", {...}, out / "prompts")
        run.mix({...}, out / "sft_mix")
        run.train("sft", config.sft, out / "sft_mix", "tiny", out / "sft")

A config's models are servers with a base_url, or, at toy size, programs of the small world (recipes.world), served over the same HTTP
for as long as the recipe runs. What depends on a server's address is in no key.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from columnar import cli
from columnar.config import Config
from columnar.errors import CaravanError, ConfigError
from columnar.store import file_sha256, stage_key, whole_file
from generation.models import ModelConfig
from recipes import preflight, workers
from recipes.serving import served
from recipes.steps import Figures, Step, perform, plan, show
from recipes.world import data as world_data
from recipes.world.exam import answers_of, marks
from recipes.world.speakers import Critic, Speaker

FLOPS = 4e14  # per second and GPU: 40 % of an H100's dense bf16, for the plan's GPU hours


class WorldFile(Config):
    """A file that the small world writes; see recipes.world.data."""

    what: Literal["prompts", "demonstrations", "comparisons", "rankings", "verifiable", "personas"]
    rows: int = Field(ge=1)
    seed: int = 1
    start: int = 0
    turns: int = Field(1, ge=1)  # of a demonstration
    goal: Literal["helpful", "safe", "quality"] = "quality"
    speakers: list[Speaker] = Field(default_factory=lambda: [Speaker()])
    noise: float = 0.0
    quoted: float = Field(0.0, ge=0, le=1)  # share of prompts that ask for quotation marks

    def lines(self) -> Iterator[dict[str, Any]]:
        """What the file holds."""
        if self.what == "prompts":
            return world_data.prompts(self.seed, self.rows, tuple(self.speakers[0].families), self.start, self.quoted)
        if self.what == "demonstrations":
            return world_data.demonstrations(self.seed, self.rows, self.speakers[0], self.start, self.turns)
        if self.what == "verifiable":
            return world_data.verifiable(self.seed, self.rows, tuple(self.speakers[0].families), self.start)
        if self.what == "personas":
            return world_data.personas(self.seed, self.rows)
        if self.what == "rankings":
            return world_data.rankings(self.seed, self.rows, self.speakers, self.start)
        return world_data.comparisons(self.seed, self.rows, self.speakers, Critic(noise=self.noise), self.goal, self.start)


class World(Config):
    """What is simulated: the programs that talk, and the files that they write."""

    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    files: dict[str, WorldFile] = Field(default_factory=dict)


class Train(Config):
    """One training: a config file (recipes/training/*.yaml) and what differs from it."""

    config: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)


class RecipeConfig(Config):
    """What every recipe's config has.

    Attributes:
        about: where the numbers come from.
        models: servers and names, as in every generation config.
        base: the model that training starts from: a path, a hub id, or a size (tiny, mini) to make one of.
        parameters: of that model, for the plan's GPU hours.
        threads: of arithmetic in every command; left out = the machine's. The same number gives the same model, another may not.
        policy_server: the command that serves a checkpoint ({model}, {port}, {name}); left out = recipes.serving, for tiny models.
        exam: prompts that are held out (a file, or `world:NAME`); answers are scored by the world's truth, or by `tasks`.
        exam_field: what they are called in it. exam_tokens: the longest answer.
        tasks: named evaluations of training.evaluate, for real models.
        world: what is simulated, at toy size.
    """

    about: str | None = None
    seed: int = 1
    models: list[ModelConfig] = Field(default_factory=list)
    base: str = "tiny"
    parameters: float = 1e5
    threads: int | None = Field(None, ge=1)
    policy_server: str | None = None
    exam: str | None = None
    exam_field: str = "prompt"
    exam_tokens: int = 48
    tasks: list[str] = Field(default_factory=list)
    world: World = World()

    @model_validator(mode="after")
    def _names(self) -> RecipeConfig:
        twice = {m.name for m in self.models} & set(self.world.models)
        if twice:
            raise ValueError(f"models and world.models both have {', '.join(sorted(twice))}")
        return self


class Rooms:
    """The commands of the rooms, bound to one run."""

    def __init__(self, config: RecipeConfig, out: Path, base: Path) -> None:
        self.config, self.out, self.base = config, out.absolute(), base.absolute()
        self._url = ""

    def check(self, steps: Sequence[Step], files: Iterable[str | None] = (), training: Iterable[Train] = (), live: bool = True) -> None:
        """Say what cannot go well before anything is done.

        Args:
            steps: the models that they ask must be in the config; those of steps to be done must have a key and a server that answers.
            files: entries of the config that will be read; None where there is none.
            training: trainings whose config files will be read.
            live: False for a plan, which needs no key, no server and no network.

        Raises:
            ConfigError: all problems, one a line.
        """
        from recipes.world.serve import dials

        asked: dict[str, set[str]] = {}
        for step in steps:
            for name in step.asks:
                asked.setdefault(name, set()).add(step.name)
        dials(self.config.world.models)
        entries = [self.path(e) for e in (*files, self.config.exam, *(t.config for t in training)) if e and not e.startswith("world:")]
        for entry in (e for e in (*files, self.config.exam) if e and e.startswith("world:")):
            self.path(entry)
        found = preflight.of_names(asked, self.known()) + preflight.of_files(entries) + preflight.of_base(self.config.base)
        found += preflight.of_tasks(self.config.tasks) + preflight.of_command(self.config.policy_server, live)
        if live:
            left = {line["step"] for line in plan(steps, self.out) if line["state"] != "done"}
            found += [p for m in self.config.models if asked.get(m.name, set()) & left for p in preflight.of_model(m)]
        if found:
            raise ConfigError("before any work:\n" + "\n".join(f"  {problem}" for problem in found))

    @contextmanager
    def open(self) -> Iterator[None]:
        """The world's files are written and its server runs.

        Raises:
            ConfigError: a dial of the world that is not one.
        """
        from recipes.world.serve import dials, serving

        for name, file in self.config.world.files.items():
            if not self._world_file(name).is_file():
                world_data.write(self._world_file(name), file.lines())
        with ExitStack() as stack:
            if self.config.world.models:
                self._url = stack.enter_context(serving(dials(self.config.world.models)))
            yield

    def _world_file(self, name: str) -> Path:
        settings = self.config.world.files[name].model_dump(mode="json")
        for speaker in settings["speakers"]:  # rows' ids, and so the order of training, go by the file's name: younger dials change it
            for dial in ("timid", "astray"):  # only where they are turned
                if not speaker[dial]:
                    del speaker[dial]
        key = stage_key(name, 1, settings, [])
        return self.out / "world" / f"{name}-{key}.jsonl"

    def path(self, entry: str) -> str:
        """A path of the config: `world:NAME`, a step's `step:NAME`, `hf://`, or one relative to the config file.

        Raises:
            ConfigError: no such file in the world.
        """
        if entry.startswith("world:"):
            if entry[6:] not in self.config.world.files:
                raise ConfigError(f"{entry}: the config's world has no such file", f"files: {', '.join(self.config.world.files) or 'none'}")
            return str(self._world_file(entry[6:]))
        return entry if "://" in entry else str(self.base / entry)

    def fingerprint(self, *entries: str | None) -> list[str]:
        """What the files of these entries say, for a step's key: the hash of a local file, else the entry itself."""
        out = []
        for entry in entries:
            if entry is None or "://" in entry:
                out.append(str(entry))
            elif entry.startswith("world:"):
                out.append(self._world_file(entry[6:]).name if entry[6:] in self.config.world.files else self.path(entry))
            else:
                path = Path(self.path(entry))
                out.append(file_sha256(path) if path.is_file() else str(path))
        return out

    def models(self, *names: str) -> list[dict[str, Any]]:
        """The models as a generation config wants them; all, or those of these names."""
        every = [m.model_dump(mode="json", exclude_defaults=True) | {"name": m.name} for m in self.config.models]
        for name, dials in self.config.world.models.items():  # the cache of replies must tell one setting of the dials from another
            free = {"price": {"input": 0.0, "output": 0.0}, "revision": stage_key(name, 1, dials, [])}
            every.append({"name": name, "base_url": self._url, **free})
        return [m for m in every if not names or m["name"] in names]

    def known(self) -> list[str]:
        """The names of all models."""
        return [m.name for m in self.config.models] + list(self.config.world.models)

    def speaking(self, *names: str) -> list[Any]:
        """Who these models are, for a step's key: without addresses, limits and prices."""
        world = [[n, d] for n, d in self.config.world.models.items() if n in names]
        return [m.identity for m in self.config.models if m.name in names] + world

    def training(self, train: Train) -> list[Any]:
        """What a training depends on beside its data, for a step's key."""
        return [self.fingerprint(train.config), train.set, self.config.base, self.config.threads]

    def run(self, module: str, *argv: str | Path) -> Any:
        """One command in a process of its own, with --json; its JSON.

        Raises:
            CaravanError: it ended with an error, which it has said itself.
        """
        code, printed = workers.command(module, [*map(str, argv), "--json"], self.config.threads)
        if code:
            told = f"python -m {shlex.join([module, *map(str, argv)])} ended with {code}"
            raise CaravanError(told, "the reason stands above; mend it and run the recipe again: it goes on here")
        return json.loads(printed) if printed.strip() else {}

    def carry_out(self, made: Sequence[Step], args: argparse.Namespace, report: Callable[[dict[str, Figures]], Path]) -> int:
        """What every recipe ends with: show the plan, or do the steps and write the report."""
        if args.dry_run:
            return show(made, args.out, args.json)
        with self.open():
            figures = perform(made, args.out, args.redo)
        path = report(figures)
        cli.emit(figures) if args.json else cli.say(f"done: {path}")
        return 0

    def generate(self, maker: str, config: dict[str, Any], out: Path) -> Any:
        """A command of the generation room; every recipe has one cache of replies, so nothing is asked twice in a run."""
        path = self._config(out, config)
        return self.run(f"generation.{maker}", path, "--out", out, "--cache", self.out / "replies.sqlite")

    def mix(self, config: dict[str, Any], out: Path) -> dict[str, Any]:
        """`curation.build_mix`: rows, and what was dropped for which reason."""
        done = self.run("curation.build_mix", self._config(out, {"seed": self.config.seed, **config}), "--out", out)
        counts = done["identity"]["counts"]
        scanned = {b["benchmark"]: b["rows_hit"] for b in (counts.get("decontam") or {}).get("benchmarks", [])}
        sources = {name: {"in": c["in"], "out": c["out"], "dropped": c["dropped"]} for name, c in counts["by_source"].items()}
        return {"in": counts["in"], "rows": counts["out"], "dropped": counts["by_reason"], "sources": sources, "contaminated": scanned}

    def held_out(self, **more: str | None) -> dict[str, Any] | None:
        """The `decontam` block of a mix against the exam's prompts, and those of `more` exams by name; None without any."""
        exams = {name: entry for name, entry in {"exam": self.config.exam, **more}.items() if entry is not None}
        if not exams:
            return None
        path = self.out / "world" / "exam.yaml"
        listed = {n: {"source": self.path(entry), "fields": [self.config.exam_field], "policy": "unseen"} for n, entry in exams.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(yaml.safe_dump({"benchmarks": listed}, sort_keys=False), encoding="utf-8")
        return {"benchmarks": str(path)}

    def train(self, method: str, train: Train, directory: Path, model: str | Path, out: Path) -> Any:
        """A trainer; its final metrics."""
        argv: list[str | Path] = [directory, "--model", model, "--out", out]
        if train.config:
            argv += ["--config", self.path(train.config)]
        for key, value in train.set.items():
            argv += ["--set", f"{key}={json.dumps(value)}"]
        return self.run(f"training.{method}", *argv)

    def reject(self, prompts: Path, model: Path, settings: dict[str, Any], out: Path) -> Any:
        """`training.rejection_sampling`: the best of the model's answers, by the `policy_server`, else in the command's own process."""
        argv: list[str | Path] = [prompts, "--out", out, "--config", self._config(out, settings)]
        if self.config.policy_server is None:
            return self.run("training.rejection_sampling", *argv, "--model", model)
        with self.serve(model, out) as policy:
            named = ["--model", policy["name"], "--base-url", policy["base_url"], "--revision", policy["revision"]]
            return self.run("training.rejection_sampling", *argv, *named)

    def pairs(self, config: dict[str, Any], out: Path) -> Any:
        """`generation.pairs`: pairs, or the best answers, of candidates that have scores."""
        return self.run("generation.pairs", self._config(out, config), "--out", out)

    def agreement(self, judge: dict[str, Any], models: list[dict[str, Any]], data: Path, out: Path) -> dict[str, Any]:
        """`generation.agreement`: what a judge's verdicts on a set with human labels are worth, as plain numbers (None: not defined)."""
        config = {"data": [{"path": str(data), "name": "held_out"}], "judges": [judge], "models": models, "seed": self.config.seed}
        line = self.run("generation.agreement", self._config(out, config), "--out", out)["figures"][0]
        return {name: value["value"] if isinstance(value, dict) else value for name, value in line.items()}

    def exam(self, model: Path, out: Path, samples: int = 1, temperature: float = 0.0) -> dict[str, Any]:
        """A model's answers to the exam's prompts, and what they are worth; the named tasks, where the config has any."""
        figures: dict[str, Any] = {}
        if self.config.exam is not None:
            with self.serve(model, out) as policy:
                figures = self.sit(policy, self.path(self.config.exam), out, samples, temperature)
        for task in self.config.tasks:
            place = out.with_name(f"{out.name}-{task.replace('::', '-')}")
            figures[task] = self.run("training.evaluate", "--task", task, "--model", model, "--out", place)
        return figures

    def sit(self, policy: dict[str, Any], prompts: str, out: Path, samples: int = 1, temperature: float = 0.0) -> dict[str, Any]:
        """A served model's answers to these prompts, and what they are worth."""
        asked = {"temperature": temperature, "max_tokens": self.config.exam_tokens}
        config = {"prompts": prompts, "models": [policy], "per_prompt": 1, "samples": samples, "params": asked}
        self.generate("respond", {**config, "seed": self.config.seed, "name": "exam"}, out)
        return marks(answers_of(out))

    @contextmanager
    def serve(self, model: Path, out: Path, name: str = "policy") -> Iterator[dict[str, Any]]:
        """The model under training as an entry of `models`; its revision tells the cache which weights answered."""
        command = self.config.policy_server
        with served(model, command, out.with_name(f"{out.name}.server.log"), name, threads=self.config.threads) as url:
            revision = json.loads((model / "manifest.json").read_text(encoding="utf-8"))["identity"]["key"]
            yield {"name": name, "base_url": url, "revision": revision, "structured": command is not None}

    def gpu_hours(self, tokens: float, passes: float = 1.0) -> float:
        """Of training on so many tokens (6 operations a weight and token), at 40 % of an H100's peak."""
        return round(6 * self.config.parameters * tokens * passes / FLOPS / 3600, 2)

    def dollars(self, model: str, calls: float, prompt: float, answer: float) -> float | None:
        """An estimate of so many calls with so many tokens each; None where the price is not known."""
        found = next((m.rate for m in self.config.models if m.name == model), None)
        return round(calls * found.cost(prompt, answer), 2) if found else None

    def calls(self, model: str, calls: float, prompt: float, answer: float, **more: float) -> dict[str, float | None]:
        """The size of a step that asks one model so often, with so many tokens each."""
        return {**more, "calls": calls, "dollars": self.dollars(model, calls, prompt, answer)}

    def training_size(self, train: Train, rows: float, tokens: float) -> dict[str, float | None]:
        """The size of a training on so many rows of so many tokens, by the epochs of its config."""
        written = yaml.safe_load(Path(self.path(train.config)).read_text(encoding="utf-8")) if train.config else {}
        return {"rows": rows, "gpu_hours": self.gpu_hours(rows * tokens, float({**written, **train.set}.get("num_train_epochs", 3)))}

    def _config(self, out: Path, config: dict[str, Any]) -> Path:
        path = out.with_name(f"{out.name}.yaml")
        with whole_file(path) as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path
