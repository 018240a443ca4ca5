"""How far can a judge be trusted? Any judge configuration against human labels, before money is spent on judging.

In: sets with human labels (see gold.py) and judges: a model with a rubric, or a baseline that looks at nothing but length, chance or
position. Out: one line a judge and set: accuracy, exact match, rank correlations, position and length bias, each with a 95 % interval.
Why: prompt form alone moves a judge's pairwise accuracy from 27 to 65 % (Self-Rewarding, arXiv 2401.10020), and a judge that cannot
beat `longest` on your kind of prompts measures length.

    python -m generation.agreement agreement.yaml --out out/agreement

    data:   [{path: llmbar.parquet}, {name: pandalm, path: pandalm_testset.parquet}]
    judges: [{name: gpt-4o pairwise, model: judge, form: pairwise}, {name: longest, baseline: longest}]
    models: [{name: judge, model: gpt-4o-2024-08-06}]

Pairs are asked in both orders (`swap: true`); two verdicts that contradict each other are a tie. With --out every verdict is kept
(judgements.jsonl) beside the replies it was read from (replies.sqlite), so that the command, run again, asks nothing twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import Field, model_validator

from columnar.cli import Progress, emit, parser, run, say, table
from columnar.config import Config, load
from columnar.errors import CaravanError
from columnar.store import whole_file, write_json
from generation.gold import Item, read_gold
from generation.measure import Judgement, annotator_agreement, combine, figures, rating_spearman
from generation.models import ModelConfig
from generation.statistics import Estimate, generator

Read = TypeVar("Read")


class SetConfig(Config):
    """A set with human labels: a file of a known form or a dataset directory of pairs or candidates."""

    path: str
    name: str = ""
    limit: int | None = None


class JudgeConfig(Config):
    """One judge: a baseline, or a model with a form of question.

    Attributes:
        form: pairwise (which of two is better), or a rating of single answers: overall (1-10), additive (0-5).
        swap: ask pairs in both orders.
        samples: ratings per answer, averaged.
    """

    name: str
    baseline: Literal["longest", "shortest", "unique_tokens", "random", "first"] | None = None
    model: str | None = None
    form: Literal["pairwise", "overall", "additive"] = "pairwise"
    swap: bool = True
    samples: int = 1
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_two(self) -> JudgeConfig:
        if (self.baseline is None) == (self.model is None):
            raise ValueError("expected either a baseline or a model")
        return self


class AgreementConfig(Config):
    """What to measure, with whom, on what."""

    data: list[SetConfig]
    judges: list[JudgeConfig]
    models: list[ModelConfig] = Field(default_factory=list)
    seed: int = 1
    draws: int = 1000  # bootstrap samples

    @model_validator(mode="after")
    def _models_known(self) -> AgreementConfig:
        known = {m.name for m in self.models}
        for judge in self.judges:
            if judge.model is not None and judge.model not in known:
                raise ValueError(
                    f"judges[{judge.name}].model: no model is called {judge.model!r} (models: {', '.join(sorted(known)) or 'none'})"
                )
        return self


def baseline(name: str, items: list[Item], seed: int) -> list[Judgement]:
    """A judge that does not read: by length, by the number of different words, by chance, by position."""
    if name == "first":
        return [Judgement(i, (0.5,) * len(i.answers), (1.0, 1.0) if len(i.answers) == 2 else ()) for i in items]
    from generation.rouge import tokens_of

    score: dict[str, Callable[[Item], tuple[float, ...]]] = {
        "longest": lambda i: tuple(float(len(a)) for a in i.answers),
        "shortest": lambda i: tuple(-float(len(a)) for a in i.answers),
        "unique_tokens": lambda i: tuple(float(len(set(tokens_of(a, "any")))) for a in i.answers),
        "random": lambda i: tuple(generator(seed, f"random\x1f{i.id}\x1f{i.prompt}").random(len(i.answers)).tolist()),
    }
    return [Judgement(i, score[name](i)) for i in items]


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


class Unread(NamedTuple):
    """A reply of the judge that gave no verdict: which item, why, and the reply."""

    item: str
    reason: str
    text: str


async def ask_judge(client: Any, judge: JudgeConfig, items: list[Item], unread: list[Unread]) -> list[Judgement]:
    """The judgements of a model, in the order of the items; what could not be read is missing, and listed in `unread`."""
    work = compare_pair if judge.form == "pairwise" else rate_answers
    tasks: deque[asyncio.Future[Judgement]] = deque()
    out: list[Judgement] = []
    with Progress(judge.name, total=len(items), unit="items") as bar:
        for item in items:
            tasks.append(asyncio.ensure_future(work(client, judge, item, unread)))
            if len(tasks) >= 2 * client.width:
                out.append(await tasks.popleft())
                bar.add(1, note=client.meter.line())
        while tasks:
            out.append(await tasks.popleft())
            bar.add(1, note=client.meter.line())
    return out


async def answer_of(
    client: Any, judge: JudgeConfig, question: Any, read: Callable[[str], Read], item: Item, unread: list[Unread], sample: int
) -> Read | None:
    """What one reply says; None when there is none, or it cannot be read."""
    from generation.parse import Unparsable
    from generation.wire import Request

    params = {"temperature": 1.0 if judge.samples > 1 else 0.0, **judge.params, "json_schema": question.schema}
    reply = await client.complete(Request(judge.model or "", question.messages, params, sample, judge.form))
    if not reply.ok:
        unread.append(Unread(item.id, f"{reply.outcome}: {reply.reason}", reply.content))
        return None
    try:
        return read(reply.content)
    except Unparsable as error:
        unread.append(Unread(item.id, f"unparsable: {error}", reply.content))
        return None


async def compare_pair(client: Any, judge: JudgeConfig, item: Item, unread: list[Unread]) -> Judgement:
    """Which of two answers is better, asked in both orders; more than two answers: every pair, and the number of wins is the score."""
    from generation import parse, rubrics

    asked = [{"role": "user", "content": item.prompt}]

    def read(text: str) -> float:
        return {"A": 1.0, "B": 0.0, "TIE": 0.5}[parse.verdict(text, ("A", "B", "TIE"))[0]]

    async def show(first: int, second: int) -> float | None:
        question = rubrics.ask_verdict("pairwise", asked, [item.answers[first], item.answers[second]])
        return await answer_of(client, judge, question, read, item, unread, 0)

    pairs = [(a, b) for a in range(len(item.answers)) for b in range(a + 1, len(item.answers))]
    orders = [order for a, b in pairs for order in ([(a, b), (b, a)] if judge.swap else [(a, b)])]
    shown = await asyncio.gather(*(show(*order) for order in orders))
    step = 2 if judge.swap else 1
    verdicts = [combine(tuple(shown[i : i + step])) for i in range(0, len(shown), step)]
    if len(pairs) == 1:
        return Judgement(item, verdicts[0], tuple(shown))
    if any(v is None for v in verdicts):
        return Judgement(item, None)
    wins = [0.0] * len(item.answers)
    for (a, b), v in zip(pairs, verdicts, strict=True):
        assert v is not None
        wins[a] += v[0]
        wins[b] += v[1]
    return Judgement(item, tuple(wins))


async def rate_answers(client: Any, judge: JudgeConfig, item: Item, unread: list[Unread]) -> Judgement:
    """Each answer rated alone, the mean of the samples; one answer without a rating makes the item missing."""
    from generation import parse, rubrics

    asked = [{"role": "user", "content": item.prompt}]

    def read(text: str) -> float:
        rated = parse.score(text, 0, 5) if judge.form == "additive" else parse.ratings(text, 1, 1, 10)[0]
        return float(rated.rating or 0.0)

    async def rate(answer: str, sample: int) -> float | None:
        question = rubrics.ask_score(asked, answer) if judge.form == "additive" else rubrics.ask_ratings("overall", asked, [answer])
        return await answer_of(client, judge, question, read, item, unread, sample)

    every = await asyncio.gather(*(rate(answer, k) for answer in item.answers for k in range(judge.samples)))
    if any(r is None for r in every):
        return Judgement(item, None)
    ratings = [float(r or 0.0) for r in every]
    return Judgement(item, tuple(sum(ratings[i : i + judge.samples]) / judge.samples for i in range(0, len(ratings), judge.samples)))


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
            for judge in config.judges:
                unread: list[Unread] = []
                judged = baseline(judge.baseline, items, config.seed) if judge.baseline else await ask_judge(client, judge, items, unread)
                lines += report(judge.name, name, judged, config)
                annotators += [{"judge": judge.name, "data": name, **line} for line in annotator_agreement(judged)]
                failures += [{"judge": judge.name, "data": name, **u._asdict()} for u in unread]
                kept += [
                    {"judge": judge.name, "data": name, "item": j.item.id, "human": j.item.human, "scores": j.scores, "shown": j.shown}
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
    if args.dry_run:
        plan = []
        for data in config.data:
            items = read_gold(Path(data.path), data.limit)
            for judge in config.judges:
                calls = 0 if judge.baseline else sum(calls_of(judge, len(i.answers)) for i in items)
                plan.append({"data": data.name or data.path, "judge": judge.name, "items": len(items), "calls": calls})
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
    """How many calls an item of so many answers takes."""
    if judge.form == "pairwise":
        return answers * (answers - 1) // 2 * (2 if judge.swap else 1)
    return answers * judge.samples


if __name__ == "__main__":
    made = parser("generation.agreement", __doc__)
    made.add_argument("config", type=Path, help="YAML, see docs/agreement.md")
    made.add_argument("--out", type=Path, metavar="DIR", help="keep every verdict and reply here")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting, e.g. seed=3")
    made.add_argument("--dry-run", action="store_true", help="show how many calls it takes, and do nothing")
    made.add_argument("--max-cost", type=float, metavar="DOLLARS", help="stop asking before this is exceeded")
    sys.exit(run(main, made))
