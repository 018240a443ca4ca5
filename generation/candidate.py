"""What the makers of prompts work with: their config, one call, a candidate that becomes a row or is dropped with a reason.

text = await job.ask(prompts.HARD_MATH, persona="a lighthouse keeper")     # raises Dropped("truncated"), Dropped("refused"), ...
row = made_row(job, "prompt", "persona/hard_math", 7, {"prompt": user(text)}, [persona.id], None, [prompts.HARD_MATH], {})
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import Field

from columnar.config import Config
from columnar.errors import CaravanError, ConfigError
from columnar.record import seal, validate
from generation import prompts
from generation.models import ModelConfig

SPARE = 8  # items begun even when fewer rows are missing


class Until(Config):
    """Make candidates until so many rows are kept, but never more candidates than the budget."""

    rows: int | None = Field(default=None, ge=1)
    candidates: int | None = Field(default=None, ge=1)


class MakerConfig(Config):
    """What every maker's config has.

    Attributes:
        name: the `source` of the rows made.
        models: the models and their servers; `model` says which one writes (the first, if left out).
        params: over the model's own, for everything this maker writes.
        license: of the rows made; left out = that of the rows (or personas) they were made from.
    """

    name: str
    models: list[ModelConfig] = Field(default_factory=list)
    model: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    seed: int = 1
    license: str | None = None
    until: Until = Until()

    @property
    def writer(self) -> str:
        """The model that writes."""
        return self.model or (self.models[0].name if self.models else "")

    def check(self) -> None:
        """Raises ConfigError when the models do not fit together."""
        names = [m.name for m in self.models]
        if not names:
            raise ConfigError("models: empty", "name at least one: {name: teacher, base_url: http://localhost:8000/v1}")
        if self.writer not in names:
            raise ConfigError(f"model: no model is called {self.writer!r}", f"models: {', '.join(names)}")


class Candidate(NamedTuple):
    """One thing made: a row, or the reason why it is none (with what is worth keeping of it)."""

    row: dict[str, Any] | None
    reason: str = ""
    detail: dict[str, Any] = {}  # noqa: RUF012 (never written to)


class Dropped(Exception):
    """A candidate that ends here: the reason it is counted under, and what is kept of it."""

    def __init__(self, reason: str, **detail: Any) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def unusable(asked: Any) -> list[Candidate]:
    """What becomes of a prompt without a user's last turn."""
    return [Candidate(None, "no_user_turn", {"parents": [asked.id]})]


class Step(NamedTuple):
    """A part of the plan: what is asked, about how often, and an example to estimate from."""

    what: str
    calls: int
    model: str
    messages: list[dict[str, Any]]
    params: dict[str, Any]


class Job(NamedTuple):
    """What a maker works with: `client` is None while planning."""

    config: Any
    client: Any
    out: Path

    async def ask(
        self, prompt: prompts.Prompt, /, sample: int = 0, model: str = "", params: dict[str, Any] | None = None, **fields: Any
    ) -> str:
        """One answer to one of our prompts.

        Raises:
            Dropped: there is no complete answer; the reason is the reply's outcome.
        """
        return await self.say(prompt.messages(**fields), prompt.name, sample, model, params)

    async def say(
        self, messages: list[dict[str, Any]], tag: str, sample: int = 0, model: str = "", params: dict[str, Any] | None = None
    ) -> str:
        """One answer to a conversation; see `ask`."""
        from generation.wire import Request

        reply = await self.client.complete(
            Request(model or self.config.writer, messages, {**self.config.params, **(params or {})}, sample, tag)
        )
        if not reply.ok:
            raise Dropped(reply.outcome, step=tag, why=reply.reason, **({"text": reply.content} if reply.content else {}))
        return str(reply.content).strip()


