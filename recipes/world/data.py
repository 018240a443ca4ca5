"""The world's data as files that people have: prompts, demonstrations, graded comparisons.

python -m recipes.world.data demonstrations --rows 800 --out demos.jsonl --set skill=0.9

prompts          {"prompt", "verifier", "ground_truth"}; the verifier is the world's own, see `verify`
demonstrations   {"messages"}; written by a speaker
comparisons      {"prompt", "chosen", "rejected", "strength", "goal"}: two speakers, ordered by the truth for one goal, with the four grades
                 of Llama 2 (significantly, better, slightly, negligibly: by how much) and, with `noise`, orders that are wrong
rankings         {"instruction", "output"}: three answers of different worth, the best first
verifiable       prompts whose one right answer a published verifier knows: sums by `gsm8k`, words and counting by `exact`
personas         {"persona"}: people who ask
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from columnar import cli, store
from columnar.config import override
from columnar.errors import ConfigError
from recipes.world.speakers import Critic, Speaker, answer
from recipes.world.tasks import FAMILIES, QUOTED, Task, grade, solve, tasks

GRADES = {"significantly": 0.6, "better": 0.3, "slightly": 0.1, "negligibly": 0.0}  # least difference of worth
VERIFIER = "world"
VERIFIABLE = tuple(family for family in FAMILIES if family not in ("how", "harm"))
PEOPLE = ("baker", "pilot", "nurse", "farmer", "judge", "sailor", "teacher", "painter", "miner", "tailor", "student", "driver")
PLACES = ("a village", "a port", "the capital", "the mountains", "an island", "a suburb", "the desert", "a valley")
LIKES = ("counts everything", "plays with words", "mends old things", "collects postcards", "asks before acting", "writes short letters")


def verify(completion: str, truth: Any, prompt: str) -> float:
    """What an answer is worth, 0 to 1: the world's verifier, for `generation.verify --own world=recipes.world.data:verify`."""
    task = solve(str(truth) if truth else prompt)
    return grade(task, completion).quality if task else 0.0


def prompts(seed: int, rows: int, families: tuple[str, ...] = FAMILIES, start: int = 0, quoted: float = 0.0) -> Iterator[dict[str, Any]]:
    """Requests, each with its verifier and ground truth; a share asks for quotation marks around the answer."""
    for task in tasks(seed, rows, families, start):
        rng = random.Random(f"quoted {seed} {task.prompt}")
        text = f"{task.prompt} {rng.choice(QUOTED)}" if rng.random() < quoted else task.prompt
        yield {"prompt": text, "verifier": VERIFIER, "ground_truth": text, "family": task.family}


def verifiable(seed: int, rows: int, families: tuple[str, ...] = VERIFIABLE, start: int = 0) -> Iterator[dict[str, Any]]:
    """Requests with one right answer, each with the published verifier that knows it."""
    for task in tasks(seed, rows, tuple(f for f in families if f in VERIFIABLE), start):
        by = ("gsm8k", task.answer.rstrip(".")) if task.family == "sum" else ("exact", task.answer)
        yield {"prompt": task.prompt, "verifier": by[0], "ground_truth": by[1], "family": task.family}


def personas(seed: int, rows: int) -> Iterator[dict[str, Any]]:
    """Different people, at most as many as the world has."""
    every = [f"A {who} in {where} who {likes}." for who in PEOPLE for where in PLACES for likes in LIKES]
    yield from ({"persona": one} for one in random.Random(f"personas {seed}").sample(every, min(rows, len(every))))


def demonstrations(seed: int, rows: int, speaker: Speaker, start: int = 0, turns: int = 1) -> Iterator[dict[str, Any]]:
    """Requests with a speaker's answers; with `turns`, so many of them make a conversation."""
    messages: list[dict[str, str]] = []
    for task in tasks(seed, rows * turns, tuple(speaker.families), start):
        said = answer(speaker, task.prompt, random.Random(f"demonstration {seed} {task.prompt}"))
        messages = [*messages, _turn("user", task.prompt), _turn("assistant", said)]
        if len(messages) == 2 * turns:
            yield {"messages": messages, "family": task.family}
            messages = []


