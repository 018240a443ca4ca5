"""Ghost Attention (arXiv 2307.09288, section 3.3): an instruction given once, at the start, that still holds turns later.

sampled   the instruction stands behind every request of a dialogue, and the latest model answers them turn by turn
learnt    the instruction stands behind the first request alone, and only the last answer is learnt (`loss_on: last`)
tested    the instruction stands behind the first request alone: the share of answers that obey it, turn by turn, before and after

An instruction is a row of kind prompt; `verifier` and `ground_truth` say what checks that an answer obeys it, as for IFEval.
"""

from __future__ import annotations

import json
import random
import time
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import Field

from columnar import store
from columnar.config import Config
from columnar.errors import InputError
from columnar.record import seal
from recipes.rooms import Rooms, Train
from recipes.steps import Figures, Step

Row = dict[str, Any]
Messages = list[dict[str, Any]]


class Ghost(Config):
    """What is asked, and how often.

    Attributes:
        instructions: a file of prompts with verifiers; an instruction that nothing checks is learnt but not tested.
        requests: a file of prompts, drawn for the turns.
        dialogues: made to learn from; `tests`: made to test with, of other draws.
        obeyed: learn only from dialogues whose last answer obeys (a filter of ours: the paper learns from all).
    """

    instructions: str
    requests: str
    dialogues: int = 500
    tests: int = 50
    turns: int = Field(3, ge=2)
    temperature: float = 0.7
    answer_tokens: int = 48
    obeyed: bool = False
    train: Train = Train()


def steps(rooms: Rooms, how: Ghost, start: str) -> list[Step]:
    """Sampled from `start`, learnt by it, tested."""
    out, told = rooms.out, how.train.model_copy(update={"set": {**how.train.set, "loss_on": "last"}})
    known = [how.model_dump(exclude={"train"}), rooms.fingerprint(how.instructions, how.requests), rooms.config.seed]
    size = {"rows": how.dialogues, "calls": how.dialogues * how.turns}
    models = {start: out / start, "ghost": out / "ghost"}
    learn = partial(rooms.train, "sft", told, out / "ghost_dialogues", out / start)
    return [
        Step("ghost_dialogues", "answers with the instruction everywhere", partial(sample, rooms, how, out / start), (start,), known, size),
        Step("ghost", "learnt with the instruction at the start alone", learn, ("ghost_dialogues", start), rooms.training(told)),
        Step("ghost_test", "does an instruction hold?", partial(test, rooms, how, models), (start, "ghost"), known, {"rows": how.tests}),
    ]


class Talk(NamedTuple):
    """An instruction and the requests of a dialogue."""

    instruction: Row
    requests: list[str]


def talks(instructions: list[Row], requests: list[str], count: int, turns: int, seed: str) -> list[Talk]:
    """Dialogues to hold, the same for the same seed; no request twice in one.

    Raises:
        InputError: no instruction, or fewer requests than turns.
    """
    if not instructions or len(requests) < turns:
        raise InputError(f"ghost: {len(instructions)} instructions and {len(requests)} requests", f"expected some, and at least {turns}")
    rng = random.Random(seed)
    return [Talk(rng.choice(instructions), rng.sample(requests, turns)) for _ in range(count)]


def messages(talk: Talk, answers: list[str], everywhere: bool) -> Messages:
    """The dialogue up to the request that follows these answers; the instruction behind every request, or behind the first alone."""
    said: Messages = []
    for turn, request in enumerate(talk.requests[: len(answers) + 1]):
        told = f"{request} {talk.instruction['prompt'][-1]['content']}" if everywhere or turn == 0 else request
        said.append({"role": "user", "content": told})
        if turn < len(answers):
            said.append({"role": "assistant", "content": answers[turn]})
    return said


def learnable(talk: Talk, answers: list[str]) -> Messages:
    """The dialogue to learn from: whole, and the instruction only at its start."""
    return [*messages(talk, answers[:-1], everywhere=False), {"role": "assistant", "content": answers[-1]}]


def obeys(talk: Talk, answer: str) -> bool | None:
    """Does an answer do what the instruction says? None where nothing checks it."""
    from generation.verifiers.dispatch import verify

    return verify(talk.instruction, answer).passed if talk.instruction.get("verifier") else None


