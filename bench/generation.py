"""How fast the client and the chain are, beside peers on the same fake server (50 ms a call), and what survives faults and kills.

    python -m bench.generation [--json FILE] [--peers DIR] [--only NAME ...] [--repeat N]

Scenarios: gen (2,000 answers, 256 in flight), tail (2 % of the calls take 2 s), judge1 and judge4 (4 models x 500 prompts, one judge
call or one per aspect, paired), memory (many prompts streamed; the chain on a tenth of them), kill (kill -9 at half, run again), faults
(1 % poisoned, 5 % 429, 5 % 500). Peers run in the virtual environments DIR/distilabel, DIR/curator, DIR/data-designer where those exist
(how to make them: docs/generation.md) through bench/generation_peers.py, each on a fresh server. Times are of the work alone (without
imports), walls of everything; each line is the better of the repetitions. The machine is shared by client and server.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "tests" / "generation" / "fault_server.py"
RUNNER = ROOT / "bench" / "generation_peers.py"
PORT = 8377


class Server:
    """A fresh fake server in a process of its own."""

    def __init__(self, *faults: str) -> None:
        self.process = subprocess.Popen([sys.executable, str(SERVER), "--port", str(PORT), *faults], stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.stats()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the fake server does not start")

    def stats(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/stats", timeout=5) as reply:
            return dict(json.load(reply))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def run(command: list[str], kill_at: int = 0, server: Server | None = None, timeout: float = 300) -> dict[str, Any]:
    """Run a client; its last JSON line, with wall, CPU seconds and peak resident memory of its whole process tree."""
    import psutil

    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT, start_new_session=True)
        peak = 0
        while child.poll() is None:
            peak = max(peak, tree_rss(psutil, child.pid))
            late = time.perf_counter() - start > timeout
            if late or (kill_at and server is not None and server.stats().get("ok", 0) >= kill_at):
                os.killpg(child.pid, signal.SIGKILL)
                break
            time.sleep(0.02)
        child.wait()
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        out.seek(0), err.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
        if child.returncode and not kill_at and not lines:
            print(err.read()[-2000:], file=sys.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        **(json.loads(lines[-1]) if lines else {}),
        "wall": round(wall, 2),
        "cpu": round(cpu, 2),
        "rss_mb": peak >> 20,
        "rc": child.returncode,
    }


def tree_rss(psutil: Any, pid: int) -> int:
    try:
        root = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (root, *root.children(recursive=True)))
    except psutil.Error:
        return 0


def clients(peers: Path, scenario: str) -> dict[str, list[str]]:
    """The command of every client that can do a scenario."""
    python = sys.executable
    out = {"caravan": [python, str(RUNNER), "caravan"]}
    out["bare openai+aiohttp"] = [python, str(RUNNER), "openai"]
    out["bare aiohttp"] = [python, str(RUNNER), "aiohttp"]
    for name in ("curator", "data-designer", "distilabel"):
        interpreter = peers / name / "bin" / "python"
        if interpreter.exists() and not (name == "curator" and scenario.startswith("judge")):
            out[name] = [str(interpreter), str(RUNNER), name]
    return out


def compare(scenario: str, faults: list[str], args: argparse.Namespace, n: int) -> list[dict[str, Any]]:
    """One scenario for all clients, in turn, `repeat` times."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(args.repeat):
        for name, command in clients(args.peers, scenario).items():
            if name in ("curator", "data-designer", "distilabel") and name in best:
                continue  # slow: once is enough
            with Server(*faults) as server, tempfile.TemporaryDirectory() as scratch:
                found = run([*command, "--task", scenario, "--n", str(n), "--port", str(PORT), "--scratch", scratch])
                found["calls"] = server.stats().get("all", 0)
            line = {"scenario": scenario if not faults else "tail", "client": name, **found}
            if name not in best or line.get("per_second", 0) > best[name].get("per_second", 0):
                best[name] = line
    return list(best.values())