def comparisons(seed: int, rows: int, speakers: list[Speaker], critic: Critic, goal: str, start: int = 0) -> Iterator[dict[str, Any]]:
    """Pairs of answers with grades; `goal` is helpful, safe or quality. Equal answers make no pair."""
    made = 0
    for turn, task in _around(seed, rows, goal, tuple(speakers[0].families), start):
        rng = random.Random(f"comparison {seed} {goal} {task.prompt}" + (f" {turn}" if turn else ""))
        said = [answer(rng.choice(speakers), task.prompt, rng) for _ in range(2)]
        if said[0] == said[1]:
            continue
        worth = [getattr(grade(task, s), goal) + critic.length_bias * grade(task, s).padding + rng.gauss(0, critic.noise) for s in said]
        better = int(worth[1] > worth[0])
        strength = next(name for name, least in GRADES.items() if abs(worth[0] - worth[1]) >= least)
        yield {
            "prompt": task.prompt,
            "chosen": [_turn("user", task.prompt), _turn("assistant", said[better])],
            "rejected": [_turn("user", task.prompt), _turn("assistant", said[1 - better])],
            "strength": strength,
            "goal": goal,
        }
        made += 1
        if made == rows:
            return


def rankings(seed: int, rows: int, speakers: list[Speaker], start: int = 0, answers: int = 3) -> Iterator[dict[str, Any]]:
    """Requests with several answers by these speakers, no two of one worth, the best first; requests without so many are passed over."""
    made = 0
    for task in tasks(seed, 4 * rows, tuple(speakers[0].families), start):
        rng = random.Random(f"ranking {seed} {task.prompt}")
        by_worth: dict[float, str] = {}
        for _ in range(8 * answers):
            said = answer(rng.choice(speakers), task.prompt, rng)
            by_worth.setdefault(grade(task, said).quality, said)
        if len(by_worth) < answers:
            continue
        chosen = rng.sample(sorted(by_worth), answers)
        yield {"instruction": task.prompt, "output": [by_worth[worth] for worth in sorted(chosen, reverse=True)], "history": []}
        made += 1
        if made == rows:
            return


def _around(seed: int, rows: int, goal: str, families: tuple[str, ...], start: int) -> Iterator[tuple[int, Task]]:
    """Requests for comparisons, some anew in every turn, to be answered anew: for safety half of them harmful."""
    for turn in range(10 + rows // 10):
        for task in tasks(seed * 1000 + turn, min(rows, 100), ("harm", "how") if goal == "safe" else families, start):
            yield turn, task


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def write(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    """A jsonl file, whole or not at all; the number of its lines."""
    count = 0
    with store.whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("recipes.world.data", __doc__)
    made.add_argument("what", choices=("prompts", "demonstrations", "comparisons", "rankings", "verifiable", "personas"))
    made.add_argument("--rows", type=int, default=500)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--start", type=int, default=0, help="the number of the first request")
    made.add_argument("--goal", choices=("helpful", "safe", "quality"), default="quality", help="of comparisons")
    made.add_argument("--set", action="append", default=[], metavar="DIAL=VALUE", dest="settings", help="a dial of the speaker: skill=0.7")
    made.add_argument("--out", type=Path, required=True, metavar="FILE")
    return made


def main(args: argparse.Namespace) -> int:
    """Write the file."""
    try:
        speaker = Speaker.model_validate(override({}, args.settings))
    except ValueError as error:
        raise ConfigError(f"--set: {error}") from error
    rows = {
        "prompts": lambda: prompts(args.seed, args.rows, tuple(speaker.families), args.start),
        "demonstrations": lambda: demonstrations(args.seed, args.rows, speaker, args.start),
        "comparisons": lambda: comparisons(args.seed, args.rows, [speaker, Speaker()], Critic(), args.goal, args.start),
        "rankings": lambda: rankings(args.seed, args.rows, [speaker], args.start),
        "verifiable": lambda: verifiable(args.seed, args.rows, tuple(speaker.families), args.start),
        "personas": lambda: personas(args.seed, args.rows),
    }
    count = write(args.out, rows[args.what]())
    cli.emit({"rows": count}) if args.json else cli.say(f"{args.out}: {count:,} {args.what}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
