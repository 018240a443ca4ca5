"""Prompts out of personas: the same kind of problem seen through many different lives.

In: personas (any file with a field that holds one) and skills. Out: a dataset directory of prompts, of prompts with answers, or of pairs.
The plan is Persona Hub's (arXiv 2406.20094) with the skills of Tülu 3 (arXiv 2411.15124, section 4): precise instruction following, hard
maths, grade-school maths, algebra, code, and besides knowledge and chat.

    python -m generation.persona persona.yaml --out out/persona
    python -m generation.persona persona.yaml --out out/persona-pairs --set make=pairs

    instruction_following   requirements are drawn from the verifiers (requirements.py), so that each row can be checked by a program;
                            `make: answers` keeps only answers that pass; `make: pairs` takes one requirement out of the request, and the
                            answer to that relaxed request, which does not meet the whole one, is the rejected answer
    maths                   `votes: 5` asks for five solutions and keeps a problem when most of them agree; the answer they agree on becomes
                            the row's ground truth

A persona is used once a skill, in an order drawn from the seed; the licence of the personas goes into every row.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from columnar.cli import run, say
from columnar.config import Config
from columnar.errors import ConfigError
from generation import prompts
from generation.answering import answer_code, answer_math, answer_requirements, relaxed_pair
from generation.candidate import Candidate, Dropped, Job, MakerConfig, Step, Until, attempt, made_row, pair_of, produce, user
from generation.maker import Maker, arguments, command
from generation.material import Persona, PersonaFile, persona_input, read_personas
from generation.requirements import Requirements, as_list, draw, fields, lost, notes

VERSION = 1
Skill = Literal["instruction_following", "hard_math", "grade_math", "algebra", "code", "knowledge", "chat"]
PROMPTS: dict[str, prompts.Prompt] = {
    "instruction_following": prompts.PERSONA_IF,
    "hard_math": prompts.HARD_MATH,
    "grade_math": prompts.GRADE_MATH,
    "algebra": prompts.ALGEBRA,
    "code": prompts.CODE,
    "knowledge": prompts.KNOWLEDGE,
    "chat": prompts.CHAT,
}
MATHS = ("hard_math", "grade_math", "algebra")
TOPICS = (
    "linear equations and inequalities", "systems of linear equations", "quadratic equations", "polynomials and factoring",
    "rational expressions", "exponents and radicals", "exponential and logarithmic functions", "arithmetic and geometric sequences",
    "functions and their inverses", "absolute values", "complex numbers", "ratios and proportions",
)  # fmt: skip


class SkillConfig(Config):
    """One skill.

    Attributes:
        until: how many rows, out of at most how many candidates; left out = one candidate for each persona.
        requirements: for instruction_following.
        topics: for algebra.
        votes: for the maths skills: so many solutions of each problem, of which more than half must agree; 0 = prompts alone.
    """

    skill: Skill
    until: Until = Until()
    requirements: Requirements = Requirements()
    topics: list[str] = Field(default_factory=lambda: list(TOPICS))
    votes: int = Field(default=0, ge=0)


class PersonaConfig(MakerConfig):
    """Personas and skills in, rows out; `answerer` is the model that answers (left out: the writer)."""

    personas: PersonaFile
    skills: list[SkillConfig]
    make: Literal["prompts", "answers", "pairs"] = "prompts"
    answerer: str = ""

    def check(self) -> None:
        """Raises ConfigError when the settings do not fit together."""
        super().check()
        others = [s.skill for s in self.skills if s.skill != "instruction_following"]
        if self.make == "pairs" and others:
            hint = "leave the other skills out, or make answers and judge them"
            raise ConfigError(f"make: pairs are made of instruction_following alone, not of {', '.join(others)}", hint)
        if not self.skills:
            raise ConfigError("skills: empty", f"name at least one: {{skill: hard_math}} (of {', '.join(PROMPTS)})")
        twice = sorted({s.skill for s in self.skills if [x.skill for x in self.skills].count(s.skill) > 1})
        if twice:
            raise ConfigError(f"skills: {', '.join(twice)} more than once", "give each skill one entry")
        if self.answerer and self.answerer not in [m.name for m in self.models]:
            raise ConfigError(f"answerer: no model is called {self.answerer!r}")


class Sitting(NamedTuple):
    """A persona at work on a skill: the number is its place in the file's list of personas."""

    number: int
    person: Persona
    skill: SkillConfig


