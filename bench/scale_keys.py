"""The steps that need all rows, on synthetic narrow keys: cost by rows, up to a billion on one machine.

    python -m bench.scale_keys --rows 1 3 10 30 --work /tmp/bench --json keys.json        (millions)
    python -m bench.scale_keys --rows 1000 --step group draw --work /tmp/bench            (a billion: 8 GB of disk)

group   one band of signatures: hash, shelf on disk, buckets of rows that share a band; a mix has 16 bands, each costs the same
exact   the hash of each row, the same way: candidates for exact duplicates
draw    a tenth of the rows, by hashed ids (curation.select)
shard   which of four shards of the output each row belongs to, in the order of hashed ids: bounds by the same selection

A tenth of the keys occur twice. Every measurement is a process of its own; CPU is user + system
without the start; the slope is seconds per million rows of the line through all sizes, the deviation how far a size lies from it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from columnar import cli
from curation import lsh, shelf
from curation.mix import draw_keys
from curation.select import Cut, first_rows

PIECE = 1 << 20
SLOTS = 6  # of a band: threshold 0.7 with 112 permutations
STEPS = ("group", "exact", "draw", "shard")
DEVIATION = 0.15


def numbers(rows: int) -> Iterator[np.ndarray]:
    for start in range(0, rows, PIECE):
        yield np.arange(start, min(start + PIECE, rows), dtype=np.uint64)


def keys_of(number: np.ndarray, rows: int) -> np.ndarray:
    """64-bit keys of rows; the last tenth of the rows repeat the first."""
    return draw_keys(np.where(number >= rows - rows // 10, number - np.uint64(rows - rows // 10), number), 1, "bench")


def group(rows: int, work: Path) -> dict[str, float]:
    """One band: from signatures to buckets' sizes."""
    low = shelf.number_bits(rows)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        words = shelf.Shelf(1, shelf.part_bits(rows), Path(folder))
        for number in numbers(rows):
            key = keys_of(number, rows)
            signature = np.stack([(key >> np.uint64(slot)).astype(np.uint32) for slot in range(SLOTS)], axis=1)
            words.add(lsh.band_hashes(signature, None, 1, SLOTS), number, low)
        members = sum(len(shelf.shared(piece, low)) for _, _, piece in words.drain())
    return {"shared": members, "bytes": 8.0 * rows}


def exact(rows: int, work: Path) -> dict[str, float]:
    """Hashes of rows: which occur twice."""
    low = shelf.number_bits(rows)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        words = shelf.Shelf(1, shelf.part_bits(rows), Path(folder))
        for number in numbers(rows):
            words.add(keys_of(number, rows)[None], number, low)
        members = sum(len(shelf.shared(piece, low)) for _, _, piece in words.drain())
    return {"shared": members, "bytes": 8.0 * rows}


def _first(rows: int, limit: int, purpose: str) -> Cut:
    return first_rows(lambda: ((draw_keys(number, 1, purpose), number, None) for number in numbers(rows)), limit)


def draw(rows: int, work: Path) -> dict[str, float]:
    """A tenth of the rows."""
    cut = _first(rows, rows // 10, "sample")
    taken = sum(int(cut.takes(draw_keys(number, 1, "sample"), number).sum()) for number in numbers(rows))
    assert taken == rows // 10
    return {"taken": taken, "bytes": 0.0}


def shard(rows: int, work: Path) -> dict[str, float]:
    """The shard of each row, and how balanced they are."""
    bounds = [_first(rows, rows * part // 4, "shuffle").key for part in (1, 2, 3)]
    sizes = np.zeros(4, np.int64)
    for number in numbers(rows):
        sizes += np.bincount(np.searchsorted(np.array(bounds, np.uint64), draw_keys(number, 1, "shuffle"), side="left"), minlength=4)
    assert sizes.max() - sizes.min() <= 4
    return {"taken": rows, "bytes": 0.0}


def measured(step: str, rows: int, work: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.scale_keys", "--one", step, "--rows", str(rows), "--work", str(work)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def slope(lines: list[dict[str, float]]) -> tuple[float, float, float]:
    """The line through all sizes, each counting alike: CPU seconds to begin with, seconds per million rows, largest relative distance."""
    x, y = np.array([line["rows"] / 1e6 for line in lines]), np.array([line["cpu_s"] for line in lines])
    fixed, per = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), np.ones(len(x)), rcond=None)[0]
    return float(fixed), float(per), float(np.abs((fixed + per * x) / y - 1).max())


def main(args: argparse.Namespace) -> int:
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    if args.one:
        began, before = time.perf_counter(), time.process_time()
        made = globals()[args.one](int(args.rows[0]), work)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        cli.emit({**made, "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - before, "mb": peak})
        return 0
    lines: list[dict] = []
    for step in args.step:
        for millions in args.rows:
            rows = int(millions * 1e6)
            best = min((measured(step, rows, work) for _ in range(args.rounds)), key=lambda line: line["cpu_s"])
            rate = rows / best["cpu_s"]
            lines.append({"step": step, "rows": rows, **best, "rows/s": round(rate), "disk_gb": best["bytes"] / 1e9})
            cli.say(cli.table(lines[-1:], ["step", "rows", "cpu_s", "wall_s", "rows/s", "mb", "disk_gb"]))
    print(cli.table(lines, ["step", "rows", "cpu_s", "wall_s", "rows/s", "mb", "disk_gb"]))
    slopes = []
    for step in args.step:
        mine = [line for line in lines if line["step"] == step]
        fixed, per, off = slope(mine)
        peaks = [line["mb"] for line in mine]
        slopes.append(
            {
                "step": step,
                "s_fixed": fixed,
                "s_per_million": per,
                "deviation": off,
                "linear": off < DEVIATION,
                "mb_least": min(peaks),
                "mb_most": max(peaks),
            }
        )
    print("\n" + cli.table(slopes))
    if args.save:
        Path(args.save).write_text(json.dumps({"runs": lines, "slopes": slopes}, indent=1))
    return 0


if __name__ == "__main__":
    made = argparse.ArgumentParser(
        prog="python -m bench.scale_keys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rows", type=float, nargs="+", default=[1, 3, 10, 30], help="millions of rows")
    made.add_argument("--step", nargs="+", default=list(STEPS), choices=STEPS)
    made.add_argument("--rounds", type=int, default=1, help="the least CPU of so many counts")
    made.add_argument("--work", default="/tmp/bench")
    made.add_argument("--json", dest="save", metavar="FILE")
    made.add_argument("--one", help=argparse.SUPPRESS)
    sys.exit(main(made.parse_args()))
