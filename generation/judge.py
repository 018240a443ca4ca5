"""Candidates -> judged candidates: every rating, rationale and raw reply kept, nothing guessed, what is missing stays missing.

    python -m generation.judge CONFIG.yaml --out out/judged [--dry-run] [--max-cost 5]

    candidates: out/answers
    models: [{name: gpt, model: gpt-4o-2024-08-06}]
    judge: {mode: aspects, model: gpt}            # or a list of judges: the first one's score is the row's

    mode         asks for                                                                 calls for 4 answers
    aspects      helpfulness, instruction_following, honesty (or N/A), truthfulness, 1-5  4: all answers in one call per aspect
    overall      1-10, all answers in one call                                            1
    reference    1-10 against the row's reference answer                                  1
    additive     0-5 points (Self-Rewarding), `samples` averaged, one answer a call       4 (each with n: samples)
    pairwise     A, B or TIE for every two, both orders; disagreement is a tie            12
    strength     Llama 2's four grades, helpfulness and safety apart, both orders         24
    reward       a sequence-classification model (transformers), `model` is its path      none
    verifier     generation.verifiers on the row's verifier and ground truth              none

Answers are shown in an order drawn for every call, and the position is kept. A reply that cannot be read is asked for once more
with the reason; then it counts as unparsable, and more than `max_unparsable` of those stop the run. hits/judgements.parquet has
one line per call and answer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field, model_validator

from columnar.config import Config
from columnar.errors import CaravanError, ConfigError
from generation import parse, rubrics
from generation.client import Client
from generation.models import ModelConfig
from generation.respond import Lost, draw
from generation.rubrics import ASPECTS, REPAIR, Question
from generation.wire import Request

VERSION = 1
Mode = Literal["aspects", "overall", "reference", "additive", "pairwise", "strength", "reward", "verifier"]
LOCAL = ("reward", "verifier")
ULTRAFEEDBACK = ["helpfulness", "instruction_following", "honesty", "truthfulness"]
ENOUGH = 50  # judge calls before a share of unparsable ones means something


class JudgeConfig(Config):
    """One judge.

    Attributes:
        name: what its ratings are called; the mode when left out.
        model: the judging model's name in `models`; for mode reward the path of a model.
        aspects: of mode aspects and of mode strength (there: helpfulness, safety).
        samples: judgements of the same thing, averaged (each in another order of the answers).
        swap: ask pairs in both orders.
        params: over the model's own; the temperature is 0 unless several samples are taken.
        max_unparsable: share of unreadable judgements at which the run stops.
        batch: answers at once through a reward model.
    """

    mode: Mode = "aspects"
    name: str = ""
    model: str = ""
    aspects: list[str] = Field(default_factory=list)
    samples: int = Field(1, ge=1)
    swap: bool = True
    params: dict[str, Any] = Field(default_factory=dict)
    max_unparsable: float = Field(0.05, ge=0, le=1)
    batch: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> JudgeConfig:
        known = ("helpfulness", "safety") if self.mode == "strength" else tuple(ASPECTS)
        odd = [a for a in self.aspects if a not in known]
        if odd:
            raise ValueError(f"aspects: {', '.join(odd)} unknown (known: {', '.join(known)})")
        if self.mode != "verifier" and not self.model:
            raise ValueError(
                f"model: missing; mode {self.mode} needs " + ("the path of a model" if self.mode == "reward" else "a name of `models`")
            )
        if self.samples > 1 and self.mode == "additive" and self.params.get("temperature") == 0:
            raise ValueError("samples: several at temperature 0 are all the same; set params: {temperature: 0.7}")
        return self

    @property
    def called(self) -> str:
        """The judge's name."""
        return self.name or self.mode

    @property
    def rated(self) -> list[str]:
        """What it rates."""
        default = {"aspects": ULTRAFEEDBACK, "strength": ["helpfulness", "safety"]}
        return self.aspects or default.get(self.mode, [self.mode])

    @property
    def asked(self) -> dict[str, Any]:
        """The parameters of its requests."""
        return {"temperature": 0.7 if self.samples > 1 and self.mode == "additive" else 0.0, **self.params}


class JudgeRun(Config):
    """What `generation.judge` is told."""

    candidates: str
    models: list[ModelConfig] = Field(default_factory=list)
    judge: JudgeConfig | list[JudgeConfig]
    seed: int = 0
    name: str = "judged"
    limit: int | None = None
    cache: str | None = None


class Judgement(NamedTuple):
    """One call's word on one answer; for pairs, on `candidate` against `other`.

    `rating` is null when it is missing, and `outcome` says why: ok with null = N/A, else unparsable, truncated, refused, failed, ...
    `position` counts from 1 in the order shown. `verdict` holds what a comparison said; its rating is from the candidate's side.
    """

    judge: str
    mode: str
    model: str
    aspect: str
    sample: int
    candidate: int
    other: int | None
    position: int
    rating: float | None
    verdict: str | None
    rationale: str
    outcome: str
    problem: str
    repaired: bool
    raw: str


