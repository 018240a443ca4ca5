"""A thin bridge to lm-eval (EleutherAI's evaluation harness) for the tasks that are not ours: run it, keep its items in our form.

    pip install lm-eval
    python -m training.lmeval --model out/sft --tasks arc_easy,hellaswag --out out/lmeval
    python -m training.lmeval --read RESULTS --out out/lmeval                # the --log_samples output of a run of your own

OUT/TASK is a dataset directory as training.evaluate writes it, so that --compare and --band work on it; lm-eval's own files stay in
OUT/lm_eval. What follows `--` goes to lm-eval as it is.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from columnar import cli, store
from columnar.errors import CaravanError, InputError
from generation.verifiers.verdict import Part, weigh
from generation.wire import Reply, Request
from training.evaluate import Answered
from training.results import write_results
from training.scores import interval
from training.tasks import Item, Task

METRICS = ("exact_match", "acc_norm", "acc", "pass@1", "pass_at_1", "prompt_level_strict_acc", "f1", "mc2")  # the first that a sample has


def sample_files(folder: Path) -> list[tuple[str, Path]]:
    """(task, file) of every task's newest samples below a folder.

    Raises:
        InputError: there are none.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("samples_*.jsonl"), key=lambda p: p.name):
        found[path.stem.removeprefix("samples_").rpartition("_")[0] or path.stem] = path
    if not found:
        raise InputError(f"{folder}: no samples_*.jsonl", "run lm-eval with --log_samples --output_path DIR")
    return sorted(found.items())


def read_samples(name: str, path: Path) -> tuple[Task, list[Answered]]:
    """One task's samples as answered items; several filters of one item: the last one counts.

    Raises:
        InputError: a line without any metric that we know.
    """
    by_id: dict[str, dict[str, Any]] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = json.loads(text)
        metric = next((m for m in METRICS if isinstance(line.get(m), int | float)), None)
        if metric is None:
            raise InputError(f"{path}:{number}: no metric that is known here ({', '.join(METRICS)})", f"fields: {', '.join(line)}")
        by_id[str(line.get("doc_id", number))] = {**line, "metric": metric}
    metric = next(iter(by_id.values()))["metric"]
    task = Task(name=f"lm-eval/{name}", prompt="{prompt}", verifier="lm-eval", ground_truth="{target}", metric="score")
    return task, [_answered(name, ident, line) for ident, line in by_id.items()]


def _answered(name: str, ident: str, line: dict[str, Any]) -> Answered:
    arguments = line.get("arguments") or {}
    first = next(iter(arguments.values()), {}) if isinstance(arguments, dict) else {"arg_0": arguments[0][0]}
    messages = [{"role": "user", "content": str(first.get("arg_0", ""))}]
    said = line.get("filtered_resps") or line.get("resps") or [""]
    score = float(line[line["metric"]])
    part = Part(name, score, score == 1.0, rule=line["metric"], expected=str(line.get("target"))[:200])
    check = {"verifier": "lm-eval", "ground_truth": str(line.get("target"))}
    reply = Reply(Request("model", messages), "ok", str(said[0])[:100_000], raw="{}")
    return Answered(Item(ident, messages, {"": check}), [reply], {"": [weigh([part])]})


def keep(name: str, path: Path, model: str, out: Path) -> dict[str, Any]:
    """Write one task's dataset directory; returns the manifest's identity."""
    started = time.time()
    task, answered = read_samples(name, path)
    scores = [a.values("score") for a in answered]
    found = {
        "metrics": {"score": interval(scores, purpose=task.name)._asdict()},
        "items": len(answered),
        "unanswered": 0,
        "unverified": sum(math.isnan(s) for s in scores),
        "reasons": [],
        "truncated": 0,
        "tokens_per_answer": 0.0,
    }
    # lm-eval's version of a task is not ours to know: the items stand for it
    key = store.stage_key("lm-eval", 1, name, sorted(a.item.id for a in answered))
    identity = {
        "task_key": key,
        "items_key": key,
        "model": {"name": model, "revision": None},
        "mix": None,
        "key": store.file_sha256(path)[:16],
    }
    return write_results(out, task, "model", answered, None, found, identity, started)


def main(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        CaravanError: lm-eval is not installed, or failed.
    """
    folder = args.read
    if folder is None:
        folder = args.out / "lm_eval"
        told = ["--model", "hf", "--model_args", f"pretrained={args.model}", "--tasks", args.tasks, "--output_path", str(folder)]
        done = subprocess.run([sys.executable, "-m", "lm_eval", *told, "--log_samples", *args.more], check=False)
        if done.returncode:
            raise CaravanError(f"lm-eval ended with {done.returncode}", "is it installed (pip install lm-eval)? what it said is above")
    lines = []
    for name, path in sample_files(folder):
        identity = keep(name, path, str(args.model or folder), args.out / name)
        score = identity["scores"]["metrics"]["score"]
        lines.append({"task": name, "items": score["n"], "score": score["value"], "95 %": f"{score['low']:.3f} to {score['high']:.3f}"})
    cli.emit(lines) if args.json else print(cli.table(lines))
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("training.lmeval", __doc__)
    made.add_argument("--model", help="a model directory or hub id")
    made.add_argument("--tasks", default="", help="lm-eval's names, separated by commas")
    made.add_argument("--read", type=Path, metavar="DIR", help="samples of a run that is done, instead of running")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="one dataset directory a task")
    made.add_argument("more", nargs="*", help="after --: for lm-eval")
    return made


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
