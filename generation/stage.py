"""How respond, judge and preferences run: ask everything, then write what the cache says, in order.

    first pass     rows in, as many at once as calls can be in flight; every answer goes into the cache as it comes
    second pass    the same work again on a client that never asks; rows, judgements and the ledger are written in row order

So the output depends on the config, the rows and the answers alone: not on timing, not on how often the run was killed. Memory
holds what is in flight, never the set. Rows in = rows out + rows whose loss is in the ledger; that is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from columnar import store
from columnar.cli import Progress, say
from columnar.engine import chosen
from columnar.errors import CaravanError, ConfigError, StoreError
from columnar.record import schema_of, to_batch
from generation.batch import BatchFile
from generation.cache import Cache
from generation.card import write_card
from generation.client import Client
from generation.flow import each
from generation.judge import JUDGEMENTS, JudgeConfig, Judgement, Readable
from generation.judge_local import judge_locally
from generation.models import ModelConfig
from generation.replicas import ask_on
from generation.respond import Lost
from generation.scores import apply

CHUNK = 64  # rows at a time in the second pass
WAITING = 1_000  # rows in memory until they are written: with all its answers a row may be a hundred kilobytes
UNFINISHED = ("budget", "pending", "timeout", "failed")  # outcomes that another run may better
LEDGER = pa.schema([(name, pa.string()) for name in ("id", "stage", "model", "what", "outcome", "reason")])


@dataclass(frozen=True)
class Made:
    """What the work made of one row; `row` is None when nothing could be."""

    source: str
    row: dict[str, Any] | None
    judgements: list[Judgement] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)


@dataclass(frozen=True)
class Stage:
    """One stage, ready to run.

    Attributes:
        rows: the rows it works on, afresh at each call, always in the same order.
        work: one row's work; everything it wants from models goes through the client it is given.
        passes: how many of the wanted rows this one counts for; `wanted` None = all rows are worked on.
        identity: what the output depends on (config without addresses and prices, versions of prompts).
    """

    name: str
    version: int
    models: list[ModelConfig]
    rows: Callable[[], Iterator[dict[str, Any]]]
    work: Callable[[Client, dict[str, Any], Readable], Awaitable[Made]]
    judges: list[JudgeConfig]
    identity: dict[str, Any]
    inputs: list[dict[str, Any]]
    total: int
    wanted: int | None = None
    passes: Callable[[dict[str, Any]], bool] = lambda row: True

    @property
    def key(self) -> str:
        """Changes whenever the output could."""
        return store.stage_key(self.name, self.version, self.identity, self.inputs)

    @property
    def local(self) -> list[JudgeConfig]:
        """The judges that are programs."""
        return [j for j in self.judges if j.mode in ("reward", "verifier")]


async def run_stage(stage: Stage, out: Path, args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Both passes; returns the manifest's identity. Does nothing when the same is there already and nothing was left open."""
    started = time.time()
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own pool keeps what it once had: a fifth of this process
    done = finished(stage, out, args.force)
    if done is not None:
        say(f"{out}: up to date, nothing to do ({done['rows']:,} rows)")
        return done
    _clear(out)
    if args.engine != "local" and (args.batch or args.max_cost is not None):
        raise ConfigError("--batch and --max-cost need --engine local: workers on a cluster ask each for itself", "see --dry-run for costs")
    batch = BatchFile(args.batch) if args.batch else None
    async with Client(stage.models, cache, args.max_cost, args.retry_failed, batch=batch) as client:
        with client.cache:
            with chosen(args.engine) as engine:
                if engine.remote:
                    client.meter = ask_on(engine, stage, cache, out / f".asked-{stage.key}", args.retry_failed)
                else:
                    await _ask(stage, client)
            note_costs(out, client, started)
            if batch is not None:
                batch.close()
                say(f"{batch.requests:,} requests written to {args.batch}; submit or run them, collect them, and run this command again")
            if client.stopped == "interrupted":
                raise KeyboardInterrupt
            async with Client(stage.models, client.cache, replay=True) as replay:
                replay.stopped = client.stopped
                counts, writer = await _write(stage, replay, out)
    counts["stopped"] = client.stopped
    identity = {
        "name": stage.identity["name"],
        "kind": "candidates",
        "stage": {"name": stage.name, "version": stage.version},
        "key": stage.key,
        "config": stage.identity,
        "seed": stage.identity.get("seed"),
        "inputs": stage.inputs,
        "rows": writer.rows,
        "rows_sha256": writer.content.hexdigest(),
        "ids_sha256": writer.ids.hexdigest(),
        "counts": counts,
    }
    write_card(out, identity)
    store.write_manifest(out, identity, started)
    if client.stopped:
        say(f"stopped: {client.stopped}; what was answered is kept, and the same command with a higher limit goes on from there")
    return identity


def finished(stage: Stage, out: Path, force: bool = False) -> dict[str, Any] | None:
    """The identity of a whole earlier result of this very stage; None when there is something to do.

    Raises:
        StoreError: the directory holds something else.
    """
    if not (out / "manifest.json").is_file():
        return None
    identity = store.open_dataset(out).manifest["identity"]
    if identity.get("stage", {}).get("name") != stage.name and not force:
        raise StoreError(f"{out}: holds another dataset ({identity.get('name')})", "give another --out, or --force to replace it")
    same = identity.get("key") == stage.key and not identity["counts"].get("unfinished")
    return dict(identity) if same and not force else None


def _clear(out: Path) -> None:
    (out / "manifest.json").unlink(missing_ok=True)
    for part in ("rows", "cols", "hits"):
        shutil.rmtree(out / part, ignore_errors=True)


