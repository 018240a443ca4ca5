"""The command lines of respond, judge and preferences: from a config to a Stage, its estimate, its run, and the pairs made of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from columnar import store
from columnar.cli import emit, parser, run, say, table
from columnar.config import Config, load
from columnar.engine import add_flag
from columnar.errors import CaravanError, ConfigError, InputError
from generation import judge as judging
from generation import pairs as pairing
from generation import respond as responding
from generation import rubrics
from generation.client import Client
from generation.judge import JudgeRun, Readable, judges_of
from generation.material import open_prompts
from generation.pair_report import lines
from generation.preferences import PreferencesConfig
from generation.respond import RespondConfig
from generation.stage import Made, Stage, run_stage
from generation.write_pairs import candidates_of, write_pairs

CONFIGS: dict[str, type[Config]] = {"respond": RespondConfig, "judge": JudgeRun, "preferences": PreferencesConfig}
NOT_IDENTITY = {"models", "cache", "prompts", "candidates", "pairs"}


def respond_stage(config: RespondConfig, out: Path) -> Stage:
    """Prompts -> answers, judged where the config has judges."""
    judges, until, passes = [], None, lambda row: True
    if isinstance(config, PreferencesConfig):
        judges = judges_of(config.judge, config.models) if config.judge is not None else []
        if not judges and config.pairs.rule != "strong_vs_weak" and config.pairs.output == "pairs":
            raise ConfigError("judge: missing", "rule strong_vs_weak alone needs none")
        until, passes = config.until, _passes(config)
    pool = config.answering(tuple(j.model for j in judges))
    dataset = open_prompts(config.prompts, out)
    limits = [n for n in (config.prompts.limit, until.candidates if until else None) if n is not None]
    limit = min(limits, default=None)

    async def work(client: Client, row: dict[str, Any], readable: Readable) -> Made:
        made, lost = await responding.respond(client, row, config, pool)
        if made is None or not judges:
            return Made(row["id"], made, [], lost)
        if client.batch is not None and lost:
            return Made(row["id"], made, [], lost)  # judged when its answers have been collected
        judgements, more = await judging.judge_row(client, judges, made, config.seed, readable)
        return Made(row["id"], made, judgements, [*lost, *more])

    preferences = isinstance(config, PreferencesConfig)
    return Stage(
        name="preferences" if preferences else "respond",
        version=responding.VERSION + judging.VERSION,
        models=config.models,
        rows=lambda: responding.prompts_of(dataset, limit),
        work=work,
        judges=judges,
        identity=_identity(config, [*pool, *config.reserve, *(j.model for j in judges)]),
        inputs=[{"uri": config.prompts.path, "rows_sha256": dataset.content, "limit": limit}],
        total=min(dataset.rows, limit) if limit is not None else dataset.rows,
        wanted=until.rows if until else None,
        passes=passes,
    )


def judge_stage(config: JudgeRun, _: Path) -> Stage:
    """Candidates -> judged candidates."""
    judges = judges_of(config.judge, config.models)
    dataset = store.open_dataset(config.candidates)
    if dataset.manifest["identity"].get("kind") != "candidates":
        raise InputError(f"{config.candidates}: found rows of kind {dataset.manifest['identity'].get('kind')}, expected candidates")

    async def work(client: Client, row: dict[str, Any], readable: Readable) -> Made:
        judgements, lost = await judging.judge_row(client, judges, row, config.seed, readable)
        return Made(row["id"], row, judgements, lost)

    return Stage(
        name="judge",
        version=judging.VERSION,
        models=config.models,
        rows=lambda: islice(candidates_of(dataset), config.limit),
        work=work,
        judges=judges,
        identity=_identity(config, [j.model for j in judges]),
        inputs=[{"uri": config.candidates, "rows_sha256": dataset.content}],
        total=min(dataset.rows, config.limit) if config.limit is not None else dataset.rows,
    )


def _identity(config: Config, used: list[str]) -> dict[str, Any]:
    """The config as far as the output depends on it: models without their addresses, limits and prices."""
    models = [m.identity for m in config.models if m.name in used]  # type: ignore[attr-defined]
    return {**config.model_dump(mode="json", exclude=NOT_IDENTITY, by_alias=True), "models": models, "rubrics": rubrics.VERSION}


def _passes(config: PreferencesConfig) -> Any:
    rule = config.until.pass_ if config.until else "pair"

    def passes(row: dict[str, Any]) -> bool:
        if rule == "pair":
            return bool(pairing.pair_rows(row, config.pairs, config.seed, config.name)[0])
        if rule == "answers":
            whole = [json.loads(c["params"]).get("outcome") == "ok" for c in row["candidates"]]
            return all(whole) and len(whole) == config.per_prompt * config.samples
        scores = [c["score"] for c in row["candidates"] if c.get("score") is not None]
        return bool(scores) and max(scores) >= float(rule.partition(">=")[2])

    return passes


def command(name: str, doc: str | None, argv: list[str] | None) -> int:
    """The command line of a stage."""
    model = CONFIGS[name]  # not the caller's own class: run as `python -m`, its module exists twice
    made = parser(f"generation.{name}", doc)
    made.add_argument("config", type=Path, help="YAML, see docs/generation.md")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset directory to write")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting, e.g. seed=3")
    made.add_argument("--limit", type=int, metavar="N", help="only the first N prompts")
    made.add_argument("--dry-run", action="store_true", help="show calls, tokens and cost, and do nothing")
    made.add_argument("--max-cost", type=float, metavar="DOLLARS", help="ask nothing that could go over this")
    made.add_argument(
        "--cache", type=Path, metavar="FILE", help="the cache of replies (default: replies.sqlite in DIR; several runs may share one)"
    )
    made.add_argument("--batch", type=Path, metavar="DIR", help="write batch files instead of asking (see generation.batch)")
    add_flag(made)
    made.add_argument("--retry-failed", action="store_true", help="ask again what a server called invalid")
    made.add_argument("--force", action="store_true", help="make again, or replace whatever dataset DIR holds")
    if argv is None:
        _leave_pandas_alone()
    return run(lambda args: _main(args, model), made, argv)


def _leave_pandas_alone() -> None:
    """Arrow loads pandas, where it is installed, at its first conversion: 45 MB that a command of its own has no use for."""

    class Nowhere:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Nowhere)
    pa.array([0])  # it looks once, and remembers that there is none
    sys.meta_path.remove(Nowhere)


def _main(args: argparse.Namespace, model: type[Config]) -> int:
    from generation.estimate import estimate_stage

    config = load(model, args.config, args.settings)
    if args.limit is not None:
        if isinstance(config, RespondConfig):
            config = config.model_copy(update={"prompts": config.prompts.model_copy(update={"limit": args.limit})})
        else:
            config = config.model_copy(update={"limit": args.limit})
    preferences = config if isinstance(config, PreferencesConfig) else None
    place = args.out / "candidates" if preferences else args.out
    stage = judge_stage(config, args.out) if isinstance(config, JudgeRun) else respond_stage(config, args.out)  # type: ignore[arg-type]
    cache = args.cache or (Path(config.cache) if config.cache else args.out / "replies.sqlite")  # type: ignore[attr-defined]
    if args.dry_run:
        plan = asyncio.run(estimate_stage(stage, cache if cache.is_file() else None))
        if args.json:
            emit(plan)
        else:
            print(table(plan))
            say("an estimate, with answers as long as those in the cache (or 500 tokens, at most max_tokens); nothing was asked")
        return 0
    identity = asyncio.run(run_stage(stage, place, args, cache))
    counts = identity["counts"]
    _tell(place, counts)
    if args.batch is not None and counts["unfinished"]:  # what was wanted is written; rows come when the answers are collected
        if args.json:
            emit(counts)
        return 0
    if not counts["rows"]:
        raise CaravanError("no row was made", f"the reasons are in {place / 'hits' / 'ledger.parquet'}")
    if preferences is None:
        if args.json:
            emit(counts)
        return 0
    return _pair(preferences, place, args)


def _pair(config: PreferencesConfig, candidates: Path, args: argparse.Namespace) -> int:
    source = store.open_dataset(candidates)
    told = {
        "stage": "pairs",
        "config": {"pairs": config.pairs.model_dump(mode="json"), "name": config.name},
        "inputs": [{"uri": "candidates", "rows_sha256": source.content}],
    }
    key = store.stage_key("pairs", pairing.VERSION, told["config"], source.content)
    _, summary = write_pairs(source, config.pairs, args.out, config.seed, config.name, key, told)
    if args.json:
        emit({"candidates": source.manifest["identity"]["counts"], "pairs": summary})
    for line in lines(summary):
        say(line)
    if summary["rows"]:
        say(f'look at them: python -m columnar.query {args.out} "SELECT * FROM rows LIMIT 3"; datasets and TRL read the folder as it is')
    else:
        raise CaravanError("no pair was made", "the reasons are above; loosen the rule, or look at the candidates' scores")
    return 0


def _tell(out: Path, counts: dict[str, Any]) -> None:
    parts = f"{counts['rows']:,} rows + {counts['lost_rows']:,} without any answer"
    say(f"{out}: {counts['in']:,} prompts = {parts}; {counts['answers']:,} answers")
    for what in ("outcomes", "models", "judgements", "lost"):
        if counts[what]:
            say(f"  {what}: " + "  ".join(f"{name}: {n:,}" for name, n in counts[what].items()))
    if counts["lost"]:
        say(f"  what is missing, and why: {out / 'hits' / 'ledger.parquet'}")
    costs = out / "costs.jsonl"
    if costs.is_file():
        last: Iterator[str] = iter(costs.read_text(encoding="utf-8").splitlines())
        spent = [json.loads(line) for line in last]
        say(f"  spent: ${spent[-1]['dollars']:.2f} now, ${sum(s['dollars'] for s in spent):.2f} in {len(spent)} runs")
