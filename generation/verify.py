"""Annotate a dataset with what its verifiers say: `cols/verified.parquet`, one line a row, in a pool of processes.

In: a dataset directory whose rows name verifiers (`verifier`, `ground_truth`; answers keep them in `meta`). The completions are the row's
candidates, its chosen and rejected, its last assistant turn, or the lines of --completions FILE ({"id": ROW, "completion": TEXT}).
Out: completions, passes, errors, score (mean), passed (all of them), scores (one each), reason, detail (JSON: every part).

    python -m generation.verify out/rlvr --completions samples.jsonl
    python -m generation.verify out/answers --own brevity=my_checks:brevity --workers 8
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from columnar import store
from columnar.annotate import annotate
from columnar.cli import Progress, emit, parser, run, say, table
from columnar.engine import add_flag, chosen
from columnar.errors import ConfigError, InputError
from columnar.remote import output
from generation.verifiers import workers
from generation.verifiers.dispatch import Task, check_rows, prompt_of, request_of, resolve, source_of, timeout_of
from generation.verifiers.verdict import Part, Verdict, reweigh, weigh

VERSION = 1
IN_PLACE = 30.0  # seconds for verifiers that are linear: only a fault of ours takes longer
READ = ["prompt", "messages", "chosen", "rejected", "candidates", "verifier", "ground_truth", "meta"]
SCHEMA = pa.schema(
    [
        ("verifier", pa.string()),
        ("completions", pa.int32()),
        ("passes", pa.int32()),
        ("errors", pa.int32()),
        ("score", pa.float64()),
        ("passed", pa.bool_()),
        ("scores", pa.list_(pa.float64())),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def task_row(row: dict[str, Any]) -> dict[str, Any] | None:
    """The row as the verifiers want it; None when it names none. Rows made from prompts keep verifier and ground truth in `meta`."""
    if row.get("verifier"):
        return row
    meta = row.get("meta")
    if not meta or '"verifier"' not in meta:
        return None
    kept = json.loads(meta)
    return {**row, "verifier": kept["verifier"], "ground_truth": kept.get("ground_truth")} if kept.get("verifier") else None


def completions_of(row: dict[str, Any], given: dict[str, list[str]] | None) -> list[str]:
    """What is judged of a row."""
    if given is not None:
        return given.get(row["id"], [])
    if row.get("candidates"):
        return [candidate["content"] or "" for candidate in row["candidates"]]
    if row.get("chosen"):
        return [row[side][-1].get("content") or "" for side in ("chosen", "rejected")]
    if row.get("messages"):
        return [row["messages"][-1].get("content") or ""]
    return []


def read_completions(path: Path) -> dict[str, list[str]]:
    """Row id -> its completions, from JSON lines {"id", "completion"}; several lines of one id are several completions.

    Raises:
        InputError: no such file, or a line that is something else (with its number).
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file", 'expected JSON lines: {"id": ROW ID, "completion": TEXT}')
    found: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                data = json.loads(line)
                found[str(data["id"])].append(_text(data["completion"]))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f'{path}:{number}: expected {{"id": ..., "completion": TEXT}}, found {line[:80]!r} ({error})') from error
    return dict(found)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"completion is {type(value).__name__}")
    return value


def judge_batch(
    rows: list[dict[str, Any]], given: dict[str, list[str]] | None, own: dict[str, str], processes: int
) -> Iterator[tuple[dict[str, Any] | None, list[Verdict]]]:
    """The verdicts of every row's completions, row by row in order; None for rows without a verifier."""
    plans: list[tuple[dict[str, Any] | None, list[list[tuple[Task, Part | None]]]]] = []
    requests: list[tuple[dict[str, Any], float]] = []
    for row in rows:
        task = task_row(row)
        tasks = resolve(task, own) if task else []
        plan = []
        for completion in completions_of(row, given) if task else []:
            steps: list[tuple[Task, Part | None]] = []
            for one in tasks:
                request = request_of(one, completion, prompt_of(row), own)
                if isinstance(request, Part):
                    steps.append((one, request))
                else:
                    requests.append((request, timeout_of(one.name) or IN_PLACE))
                    steps.append((one, None))
            plan.append(steps)
        plans.append((task, plan))
    parts = workers.run_all(requests, processes)
    for task, plan in plans:
        yield task, [weigh([reweigh(ready or next(parts), one.weight) for one, ready in steps]) for steps in plan]


