"""Evol-Instruct: prompts made harder, or turned into rarer ones of the same field, round after round, with the eliminator.

In: prompts and a model. Out: a dataset directory of evolved prompts (or of prompts with answers); each row's parent is the prompt it
came from. The algorithm is that of WizardLM (arXiv 2304.12244): in each round one of five in-depth operations or the in-breadth one is
drawn; the eliminator drops an evolution that came to the same thing as its parent, whose answer is a short apology, that says nothing, or
that leaks our own instructions. A failed evolution ends the round for that prompt, and the next round starts again from its parent.

    python -m generation.evolve evolve.yaml --out out/evolved --set rounds=2

The released code of the paper has no eliminator, one round and four of the five operations; this is the paper. Prompts do not wait for
one another: one may be in its last round while another is in its first.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from columnar.cli import run
from columnar.errors import ConfigError
from generation import prompts
from generation.candidate import Candidate, Dropped, Job, MakerConfig, Step, made_row, produce, unusable
from generation.maker import Maker, arguments, command
from generation.material import Asked, Prompts, describe_input, each_prompt, longest_text, open_prompts

VERSION = 1
OPERATIONS = (*prompts.DEEPER, "breadth")
SORRY_WORDS = 80  # an answer with "sorry" in it and fewer words than this is an apology
_LEAKED = re.compile(
    r"\b(?:the |this )?(?:given|new|old|original|evolved|rewritten|created) (?:prompt|request|instruction)\b|^\W*(?:new|the) request\W*:",
    re.IGNORECASE,
)
_STOP = """
a about an and any are as at be been but by can could did do does for from had has have he her him his how i if in into is it its me my no
not of on or our she should so some such than that the their them then there these they this those to too up us was we were what when where
which who why will with would you your
"""
STOP_WORDS = frozenset(_STOP.split())


class EvolveConfig(MakerConfig):
    """Prompts in, evolved prompts out.

    Attributes:
        make: `prompts`, or `answers` (the answers that the eliminator saw, as rows of prompt and answer).
        rounds: evolutions of each prompt, one upon the other.
        weights: how often each operation is drawn; left out = all alike.
        answer: ask for an answer to each evolution, so that apologies can be told (and for `make: answers`).
        judge: the model that says whether an evolution came to the same; left out = the writer.
    """

    prompts: Prompts
    make: Literal["prompts", "answers"] = "prompts"
    rounds: int = 4
    weights: dict[str, float] = Field(default_factory=dict)
    answer: bool = True
    judge: str = ""

    def check(self) -> None:
        """Raises ConfigError when the settings do not fit together."""
        super().check()
        unknown = sorted(set(self.weights) - set(OPERATIONS))
        if unknown:
            raise ConfigError(f"weights: no operation {', '.join(map(repr, unknown))}", f"operations: {', '.join(OPERATIONS)}")
        if self.weights and (min(self.weights.values()) < 0 or sum(self.weights.values()) == 0):
            raise ConfigError("weights: expected numbers of at least 0, not all 0")
        if self.make == "answers" and not self.answer:
            raise ConfigError("answer: answers cannot be made without asking for them", "set answer: true")
        if self.judge and self.judge not in [m.name for m in self.models]:
            raise ConfigError(f"judge: no model is called {self.judge!r}")


def operation(config: EvolveConfig, prompt_id: str, number: int) -> str:
    """The operation drawn for a prompt in a round: depends on seed, prompt and round alone."""
    from generation.statistics import generator

    weights = [config.weights.get(name, 0.0 if config.weights else 1.0) for name in OPERATIONS]
    total = sum(weights)
    return str(generator(config.seed, f"evolve\x1f{prompt_id}\x1f{number}").choice(OPERATIONS, p=[w / total for w in weights]))


def says_nothing(text: str) -> bool:
    """Only punctuation and stop words."""
    words = re.findall(r"\w+", text.lower())
    return not words or (text.isascii() and all(w in STOP_WORDS for w in words))


def is_apology(answer: str) -> bool:
    """The paper's rule: "sorry" in an answer of fewer than 80 words."""
    return "sorry" in answer.lower() and len(answer.split()) < SORRY_WORDS


def leaked(text: str, parent: str) -> bool:
    """The evolution speaks of prompts as our instructions do, and its parent did not."""
    return bool(_LEAKED.search(text)) and not _LEAKED.search(parent)


