"""How far can a judge be trusted? Any judge configuration against human labels, before money is spent on judging.

In: sets with human labels (see gold.py) and judges as `generation.judge` takes them; baselines that look at nothing but length, chance or
place. Out: one line a judge and set: accuracy, exact match, rank correlations, position and length bias, each with a 95 % interval.
Why: prompt form alone moves a judge's pairwise accuracy from 27 to 65 % (Self-Rewarding, arXiv 2401.10020), and a judge that cannot
beat `longest` on your kind of prompts measures length.

    python -m generation.agreement agreement.yaml --out out/agreement

    data:      [{path: llmbar.parquet}, {name: pandalm, path: pandalm_testset.parquet}]
    judges:    [{name: gpt pairwise, mode: pairwise, model: gpt}, {name: gpt aspects, mode: aspects, model: gpt}]
    baselines: [longest, unique_tokens, random]
    models:    [{name: gpt, model: gpt-4o-2024-08-06}]

With --out every verdict is kept (judgements.jsonl) beside the replies it was read from (replies.sqlite), so that the command, run again,
asks nothing twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from columnar.cli import Progress, emit, parser, run, say, table
from columnar.config import Config, load
from columnar.errors import CaravanError, ConfigError
from columnar.store import whole_file, write_json
from generation.gold import Item, read_gold
from generation.judge import Case, JudgeConfig, Readable, judges_of
from generation.judge import Judgement as Said
from generation.measure import Judgement, annotator_agreement, figures, rating_spearman
from generation.models import ModelConfig
from generation.scores import of_judge
from generation.statistics import Estimate, generator


class SetConfig(Config):
    """A set with human labels: a file of a known form or a dataset directory of pairs or candidates."""

    path: str
    name: str = ""
    limit: int | None = None


class AgreementConfig(Config):
    """What to measure, with whom, on what; `draws` is the number of bootstrap samples."""

    data: list[SetConfig]
    judges: list[JudgeConfig] = Field(default_factory=list)
    baselines: list[Literal["longest", "shortest", "unique_tokens", "random", "first"]] = Field(default_factory=list)
    models: list[ModelConfig] = Field(default_factory=list)
    seed: int = 1
    draws: int = 1000

    def check(self) -> None:
        """Raises ConfigError when the settings do not fit together."""
        if not self.judges and not self.baselines:
            raise ConfigError("judges: empty, and so is baselines", "name a judge, or baselines: [longest, random]")
        if self.judges:
            judges_of(self.judges, self.models)
        if any(j.mode in ("verifier", "reference") for j in self.judges):
            raise ConfigError("judges: modes verifier and reference need a ground truth, which these sets do not have")


def baseline(name: str, items: list[Item], seed: int) -> list[Judgement]:
    """A judge that does not read: by length, by the number of different words, by chance, by place."""
    if name == "first":
        return [
            Judgement(i, (0.5,) * len(i.answers), (1.0, 1.0), True) if len(i.answers) == 2 else Judgement(i, (0.5,) * len(i.answers))
            for i in items
        ]
    from generation.rouge import tokens_of

    score: dict[str, Callable[[Item], tuple[float, ...]]] = {
        "longest": lambda i: tuple(float(len(a)) for a in i.answers),
        "shortest": lambda i: tuple(-float(len(a)) for a in i.answers),
        "unique_tokens": lambda i: tuple(float(len(set(tokens_of(a, "any")))) for a in i.answers),
        "random": lambda i: tuple(generator(seed, f"random\x1f{i.id}\x1f{i.prompt}").random(len(i.answers)).tolist()),
    }
    return [Judgement(i, score[name](i)) for i in items]


def judgement_of(item: Item, said: list[Said], mode: str) -> Judgement:
    """What a judge's calls on an item come to: scores when every answer has one, and which place won in each call on two answers."""
    scores = of_judge(mode, ((s.aspect, s.candidate, s.other, s.rating) for s in said), len(item.answers))
    whole = None if any(s is None for s in scores) else tuple(float(s or 0.0) for s in scores)
    if len(item.answers) != 2:
        return Judgement(item, whole)
    if mode in ("pairwise", "strength"):
        tie = 0.5 if mode == "pairwise" else 0.0
        main = [s for s in said if s.aspect == min(x.aspect for x in said)]
        shown = tuple(None if s.rating is None else 0.5 if s.rating == tie else float(s.rating > tie) for s in main)
        orders = {s.candidate: won for s, won in zip(main, shown, strict=True)}
        both = orders.get(0), orders.get(1)
        flipped = None if both[0] is None or both[1] is None else both[0] != 1 - both[1]
        return Judgement(item, whole, shown, flipped)
    if mode in ("additive", "reward"):
        return Judgement(item, whole)  # each answer alone: there is no place
    calls: dict[tuple[str, int], dict[int, float | None]] = {}
    for s in said:
        calls.setdefault((s.aspect, s.sample), {})[s.position] = s.rating
    ratings = [(c.get(1), c.get(2)) for c in calls.values()]
    return Judgement(item, whole, tuple(None if a is None or b is None else 0.5 if a == b else float(a > b) for a, b in ratings))


