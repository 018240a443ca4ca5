"""What each stage of a mix costs a row: the figures that the cost model of docs/scale.md is made of.

    python -m bench.scale_stages --data ../shared/data --gb 0.02 0.05 --work /tmp/bench --json stages.json

One process, one core (POLARS_MAX_THREADS=1), everything compiled before; CPU seconds are user + system. `bytes` is what a stage keeps
on disk for each row: what a cluster's machines write for each other, since nothing else travels. `mb` is this process's peak so far.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.scale import config_of
from bench.scale_data import make_texts
from columnar import cli


def size_of(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.rglob(pattern))


def stages(config: Path, work: Path) -> list[dict[str, Any]]:
    """Each stage once, in a build's order."""
    from columnar.config import load
    from columnar.store import peak_rss_mb
    from curation import decide, duplicates, pipeline, signals
    from curation.mix import MixConfig
    from curation.scan import scan_sources
    from curation.write import write_mix

    made = load(MixConfig, config, [])
    assert made.dedup is not None and made.decontam is not None
    job = pipeline.Job(made, config.parent, work / "out", work / "cache")
    lines: list[dict[str, Any]] = []

    def timed(name: str, step: Callable[[], Any], folder: Path, pattern: str) -> Any:
        before, began = time.process_time(), size_of(folder, pattern)
        result = step()
        lines.append({"stage": name, "cpu_s": time.process_time() - before, "bytes": size_of(folder, pattern) - began, "mb": peak_rss_mb()})
        return result

    cache, out = job.cache, work / "out"
    out.mkdir(parents=True)
    loaded = timed("load", lambda: pipeline._load(job), cache, "rows/*.parquet")
    datasets = [source.dataset for source in loaded]
    timed("signals", lambda: signals.measure(datasets, made.signals, job.root), cache, "cols/signals.parquet")
    scan = timed("scan", lambda: scan_sources(made.decontam, job.base, loaded, cache), cache, "*/decontam*.parquet")
    decisions = timed("judge", lambda: decide.judge_sources(made, loaded), cache, "none")
    timed("sign", lambda: duplicates.sign(made.dedup, loaded, []), cache, "cols/minhash.parquet")
    found = timed("dedup", lambda: duplicates.drop_duplicates(made.dedup, loaded, [], decisions), cache, "none")
    timed("draw", lambda: decide.draw_rows(made, loaded, decisions), cache, "none")
    sides = [{"signals": s.dataset.sidecar("signals"), "decontam": scan.columns(n)} for n, s in enumerate(loaded)]
    timed("write", lambda: write_mix(out, made, loaded, decisions, found, sides, lambda n: None), out, "*.parquet")
    rows = len(decisions.fate)
    return [{**line, "rows": rows, "rows/s": rows / line["cpu_s"], "us/row": line["cpu_s"] / rows * 1e6} for line in lines]


def main(args: argparse.Namespace) -> int:
    work = Path(args.work)
    if args.one:
        shutil.rmtree(work / "stages", ignore_errors=True)
        sys.stdout.write(json.dumps(stages(Path(args.one), work / "stages")))
        shutil.rmtree(work / "stages", ignore_errors=True)
        return 0
    everything: list[dict[str, Any]] = []
    for gb in args.gb:
        config = config_of(make_texts(Path(args.data), work, gb), work / f"mix-{gb:g}.yaml")
        runs = []
        for _ in range(args.rounds + 1):  # the first compiles
            command = [sys.executable, "-m", "bench.scale_stages", "--one", str(config), "--work", str(work)]
            env = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
            runs.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout))
        for steps in zip(*runs[1:], strict=True):
            best = min(steps, key=lambda line: line["cpu_s"])
            everything.append({"gb": gb, **best, "bytes/row": best["bytes"] / best["rows"]})
    print(cli.table(everything, ["gb", "stage", "rows", "cpu_s", "us/row", "rows/s", "bytes/row", "mb"]))
    if args.save:
        Path(args.save).write_text(json.dumps(everything, indent=1))
    return 0


if __name__ == "__main__":
    made = argparse.ArgumentParser(
        "python -m bench.scale_stages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", default="../shared/data")
    made.add_argument("--gb", type=float, nargs="+", default=[0.1, 0.3])
    made.add_argument("--rounds", type=int, default=1, help="the least CPU of so many counts")
    made.add_argument("--work", default="/tmp/bench")
    made.add_argument("--json", dest="save", metavar="FILE")
    made.add_argument("--one", help=argparse.SUPPRESS)
    sys.exit(main(made.parse_args()))
