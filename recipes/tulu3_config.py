"""The settings of recipes.tulu3, in the order of the paper's sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from columnar.config import Config
from recipes.rooms import RecipeConfig, Rooms, Train


class Persona(Config):
    """Rows out of personas, for some skills (section 4.1.2).

    Attributes:
        personas: a file of them. writer, answerer: models; the answerer is the writer when left out.
        skills: as in generation.persona. rows: how many the plan counts on.
    """

    name: str
    personas: str
    writer: str
    answerer: str = ""
    skills: list[dict[str, Any]]
    license: str | None = None


class Sources(Config):
    """What a mix is made of.

    Attributes:
        mix: a mix file, such as recipes/mixes/tulu3_sft.yaml. leave_out: of its sources.
        sources: more of them by name, with the keys of a mix's source (docs/mix.md).
        select: rules that rows must satisfy, by the reason that those are given which do not.
    """

    mix: str | None = None
    leave_out: list[str] = Field(default_factory=list)
    sources: dict[str, dict[str, Any]] = Field(default_factory=dict)
    select: dict[str, str] = Field(default_factory=dict)

    def listed(self, rooms: Rooms) -> dict[str, dict[str, Any]]:
        """The sources by name: those of the mix file that are not left out, and the config's own."""
        written = yaml.safe_load(Path(rooms.path(self.mix)).read_text(encoding="utf-8"))["sources"] if self.mix else []
        kept = {s["name"]: {k: v for k, v in s.items() if k != "name"} for s in written if s["name"] not in self.leave_out}
        amounts = {"rows", "all", "fraction", "tokens", "cap"}
        return kept | {name: s if amounts & set(s) else {**s, "all": True} for name, s in self.sources.items()}

    def size(self, rooms: Rooms) -> float:
        """How many rows these are, as far as the config tells."""
        world = {f"world:{name}": file.rows for name, file in rooms.config.world.files.items()}
        return float(sum(s.get("cap") or s.get("rows") or world.get(s["path"], 0) for s in self.listed(rooms).values()))


class Sft(Sources):
    """The SFT mix and the fine-tuning on it (section 4); `tokens` of a row are an estimate, for the plan."""

    personas: list[Persona] = Field(default_factory=list)
    dedup: bool = False
    tokens: float = 700
    train: Train = Train()


class Part(Config):
    """Prompts of one kind for the preference mix (section 5.2.1).

    Attributes:
        prompts: a file; left out = those of the SFT mix. limit: so many of them.
        constrain: requirements are added to them. on_policy: the SFT model is one of the four that answer.
    """

    name: str
    prompts: dict[str, Any] | None = None
    limit: int = Field(ge=1)
    constrain: bool = False
    on_policy: bool = False


class Preferences(Config):
    """Preference data and DPO (section 5).

    Attributes:
        parts: the prompts. pool: who answers them, four a prompt. constraints: ids that may be drawn; empty = the training group.
        data: or pairs that exist, in place of all this.
    """

    parts: list[Part] = Field(default_factory=list)
    pool: list[str] = Field(default_factory=list)
    judge: dict[str, Any] = Field(default_factory=lambda: {"mode": "aspects", "model": "judge"})
    pairs: dict[str, Any] = Field(default_factory=lambda: {"rule": "best_vs_random_lower"})
    constraints: list[str] = Field(default_factory=list)
    params: dict[str, Any] = Field(default_factory=dict)
    data: Sources | None = None
    tokens: float = 900
    train: Train = Train()


class Rlvr(Sources):
    """Reinforcement learning from verifiable rewards (section 6).

    Attributes:
        by: ppo, with a value model that starts from a reward model, as published; or grpo, as in Tülu 3.1.
        constrained: so many of the `prompts` get requirements, checked by the verifier ifeval.
        reward_model: of the value model. episodes, tokens: answers in all and tokens in each, for the plan.
    """

    by: Literal["ppo", "grpo"] = "ppo"
    episodes: float = 0
    tokens: float = 1000
    prompts: str | None = None
    constrained: int = 0
    ppo: Train = Train()
    grpo: Train = Train()
    reward_model: Train = Train()

    @property
    def train(self) -> Train:
        """The training that is done."""
        return self.ppo if self.by == "ppo" else self.grpo


class Ablate(Config):
    """What is tried beside the main line.

    Attributes:
        contaminated: the SFT mix without the scan, and a model trained on it: the exam's inflation.
        family: the SFT mix without one source after the other (table 10), each on `tasks`, with so many `seeds`.
    """

    contaminated: bool = False
    family: bool = False
    tasks: list[str] = Field(default_factory=list)
    seeds: int = 1


class Tulu3Config(RecipeConfig):
    """The recipe's settings; `exam` and `tasks` are development, `unseen` and `unseen_tasks` are looked at in the end."""

    unseen: str | None = None
    unseen_tasks: list[str] = Field(default_factory=list)
    decontaminate: bool = True
    benchmarks: str | None = None  # of the scan at paper size: a suite of decontam/benchmarks.yaml
    sft: Sft = Sft()
    preferences: Preferences = Preferences()
    rlvr: Rlvr = Rlvr()
    ablate: Ablate = Ablate()