def converse(rooms: Rooms, policy: Row, held: list[Talk], everywhere: bool, how: Ghost, place: Path) -> list[list[str]]:
    """The model's answers to each dialogue, turn by turn; a dialogue ends early where an answer is missing."""
    answers: list[list[str]] = [[] for _ in held]
    for turn in range(how.turns):
        asked = {json.dumps(messages(t, a, everywhere)): None for t, a in zip(held, answers, strict=True) if len(a) == turn}
        path = place / f"turn{turn + 1}"
        _write(path / "prompts", "prompt", [{"prompt": json.loads(text)} for text in asked])
        params = {"temperature": how.temperature, "max_tokens": how.answer_tokens}
        config = {"prompts": str(path / "prompts"), "models": [policy], "per_prompt": 1, "params": params, "seed": rooms.config.seed}
        rooms.generate("respond", {**config, "name": "ghost"}, path / "answers")
        for row in _rows(path / "answers"):
            asked[json.dumps([{k: m[k] for k in ("role", "content")} for m in row["prompt"]])] = row["candidates"][0]["content"]
        for talk, said in zip(held, answers, strict=True):
            found = asked.get(json.dumps(messages(talk, said, everywhere))) if len(said) == turn else None
            if found:
                said.append(found)
    return answers


def sample(rooms: Rooms, how: Ghost, model: Path, place: Path) -> Figures:
    """Dialogues with the instruction everywhere, as rows to learn from: PLACE is a dataset of kind sft."""
    held = talks(*_given(rooms, how, place), how.dialogues, how.turns, f"ghost {rooms.config.seed}")
    with rooms.serve(model, place) as policy:
        answers = converse(rooms, policy, held, True, how, place)
    whole = [(t, a) for t, a in zip(held, answers, strict=True) if len(a) == how.turns]
    kept = [(t, a) for t, a in whole if not how.obeyed or obeys(t, a[-1])]
    if not kept:
        raise InputError(f"{place}: no dialogue to learn from", "raise dialogues, or answer_tokens")
    _write(place, "sft", [{"messages": learnable(t, a)} for t, a in kept])
    return {"dialogues": len(held), "whole": len(whole), "rows": len(kept)}


def test(rooms: Rooms, how: Ghost, models: dict[str, Path], place: Path) -> Figures:
    """For each model the share of answers that obey, turn by turn, when the instruction was given once."""
    instructions, requests = _given(rooms, how, place)
    checked = [row for row in instructions if row.get("verifier")]
    figures: Figures = {}
    for name, model in models.items() if checked else ():
        held = talks(checked, requests, how.tests, how.turns, f"ghost test {rooms.config.seed}")
        with rooms.serve(model, place / name) as policy:
            answers = converse(rooms, policy, held, False, how, place / name)
        turns = [[obeys(t, a[i]) for t, a in zip(held, answers, strict=True) if len(a) > i] for i in range(how.turns)]
        figures[name] = [round(fmean(bool(x) for x in turn), 4) if turn else None for turn in turns]
    return figures


def _given(rooms: Rooms, how: Ghost, place: Path) -> tuple[list[Row], list[str]]:
    from generation.material import Prompts, open_prompts

    instructions = open_prompts(Prompts(path=rooms.path(how.instructions)), place / "instructions")
    requests = open_prompts(Prompts(path=rooms.path(how.requests)), place / "requests")
    return _rows(instructions.path), [row["prompt"][-1]["content"] for row in _rows(requests.path)]


def _rows(directory: Path) -> list[Row]:
    return [row for batch in store.read_batches(store.open_dataset(directory)) for row in batch.to_pylist()]


def _write(out: Path, kind: str, rows: list[Row]) -> None:
    from training.rejection_sampling import write

    origin = {"uri": "ghost", "revision": None, "split": None}
    sealed = [seal({"kind": kind, "source": "ghost", "origin": {**origin, "row": i}, **row}, "ghost") for i, row in enumerate(rows)]
    said = [json.dumps(row["prompt"] if kind == "prompt" else row["messages"]) for row in rows]
    write(out, out.name, kind, sealed, {"key": store.stage_key("ghost", 1, kind, said)}, time.time())