async def evolve(job: Job, pair: tuple[int, Asked]) -> list[Candidate]:
    """All rounds of one prompt: one candidate a round."""
    config: EvolveConfig = job.config
    number, asked = pair
    if not asked.usable:
        return unusable(asked)
    made: list[Candidate] = []
    text, parent, depth = asked.text, asked.id, 0
    for round_number in range(config.rounds):
        name = operation(config, asked.id, round_number)
        detail: dict[str, Any] = {"parents": [parent], "operation": name, "round": round_number}
        try:
            row = await evolve_once(job, asked, text, parent, name, number * config.rounds + round_number, depth, detail)
        except Dropped as dropped:
            made.append(Candidate(None, dropped.reason, {**detail, **dropped.detail}))
            continue
        made.append(Candidate(row))
        text, parent, depth = detail["text"], row["id"], depth + 1
    return made


async def evolve_once(
    job: Job, asked: Asked, text: str, parent: str, name: str, number: int, depth: int, detail: dict[str, Any]
) -> dict[str, Any]:
    """One evolution and the eliminator; `detail` gets what was made, for rejected.jsonl."""
    config: EvolveConfig = job.config
    prompt = prompts.BROADER if name == "breadth" else prompts.DEEPER[name]
    new = detail["text"] = await job.ask(prompt, detail["round"], request=text)
    used = [prompt, prompts.SAME]
    if says_nothing(new):
        raise Dropped("says_nothing")
    if leaked(new, text):
        raise Dropped("leaked")
    if " ".join(new.split()) == " ".join(text.split()):
        raise Dropped("unchanged")
    verdict = await job.ask(
        prompts.SAME, model=config.judge, params={"temperature": 0, "choices": ["same", "different"]}, first=text, second=new
    )
    if verdict.lower().lstrip("\"'*` ").startswith("same"):
        raise Dropped("no_gain")
    before = asked.messages[:-1]
    payload: dict[str, Any] = {"prompt": [*before, {"role": "user", "content": new}]}
    if config.answer:
        used.append(prompts.ANSWER)
        answer = await job.say(payload["prompt"], prompts.ANSWER.name)
        detail["answer"] = answer
        if is_apology(answer):
            raise Dropped("apology")
        if config.make == "answers":
            payload = {"messages": [*payload["prompt"], {"role": "assistant", "content": answer}]}
    meta = {"operation": name, "depth": depth + 1, "root": asked.id}
    kind = "sft" if config.make == "answers" else "prompt"
    return made_row(job, kind, "evolve", number, payload, [parent], asked.license, used, meta)


async def make(job: Job) -> AsyncIterator[Candidate]:
    """Every prompt through all its rounds, many prompts at once, candidates in the order of the prompts."""
    config: EvolveConfig = job.config
    dataset = open_prompts(config.prompts, job.out)
    items = enumerate(each_prompt(dataset, config.prompts.limit))
    async for candidate in produce(job, lambda pair: evolve(job, pair), items, config.until):
        yield candidate


def plan(job: Job) -> list[Step]:
    """At most: every evolution is asked about, and answered."""
    config: EvolveConfig = job.config
    dataset = open_prompts(config.prompts, job.out)
    text = longest_text(dataset)
    calls = min(dataset.rows, config.prompts.limit or dataset.rows) * config.rounds
    calls = min(calls, config.until.candidates or calls)
    steps = [Step("evolutions", calls, config.writer, prompts.BROADER.messages(request=text), {})]
    steps.append(
        Step("is it the same", calls, config.judge or config.writer, prompts.SAME.messages(first=text, second=text), {"max_tokens": 4})
    )
    if config.answer:
        steps.append(Step("answers", calls, config.writer, prompts.ANSWER.messages(prompt=text), {}))
    return steps


def inputs(config: EvolveConfig, out: Path) -> list[dict[str, Any]]:
    """The prompts to evolve."""
    return describe_input(config.prompts, out)


MAKER = Maker("evolve", __doc__, VERSION, EvolveConfig, lambda c: "sft" if c.make == "answers" else "prompt", inputs, plan, make)

if __name__ == "__main__":
    sys.exit(run(command(MAKER), arguments(MAKER)))
