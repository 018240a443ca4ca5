"""The fault server with answers written by a test: real HTTP, real client, real cache, and a count of every call."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from fault_server import Faults, Running

from columnar import store
from columnar.cli import run
from generation.maker import Maker, arguments, command

ROOT = Path(__file__).resolve().parents[2]
Answer = Callable[[dict[str, Any], str], str]


@contextlib.contextmanager
def serve(answer: Answer, **faults: Any) -> Iterator[Running]:
    """A server whose text is `answer(body, prompt)`; faults as in fault_server (`<<poison>>` in a prompt, shares, latency)."""
    server = Running(Faults(**faults))

    def choice(body: dict[str, Any], prompt: str, key: str, i: int, limit: int) -> dict[str, Any]:
        text = answer(body, prompt)
        finish = "length" if server.fake.has("truncate", prompt) else "content_filter" if server.fake.has("refuse", prompt) else "stop"
        return {"index": i, "finish_reason": finish, "message": {"role": "assistant", "content": text}}

    server.fake.choice = choice  # type: ignore[method-assign]
    try:
        yield server
    finally:
        server.close()


def killed(server: Running, module: str, config: Path, out: Path, answers: int) -> int:
    """Run a command of this repository, kill -9 it when it has kept so many answers more, and say how many are kept in all.

    The server gives no more until then, so that there is always a middle to be killed in; after it, what was in flight is over.
    """
    before = stored(out)
    server.fake.faults.holds_after = server.fake.calls["ok"] + answers
    command = [sys.executable, "-m", module, str(config), "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while stored(out) < before + answers:
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.01)
        process.kill()
    server.fake.faults.holds_after = 0
    server.settle()
    return stored(out)


def stored(out: Path) -> int:
    """The answers kept in a run's cache."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{out}/replies.sqlite?mode=ro", uri=True)) as cache:
            return int(cache.execute("SELECT count(*) FROM replies").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def make(maker: Maker, config: dict[str, Any], out: Path, *flags: str) -> int:
    """Run a maker's command in this process; gives the exit code."""
    path = out.parent / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return run(command(maker), arguments(maker), [str(path), "--out", str(out), *flags])


def model(server: Running, **more: Any) -> dict[str, Any]:
    return {"name": "teacher", "model": "tiny", "base_url": server.url, "retries": 2, **more}


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for batch in store.read_batches(store.open_dataset(out)) for row in batch.to_pylist()]


def rejected_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]


def counts_of(out: Path) -> dict[str, Any]:
    return dict(store.open_dataset(out).manifest["identity"]["counts"])


def content_of(out: Path) -> dict[str, bytes]:
    """Everything that must be the same on every run."""
    files = [*sorted((out / "rows").glob("*.parquet")), out / "rejected.jsonl"]
    return {str(f.relative_to(out)): f.read_bytes() for f in files}


def write_prompts(path: Path, texts: list[str]) -> str:
    """A file of prompts as users have them."""
    path.write_text("".join(json.dumps({"prompt": t}) + "\n" for t in texts), encoding="utf-8")
    return str(path)
