"""What a mix of so many rows costs on a cluster: the model of docs/scale.md, fitted to a run of bench.scale and checked against its others.

    python -m bench.scale_model --runs scale.json --fit 1 --machines 1 8 64 --cores 16 --price 0.04

Seconds = start + rows x (workers' CPU a row / cores of all machines) + rows x (driver's CPU a row). Workers load, measure, scan and
sign; the driver puts their results together, judges, groups duplicates, draws and writes. `price` is dollars for a core and hour; the
machines are paid for as long as the run takes. Disk is what passes through the shared file system; memory is the driver's.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from columnar import cli

SHARED_OUT = ("load", "signals", "scan", "sign")
DRIVER_BYTES = 5.0  # of memory for a row: its fate, its split, which rows are compared, and which share a band
FOUND_BYTES = 150.0  # of memory for a row that shares a band with another
FOUND = 0.05  # their share, as in bench.scale_data
DRIVER_MB = 1200.0
KEPT_TWICE = 2.0  # a worker's result lies in a file of its own until the driver has put it in its place


def fitted(results: dict[str, list[dict[str, Any]]], gb: float) -> dict[str, float]:
    """CPU microseconds and bytes a row, and seconds to begin with: those of the run of this size on a cluster."""
    run = next(line for line in results["runs"] if line["gb"] == gb and line["workers"])
    kept = {line["stage"]: line["bytes/row"] for line in results["stages"] if line["gb"] == gb and line["engine"] == run["engine"]}
    return {
        "workers": run["workers"] / run["rows"] * 1e6,
        "driver": run["driver"] / run["rows"] * 1e6,
        "bytes": KEPT_TWICE * sum(kept[stage] for stage in SHARED_OUT) + 3 * kept["load"] + kept["write"],
        "start": run["start"],
    }


def seconds(per: dict[str, float], rows: float, cores: int) -> tuple[float, float]:
    """How long it takes, and how much of that the driver alone works."""
    alone = rows * per["driver"] / 1e6
    return per["start"] + rows * per["workers"] / 1e6 / cores + alone, alone


def cost(per: dict[str, float], rows: float, machines: int, cores: int, price: float) -> dict[str, Any]:
    """One line of the table."""
    whole, alone = seconds(per, rows, machines * cores)
    return {
        "rows": int(rows),
        "machines": machines,
        "hours": whole / 3600,
        "of them the driver": alone / 3600,
        "dollars": whole / 3600 * machines * cores * price,
        "driver_gb": (DRIVER_MB * 1e6 + rows * (DRIVER_BYTES + FOUND * FOUND_BYTES)) / 1e9,
        "through_disk_gb": rows * per["bytes"] / 1e9,
    }


def main(args: argparse.Namespace) -> int:
    results = json.loads(Path(args.runs).read_text(encoding="utf-8"))
    per = fitted(results, args.fit)
    print("a row: " + ", ".join(f"{name} {value:,.1f}" for name, value in per.items()) + "\n")
    checks = []
    for run in (line for line in results["runs"] if line["workers"]):
        said = seconds(per, run["rows"], min(int(run["engine"].split()[1]), args.own_cores))[0]
        checks.append({"gb": run["gb"], "engine": run["engine"], "said_s": said, "took_s": run["wall_s"], "off": said / run["wall_s"] - 1})
    print(cli.table(checks) + "\n")
    print(cli.table([cost(per, rows, machines, args.cores, args.price) for rows in args.rows for machines in args.machines]))
    return 0


if __name__ == "__main__":
    made = argparse.ArgumentParser("python -m bench.scale_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", required=True, metavar="FILE", help="of bench.scale --json")
    made.add_argument("--fit", type=float, default=1.0, metavar="GB", help="the size whose run on a cluster counts")
    made.add_argument("--own-cores", type=int, default=2, help="of the machine of those runs")
    made.add_argument("--rows", type=float, nargs="+", default=[1e6, 1e8, 1e10])
    made.add_argument("--machines", type=int, nargs="+", default=[1, 8, 64])
    made.add_argument("--cores", type=int, default=16, help="of a machine")
    made.add_argument("--price", type=float, default=0.04, help="dollars for a core and hour")
    sys.exit(main(made.parse_args()))
