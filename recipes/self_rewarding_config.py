"""The settings of recipes.self_rewarding, as in self_rewarding.toy.yaml and self_rewarding.paper.yaml."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from columnar.config import Config
from recipes.rooms import RecipeConfig, Train


class Ift(Config):
    """Instruction examples: a source as in a mix (path, where, rows, ...); `best_of`: it has ranked answers, of which the best is taken."""

    source: dict[str, Any]
    best_of: bool = False


class Eft(Config):
    """Judging examples: ranked answers (a source), and whose judgements of them are kept; `self` is the model tuned on IFT alone."""

    rankings: dict[str, Any]
    judge: str = "self"


class Loop(Config):
    """What a round does.

    Attributes:
        writer, writing, prompts, requests, threshold: Self-Instruct's model and settings; `prompts` may differ per round.
        answers, params: of M_t to each prompt. judge, times, judging: `self`, or a model's name per round (the last one stays); how often.
        pairs: as in generation.pairs. least_yield: the share of prompts with a pair under which the run ends.
    """

    writer: str = "writer"
    writing: dict[str, Any] = Field(default_factory=lambda: {"temperature": 0.6, "top_p": 0.9})
    prompts: int | list[int] = 300
    requests: int = 32
    threshold: float = 0.7
    answers: int = 4
    params: dict[str, Any] = Field(default_factory=lambda: {"temperature": 0.7, "top_p": 0.9})
    judge: str | list[str] = "self"
    times: int = 3
    judging: dict[str, Any] = Field(default_factory=dict)
    pairs: dict[str, Any] = Field(default_factory=lambda: {"rule": "best_vs_worst"})
    least_yield: float = Field(0.1, ge=0, le=1)
    train: Train = Train()

    @property
    def positive(self) -> bool:
        """The variant that learns from the best answers alone."""
        return self.pairs.get("output") == "sft"


class SelfRewardingConfig(RecipeConfig):
    """The recipe's settings; `eft: null` is the ablation, `held_out` are rankings to measure judges on, `referee` decides the duels.

    `exam_rows` is for the plan alone, where the exam cannot be counted beforehand.
    """

    ift: Ift
    eft: Eft | None = None
    held_out: dict[str, Any] | None = None
    referee: str | None = None
    exam_rows: int | None = None
    rounds: int = Field(2, ge=1)
    sft: Train = Train()
    loop: Loop = Loop()


def of_round(value: Any, t: int) -> Any:
    """A setting's value in round t, counted from 1."""
    return value[min(t, len(value)) - 1] if isinstance(value, list) else value