def made_row(
    job: Job,
    kind: str,
    place: str,
    number: int,
    payload: dict[str, Any],
    parents: Iterable[str],
    license: str | None,
    used: Iterable[prompts.Prompt],
    meta: dict[str, Any],
) -> dict[str, Any]:
    """A row of what was made, with all that a later reader needs to know how.

    Raises:
        Dropped: what the model wrote does not make a valid row (reason `invalid`).
    """
    config: MakerConfig = job.config
    writer = next((m for m in config.models if m.name == config.writer), None)
    about = {
        "model": writer.served if writer else None,
        "revision": writer.revision if writer else None,
        "params": {**writer.params, **config.params} if writer else None,
        "prompts": [p.version for p in used],
        **meta,
    }
    row = {
        "kind": kind,
        "source": config.name,
        "origin": {"uri": place, "revision": None, "split": None, "row": number},
        "license": config.license or license,
        "meta": json.dumps(about, ensure_ascii=False, sort_keys=True),
        "parents": list(dict.fromkeys(parents)),
        **payload,
    }
    problems = validate(row)
    if problems:
        raise Dropped("invalid", why=str(problems[0]))
    return seal(row, place)


def pair_of(job: Job, prompt: list[dict[str, Any]], pair: dict[str, Any], answerer: str) -> dict[str, Any]:
    """The columns of a pair whose chosen answer met every requirement: the scores are the shares met."""
    name = next(m.served for m in job.config.models if m.name == (answerer or job.config.writer))
    return {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": pair["chosen"]}],
        "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        "chosen_score": 1.0,
        "rejected_score": pair["rejected_score"],
        "chosen_model": name,
        "rejected_model": name,
    }


def user(text: str) -> list[dict[str, Any]]:
    """A prompt of one user turn."""
    return [{"role": "user", "content": text}]


Item = TypeVar("Item")


async def attempt(work: Awaitable[dict[str, Any]], **detail: Any) -> Candidate:
    """A candidate out of work that gives a row or raises Dropped."""
    try:
        return Candidate(await work)
    except Dropped as dropped:
        return Candidate(None, dropped.reason, {**detail, **dropped.detail})


def asked_of(row: dict[str, Any]) -> str:
    """The text of a row's first user turn."""
    return str((row.get("prompt") or row["messages"])[0]["content"])


async def produce(
    job: Job,
    work: Callable[[Item], Awaitable[list[Candidate]]],
    items: Iterable[Item],
    until: Until,
    settle: Callable[[Candidate], Candidate] = lambda candidate: candidate,
) -> AsyncIterator[Candidate]:
    """The candidates of many items worked on at once, in the order of the items, until the goal or the budget is reached.

    No more is begun than the goal seems to need at the rate of rows per item so far. The item in which the goal is reached is given
    whole, its surplus as `not_needed`. `settle` sees the candidates in order, and may reject one for what came before it. When one item
    raises, those under way are finished first: their answers are paid for, and kept.
    """
    goal, budget = until.rows, until.candidates
    rows = candidates = done = 0
    tasks: deque[asyncio.Future[list[Candidate]]] = deque()
    source = iter(items)
    more = True

    def places() -> int:
        most = 2 * job.client.width if budget is None else min(2 * job.client.width, budget - candidates)
        if goal is None:
            return int(most)
        needed = (goal - rows) * (done + 1) / (rows + 1) if done else goal
        return int(min(most, max(SPARE, needed)))

    try:
        while True:
            while more and len(tasks) < places() and not job.client.stopped:
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                else:
                    tasks.append(asyncio.ensure_future(work(item)))
            if not tasks:
                return
            for candidate in map(settle, await tasks.popleft()):
                if candidate.row is not None and goal is not None and rows >= goal:
                    candidate = Candidate(None, "not_needed", {"parents": candidate.row["parents"], "id": candidate.row["id"]})
                candidates += 1
                rows += candidate.row is not None
                yield candidate
            done += 1
            if (goal is not None and rows >= goal) or (budget is not None and candidates >= budget):
                return
    except CaravanError:
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    finally:
        for task in tasks:
            task.cancel()