async def one(job: Job, at: Sitting, license: str | None) -> dict[str, Any]:
    """One row.

    Raises:
        Dropped: with its reason.
    """
    from generation.statistics import generator

    config: PersonaConfig = job.config
    name, skill, person = at.skill.skill, at.skill, at.person
    prompt = PROMPTS[name]
    used = [prompt]
    meta: dict[str, Any] = {"skill": name, "persona": person.text}
    place = f"persona/{name}"
    if name == "instruction_following":
        chosen = draw(skill.requirements, config.seed, f"{name}\x1f{person.id}")
        meta["requirements"] = [c.id for c in chosen]
        request = bare(await job.ask(prompt, persona=person.text, constraints=as_list(chosen)))
        missing = lost(request, chosen) if skill.requirements.stated else None
        if missing:
            raise Dropped("requirement_lost", text=request, requirement=missing.description)
        payload: dict[str, Any] = {"prompt": user(request), **fields(chosen)}
        if config.make == "answers":
            answer = await answer_requirements(job, request, chosen, config.answerer)
            used.append(prompts.ANSWER_IF)
            meta.update(fields(chosen))
            payload = {"messages": [*user(request), {"role": "assistant", "content": answer}]}
        elif config.make == "pairs":
            relaxed = chosen[int(generator(config.seed, f"relax\x1f{person.id}").integers(len(chosen)))]
            pair = await relaxed_pair(job, request, chosen, relaxed, config.answerer)
            used += [prompts.RELAX, prompts.ANSWER_IF]
            meta.update(
                fields(chosen), relaxed=relaxed.id, relaxed_request=pair["relaxed_request"], rejected_misses=pair["rejected_misses"]
            )
            payload = pair_of(job, user(request), pair, config.answerer)
        return made_row(job, KIND[config.make], place, at.number, payload, [person.id], license, used, meta)
    extra: dict[str, Any] = {"topic": topic(config, at)} if name == "algebra" else {}
    question = bare(await job.ask(prompt, persona=person.text, **extra))
    meta.update(extra)
    payload = {"prompt": user(question)}
    answer = ""
    if name in MATHS and (skill.votes or config.make == "answers"):
        answer, final, agreement = await answer_math(job, question, skill.votes, config.answerer)
        used.append(prompts.ANSWER_MATH)
        meta.update(final_answer=final, agreement=agreement, votes=max(1, skill.votes))
        if skill.votes > 1:
            payload |= {"verifier": "math", "ground_truth": final}
    elif config.make == "answers":
        code = name == "code"
        used.append(prompts.ANSWER_CODE if code else prompts.ANSWER)
        answer = await (
            answer_code(job, question, config.answerer) if code else job.ask(prompts.ANSWER, model=config.answerer, prompt=question)
        )
    if config.make == "answers":
        payload = {"messages": [*user(question), {"role": "assistant", "content": answer}]}
    return made_row(job, KIND[config.make], place, at.number, payload, [person.id], license, used, meta)


KIND = {"prompts": "prompt", "answers": "sft", "pairs": "pair"}


def topic(config: PersonaConfig, at: Sitting) -> str:
    """The subject drawn for a persona."""
    from generation.statistics import generator

    return at.skill.topics[int(generator(config.seed, f"topic\x1f{at.person.id}").integers(len(at.skill.topics)))]


def bare(text: str) -> str:
    """What was written, without a heading and without quotation marks around the whole."""
    text = re.sub(
        r"^\W{0,4}(?:user )?(?:instruction|math problem|problem|question|request|message)\W{0,4}:\W{0,4}\s", "", text, flags=re.IGNORECASE
    )
    whole = text[:1] == text[-1:] == '"' and text.count('"') == 2
    return text.strip().strip('"').strip() if whole else text.strip()


async def make(job: Job) -> AsyncIterator[Candidate]:
    """Skill after skill; the personas of each in an order of its own."""
    from generation.statistics import generator

    config: PersonaConfig = job.config
    people, _ = read_personas(config.personas)

    async def work(at: Sitting) -> list[Candidate]:
        about = {"skill": at.skill.skill, "parents": [at.person.id], "persona": at.person.text}
        return [await attempt(one(job, at, config.personas.license), **about)]

    for skill in config.skills:
        order = generator(config.seed, f"personas\x1f{skill.skill}").permutation(len(people)).tolist()
        async for candidate in produce(job, work, (Sitting(i, people[i], skill) for i in order), skill.until):
            yield candidate


def plan(job: Job) -> list[Step]:
    """At the most the budget of candidates; about the goal when most are kept."""
    config: PersonaConfig = job.config
    people, counts = read_personas(config.personas)
    say(f"personas: {len(people):,} of {counts['records']:,} records ({counts['repeated']:,} repeated, {counts['empty']:,} empty)")
    person = max((p.text for p in people[:200]), key=len)
    steps = []
    for skill in config.skills:
        calls = min(skill.until.rows or len(people), skill.until.candidates or len(people), len(people))
        extra = {"topic": TOPICS[0]} if skill.skill == "algebra" else {}
        extra |= {"constraints": "x" * 200} if skill.skill == "instruction_following" else {}
        steps.append(Step(f"{skill.skill}: prompts", calls, config.writer, PROMPTS[skill.skill].messages(persona=person, **extra), {}))
        maths = skill.skill in MATHS
        answers = calls * (max(1, skill.votes) if maths else 1) * (2 if config.make == "pairs" else 1)
        if config.make != "prompts" or (maths and skill.votes):
            answer = prompts.ANSWER.messages(prompt="x" * 600)
            steps.append(Step(f"{skill.skill}: answers", answers, config.answerer or config.writer, answer, {}))
        if config.make == "pairs":
            relax = prompts.RELAX.messages(request="x" * 600, constraint="x" * 80)
            steps.append(Step(f"{skill.skill}: relaxed requests", calls, config.writer, relax, {}))
    return steps


def inputs(config: PersonaConfig, out: Path) -> list[dict[str, Any]]:
    """The personas."""
    return persona_input(config.personas)


def told(config: PersonaConfig) -> list[str]:
    """What the rows hold that a user must know."""
    out = notes(s.requirements for s in config.skills if s.skill == "instruction_following")
    if not (config.license or config.personas.license):
        out.append("no licence is known for these personas: set personas.license, because the rows inherit it")
    return out


MAKER = Maker("persona", __doc__, VERSION, PersonaConfig, lambda c: KIND[c.make], inputs, plan, make, told)

if __name__ == "__main__":
    sys.exit(run(command(MAKER), arguments(MAKER)))
