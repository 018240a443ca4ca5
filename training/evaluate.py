"""A model on a fixed task: every answer kept, a score with its interval, without the items that the training data held.

    python -m training.evaluate --task gsm8k::tulu3 --model out/sft --out out/eval/sft --data benchmarks --mix out/tiny
    python -m training.evaluate --task humaneval::tulu3 --model tulu --base-url http://localhost:8000/v1 --out out/eval/tulu
    python -m training.evaluate --compare out/eval/sft out/eval/dpo        # paired test on the same items
    python -m training.evaluate --band out/eval/seed1 out/eval/seed2 ...   # what the seed alone moves
    python -m training.evaluate --olmes out/eval/sft --out out/olmes       # the files that AI2's OLMES writes
    python -m training.evaluate --list

OUT is a dataset directory of kind candidates (`python -m app OUT` shows every answer with what was found and expected), with
cols/evaluation.parquet (item, score, clean, every metric) and the scores in manifest.json. A task's prompt, examples, decoding,
extraction and metric are fixed in training/tasks/; scores compare when the task keys are equal. An answer that never came or could
not be verified is counted and left out, never scored 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from columnar import cli, store
from columnar.errors import CaravanError, ConfigError, StoreError
from generation.verifiers.verdict import Verdict
from training.scores import band, interval, paired, pass_at_k
from training.tasks import FOLDER, Item, Task, find_task, read_items

if TYPE_CHECKING:
    from generation.client import Client
    from generation.wire import Reply

VERSION = 1
ANSWERED = ("ok", "truncated", "empty", "refused")  # outcomes that are answers


class Answered(NamedTuple):
    """An item with its answers and, for each reading, what the verifier said of each (None: no answer came)."""

    item: Item
    replies: list[Reply]
    verdicts: dict[str, list[Verdict | None]]

    def values(self, metric: str) -> float:
        """The item's score by a metric; NaN when nothing can be said."""
        reading = metric if metric in self.verdicts else next(iter(self.verdicts))
        known = [v for v in self.verdicts[reading] if v is not None and not math.isnan(v.score)]
        if not known:
            return math.nan
        if metric.startswith("pass@"):
            k = int(metric[5:])
            return pass_at_k(len(known), sum(v.passed for v in known), k) if len(known) >= k else math.nan
        return fmean(v.score if metric == "score" else float(v.passed) for v in known)


async def ask(client: Client, name: str, task: Task, items: list[Item]) -> list[list[Reply]]:
    """The answers to every item, in order."""
    from generation.flow import each
    from generation.wire import Request

    decoding = task.decoding
    params: dict[str, Any] = {"temperature": decoding.temperature, "max_tokens": decoding.max_tokens, "seed": decoding.seed}
    params |= {"top_p": decoding.top_p} if decoding.top_p is not None else {}
    params |= {"stop": decoding.stop} if decoding.stop else {}
    out: list[list[Reply]] = [[] for _ in items]

    async def one(number: int) -> int:
        request = Request(name, items[number].messages, params, 0, f"evaluate {task.name} {items[number].id}")
        out[number] = await client.samples(request, decoding.samples)
        return number

    async with client:
        with cli.Progress(task.name, len(items), unit="items") as bar:
            async for _ in each(one, range(len(items)), limit=2 * client.width):
                bar.add(1, note=client.meter.line())
    return out


def judge(items: list[Item], replies: list[list[Reply]], own: dict[str, str], processes: int) -> list[Answered]:
    """What the verifiers say of every answer, under every reading. An empty or cut-off answer is an answer."""
    from generation.verify import judge_batch

    verdicts: list[dict[str, list[Verdict | None]]] = [{} for _ in items]
    for reading in items[0].checks:
        rows = [{**item.checks[reading], "id": str(i)} for i, item in enumerate(items)]
        came = [[r.content if r.outcome in ANSWERED else None for r in said] for said in replies]
        given = {str(i): [text for text in said if text is not None] for i, said in enumerate(came)}
        for i, (_, found) in enumerate(judge_batch(rows, given, own, processes)):
            left = iter(found)
            verdicts[i][reading] = [next(left) if text is not None else None for text in came[i]]
    return [Answered(*each) for each in zip(items, replies, verdicts, strict=True)]