def kill(n: int) -> list[dict[str, Any]]:
    """kill -9 at half, run again: what was kept is not asked again, and the result is that of an undisturbed run."""
    with Server("--latency", "0.1") as server, tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, str(RUNNER), "caravan", "--task", "judge4", "--n", str(n), "--port", str(PORT), "--scratch", scratch]
        run(command, kill_at=4 * n, server=server)
        first, out = server.stats(), Path(scratch) / "out"
        with sqlite3.connect(out / "replies.sqlite") as cache:
            kept = int(cache.execute("SELECT count(*) FROM replies").fetchone()[0])
        second = run(command)
        asked, killed = server.stats()["all"] - first["all"], digest(out)
        shutil.rmtree(out)
        run(command)
        same = killed == digest(out)
    return [{"scenario": "kill", "client": "caravan", "answered": first["ok"], "kept": kept, "asked by the second run": asked,
             "asked again though kept": asked - (8 * n - kept), "identical": same, **second}]  # fmt: skip


def digest(directory: Path) -> list[str]:
    """The hashes of every data file below."""
    import hashlib

    return [f"{p.relative_to(directory)} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in sorted(directory.rglob("*.parquet"))]


def faults(n: int) -> list[dict[str, Any]]:
    """1 % poisoned, 5 % 429, 5 % 500: who fails?"""
    out = []
    with Server("--poison", "0.01", "--flaky-429", "0.05", "--flaky-500", "0.05") as server, tempfile.TemporaryDirectory() as scratch:
        found = run([sys.executable, str(RUNNER), "caravan", "--task", "gen", "--n", str(n), "--port", str(PORT), "--scratch", scratch])
        poisoned = server.stats().get("400", 0)  # each of them is asked once
        out.append({"scenario": "faults", "client": "caravan", "calls": server.stats()["all"], "poisoned": poisoned, **found})
    return out


def memory(n: int) -> list[dict[str, Any]]:
    """Peak memory for few prompts and for ten times as many: the client alone, then the whole chain (no latency: only memory counts)."""
    out = []
    for task, rows in (("gen", n // 10), ("gen", n), ("judge1", n // 100), ("judge1", n // 10)):
        with Server("--latency", "0", "--words", "20"), tempfile.TemporaryDirectory() as scratch:
            client = [sys.executable, str(RUNNER), "caravan", "--task", task]
            found = run([*client, "--n", str(rows), "--port", str(PORT), "--scratch", scratch], timeout=3600)
        out.append({"scenario": f"memory {task}", "client": "caravan", "prompts": rows, **found})
    return out


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    made.add_argument(
        "--peers", type=Path, default=Path(os.environ.get("CARAVAN_PEERS", "/nonexistent")), help="folder of the peers' environments"
    )
    made.add_argument("--only", nargs="*", default=["gen", "tail", "judge1", "judge4", "kill", "faults", "memory"])
    made.add_argument("--repeat", type=int, default=3)
    made.add_argument("--memory-rows", type=int, default=100_000)
    args = made.parse_args()
    lines: list[dict[str, Any]] = []
    scenarios = {
        "gen": lambda: compare("gen", [], args, 2000),
        "tail": lambda: compare("gen", ["--slow", "0.02"], args, 2000),
        "judge1": lambda: compare("judge1", [], args, 500),
        "judge4": lambda: compare("judge4", [], args, 500),
        "kill": lambda: kill(200),
        "faults": lambda: faults(2000),
        "memory": lambda: memory(args.memory_rows),
    }
    sys.path.insert(0, str(ROOT))
    from columnar.cli import table

    for name in args.only:
        found = scenarios[name]()
        lines += found
        print(table(found, list(dict.fromkeys(k for line in found for k in line))), flush=True)
        print()
    if args.json:
        args.json.write_text(json.dumps({"lines": lines, "cores": os.cpu_count()}, indent=2) + "\n")
    shutil.rmtree("bench-tmp", ignore_errors=True)


if __name__ == "__main__":
    main()
