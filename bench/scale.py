"""A mix on one machine and on a Ray cluster: what the cluster costs beside this process, on 1, 2, 4 workers, and by the amount of text.

    python -m bench.scale --data ../shared/data --gb 0.1 0.2 --workers 1 2 4 --work /tmp/bench --json scale.json

Texts of bench.scale_data. The mix loads, measures, signs, finds exact and near duplicates, scans for benchmark items, samples half and
writes. Every run is a process of its own with an empty cache. CPU seconds are user + system: `driver` of the process that was started,
`workers` of the blocks they worked on, `start` of all else that Ray runs (imports of the workers, its servers). `same` says that the
rows are those of the local run, byte for byte. Memory is a process's largest.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.scale_data import make_texts
from columnar import cli
from columnar.store import peak_rss_mb


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


def one(config: Path, out: Path, workers: int) -> dict[str, Any]:
    """In that process: build, and count."""
    from curation import build_mix

    argv = [str(config), "--out", str(out)]
    before = time.perf_counter()
    told: dict[str, Any] = {"workers": workers}
    if workers:
        import psutil
        import ray

        from columnar import cluster

        kept: list[cluster.Cluster] = []
        leave = cluster.Cluster.__exit__
        cluster.Cluster.__exit__ = lambda self, *error: (kept.append(self), leave(self, *error))[1]  # type: ignore[method-assign]
        cluster.start(workers)
        before = time.perf_counter()
        assert cli.run(build_mix.main, build_mix.parser(), [*argv, "--engine", "ray"]) == 0
        (made,) = kept
        alive = psutil.Process().children(recursive=True)
        others = sum(sum(p.cpu_times()[:2]) for p in alive if p.is_running())
        there = {p.pid for p in alive}
        inside = sum(seconds for name, seconds in made.spent.items() if int(name.split()[1]) in there)
        told |= {
            "worker_mb": max(made.peaks.values()),
            "worker_cpu": sum(made.spent.values()),
            "start_cpu": others - inside,
        }
        ray.shutdown()
    else:
        assert cli.run(build_mix.main, build_mix.parser(), argv) == 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["identity"]
    return {
        **told,
        "wall_s": time.perf_counter() - before,
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
    lines: list[dict[str, Any]] = []
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
    print(cli.table(lines))
    shutil.rmtree(work / "run", ignore_errors=True)
    if args.save:
        Path(args.save).write_text(json.dumps(lines, indent=1))
    return 0


if __name__ == "__main__":
    made = argparse.ArgumentParser("python -m bench.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="../shared/data")
    made.add_argument("--gb", type=float, nargs="+", default=[0.1, 0.2])
    made.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4], help="none after it: only this process")
    made.add_argument("--rounds", type=int, default=1, help="the least CPU of so many counts")
    made.add_argument("--work", default="/tmp/bench")
    made.add_argument("--json", dest="save", metavar="FILE")
    made.add_argument("--one", help=argparse.SUPPRESS)
    made.add_argument("--out", help=argparse.SUPPRESS)
    sys.exit(main(made.parse_args()))
