"""Verifiable requirements added to prompts that exist (the IF-augmented prompts of Tülu 3, arXiv 2411.15124).

In: prompts. Out: a dataset directory of prompts that a program can check the answers to (`verifier`, `ground_truth`), of such prompts with
answers that pass, or of pairs. Requirements are drawn from the verifiers in sets that can hold together (requirements.py).

    python -m generation.constrain constrain.yaml --out out/constrained
    python -m generation.constrain constrain.yaml --out out/constrained --set how=append      # no model, no call

    how: append    the requirements follow the request, one a line: exact, cheap, a little stiff
    how: rewrite   a model puts both into one natural request; one that lost a word or a number of a requirement is rejected
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from columnar.cli import run
from columnar.errors import ConfigError
from generation import prompts
from generation.answering import answer_requirements, relaxed_pair
from generation.candidate import Candidate, Dropped, Job, MakerConfig, Step, attempt, made_row, pair_of, produce, unusable
from generation.maker import Maker, arguments, command
from generation.material import Asked, Prompts, describe_input, each_prompt, longest_text, open_prompts
from generation.requirements import Requirements, as_list, draw, fields, lost, notes

VERSION = 1
KIND = {"prompts": "prompt", "answers": "sft", "pairs": "pair"}


class ConstrainConfig(MakerConfig):
    """Prompts in, constrained prompts out; `answerer` is the model that answers (left out: the writer)."""

    prompts: Prompts
    how: Literal["append", "rewrite"] = "rewrite"
    make: Literal["prompts", "answers", "pairs"] = "prompts"
    requirements: Requirements = Requirements()
    answerer: str = ""

    def check(self) -> None:
        """Raises ConfigError when the settings do not fit together."""
        if self.how == "rewrite" or self.make != "prompts":
            super().check()
        if self.answerer and self.answerer not in [m.name for m in self.models]:
            raise ConfigError(f"answerer: no model is called {self.answerer!r}")


async def one(job: Job, pair: tuple[int, Asked]) -> dict[str, Any]:
    """One prompt with its requirements.

    Raises:
        Dropped: with its reason.
    """
    from generation.statistics import generator

    config: ConstrainConfig = job.config
    number, asked = pair
    chosen = draw(config.requirements, config.seed, asked.id)
    used: list[prompts.Prompt] = []
    if config.how == "append":
        request = f"{asked.text}\n\n{as_list(chosen)}" if len(chosen) > 1 else f"{asked.text}\n\n{chosen[0].description}"
    else:
        used.append(prompts.CONSTRAIN)
        request = await job.ask(prompts.CONSTRAIN, request=asked.text, constraints=as_list(chosen))
        missing = lost(request, chosen) if config.requirements.stated else None
        if missing:
            raise Dropped("requirement_lost", text=request, requirement=missing.description)
    prompt = [*asked.messages[:-1], {"role": "user", "content": request}]
    meta: dict[str, Any] = {"how": config.how, "requirements": [c.id for c in chosen]}
    payload: dict[str, Any] = {"prompt": prompt, **fields(chosen)}
    if config.make == "answers":
        used.append(prompts.ANSWER_IF)
        answer = await answer_requirements(job, request, chosen, config.answerer)
        meta.update(fields(chosen))
        payload = {"messages": [*prompt, {"role": "assistant", "content": answer}]}
    elif config.make == "pairs":
        used += [prompts.RELAX, prompts.ANSWER_IF]
        relaxed = chosen[int(generator(config.seed, f"relax\x1f{asked.id}").integers(len(chosen)))]
        made = await relaxed_pair(job, request, chosen, relaxed, config.answerer)
        meta.update(fields(chosen), relaxed=relaxed.id, relaxed_request=made["relaxed_request"], rejected_misses=made["rejected_misses"])
        payload = pair_of(job, prompt, made, config.answerer)
    return made_row(job, KIND[config.make], "constrain", number, payload, [asked.id], asked.license, used, meta)


async def make(job: Job) -> AsyncIterator[Candidate]:
    """One candidate a prompt, many at once, in the order of the prompts."""
    config: ConstrainConfig = job.config

    async def work(pair: tuple[int, Asked]) -> list[Candidate]:
        return [await attempt(one(job, pair), parents=[pair[1].id])] if pair[1].usable else unusable(pair[1])

    items = enumerate(each_prompt(open_prompts(config.prompts, job.out), config.prompts.limit))
    async for candidate in produce(job, work, items, config.until):
        yield candidate


def plan(job: Job) -> list[Step]:
    """One call a prompt for the rewriting, one for each answer."""
    config: ConstrainConfig = job.config
    dataset = open_prompts(config.prompts, job.out)
    calls = min(n for n in (dataset.rows, config.prompts.limit, config.until.rows, config.until.candidates) if n is not None)
    text = longest_text(dataset)
    steps = []
    if config.how == "rewrite":
        steps.append(Step("requests", calls, config.writer, prompts.CONSTRAIN.messages(request=text, constraints="x" * 200), {}))
    if config.make != "prompts":
        answers = calls * (2 if config.make == "pairs" else 1)
        steps.append(Step("answers", answers, config.answerer or config.writer, prompts.ANSWER_IF.messages(prompt=text + "x" * 200), {}))
    if config.make == "pairs":
        steps.append(Step("relaxed requests", calls, config.writer, prompts.RELAX.messages(request=text, constraint="x" * 80), {}))
    return steps


def inputs(config: ConstrainConfig, out: Path) -> list[dict[str, Any]]:
    """The prompts to start from."""
    return describe_input(config.prompts, out)


def told(config: ConstrainConfig) -> list[str]:
    """What the rows hold that a user must know."""
    return notes([config.requirements])


MAKER = Maker("constrain", __doc__, VERSION, ConstrainConfig, lambda c: KIND[c.make], inputs, plan, make, told)

if __name__ == "__main__":
    sys.exit(run(command(MAKER), arguments(MAKER)))
