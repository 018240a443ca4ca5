"""Programs that talk: a speaker answers the world's requests as well as its dials say, a judge rates answers by the truth, with noise.

    say(Speaker(skill=0.6, wordy=0.3), [{"role": "user", "content": "What is 3 plus 4?"}], random.Random(1))

They read the very prompts that the rooms send to real models (generation.prompts, generation.rubrics), so a recipe does not know whom
it talks to. A speaker also invents tasks, refines requests and plays the user; what it does not understand it says so.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from pydantic import Field

from columnar.config import Config
from generation import prompts, rubrics
from generation.prompts import Prompt
from recipes.world.tasks import FAMILIES, PADDING, REFUSAL, WORDS, Grade, Task, compliance, draw, grade, solve

LOST = "I do not know this kind of request."
ASKING = (prompts.HARD_MATH, prompts.GRADE_MATH, prompts.ALGEBRA, prompts.KNOWLEDGE, prompts.CHAT)


class Speaker(Config):
    """How well a program answers.

    Attributes:
        skill: share of its answers that are right.
        wordy: chance of each further sentence of padding.
        careless: share of harmful requests that it complies with.
        timid: share of harmless requests that it declines.
        astray: share of its wrong answers, and of its help with what is harmful, that answer another request of the kind.
        loud: share of its answers that are all in capitals.
        families: the kinds of tasks it makes up when it is asked for new ones.
    """

    skill: float = Field(1.0, ge=0, le=1)
    wordy: float = Field(0.0, ge=0, lt=1)
    careless: float = Field(0.0, ge=0, le=1)
    timid: float = Field(0.0, ge=0, le=1)
    astray: float = Field(0.0, ge=0, le=1)
    loud: float = Field(0.0, ge=0, le=1)
    families: list[str] = Field(default_factory=lambda: list(FAMILIES))


class Critic(Config):
    """How a program judges: the truth, bent.

    Attributes:
        noise: standard deviation added to the worth (0 to 1) of every answer.
        length_bias: added for each sentence of padding (a padded answer loses a tenth of its worth).
        position_bias: added for the answer shown first.
        tie: differences below this are ties where ties are allowed.
        flat: share of judgements that say nothing: everything gets the scale's second best mark (a judge without training).
    """

    noise: float = Field(0.0, ge=0)
    length_bias: float = 0.0
    position_bias: float = 0.0
    tie: float = Field(0.05, ge=0)
    flat: float = Field(0.0, ge=0, le=1)


def say(speaker: Speaker, messages: list[dict[str, Any]], rng: random.Random) -> str:
    """A speaker's reply to a request, or to one of the makers' prompts."""
    text = str(messages[-1].get("content") or "")
    if (found := read(prompts.NEW_TASKS, text)) is not None:
        first, wanted = int(found["first"]), int(found["wanted"])
        return "\n".join(f"{first + i}. {_new(speaker, rng).prompt}" for i in range(wanted))
    if read(prompts.CLASSIFY, text) is not None:
        return "no"
    if (found := read(prompts.INSTANCES, text)) is not None:
        return json.dumps({"examples": [{"input": "", "output": answer(speaker, found["instruction"], rng)}]})
    if (found := read(prompts.REFINE, text)) is not None:
        return found["request"]
    if (found := read(prompts.PERSONA_IF, text)) is not None:
        return f"{_new(speaker, rng).prompt} {found['constraints'].removeprefix('- ')}"
    if read(prompts.NEXT_TURN, text) is not None or any(read(p, text) is not None for p in ASKING):
        return _new(speaker, rng).prompt
    for prompt in (prompts.ANSWER_MATH, prompts.ANSWER_CODE):
        if (found := read(prompt, text)) is not None:
            text = found["prompt"]
    return answer(speaker, text, rng)


def answer(speaker: Speaker, request: str, rng: random.Random) -> str:
    """An answer to a request of this world, right or not, padded or not."""
    task = solve(request)
    if task is None:
        return LOST
    if task.harmful:
        text = compliance(_strayed(speaker, task, rng) or task) if rng.random() < speaker.careless else REFUSAL
    elif speaker.timid and rng.random() < speaker.timid:
        text = REFUSAL
    elif rng.random() < speaker.skill:
        text = task.answer
    else:
        text = other.answer if (other := _strayed(speaker, task, rng)) else wrong(task, rng)
    before, after = list(PADDING[:-1]), [PADDING[-1]]
    rng.shuffle(before)
    spoken = [text]
    while before and rng.random() < speaker.wordy:
        spoken.insert(0, before.pop())
    if rng.random() < speaker.wordy:
        spoken += after
    said = " ".join(spoken)
    if speaker.loud and rng.random() < speaker.loud:
        said = said.upper()
    return f'"{said}"' if task.quoted and rng.random() < speaker.skill else said


def _strayed(speaker: Speaker, task: Task, rng: random.Random) -> Task | None:
    """Another request of the kind, where the speaker answers that one."""
    if not speaker.astray or rng.random() >= speaker.astray:
        return None
    drawn = (_drawn((task.family,), rng) for _ in range(99))
    return next(other for other in drawn if compliance(other) != compliance(task))


def wrong(task: Task, rng: random.Random) -> str:
    """An answer that is not right, but has the look of one."""
    words = task.answer.rstrip(".").split()
    place = rng.randrange(len(words))
    other = str(rng.randint(0, 18)) if words[place].isdigit() else rng.choice(WORDS)
    kind = rng.randrange(3)
    if kind == 0 and len(words) > 1:
        del words[place]
    elif kind == 1:
        words.insert(place, other)
    elif words[place] != other:
        words[place] = other
    else:
        words.append(other)
    said = " ".join(words) + "."
    return said if not grade(task, said).correct else LOST


def judge(critic: Critic, messages: list[dict[str, Any]], rng: random.Random) -> str | None:
    """A judge's reply in the form that the rubric asks for; None when this is no rubric."""
    rubric, shown = str(messages[0].get("content") or ""), str(messages[-1].get("content") or "")
    answers = re.findall(r"<answer \d+>\n(.*?)\n</answer \d+>", shown, re.DOTALL)
    request = re.search(r"<request>\n(.*?)\n</request>", shown, re.DOTALL)
    if not answers or request is None:
        return None
    task = solve(request[1].split("\n\n[user]\n")[-1].removeprefix("[user]\n"))
    flat = rng.random() < critic.flat
    grades = [grade(task, a) if task else Grade(False, 0.1, 1.0, 0.1, 0) for a in answers]

    def taken(i: int, of: str) -> float:  # a comparison has no scale to end at
        bent = getattr(grades[i], of) + critic.length_bias * grades[i].padding + (critic.position_bias if i == 0 else 0.0)
        return 0.8 if flat else bent + rng.gauss(0, critic.noise)

    def worth(i: int, of: str) -> float:
        return min(1.0, max(0.0, taken(i, of)))

    for kind in ("helpfulness", "safety", "pairwise"):
        if rubric.startswith(rubrics.COMPARE[kind]):
            of = {"helpfulness": "helpful", "safety": "safe", "pairwise": "quality"}[kind]
            gap = taken(0, of) - taken(1, of)
            return json.dumps({"rationale": "by what each is worth", "verdict": _verdict(kind, gap, critic)})
    if rubrics.ADDITIVE in rubric:
        return json.dumps({"rationale": "points for what holds", "score": round(5 * worth(0, "quality"))})
    for aspect, scale in rubrics.ASPECTS.items():
        if scale.text in rubric:
            of = "safe" if aspect == "safety" else "quality"
            marks = [scale.low + round((scale.high - scale.low) * worth(i, of)) for i in range(len(answers))]
            return json.dumps({f"answer_{i}": {"rationale": "by what it is worth", "rating": m} for i, m in enumerate(marks, 1)})
    return None


def _verdict(kind: str, gap: float, critic: Critic) -> str:
    side = "A" if gap >= 0 else "B"
    if kind == "pairwise":
        return "TIE" if abs(gap) < critic.tie else side
    grade = next(i for i, least in enumerate((0.6, 0.3, 0.1, 0.0)) if abs(gap) >= least)
    return f"{side} {rubrics.GRADES[grade]}"


def _new(speaker: Speaker, rng: random.Random) -> Task:
    return _drawn(tuple(speaker.families), rng)


def _drawn(families: tuple[str, ...], rng: random.Random) -> Task:
    return draw(rng.randrange(1 << 30), 0, families)


def read(prompt: Prompt, text: str) -> dict[str, str] | None:
    """The fields that were filled into one of the makers' prompts; None when the text is another one."""
    pattern = "".join(
        f"(?P<{part[1:]}>.*?)" if part.startswith("$") else re.escape(part) for part in re.split(r"(\$[a-z]+)", prompt.text.strip())
    )
    found = re.fullmatch(pattern, text.strip(), re.DOTALL)
    return found.groupdict() if found else None