def column(task: dict[str, Any] | None, verdicts: list[Verdict]) -> dict[str, Any]:
    """One line of the sidecar."""
    if task is None:
        return {}
    scores = [None if math.isnan(v.score) else v.score for v in verdicts]
    known = [s for s in scores if s is not None]
    return {
        "verifier": task["verifier"],
        "completions": len(verdicts),
        "passes": sum(v.passed for v in verdicts),
        "errors": sum(bool(v.error) for v in verdicts),
        "score": sum(known) / len(known) if known else None,
        "passed": all(v.passed for v in verdicts) if known or verdicts else None,
        "scores": scores,
        "reason": next((v.reason for v in verdicts if not v.passed), None),
        "detail": json.dumps([[part.to_json() for part in v.parts] for v in verdicts], ensure_ascii=True) if verdicts else None,
    }


@dataclass(frozen=True)
class Judge:
    """The sidecar's lines of a batch of rows."""

    given: dict[str, list[str]] | None
    own: dict[str, str]
    processes: int

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One line a row (`SCHEMA`)."""
        judged = judge_batch(batch.to_pylist(), self.given, self.own, self.processes)
        return pa.RecordBatch.from_pylist([column(task, verdicts) for task, verdicts in judged], SCHEMA)


def tally(sidecar: Path) -> tuple[dict[str, Counter[str]], Counter[str], set[str]]:
    """For each verifier its completions, passes and errors; how often each error came; the ids there are."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    errors: Counter[str] = Counter()
    met: set[str] = set()
    for batch in pq.ParquetFile(sidecar).iter_batches(columns=["id", "detail"]):
        met.update(batch.column("id").to_pylist())
        for detail in batch.column("detail").to_pylist():
            for part in (part for parts in json.loads(detail or "[]") for part in parts):
                counts[part["name"]].update(completions=1, passed=int(part["passed"]), errors=int(bool(part.get("error"))))
                if part.get("error"):
                    errors[f"{part['name']}: {part['error']}"] += 1
    return counts, errors, met


def main(args: argparse.Namespace) -> int:
    """Check every name, verify, write the sidecar, and tell the pass rate of each verifier."""
    dataset = store.open_dataset(args.directory)
    own = dict(_own(item) for item in args.own)
    named = 0
    needed = ["id", "verifier", "ground_truth", "meta"]
    for batch in store.read_batches(dataset, needed):
        tasks = [task for task in map(task_row, batch.to_pylist()) if task]
        check_rows(tasks, own)
        named += len(tasks)
    if not named:
        raise ConfigError(f"{args.directory}: no row names a verifier", "rows need `verifier` and `ground_truth` (see docs/verifiers.md)")
    given = read_completions(Path(args.completions)) if args.completions else None
    sources = {name: [place, source_of(name, place)] for name, place in own.items()}
    config = {"own": sources, "completions": store.file_sha256(Path(args.completions)) if args.completions else None}
    with output(dataset.path), chosen(args.engine) as engine, Progress("verify", dataset.rows) as bar:
        judge = Judge(given, own, 1 if engine.remote else args.workers)
        worked = annotate([dataset], "verified", VERSION, config, judge, READ, args.force, bar.add, engine)
    if not worked:
        say("verified.parquet is up to date (--force verifies again)")
        return 0
    counts, errors, met = tally(dataset.sidecar("verified"))
    report: list[dict[str, Any]] = [{"verifier": name, **c, "rate": c["passed"] / c["completions"]} for name, c in sorted(counts.items())]
    lost = len(set(given) - met) if given is not None else 0
    if args.json:
        emit(
            {"rows": dataset.rows, "with_verifier": named, "unknown_ids": lost, "verifiers": report, "errors": dict(errors.most_common(20))}
        )
        return 0
    print(table(report, ["verifier", "completions", "passed", "rate", "errors"]))
    if not report:
        say("no completions: rows of kind prompt need --completions FILE")
    if lost:
        say(f"{lost} ids of {args.completions} are not in {args.directory}")
    for text, n in errors.most_common(5):
        say(f"{n} not verified: {text}")
    return 0


def _own(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not equals or ":" not in place:
        raise ConfigError(f"--own {text}: expected NAME=MODULE:FUNCTION")
    return name, place


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = parser("generation.verify", __doc__)
    made.add_argument("directory", help="a dataset directory")
    made.add_argument("--completions", metavar="FILE", help='JSON lines {"id": ROW ID, "completion": TEXT}')
    made.add_argument("--own", action="append", default=[], metavar="NAME=MODULE:FUNCTION", help="a verifier of your own (repeat)")
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the engine local: processes (default: a core each)")
    add_flag(made)
    made.add_argument("--force", action="store_true", help="verify again although nothing changed")
    return made


if __name__ == "__main__":
    sys.exit(run(main, arguments()))
