"""What a mix of so many rows costs: the model of docs/scale.md, from the figures of bench.scale_stages and bench.scale.

    python -m bench.scale_model --stages stages.json --runs scale.json --machines 1 8 64 --cores 16 --price 0.04

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
DRIVER_BYTES = 4.0  # of memory for a row: its fate, its split, and which rows are compared
FOUND_BYTES = 150.0  # of memory for a row that shares a band with another
FOUND = 0.05  # their share, as in bench.scale_data
DRIVER_MB = 1200.0
KEPT_TWICE = 2.0  # a worker's result lies in a file of its own until the driver has put it in its place


def fitted(stages: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, float]:
    """CPU microseconds and bytes a row, and seconds to begin with."""
    largest = max(line["gb"] for line in stages)
    mine = {line["stage"]: line for line in stages if line["gb"] == largest}
    workers = sum(mine[stage]["us/row"] for stage in SHARED_OUT)
    alone = sum(line["us/row"] for stage, line in mine.items() if stage not in SHARED_OUT)
    rays = [line for line in runs if line["workers"] is not None]
    putting = min(max(line["driver"] / line["rows"] * 1e6 - alone, 0.0) for line in rays)
    bytes_shared = sum(mine[stage]["bytes/row"] for stage in SHARED_OUT)
    start = min(line["start"] for line in rays)
    return {
        "workers": workers,
        "driver": alone + putting,
        "bytes": KEPT_TWICE * bytes_shared + 3 * mine["load"]["bytes/row"] + mine["write"]["bytes/row"],
        "start": start,
    }


def cost(per: dict[str, float], rows: float, machines: int, cores: int, price: float) -> dict[str, Any]:
    """One line of the table."""
    shared, alone = rows * per["workers"] / 1e6 / (machines * cores), rows * per["driver"] / 1e6
    hours = (per["start"] + shared + alone) / 3600
    return {
        "rows": int(rows),
        "machines": machines,
        "hours": hours,
        "of them the driver": alone / 3600,
        "dollars": hours * machines * cores * price,
        "driver_gb": (DRIVER_MB * 1e6 + rows * (DRIVER_BYTES + FOUND * FOUND_BYTES)) / 1e9,
        "through_disk_gb": rows * per["bytes"] / 1e9,
    }


def main(args: argparse.Namespace) -> int:
    per = fitted(*(json.loads(Path(path).read_text(encoding="utf-8")) for path in (args.stages, args.runs)))
    print("a row: " + ", ".join(f"{name} {value:,.1f}" for name, value in per.items()))
    print(cli.table([cost(per, rows, machines, args.cores, args.price) for rows in args.rows for machines in args.machines]))
    return 0


if __name__ == "__main__":
    made = argparse.ArgumentParser("python -m bench.scale_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--stages", required=True, metavar="FILE", help="of bench.scale_stages --json")
    made.add_argument("--runs", required=True, metavar="FILE", help="of bench.scale --json")
    made.add_argument("--rows", type=float, nargs="+", default=[1e6, 1e8, 1e10])
    made.add_argument("--machines", type=int, nargs="+", default=[1, 8, 64])
    made.add_argument("--cores", type=int, default=16, help="of a machine")
    made.add_argument("--price", type=float, default=0.04, help="dollars for a core and hour")
    sys.exit(main(made.parse_args()))