def contaminated(mix: Path, task: Task) -> set[str]:
    """The ids of the task's items that rows of this dataset hold.

    Raises:
        StoreError: the dataset was not scanned for this benchmark.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    dataset = store.open_dataset(mix)
    hits, report = dataset.path / "hits" / "decontam.parquet", dataset.path / "report.json"
    scanned = json.loads(report.read_text(encoding="utf-8"))["benchmarks"] if hits.is_file() and report.is_file() else []
    names = [b["benchmark"] for b in scanned if b["benchmark"] in task.benchmarks]
    if not names:
        raise StoreError(
            f"{mix}: not scanned for {' or '.join(task.benchmarks) or task.name}, so nobody knows which items it holds",
            f"scan it: python -m decontam.scan {mix} --benchmarks {task.benchmarks[0] if task.benchmarks else 'MY.yaml'}",
        )
    kept = set()  # hits are of all rows that were looked at; only those in the mix (or copied into it) taught the model
    for batch in store.read_batches(dataset, ["id", "parents"]):
        kept |= set(batch.column("id").to_pylist())
        kept |= {p for parents in batch.column("parents").to_pylist() for p in parents or ()}
    table = pq.read_table(hits, columns=["id", "benchmark", "item_id"])
    table = table.filter(pc.is_in(table["benchmark"], value_set=pa.array(names)))
    return {item for row, item in zip(table["id"].to_pylist(), table["item_id"].to_pylist(), strict=True) if row in kept}


def summary(task: Task, answered: list[Answered], dirty: set[str] | None) -> dict[str, Any]:
    """Every metric over all items and, where the mix is known, over the clean ones; and what could not be scored."""
    metrics: dict[str, Any] = {}
    names = list(dict.fromkeys([task.metric, *task.also, *task.readings]))
    parts = {"all": answered}
    if dirty is not None:
        parts |= {"clean": [a for a in answered if a.item.id not in dirty], "contaminated": [a for a in answered if a.item.id in dirty]}
    for name in names:
        for part, some in parts.items():
            found = interval([a.values(name) for a in some], purpose=f"{task.name}/{name}/{part}")
            if found.n or part == "all":
                metrics[name if part == "all" else f"{name} ({part})"] = found._asdict()
    for reading in task.readings:  # IFEval's second figure: single instructions instead of whole prompts
        checks = [c for a in answered for v in a.verdicts[reading] if v for p in v.parts for c in p.checks]
        if checks:
            metrics[f"{reading}, each instruction"] = interval([float(c.passed) for c in checks if not c.error])._asdict()
    verdicts = [v for a in answered for v in next(iter(a.verdicts.values()))]
    return {
        "metrics": metrics,
        "items": len(answered),
        "unanswered": sum(v is None for v in verdicts),
        "unverified": sum(v is not None and bool(v.error) for v in verdicts),
        "reasons": sorted({r.reason for a in answered for r in a.replies if r.outcome not in ANSWERED})[:5],
        "truncated": sum(r.outcome == "truncated" for a in answered for r in a.replies),
        "tokens_per_answer": fmean(r.completion_tokens for a in answered for r in a.replies) if answered else 0.0,
    }


def evaluate(
    task: Task, name: str, client: Client, out: Path, identity: dict[str, Any], items: list[Item], dirty: set[str] | None, processes: int
) -> dict[str, Any]:
    """Ask, verify, write; returns the manifest's identity."""
    from training.results import write_results

    started = time.time()
    replies = asyncio.run(ask(client, name, task, items))
    answered = judge(items, replies, {}, processes)
    found = summary(task, answered, dirty)
    return write_results(out, task, name, answered, dirty, found, identity, started)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.list:
        tasks = [find_task(str(p)) for p in sorted(FOLDER.glob("*.yaml"))]
        rows = [{"task": t.name, "tag": t.policy, "metric": t.metric, "shots": len(t.shots), "samples": t.decoding.samples} for t in tasks]
        cli.emit(rows) if args.json else print(cli.table(rows))
        return 0
    if args.compare:
        return _compare(args.compare[0], args.compare[1], args.json)
    if args.band:
        return _band(args.band, args.json)
    if args.olmes:
        from training.results import write_olmes

        for number, directory in enumerate(args.olmes):
            cli.say("wrote " + ", ".join(str(p) for p in write_olmes(directory, args.out or directory / "olmes", number)))
        return 0
    if not (args.task and args.model and args.out):
        raise ConfigError("--task, --model and --out are needed", "or --compare A B, --band A B ..., --list")
    tasks = [find_task(name) for name in args.task]
    done = [run_task(task, args, args.out if len(tasks) == 1 else args.out / task.name.replace("::", "-")) for task in tasks]
    lines = [_line(identity) for identity in done]
    cli.emit(done) if args.json else print(cli.table(lines))
    lost = sum(identity["scores"]["unanswered"] for identity in done)
    if lost:
        why = next((text for identity in done for text in identity["scores"]["reasons"]), "")
        raise CaravanError(
            f"{lost:,} answers never came and are left out of the scores: {why}", "run the same command again: only those are asked"
        )
    return 0


