"""What the makers of prompts share: config, one call, candidates kept or rejected with a reason, the directory written, the command line.

A maker (self_instruct, persona, constrain, evolve, dialogue, magpie) gives candidates in an order that depends on nothing but its config
and inputs. Each is a row or a reason why not. Rows go to rows/, the others to rejected.jsonl with their text, and the counts must add
up. Every call goes through the cache OUT/replies.sqlite, so that a run that was killed goes on where it was, asks nothing again, and
ends with the same bytes.

    python -m generation.evolve CONFIG.yaml --out DIR [--dry-run] [--set a.b=c] [--max-cost 5] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

from columnar import store
from columnar.cli import Progress, emit, parser, say, table
from columnar.config import load
from columnar.errors import CaravanError, ConfigError, StoreError
from columnar.record import schema_of, to_batch
from generation import prompts
from generation.candidate import Candidate, Job, MakerConfig, Step
from generation.card import write_card

NEXT = """check what was made with the project's own stages:
  python -m curation.dedup {out} --by {by}            # copies and near copies, within it or --against other sets
  python -m decontam.scan {out} --benchmarks tulu3       # does it hold benchmark items?
or name it as a source of a mix, which measures, rules, removes and reports: python -m curation.build_mix MIX.yaml --out DIR"""


class Maker(NamedTuple):
    """One command: its module's name and text, its config, what it reads, what it would ask, what it makes."""

    name: str
    doc: str
    version: int
    config: type[MakerConfig]
    kind: Callable[[Any], str]
    inputs: Callable[[Any, Path], list[dict[str, Any]]]
    plan: Callable[[Job], list[Step]]
    make: Callable[[Job], AsyncIterator[Candidate]]
    notes: Callable[[Any], list[str]] = lambda config: []  # what whoever uses the rows must know: told at the end, kept in the manifest


def arguments(maker: Maker) -> argparse.ArgumentParser:
    """The command line of a maker."""
    made = parser(f"generation.{maker.name}", maker.doc)
    made.add_argument("config", type=Path, help="YAML, see docs/prompts.md")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset directory to write")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting, e.g. seed=3")
    made.add_argument("--dry-run", action="store_true", help="show what would be asked and what it would cost, and do nothing")
    made.add_argument("--max-cost", type=float, metavar="DOLLARS", help="stop asking before this is exceeded")
    made.add_argument("--cache", type=Path, metavar="FILE", help="the cache of replies (default: DIR/replies.sqlite); runs may share one")
    made.add_argument("--retry-failed", action="store_true", help="ask again what failed before, also what a server called invalid")
    made.add_argument("--force", action="store_true", help="make again even if nothing changed, or over another dataset")
    return made


def command(maker: Maker) -> Callable[[argparse.Namespace], int]:
    """The main function of a maker."""

    def main(args: argparse.Namespace) -> int:
        config = load(maker.config, args.config, args.settings)
        config.check()
        if args.dry_run:
            return show_plan(maker, Job(config, None, args.out), args)
        return asyncio.run(make(maker, config, args))

    return main


def stage_key(maker: Maker, config: MakerConfig, inputs: list[dict[str, Any]]) -> str:
    """16 hex: the same when the rows would be the same; where the servers are and what they cost is no part of it."""
    settings = {**config.model_dump(exclude={"models"}), "models": [m.identity for m in config.models]}
    return store.stage_key(maker.name, maker.version, [settings, prompts.VERSION], inputs)


