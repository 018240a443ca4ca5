"""Magpie: what an aligned model writes when it is given nothing but the beginning of a user's turn.

In: a model and the text that its chat template puts before a user's words. Out: a dataset directory of prompts, or of prompts with the
same model's answers. The method is that of Xu et al. (arXiv 2406.08464): no seeds, no instructions; the model has seen so many users'
turns that it continues with one.

    python -m generation.magpie magpie.yaml --out out/magpie

The server must take a chat template with the request, as vLLM does when started with `--trust-request-chat-template`. One that does not
either refuses (vLLM without that flag) or answers an empty message instead; an answer in an assistant's voice is not told
apart, so look at the first rows.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from itertools import count
from typing import Any, Literal, NamedTuple

from pydantic import Field

from columnar.cli import run
from columnar.errors import ConfigError
from columnar.record import normalise
from generation import prompts
from generation.candidate import Candidate, Dropped, Job, MakerConfig, Step, asked_of, attempt, made_row, produce, user
from generation.maker import Maker, arguments, command
from generation.wire import Reply, Request

VERSION = 1
TAG = "magpie"


class Template(NamedTuple):
    """What stands before a user's words, and what ends them."""

    before: str
    stop: str


TEMPLATES = {
    "llama3": Template("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    "chatml": Template("<|im_start|>user\n", "<|im_end|>"),
    "gemma": Template("<bos><start_of_turn>user\n", "<end_of_turn>"),
    "mistral": Template("<s>[INST] ", "[/INST]"),
    "zephyr": Template("<|user|>\n", "</s>"),
    "tulu": Template("<|user|>\n", "<|assistant|>"),
}


class MagpieConfig(MakerConfig):
    """A model and its template in, prompts out.

    Attributes:
        template: one of those known, or the text itself; then `stop` says what ends a user's turn.
        system: a system turn's text, as the template would write it, put before: it steers the subject (code, mathematics, ...).
        at_once: so many samples are asked in one call, where the server obeys `n`.
        answer: over the params, for the answers of `make: answers`.
    """

    template: str
    stop: str = ""
    system: str = ""
    make: Literal["prompts", "answers"] = "prompts"
    at_once: int = 16
    answer: dict[str, Any] = Field(default_factory=dict)

    def check(self) -> None:
        """Raises ConfigError when the settings do not fit together."""
        super().check()
        if self.until.candidates is None and self.until.rows is None:
            raise ConfigError("until: missing", "say when to stop: until: {rows: 1000} (and a budget: candidates: 5000)")
        if self.template not in TEMPLATES and not self.stop:
            known = ", ".join(TEMPLATES)
            raise ConfigError("stop: missing", f"a template of your own needs the text that ends a user's turn (or use one of: {known})")

    @property
    def turn(self) -> Template:
        """The template in force."""
        known = TEMPLATES.get(self.template, Template(self.template, self.stop))
        return Template(self.system + known.before, self.stop or known.stop)


def why_not(text: str) -> str | None:
    """Why a user's turn is not a prompt: nothing in it, or cut off before its material (Magpie's rule: it ends in a colon)."""
    if not any(c.isalnum() for c in text):
        return "says_nothing"
    return "ends_with_colon" if text.rstrip().endswith(":") else None


async def sample(job: Job, group: int) -> list[Reply]:
    """One call's worth of user turns."""
    config: MagpieConfig = job.config
    turn = config.turn
    template = "{% raw %}" + turn.before + "{% endraw %}"
    extra = {"chat_template": template, "add_generation_prompt": False, "add_special_tokens": False}
    params = {**config.params, "stop": [turn.stop], "extra": extra}
    replies = await job.client.samples(Request(config.writer, user(""), params, group * config.at_once, TAG), config.at_once)
    return list(replies)


async def finish(job: Job, reply: Reply) -> dict[str, Any]:
    """A user's turn as a row.

    Raises:
        Dropped: it is not whole, or its answer is not.
    """
    config: MagpieConfig = job.config
    text = reply.content.strip()
    if not reply.ok:
        raise Dropped(reply.outcome, why=reply.reason, text=text)
    if reason := why_not(text):
        raise Dropped(reason, text=text)
    payload: dict[str, Any] = {"prompt": user(text)}
    if config.make == "answers":
        answer = await job.say(user(text), prompts.ANSWER.name, params=config.answer)
        payload = {"messages": [*user(text), {"role": "assistant", "content": answer}]}
    meta = {"template": config.template, "system": config.system}
    kind = "sft" if config.make == "answers" else "prompt"
    return made_row(job, kind, "magpie", reply.request.sample, payload, [], None, [], meta)


async def make(job: Job) -> AsyncIterator[Candidate]:
    """Calls in the order of their numbers; of turns that say the same the first is kept, so that the rows depend on the replies alone."""
    config: MagpieConfig = job.config
    seen: set[bytes] = set()

    def first_only(candidate: Candidate) -> Candidate:
        if candidate.row is None:
            return candidate
        text = asked_of(candidate.row)
        key = normalise(text)
        if key in seen:
            return Candidate(None, "repeated", {"text": text})
        seen.add(key)
        return candidate

    async def work(group: int) -> list[Candidate]:
        return list(await asyncio.gather(*(attempt(finish(job, reply)) for reply in await sample(job, group))))

    async for candidate in produce(job, work, count(), config.until, first_only):
        yield candidate


def plan(job: Job) -> list[Step]:
    """One call for each candidate; answers for as many."""
    config: MagpieConfig = job.config
    calls = config.until.candidates or config.until.rows or 0
    steps = [Step("user turns", calls, config.writer, user(""), {})]
    if config.make == "answers":
        steps.append(Step("answers", calls, config.writer, user("x" * 300), config.answer))
    return steps


MAKER = Maker("magpie", __doc__, VERSION, MagpieConfig, lambda c: "sft" if c.make == "answers" else "prompt", lambda c, out: [], plan, make)

if __name__ == "__main__":
    sys.exit(run(command(MAKER), arguments(MAKER)))