def run_task(task: Task, args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """One task of the command line; a result that is there already is read. Returns the manifest's identity.

    Raises:
        StoreError: OUT holds another result.
    """
    items, content = read_items(task, args.data, args.limit)
    dirty = contaminated(args.mix, task) if args.mix else None
    client, model = _client(args, out)
    identity = {"task_key": task.key, "items_key": content, "model": model, "mix": str(args.mix) if args.mix else None}
    key = store.stage_key("evaluate", VERSION, identity, sorted(dirty) if dirty is not None else None)
    if (out / "manifest.json").is_file():
        known = store.open_dataset(out).manifest["identity"]
        if known.get("key") == key and not known["scores"]["unanswered"] and not args.force:
            cli.say(f"{out}: up to date")
            return dict(known)
        if known.get("key") != key and not args.force:
            raise StoreError(f"{out}: holds another result ({known.get('name')})", "give another --out, or --force to replace it")
    return evaluate(task, "model", client, out, {**identity, "key": key}, items, dirty, args.processes)


def _client(args: argparse.Namespace, out: Path) -> tuple[Client, dict[str, Any]]:
    """The client, and what the model is."""
    from generation.client import Client
    from generation.models import ModelConfig

    cache = out / "replies.sqlite"
    if args.base_url:
        config = ModelConfig(name="model", model=args.model, base_url=args.base_url, api_key_env=args.api_key_env, revision=args.revision)
        return Client([config], cache), {"name": args.model, "revision": args.revision}
    from training.run import model_key

    if args.backend == "vllm":
        config = ModelConfig(name="model", model=args.model, backend="vllm", revision=model_key(args.model))
        return Client([config], cache), {"name": args.model, "revision": model_key(args.model)}
    from training.local_model import local_client

    return local_client({"model": args.model}, cache, args.batch), {"name": args.model, "revision": model_key(args.model)}


def _line(identity: dict[str, Any]) -> dict[str, Any]:
    scores = identity["scores"]
    main_one = identity["task"]["metric"]
    line: dict[str, Any] = {
        "task": identity["task"]["name"],
        "tag": identity["task"]["policy"],
        "metric": main_one,
        "items": scores["items"],
    }
    for label, name in (("score", main_one), ("clean", f"{main_one} (clean)")):
        if name in scores["metrics"]:
            m = scores["metrics"][name]
            line |= {label: m["value"], f"{label} 95 %": f"{m['low']:.3f} to {m['high']:.3f}"}
    return line | {what: scores[what] for what in ("truncated", "unanswered", "unverified")}


def _compare(first: Path, second: Path, as_json: bool) -> int:
    from training.results import read_scores

    (a, told_a), (b, told_b) = read_scores(first), read_scores(second)
    if told_a["task_key"] != told_b["task_key"]:
        raise ConfigError(
            f"{first} and {second} were not measured alike: {told_a['task']['name']}, {told_b['task']['name']}", "use one task"
        )
    try:
        found = paired(a, b)
    except ValueError as error:
        raise ConfigError(f"{first}, {second}: {error}") from error
    cli.emit({**found._asdict(), "verdict": found.verdict}) if as_json else print(cli.table([found._asdict()]))
    cli.say(f"{told_a['task']['name']}: {found.verdict} (p = {found.p:.3g})")
    return 0


def _band(directories: list[Path], as_json: bool) -> int:
    from training.results import read_scores

    told = [read_scores(d)[1] for d in directories]
    if len({t["task_key"] for t in told}) > 1:
        raise ConfigError("these results are of different tasks: " + ", ".join(sorted({t["task"]["name"] for t in told})))
    found = band([t["scores"]["metrics"][t["task"]["metric"]]["value"] for t in told])
    cli.emit(found._asdict()) if as_json else print(f"{told[0]['task']['name']}: {found}, mean within {found.low:.3f} to {found.high:.3f}")
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("training.evaluate", __doc__)
    made.add_argument(
        "--task", action="append", metavar="NAME", help="a task (--list), a YAML file, or a dataset directory of prompts; repeat"
    )
    made.add_argument("--model", help="a model directory or hub id; with --base-url its name on the server")
    made.add_argument("--out", type=Path, metavar="DIR", help="the result's directory (several tasks: one directory each inside)")
    made.add_argument("--data", type=Path, metavar="DIR", help="a folder of benchmark files; without it the Hub is asked")
    made.add_argument("--mix", type=Path, metavar="DIR", help="the training data, scanned by decontam: scores also without its items")
    made.add_argument("--limit", type=int, metavar="N", help="only the first N items")
    made.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server")
    made.add_argument("--api-key-env", default="OPENAI_API_KEY", metavar="NAME", help="the variable that holds its key")
    made.add_argument("--revision", help="names the weights behind a server's model")
    made.add_argument("--backend", choices=["transformers", "vllm"], default="transformers", help="what runs a local model")
    made.add_argument("--batch", type=int, default=64, help="answers generated at once (transformers)")
    made.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="verifier processes")
    made.add_argument("--force", action="store_true", help="replace another result in OUT")
    made.add_argument("--compare", nargs=2, type=Path, metavar="DIR", help="two results of one task: a paired test")
    made.add_argument("--band", nargs="+", type=Path, metavar="DIR", help="results of runs that differ in the seed")
    made.add_argument("--olmes", nargs="+", type=Path, metavar="DIR", help="write these results as OLMES writes its own (into --out)")
    made.add_argument("--list", action="store_true", help="the tasks there are")
    return made


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
