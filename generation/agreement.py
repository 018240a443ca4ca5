"""How far can a judge be trusted? Any judge configuration against human labels, before money is spent on judging.

In: sets with human labels (see gold.py) and judges: a model with a rubric, or a baseline that looks at nothing but length, chance or
position. Out: one line a judge and set: accuracy, exact match, rank correlations, position and length bias, each with a 95 % interval.
Why: prompt form alone moves a judge's pairwise accuracy from 27 to 65 % (Self-Rewarding, arXiv 2401.10020), and a judge that cannot
beat `longest` on your kind of prompts measures length.

    python -m generation.agreement agreement.yaml --out out/agreement

    data:   [{path: llmbar.parquet}, {name: pandalm, path: pandalm_testset.parquet}]
    judges: [{name: gpt-4o pairwise, model: judge, form: pairwise}, {name: longest, baseline: longest}]
    models: [{name: judge, model: gpt-4o-2024-08-06}]

Pairs are asked in both orders (`swap: true`); two verdicts that contradict each other are a tie. With --out every verdict is kept
(judgements.jsonl) beside the replies it was read from (replies.sqlite), so that the command, run again, asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from columnar.config import Config
from generation.gold import Item
from generation.measure import Judgement, figures, rating_spearman
from generation.models import ModelConfig
from generation.statistics import Estimate, generator

BASELINES = ("longest", "shortest", "unique_tokens", "random", "first")


class SetConfig(Config):
    """A set with human labels: a file of a known form or a dataset directory of pairs or candidates."""

    path: str
    name: str = ""
    limit: int | None = None


class JudgeConfig(Config):
    """One judge: a baseline, or a model with a form of question.

    Attributes:
        form: pairwise (which of two is better), or a rating of single answers: overall (1-10), additive (0-5).
        swap: ask pairs in both orders.
        samples: ratings per answer, averaged.
    """

    name: str
    baseline: Literal["longest", "shortest", "unique_tokens", "random", "first"] | None = None
    model: str | None = None
    form: Literal["pairwise", "overall", "additive"] = "pairwise"
    swap: bool = True
    samples: int = 1

    @model_validator(mode="after")
    def _one_of_two(self) -> JudgeConfig:
        if (self.baseline is None) == (self.model is None):
            raise ValueError("expected either a baseline or a model")
        return self


class AgreementConfig(Config):
    """What to measure, with whom, on what."""

    data: list[SetConfig]
    judges: list[JudgeConfig]
    models: list[ModelConfig] = Field(default_factory=list)
    seed: int = 1
    draws: int = 1000  # bootstrap samples

    @model_validator(mode="after")
    def _models_known(self) -> AgreementConfig:
        known = {m.name for m in self.models}
        for judge in self.judges:
            if judge.model is not None and judge.model not in known:
                raise ValueError(
                    f"judges[{judge.name}].model: no model is called {judge.model!r} (models: {', '.join(sorted(known)) or 'none'})"
                )
        return self


def baseline(name: str, items: list[Item], seed: int) -> list[Judgement]:
    """A judge that does not read: by length, by the number of different words, by chance, by position."""
    if name == "first":
        return [Judgement(i, (0.5,) * len(i.answers), (1.0, 1.0) if len(i.answers) == 2 else ()) for i in items]
    from generation.rouge import tokens_of

    score: dict[str, Callable[[Item], tuple[float, ...]]] = {
        "longest": lambda i: tuple(float(len(a)) for a in i.answers),
        "shortest": lambda i: tuple(-float(len(a)) for a in i.answers),
        "unique_tokens": lambda i: tuple(float(len(set(tokens_of(a, "any")))) for a in i.answers),
        "random": lambda i: tuple(generator(seed, f"random\x1f{i.id}\x1f{i.prompt}").random(len(i.answers)).tolist()),
    }
    return [Judgement(i, score[name](i)) for i in items]


def report(judge: str, data: str, judgements: list[Judgement], config: AgreementConfig) -> list[dict[str, Any]]:
    """One line for the whole set and one for each of its subsets."""
    subsets = sorted({j.item.subset for j in judgements})
    parts = [(data, judgements)]
    if len(subsets) > 1:
        parts += [(f"{data}/{s}", [j for j in judgements if j.item.subset == s]) for s in subsets]
    return [
        {
            "judge": judge,
            "data": name,
            "items": len(part),
            **figures(part, config.seed, config.draws),
            "rating_spearman": rating_spearman(part),
        }
        for name, part in parts
    ]


def for_people(line: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """A line of the report as the terminal shows it."""
    return {c: (str(line[c]) if isinstance(line[c], Estimate) else line[c]) for c in columns}


def plain(value: Any) -> Any:
    """Estimates as JSON objects; undefined figures as null."""
    if isinstance(value, Estimate):
        return {k: plain(v) for k, v in value._asdict().items()}
    if isinstance(value, float) and value != value:
        return None
    return value