async def make(maker: Maker, config: MakerConfig, args: argparse.Namespace) -> int:
    """Ask, keep, reject, write; tell what came of it."""
    from generation.client import Client

    started, out = time.time(), args.out
    inputs = maker.inputs(config, out)
    key = stage_key(maker, config, inputs)
    if out.resolve() in [Path(source["uri"]).resolve() for source in inputs]:
        raise ConfigError(f"--out {out}: this is what the config reads from, and it would be overwritten", "give another --out")
    known = store.open_dataset(out).manifest["identity"] if (out / "manifest.json").is_file() else None
    if known and not args.force:
        if known.get("stage", {}).get("name") != maker.name:
            raise StoreError(f"{out}: holds another dataset ({known.get('name')})", "give another --out, or --force to replace it")
        if known.get("key") == key and not known["counts"].get("stopped") and not args.retry_failed:
            say(f"{out}: up to date, nothing to do ({known['rows']:,} rows)")
            if args.json:
                emit(known["counts"])
            return 0
    (out / "manifest.json").unlink(missing_ok=True)
    for part in ("rows", "cols", "hits"):
        shutil.rmtree(out / part, ignore_errors=True)
    cache = args.cache or out / "replies.sqlite"
    async with Client(config.models, cache, max_cost=args.max_cost, retry_failed=args.retry_failed) as client:
        job = Job(config, client, out)
        counts, writer = await write_candidates(maker, job)
        counts["stopped"] = client.stopped
        meter = client.meter
    identity = {
        "name": config.name,
        "kind": maker.kind(config),
        "stage": {"name": maker.name, "version": maker.version},
        "key": key,
        "config": {**config.model_dump(exclude={"models"}), "models": [m.identity for m in config.models]},
        "prompts": prompts.VERSION,
        "seed": config.seed,
        "inputs": inputs,
        "rows": writer.rows,
        "rows_sha256": writer.content.hexdigest(),
        "ids_sha256": writer.ids.hexdigest(),
        "counts": counts,
        "notes": maker.notes(config),
    }
    write_card(out, identity)
    store.write_manifest(out, identity, started)
    if args.json:
        emit({**counts, "cost": meter.table()})
    else:
        if meter.models:
            say(table(meter.table()))
        say(f"{out}: {counts['candidates']:,} candidates = {counts['rows']:,} rows + {counts['candidates'] - counts['rows']:,} rejected")
        for reason, n in counts["rejected"].items():
            say(f"  {n:,} {reason}")
        for note in maker.notes(config):
            say(f"note: {note}")
        say(NEXT.format(out=out, by="row" if maker.kind(config) == "sft" else "prompt"))
    if counts["stopped"]:
        raise CaravanError(
            f"stopped before the end: {counts['stopped']}", "what was answered is kept: raise --max-cost and run the same command again"
        )
    if not counts["rows"]:
        raise CaravanError(f"no row was kept out of {counts['candidates']:,} candidates", f"the reasons are in {out / 'rejected.jsonl'}")
    return 0


async def write_candidates(maker: Maker, job: Job) -> tuple[dict[str, Any], store.RowWriter]:
    """Candidates -> rows/ and rejected.jsonl, in order, with bounded memory; every candidate ends in exactly one of them."""
    writer = store.RowWriter(job.out, schema_of([maker.kind(job.config)]))
    rejected: Counter[str] = Counter()
    candidates, rows = 0, 0
    batch: list[dict[str, Any]] = []
    goal = job.config.until.rows
    with (
        store.whole_file(job.out / "rejected.jsonl") as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as file,
        Progress(maker.name, total=goal) as bar,
    ):
        async for candidate in maker.make(job):
            candidates += 1
            if candidate.row is None:
                rejected[candidate.reason] += 1
                line = {"candidate": candidates - 1, "reason": candidate.reason, **candidate.detail}
                file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            else:
                rows += 1
                batch.append(candidate.row)
            if len(batch) >= 1000:
                writer.write(to_batch(batch, writer.schema))
                batch = []
            bar.add(int(candidate.row is not None), note=f"{sum(rejected.values()):,} rejected, {job.client.meter.line()}")
        if batch:
            writer.write(to_batch(batch, writer.schema))
        writer.close()
    assert candidates == rows + sum(rejected.values()) and writer.rows == rows
    return {"candidates": candidates, "rows": rows, "rejected": dict(sorted(rejected.items()))}, writer


def show_plan(maker: Maker, job: Job, args: argparse.Namespace) -> int:
    """What would be asked: calls, tokens, dollars; an upper estimate where later calls depend on earlier answers."""
    from generation.client import Client
    from generation.meter import estimate
    from generation.wire import Request

    maker.inputs(job.config, job.out)
    client = Client(job.config.models)
    lines = []
    for step in maker.plan(job):
        config = client.config(step.model)
        prompt, answer, dollars = estimate(config, client.body(Request(step.model, step.messages, {**job.config.params, **step.params})))
        price = dollars * step.calls if config.rate is not None else None
        lines.append(
            {"step": step.what, "model": step.model, "calls": step.calls, "prompt tokens": round(prompt * step.calls),
             "answer tokens": round(answer * step.calls), "dollars": price}
        )  # fmt: skip
    known = 0
    path = args.cache or job.out / "replies.sqlite"
    if path.is_file():
        from generation.cache import Cache

        with Cache(path) as cache:
            known = len(cache)
    if args.json:
        emit({"plan": lines, "replies_in_cache": known})
    else:
        print(table(lines))
        say(f"{known:,} replies are in {path} already and cost nothing again; nothing was asked")
    return 0