async def ask_judge(client: Any, config: JudgeConfig, items: list[Item], seed: int) -> tuple[list[Judgement], list[dict[str, Any]]]:
    """The judgements of a model in the order of the items, and the replies that gave none."""
    from generation.judge import judge

    readable = Readable(strict=False)  # here unreadable replies are a finding, not a reason to stop

    async def one(item: Item) -> list[Said]:
        case = Case(item.id, [{"role": "user", "content": item.prompt}], list(item.answers), None, seed)
        return await judge(client, config, case, readable)

    said: list[list[Said]] = []
    if config.mode == "reward":
        from generation.judge_local import judge_locally

        prompts = ([{"role": "user", "content": i.prompt}] for i in items)
        rows = [{"prompt": p, "candidates": [{"content": a} for a in i.answers]} for p, i in zip(prompts, items, strict=True)]
        said = judge_locally([config], rows, client.cache)
    else:
        tasks: deque[asyncio.Future[list[Said]]] = deque()
        with Progress(config.called, total=len(items), unit="items") as bar:
            for item in items:
                tasks.append(asyncio.ensure_future(one(item)))
                if len(tasks) >= 2 * client.width:
                    said.append(await tasks.popleft())
                    bar.add(1, note=client.meter.line())
            while tasks:
                said.append(await tasks.popleft())
                bar.add(1, note=client.meter.line())
    alone = config.mode in ("additive", "pairwise", "strength")  # a call for each answer or pair; else one for all answers
    unread = {
        (i.id, s.aspect, s.sample, s.other, s.candidate if alone else None): {
            "item": i.id,
            "aspect": s.aspect,
            "outcome": s.outcome,
            "problem": s.problem,
            "reply": s.raw,
        }
        for i, lines in zip(items, said, strict=True)
        for s in lines
        if s.outcome != "ok"
    }
    return [judgement_of(i, lines, config.mode) for i, lines in zip(items, said, strict=True)], list(unread.values())


def report(judge: str, data: str, judgements: list[Judgement], config: AgreementConfig) -> list[dict[str, Any]]:
    """One line for the whole set and one for each of its subsets."""
    subsets = sorted({j.item.subset for j in judgements})
    parts = [(data, judgements)]
    if len(subsets) > 1:
        parts += [(f"{data}/{s}", [j for j in judgements if j.item.subset == s]) for s in subsets]
    return [
        {
            "judge": judge,
            "data": name,
            "items": len(part),
            **figures(part, config.seed, config.draws),
            "rating_spearman": rating_spearman(part),
        }
        for name, part in parts
    ]


