"""Dialogues by a teacher: answers to prompts, requests refined by their own answers, or a simulated user who goes on.

In: prompts, a teacher model, and for conversations a model that plays the user. Out: a dataset directory of conversations (kind sft).

    refine   Zephyr's dSFT (arXiv 2310.16944, section 3): the teacher answers, the request is improved in the light of the answer, so many
             times; the last request with its answer is the row
    chat     UltraChat's plan (arXiv 2305.14233): the teacher answers, the user's model says what the user says next, until it has
             nothing more to say or the number of turns drawn for this conversation is reached; the whole conversation is the row

    python -m generation.dialogue dialogue.yaml --out out/dialogues --set mode=chat

No answer that was cut off, refused or empty gets into a row: a conversation ends before it, and with no good answer at all it is rejected.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from columnar.cli import run
from columnar.errors import ConfigError
from generation import prompts
from generation.candidate import Candidate, Dropped, Job, MakerConfig, Step, attempt, made_row, produce, unusable
from generation.maker import Maker, arguments, command
from generation.material import Asked, Prompts, describe_input, each_prompt, longest_text, open_prompts

VERSION = 1
DONE = "[END]"  # what the user's model writes when the conversation is over
BUDGET = "budget"


class DialogueConfig(MakerConfig):
    """Prompts in, conversations out.

    Attributes:
        user: the model that plays the user, or refines; left out = the teacher.
        turns: the least and the most answers of a conversation; the number is drawn for each.
        refinements: how often a request is refined (mode refine).
        system: a system prompt put before every conversation that has none, and kept in the row.
    """

    prompts: Prompts
    mode: Literal["refine", "chat"] = "chat"
    user: str = ""
    turns: tuple[int, int] = (1, 4)
    refinements: int = 1
    system: str = ""

    def check(self) -> None:
        """Raises ConfigError when the settings do not fit together."""
        super().check()
        if not 1 <= self.turns[0] <= self.turns[1]:
            raise ConfigError(f"turns: {list(self.turns)}", "expected the least and the most, for example [1, 4]")
        if self.user and self.user not in [m.name for m in self.models]:
            raise ConfigError(f"user: no model is called {self.user!r}", f"models: {', '.join(m.name for m in self.models)}")


def transcript(messages: list[dict[str, Any]]) -> str:
    """A conversation as the user's model reads it."""
    names = {"user": "Person", "assistant": "Assistant"}
    return "\n\n".join(f"{names[m['role']]}: {m['content']}" for m in messages if m["role"] in names)


async def converse(job: Job, pair: tuple[int, Asked]) -> dict[str, Any]:
    """One conversation: answers and the user's next words in turn.

    Raises:
        Dropped: the first answer is not good.
    """
    from generation.statistics import generator

    config: DialogueConfig = job.config
    number, asked = pair
    messages = opening(config, asked)
    least, most = config.turns
    wanted = int(generator(config.seed, f"turns\x1f{asked.id}").integers(least, most + 1))
    ended = "turns"
    good: list[dict[str, Any]] = []
    for turn in range(wanted):
        try:
            messages = [*messages, {"role": "assistant", "content": await job.say(messages, prompts.ANSWER.name)}]
            good = messages
            if turn + 1 == wanted:
                break
            said = await job.ask(prompts.NEXT_TURN, model=config.user, conversation=transcript(messages), done=DONE)
        except Dropped as dropped:
            if not good or dropped.reason == BUDGET:
                raise
            ended = f"{dropped.detail.get('step', 'answer')}: {dropped.reason}"
            break
        if DONE in said:
            ended = "the user had nothing more to say"
            break
        said = said.removeprefix("Person:").strip()
        if any(m["role"] == "user" and m["content"] == said for m in messages):
            ended = "the user repeated themselves"
            break
        messages = [*messages, {"role": "user", "content": said}]
    answers = sum(m["role"] == "assistant" for m in good)
    if answers < least and ended != "turns":
        raise Dropped("too_short", ended=ended, answers=answers)
    meta = {"mode": "chat", "turns": answers, "ended": ended, "user": model_name(job, config.user)}
    return made_row(job, "sft", "dialogue", number, {"messages": good}, [asked.id], asked.license, [prompts.NEXT_TURN], meta)


async def refine(job: Job, pair: tuple[int, Asked]) -> dict[str, Any]:
    """One request, refined by its answers; the last with its answer is the row.

    Raises:
        Dropped: a call without a good answer.
    """
    config: DialogueConfig = job.config
    number, asked = pair
    messages = opening(config, asked)
    earlier: list[str] = []
    for _ in range(config.refinements):
        answer = await job.say(messages, prompts.ANSWER.name)
        request = messages[-1]["content"]
        earlier.append(request)
        better = await job.ask(prompts.REFINE, model=config.user, request=request, answer=answer)
        messages = [*messages[:-1], {"role": "user", "content": better}]
    messages = [*messages, {"role": "assistant", "content": await job.say(messages, prompts.ANSWER.name)}]
    meta = {"mode": "refine", "earlier": earlier, "user": model_name(job, config.user)}
    return made_row(job, "sft", "dialogue", number, {"messages": messages}, [asked.id], asked.license, [prompts.REFINE], meta)


def opening(config: DialogueConfig, asked: Asked) -> list[dict[str, Any]]:
    """The prompt, with the config's system turn before it when it has none."""
    if config.system and asked.messages[0]["role"] != "system":
        return [{"role": "system", "content": config.system}, *asked.messages]
    return asked.messages


def model_name(job: Job, name: str) -> str:
    """What a model is called on the wire."""
    return next(m.served for m in job.config.models if m.name == (name or job.config.writer))


async def make(job: Job) -> AsyncIterator[Candidate]:
    """One candidate a prompt, many at once, in the order of the prompts."""
    config: DialogueConfig = job.config
    one = converse if config.mode == "chat" else refine

    async def work(pair: tuple[int, Asked]) -> list[Candidate]:
        return [await attempt(one(job, pair), parents=[pair[1].id])] if pair[1].usable else unusable(pair[1])

    items = enumerate(each_prompt(open_prompts(config.prompts, job.out), config.prompts.limit))
    async for candidate in produce(job, work, items, config.until):
        yield candidate


def plan(job: Job) -> list[Step]:
    """On average: the mean number of turns."""
    config: DialogueConfig = job.config
    dataset = open_prompts(config.prompts, job.out)
    count = min(
        dataset.rows, config.prompts.limit or dataset.rows, config.until.candidates or dataset.rows, config.until.rows or dataset.rows
    )
    text = longest_text(dataset)
    messages = prompts.ANSWER.messages(prompt=text)
    user = config.user or config.writer
    if config.mode == "refine":
        refined = prompts.REFINE.messages(request=text, answer="x" * 1500)
        return [
            Step("answers", count * (config.refinements + 1), config.writer, messages, {}),
            Step("refinements", count * config.refinements, user, refined, {}),
        ]
    turns = sum(config.turns) / 2
    spoken = prompts.NEXT_TURN.messages(conversation="x" * int(1500 * turns), done=DONE)
    return [
        Step("answers", round(count * turns), config.writer, messages, {}),
        Step("the user's turns", round(count * (turns - 1)), user, spoken, {}),
    ]


def inputs(config: DialogueConfig, out: Path) -> list[dict[str, Any]]:
    """The prompts to start from."""
    return describe_input(config.prompts, out)


MAKER = Maker("dialogue", __doc__, VERSION, DialogueConfig, lambda c: "sft", inputs, plan, make)

if __name__ == "__main__":
    sys.exit(run(command(MAKER), arguments(MAKER)))