async def _ask(stage: Stage, client: Client) -> None:
    """The first pass. The first ^C lets what is in flight come home; the second one does not."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        client.stop("interrupted")
        loop.remove_signal_handler(signal.SIGINT)
        say("stopping: calls under way are finished and kept (^C again to drop them)")

    with contextlib.suppress(RuntimeError, ValueError):  # not the main thread
        loop.add_signal_handler(signal.SIGINT, interrupt)
    passed = 0
    readable = Readable()
    try:
        with Progress(stage.name, total=stage.total) as bar:
            worker = each(
                lambda row: stage.work(client, row, readable),
                stage.rows(),
                limit=client.width,
                stopped=lambda: bool(client.stopped) or (stage.wanted is not None and passed >= stage.wanted),
            )
            async for made in worker:
                if stage.wanted is not None and made.row is not None:
                    row = (await asyncio.to_thread(_finish, stage, [made], client.cache))[0].row if stage.local else _scored(stage, made)
                    passed += row is not None and stage.passes(row)
                bar.add(1, note=client.meter.line())
    finally:
        with contextlib.suppress(RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGINT)


def _scored(stage: Stage, made: Made) -> dict[str, Any] | None:
    return apply(made.row, made.judgements, [j.called for j in stage.judges]) if made.row is not None and stage.judges else made.row


def _finish(stage: Stage, chunk: list[Made], cache: Cache) -> list[Made]:
    """The programs among the judges, a chunk at a time, and the scores of all."""
    rows = [m.row for m in chunk if m.row is not None]
    said = iter(judge_locally(stage.local, rows, cache))
    out = []
    for made in chunk:
        if made.row is None:
            out.append(made)
            continue
        judgements = [*made.judgements, *next(said)]
        lost = [
            *made.lost,
            *(
                Lost("judge", j.model, f"{j.judge}/{j.aspect}", j.outcome, j.problem)
                for j in judgements
                if j.mode == "verifier" and j.outcome != "ok"
            ),
        ]
        whole = Made(made.source, made.row, judgements, lost)
        out.append(Made(made.source, _scored(stage, whole), judgements, lost))
    return out


async def made_again(stage: Stage, replay: Client) -> AsyncIterator[Made]:
    """The second pass: every row's work from the cache, in order; ends when as many rows as wanted have passed."""
    readable = Readable(strict=False)  # the first pass has judged the judge
    rows, passed = stage.rows(), 0
    while chunk := list(islice(rows, CHUNK)):
        whole = _finish(stage, [await stage.work(replay, row, readable) for row in chunk], replay.cache)
        for made in whole:
            if stage.wanted is not None and passed >= stage.wanted:
                return
            yield made
            passed += made.row is not None and stage.passes(made.row)


async def _write(stage: Stage, replay: Client, out: Path) -> tuple[dict[str, Any], store.RowWriter]:
    writer = store.RowWriter(out, schema_of(["candidates"]), row_group=WAITING)
    seen = rows = answers = passed = 0
    lost: Counter[str] = Counter()
    lost_rows = unfinished = 0
    models: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    hits = out / "hits"
    with (
        store.whole_file(hits / "judgements.parquet") as at,
        store.table_writer(at, JUDGEMENTS) as judgements,
        store.whole_file(hits / "ledger.parquet") as at2,
        store.table_writer(at2, LEDGER) as ledger,
    ):
        pending: list[dict[str, Any]] = []
        said: list[dict[str, Any]] = []
        missing: list[dict[str, Any]] = []

        def flush() -> None:
            if pending:
                writer.write(to_batch(pending, writer.schema))
            if said:
                judgements.write_table(pa.Table.from_pylist(said, JUDGEMENTS))
            if missing:
                ledger.write_table(pa.Table.from_pylist(missing, LEDGER))
            for part in (pending, said, missing):
                part.clear()

        async for made in made_again(stage, replay):
            seen += 1
            for line in made.lost:
                lost[f"{line.stage}: {line.outcome}"] += 1
                unfinished += line.outcome in UNFINISHED
                missing.append({"id": made.source, **line._asdict()})
            if made.row is None:
                lost_rows += 1
                assert made.lost, f"row {made.source} disappeared without a reason"
                continue
            rows += 1
            passed += stage.passes(made.row)
            pending.append(made.row)
            said += ({"id": made.row["id"], **j._asdict()} for j in made.judgements)
            for j in made.judgements:
                judged[j.outcome + (" after repair" if j.repaired else "")] += 1
            for candidate in made.row["candidates"]:
                answers += 1
                models[candidate["model"]] += 1
                outcomes[json.loads(candidate["params"] or "{}").get("outcome", "ok")] += 1
            if len(pending) >= CHUNK or len(said) >= 5 * WAITING:
                flush()
        flush()
        writer.close()
    if seen != rows + lost_rows or writer.rows != rows:
        raise CaravanError(f"{seen} rows in, but {rows} out and {lost_rows} in the ledger: this is a bug, please report it")
    counts = {
        "in": seen, "rows": rows, "lost_rows": lost_rows, "answers": answers, "models": dict(sorted(models.items())),
        "outcomes": dict(sorted(outcomes.items())), "judgements": dict(sorted(judged.items())), "lost": dict(sorted(lost.items())),
        "unfinished": unfinished, **({"passed": passed, "wanted": stage.wanted} if stage.wanted is not None else {}),
    }  # fmt: skip
    return counts, writer


def note_costs(out: Path, client: Client, started: float) -> None:
    """One line more in OUT/costs.jsonl: what this run asked and spent (runs that were killed have no line)."""
    out.mkdir(parents=True, exist_ok=True)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
    line = {
        "started": when,
        "seconds": round(time.time() - started, 1),
        "dollars": round(client.meter.dollars, 4),
        "models": client.meter.table(),
    }
    with (out / "costs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