def for_people(line: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """A line of the report as the terminal shows it."""
    return {c: (str(line[c]) if isinstance(line[c], Estimate) else line[c]) for c in columns}


def plain(value: Any) -> Any:
    """Estimates as JSON objects; undefined figures as null."""
    if isinstance(value, Estimate):
        return {k: plain(v) for k, v in value._asdict().items()}
    if isinstance(value, float) and value != value:
        return None
    return value


async def measure(config: AgreementConfig, out: Path | None, max_cost: float | None) -> dict[str, Any]:
    """Every judge on every set."""
    from generation.client import Client

    lines, annotators, failures = [], [], []
    cache = out / "replies.sqlite" if out else None
    kept: list[dict[str, Any]] = []
    async with Client(config.models, cache, max_cost=max_cost) as client:
        for data in config.data:
            name = data.name or Path(data.path).name.split(".")[0]
            items = read_gold(Path(data.path), data.limit)
            results: list[tuple[str, list[Judgement], list[dict[str, Any]]]] = [
                (str(b), baseline(b, items, config.seed), []) for b in config.baselines
            ]
            results += [(j.called, *await ask_judge(client, j, items, config.seed)) for j in config.judges]
            for judge, judged, unread in results:
                lines += report(judge, name, judged, config)
                annotators += [{"judge": judge, "data": name, **line} for line in annotator_agreement(judged)]
                failures += [{"judge": judge, "data": name, **u} for u in unread]
                kept += [
                    {"judge": judge, "data": name, "item": j.item.id, "human": j.item.human, "scores": j.scores, "shown": j.shown}
                    for j in judged
                ]
        cost = client.meter.table()
        stopped = client.stopped
    result = {
        "figures": [{k: plain(v) for k, v in line.items()} for line in lines],
        "annotators": [{k: plain(v) for k, v in line.items()} for line in annotators],
        "unread": len(failures),
        "stopped": stopped,
        "config": config.model_dump(exclude={"models"}),
        "models": [m.identity for m in config.models],
    }
    if out:
        for file, records in (("judgements.jsonl", kept), ("unread.jsonl", failures)):
            with whole_file(out / file) as temporary:
                temporary.write_text(
                    "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8", errors="backslashreplace"
                )
        write_json(out / "agreement.json", result)
    return {**result, "lines": lines, "cost": cost}


SHOWN = (
    ("judge", "data", "items", "accuracy", "exact", "kappa", "spearman", "kendall"),
    ("judge", "data", "first", "flips", "longer", "humans_longer", "when_longer", "when_shorter", "missing"),
)


def main(args: argparse.Namespace) -> int:
    """Measure and tell."""
    config = load(AgreementConfig, args.config, args.settings)
    config.check()
    if args.dry_run:
        plan = []
        for data in config.data:
            items = read_gold(Path(data.path), data.limit)
            for judge in config.judges:
                calls = sum(calls_of(judge, len(i.answers)) for i in items)
                plan.append({"data": data.name or data.path, "judge": judge.called, "items": len(items), "calls": calls})
        emit(plan) if args.json else print(table(plan))
        return 0
    result = asyncio.run(measure(config, args.out, args.max_cost))
    if args.json:
        emit({k: v for k, v in result.items() if k != "lines"})
    else:
        for columns in SHOWN:
            print(table([for_people(line, columns) for line in result["lines"]]) + "\n")
        if result["annotators"]:
            print(table(result["annotators"]))
        if result["cost"]:
            say(table(result["cost"]))
    if result["unread"]:
        say(f"{result['unread']:,} replies gave no verdict" + (f": {args.out / 'unread.jsonl'}" if args.out else " (--out DIR keeps them)"))
    if result["stopped"]:
        raise CaravanError(
            f"stopped before the end: {result['stopped']}", "the figures are of what was judged; raise --max-cost and run again"
        )
    return 0


def calls_of(judge: JudgeConfig, answers: int) -> int:
    """How many calls an item of so many answers takes; repairs of unreadable replies come on top."""
    if judge.mode == "reward":
        return 0
    if judge.mode in ("pairwise", "strength"):
        kinds = 1 if judge.mode == "pairwise" else len(judge.rated)
        return answers * (answers - 1) // 2 * (2 if judge.swap else 1) * kinds * judge.samples
    return (answers if judge.mode == "additive" else len(judge.rated)) * judge.samples


if __name__ == "__main__":
    made = parser("generation.agreement", __doc__)
    made.add_argument("config", type=Path, help="YAML, see docs/agreement.md")
    made.add_argument("--out", type=Path, metavar="DIR", help="keep every verdict and reply here")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting, e.g. seed=3")
    made.add_argument("--dry-run", action="store_true", help="show how many calls it takes, and do nothing")
    made.add_argument("--max-cost", type=float, metavar="DOLLARS", help="stop asking before this is exceeded")
    sys.exit(run(main, made))