JUDGEMENTS = pa.schema(
    [
        ("id", pa.string()),
        *((name, pa.string()) for name in ("judge", "mode", "model", "aspect")),
        *((name, pa.int32()) for name in ("sample", "candidate", "other", "position")),
        ("rating", pa.float64()),
        *((name, pa.string()) for name in ("verdict", "rationale", "outcome", "problem")),
        ("repaired", pa.bool_()),
        ("raw", pa.string()),
    ]
)


@dataclass
class Readable:
    """How many judgements could be read, per judge; raises when too few can."""

    asked: dict[str, int] = field(default_factory=dict)
    unread: dict[str, list[str]] = field(default_factory=dict)
    strict: bool = True

    def note(self, judge: JudgeConfig, problem: str) -> None:
        """One judgement; `problem` is empty when it was read."""
        asked = self.asked[judge.called] = self.asked.get(judge.called, 0) + 1
        unread = self.unread.setdefault(judge.called, [])
        if problem:
            unread.append(problem)
            if self.strict and asked >= ENOUGH and len(unread) > judge.max_unparsable * asked:
                raise CaravanError(
                    f"judge {judge.called}: {len(unread)} of {asked} judgements cannot be read "
                    f"(limit max_unparsable: {judge.max_unparsable:g}); the last: " + "; ".join(unread[-3:]),
                    "look at the replies in the cache; a larger max_tokens, another model or `structured: true` may help",
                )


class Heard(NamedTuple):
    """What came back for one question: what was read (None = nothing), and how."""

    value: Any
    outcome: str
    problem: str
    repaired: bool
    raw: str


def judges_of(config: JudgeConfig | list[JudgeConfig], models: list[ModelConfig]) -> list[JudgeConfig]:
    """The judges, checked against the models.

    Raises:
        ConfigError: two of one name, or a model that is not there.
    """
    judges = config if isinstance(config, list) else [config]
    names = [j.called for j in judges]
    if not judges or len(set(names)) < len(names):
        raise ConfigError(
            "judge: " + ("empty" if not judges else f"two judges of one name ({', '.join(names)})"), "give every judge a `name`"
        )
    for judge in judges:
        if judge.mode not in LOCAL and judge.model not in [m.name for m in models]:
            raise ConfigError(f"judge {judge.called}: no model is called {judge.model!r}", f"models: {', '.join(m.name for m in models)}")
    return judges


class Case(NamedTuple):
    """What is judged: the answers to one conversation; `id` and `seed` decide the orders in which they are shown."""

    id: str
    conversation: list[dict[str, Any]]
    answers: list[str]
    reference: str | None = None
    seed: int = 0


async def judge(client: Client, config: JudgeConfig, case: Case, readable: Readable) -> list[Judgement]:
    """What a judging model says of a case; nothing when there is nothing to judge by."""
    if not case.answers or (config.mode == "reference" and case.reference is None):
        return []
    if config.mode == "additive":
        parts = [_additive(client, config, case, i, readable) for i in range(len(case.answers))]
    elif config.mode in ("pairwise", "strength"):
        kinds = ["pairwise"] if config.mode == "pairwise" else config.rated
        orders = [o for two in itertools.combinations(range(len(case.answers)), 2) for o in _orders(two, config.swap, case)]
        compared = itertools.product(kinds, orders, range(config.samples))
        parts = [_compare(client, config, kind, case, order, sample, readable) for kind, order, sample in compared]
    else:
        rated = itertools.product(config.rated, range(config.samples))
        parts = [_rate(client, config, aspect, case, sample, readable) for aspect, sample in rated]
    return [j for part in await asyncio.gather(*parts) for j in part]


async def _rate(client: Client, config: JudgeConfig, aspect: str, case: Case, sample: int, readable: Readable) -> list[Judgement]:
    """All answers on one aspect, in an order of this call's own."""
    place = f"{case.id}/{config.called}/{aspect}/{sample}"
    order = sorted(range(len(case.answers)), key=lambda i: draw(case.seed, "shown", f"{place}/{i}"))
    reference = case.reference if config.mode == "reference" else None
    question = rubrics.ask_ratings(aspect, case.conversation, [case.answers[i] for i in order], reference)
    scale = ASPECTS[aspect]

    def read(text: str) -> list[parse.Rated]:
        return parse.ratings(text, len(order), scale.low, scale.high, scale.may_be_missing)

    heard = await _ask(client, config, question, sample, case.id, read, readable)
    out = []
    for position, i in enumerate(order, 1):
        said = heard.value[position - 1] if heard.value is not None else parse.Rated(None, "")
        verdict = "N/A" if heard.value is not None and said.rating is None else None
        out.append(_judgement(config, heard, aspect, sample, i, None, position, said.rating, verdict, said.rationale))
    return sorted(out, key=lambda j: j.candidate)


