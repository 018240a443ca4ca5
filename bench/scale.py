"""A mix on one machine and on a Ray cluster: what the cluster costs beside this process, on 1, 2, 4 workers, and by the amount of text.

    python -m bench.scale --data ../shared/data --gb 0.1 0.2 --workers 1 2 4 --work /tmp/bench --json scale.json

Texts of bench.scale_data. The mix loads, measures, signs, finds exact and near duplicates, scans for benchmark items, samples half and
writes. Every run is a process of its own with an empty cache. CPU seconds are user + system: `driver` of the process that was started,
`workers` of the blocks they worked on, `start` of all else that Ray runs (imports of the workers, its servers). `same` says that the
rows are those of the local run, byte for byte. Memory is a process's largest.

Of local runs it also says what each stage cost a row, what it keeps on disk, and the process's peak memory by its end; with three
sizes or more, the line through each stage's CPU seconds and how far off it they are.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.scale_data import make_texts
from bench.scale_keys import DEVIATION, slope
from columnar import cli, cluster
from columnar.store import peak_rss_mb

STEPS = {  # of curation.pipeline, in a build's order
    "load": "_load",
    "signals": "measure",
    "scan": "scan_sources",
    "rules": "judge_sources",
    "sign": "sign",
    "duplicates": "drop_duplicates",
    "draw": "draw_rows",
    "write": "write_mix",
}
KEPT = {  # what a stage leaves on disk
    "load": ("cache", "load/*/rows/*.parquet"),
    "signals": ("cache", "load/*/cols/signals.parquet"),
    "scan": ("cache", "decontam/**/*.parquet"),
    "sign": ("cache", "load/*/cols/minhash.parquet"),
    "write": ("out", "**/*.parquet"),
}


def config_of(files: list[Path], path: Path) -> Path:
    """The mix as a file."""
    sources = "\n".join(f"  - {{name: {f.name.split('.')[0]}, path: {f}, fraction: 0.5}}" for f in files)
    benchmarks = Path("recipes/mixes/tiny/benchmarks/benchmarks.yaml").absolute()
    text = f"name: scale\nkind: sft\nseed: 1\nsources:\n{sources}\ndedup: {{near: {{threshold: 0.7}}}}\n"
    path.write_text(text + f"decontam: {{benchmarks: {benchmarks}}}\n", encoding="utf-8")
    return path


def run(config: Path, out: Path, workers: int) -> dict[str, Any]:
    """One build in a process of its own; 0 workers is the engine local."""
    shutil.rmtree(out.parent, ignore_errors=True)
    command = [sys.executable, "-m", "bench.scale", "--one", str(config), "--out", str(out), "--workers", str(workers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def watch(spent: Callable[[], float]) -> list[dict[str, Any]]:
    """From now on every stage of a build says here what it cost; `spent` is CPU seconds of workers so far."""
    from curation import pipeline

    stages: list[dict[str, Any]] = []

    def timed(stage: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            here, there = time.process_time(), spent()
            made = step(*args, **named)
            stages.append({"stage": stage, "cpu_s": time.process_time() - here, "workers_s": spent() - there, "peak_mb": peak_rss_mb()})
            return made

        return run

    for stage, name in STEPS.items():
        home = pipeline.signal_stage if stage == "signals" else pipeline
        setattr(home, name, timed(stage, getattr(home, name)))
    return stages


def one(config: Path, out: Path, workers: int) -> dict[str, Any]:
    """In that process: build, and count."""
    from curation import build_mix

    argv = [str(config), "--out", str(out), "--engine", "ray" if workers else "local"]
    told: dict[str, Any] = {"workers": workers}
    clusters: list[cluster.Cluster] = []
    if workers:
        import ray

        make = cluster.Cluster.__init__
        cluster.Cluster.__init__ = lambda self, address: (make(self, address), clusters.append(self))[0]  # type: ignore[method-assign]
        cluster.start(workers)
    stages = watch(lambda: sum(sum(made.spent.values()) for made in clusters))
    before, started = time.perf_counter(), time.process_time()
    assert cli.run(build_mix.main, build_mix.parser(), argv) == 0
    wall, rest = time.perf_counter() - before, time.process_time() - started - sum(stage["cpu_s"] for stage in stages)
    for made in clusters:
        import psutil

        alive = psutil.Process().children(recursive=True)
        others = sum(sum(p.cpu_times()[:2]) for p in alive if p.is_running())
        there = {p.pid for p in alive}
        inside = sum(seconds for name, seconds in made.spent.items() if int(name.split()[1]) in there)
        told |= {"worker_mb": max(made.peaks.values()), "worker_cpu": sum(made.spent.values()), "start_cpu": others - inside}
        ray.shutdown()
    used = resource.getrusage(resource.RUSAGE_SELF)
    in_stages = sum(stage["workers_s"] for stage in stages)
    stages.append({"stage": "rest", "cpu_s": rest, "workers_s": told.get("worker_cpu", 0.0) - in_stages, "peak_mb": peak_rss_mb()})
    homes = {"cache": out.parent / ".cache", "out": out}
    for stage in stages:
        where, pattern = KEPT.get(stage["stage"], ("out", "none"))
        stage["bytes"] = sum(file.stat().st_size for file in homes[where].glob(pattern))
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["identity"]
    return {
        **told,
        "stages": stages,
        "wall_s": wall,
        "driver_cpu": used.ru_utime + used.ru_stime,
        "driver_mb": peak_rss_mb(),
        "rows": manifest["counts"]["in"],
        "rows_sha256": manifest["rows_sha256"],
    }


def main(args: argparse.Namespace) -> int:
    if args.one:
        out = sys.stdout
        sys.stdout = sys.stderr  # the command's table
        made = one(Path(args.one), Path(args.out), int(args.workers[0]))
        out.write(json.dumps(made))
        return 0
    work = Path(args.work)
    before = json.loads(Path(args.save).read_text()) if args.save and Path(args.save).exists() else {"runs": [], "stages": []}
    lines, each = ([line for line in before[part] if line["gb"] not in args.gb] for part in ("runs", "stages"))
    for gb in args.gb:
        config = config_of(make_texts(Path(args.data), work, gb), work / f"mix-{gb:g}.yaml")
        base: dict[str, Any] = {}
        for workers in [0, *args.workers]:
            runs = [run(config, work / "run" / "out", workers) for _ in range(args.rounds)]
            best = min(runs, key=lambda r: r["driver_cpu"] + r.get("worker_cpu", 0))
            total = best["driver_cpu"] + best.get("worker_cpu", 0.0)
            base = base or {**best, "total": total}
            lines.append(
                {
                    "gb": gb,
                    "engine": f"ray, {workers}" if workers else "local",
                    "rows": best["rows"],
                    "wall_s": best["wall_s"],
                    "driver": best["driver_cpu"],
                    "workers": best.get("worker_cpu"),
                    "start": best.get("start_cpu"),
                    "cpu_ratio": (total + best.get("start_cpu", 0.0)) / base["total"],
                    "driver_mb": best["driver_mb"],
                    "worker_mb": best.get("worker_mb"),
                    "same": best["rows_sha256"] == base["rows_sha256"],
                }
            )
            cli.say(cli.table(lines[-1:]))
            same = {"gb": gb, "engine": lines[-1]["engine"], "rows": best["rows"]}
            each += [{**same, **stage, **a_row(stage, best["rows"])} for stage in best["stages"]]
            if args.save:
                Path(args.save).write_text(json.dumps({"runs": lines, "stages": each}, indent=1))
    print(cli.table(lines))
    print("\n" + cli.table(each, ["gb", "engine", "stage", "rows", "cpu_s", "workers_s", "us/row", "bytes/row", "peak_mb"]))
    local = [line for line in each if line["engine"] == "local"]
    if len({line["gb"] for line in local}) > 2:
        print("\n" + cli.table(slopes(local)))
    shutil.rmtree(work / "run", ignore_errors=True)
    return 0


def a_row(stage: dict[str, Any], rows: int) -> dict[str, float]:
    return {"us/row": (stage["cpu_s"] + stage["workers_s"]) / rows * 1e6, "bytes/row": stage["bytes"] / rows}


def slopes(each: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The line through each stage's CPU seconds, and through their sums."""
    sizes = sorted({line["rows"] for line in each})
    sums = [{"stage": "all", "rows": rows, "cpu_s": sum(line["cpu_s"] for line in each if line["rows"] == rows)} for rows in sizes]
    found = []
    for stage in [*STEPS, "rest", "all"]:
        fixed, per, off = slope([line for line in [*each, *sums] if line["stage"] == stage])
        found.append({"stage": stage, "s_fixed": fixed, "us/row": per, "deviation": off, "linear": off < DEVIATION})
    return found


if __name__ == "__main__":
    made = argparse.ArgumentParser("python -m bench.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="../shared/data")
    made.add_argument("--gb", type=float, nargs="+", default=[0.1, 0.2])
    made.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4], help="none after it: only this process")
    made.add_argument("--rounds", type=int, default=1, help="the least CPU of so many counts")
    made.add_argument("--work", default="/tmp/bench")
    made.add_argument("--json", dest="save", metavar="FILE", help="other sizes that it has count with")
    made.add_argument("--one", help=argparse.SUPPRESS)
    made.add_argument("--out", help=argparse.SUPPRESS)
    sys.exit(main(made.parse_args()))