async def _additive(client: Client, config: JudgeConfig, case: Case, i: int, readable: Readable) -> list[Judgement]:
    """One answer's points, `samples` times; the samples share one prompt, and where the server can one call."""
    question = rubrics.ask_score(case.conversation, case.answers[i])
    await client.samples(_request(config, question.messages, question, 0, f"judge {case.id}"), config.samples)
    out = []
    for sample in range(config.samples):  # all of them are in the cache now
        heard = await _ask(client, config, question, sample, case.id, lambda text: parse.score(text, 0, 5), readable)
        said = heard.value or parse.Rated(None, "")
        out.append(_judgement(config, heard, "additive", sample, i, None, 1, said.rating, None, said.rationale))
    return out


def _orders(two: tuple[int, int], swap: bool, case: Case) -> list[tuple[int, int]]:
    a, b = two
    if swap:
        return [(a, b), (b, a)]
    return [(a, b) if draw(case.seed, "shown", f"{case.id}/{a}/{b}") < 0.5 else (b, a)]


async def _compare(
    client: Client, config: JudgeConfig, kind: str, case: Case, order: tuple[int, int], sample: int, readable: Readable
) -> list[Judgement]:
    """Two answers in one order; the rating is the first shown one's: 1, 0.5, 0, or a margin from -3 to 3."""
    options = ("A", "B", "TIE") if kind == "pairwise" else rubrics.graded_options()
    question = rubrics.ask_verdict(kind, case.conversation, [case.answers[i] for i in order])
    heard = await _ask(client, config, question, sample, case.id, lambda text: parse.verdict(text, options), readable)
    option, rationale = heard.value or (None, "")
    value = None
    if option is not None:
        value = {"A": 1.0, "B": 0.0, "TIE": 0.5}[option] if kind == "pairwise" else float(rubrics.strength(option))
    return [_judgement(config, heard, kind, sample, order[0], order[1], 1, value, option, rationale)]


def _request(config: JudgeConfig, messages: list[dict[str, Any]], question: Question, sample: int, tag: str) -> Request:
    return Request(config.model, messages, {**config.asked, "json_schema": question.schema}, sample, tag)


async def _ask(
    client: Client, config: JudgeConfig, question: Question, sample: int, row_id: str, read: Callable[[str], Any], readable: Readable
) -> Heard:
    """One question, and once more with the reason when the answer cannot be read."""
    reply = await client.complete(_request(config, question.messages, question, sample, f"judge {row_id}"))
    if reply.outcome != "ok":
        if reply.outcome in ("truncated", "empty", "unparsable"):
            readable.note(config, reply.reason)
        return Heard(None, reply.outcome, reply.reason, False, reply.content)
    try:
        value = read(reply.content)
        readable.note(config, "")
        return Heard(value, "ok", "", False, reply.content)
    except parse.Unparsable as error:
        problem = str(error)
    form = str(question.messages[0]["content"]).rpartition("JSON only: ")[2]
    repair = REPAIR.format(problem=problem, form=form)
    again = [*question.messages, {"role": "assistant", "content": reply.content}, {"role": "user", "content": repair}]
    second = await client.complete(_request(config, again, question, sample, f"repair {row_id}"))
    if second.outcome in ("budget", "pending"):  # not asked: no verdict on the judge yet
        return Heard(None, second.outcome, second.reason, False, reply.content)
    try:
        if second.ok:
            value = read(second.content)
            readable.note(config, "")
            return Heard(value, "ok", problem, True, second.content)
    except parse.Unparsable as error:
        problem = f"{problem}; asked again: {error}"
    readable.note(config, problem)
    return Heard(None, "unparsable", problem, False, reply.content)


def _judgement(
    config: JudgeConfig,
    heard: Heard,
    aspect: str,
    sample: int,
    candidate: int,
    other: int | None,
    position: int,
    rating: float | None,
    verdict: str | None,
    rationale: str,
) -> Judgement:
    who = (config.called, config.mode, config.model, aspect, sample, candidate, other, position)
    return Judgement(*who, rating, verdict, rationale, heard.outcome, heard.problem, heard.repaired, heard.raw)


async def judge_row(
    client: Client, judges: list[JudgeConfig], row: dict[str, Any], seed: int, readable: Readable
) -> tuple[list[Judgement], list[Lost]]:
    """What all judging models say of a row of candidates, and what they did not say."""
    meta = json.loads(row["meta"]) if row.get("meta") else {}
    reference = meta.get("reference") or meta.get("ground_truth")
    case = Case(row["id"], row["prompt"], [c["content"] for c in row["candidates"]], reference, seed)
    found = await asyncio.gather(*(judge(client, j, case, readable) for j in judges if j.mode not in LOCAL))
    judgements = [j for part in found for j in part]
    lost = {}
    for j in judgements:
        if j.outcome != "ok":
            together = j.mode not in ("additive", "pairwise", "strength")  # one call for all answers is one loss
            lost[j.judge, j.aspect, j.sample, None if together else j.candidate, j.other] = j
    return judgements, [Lost("judge", j.model, f"{j.judge}/{j.aspect}", j.outcome, j.problem) for j in lost.values()]


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    from generation.commands import command

    return command("judge", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
