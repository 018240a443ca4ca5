"""JSON lines to a dataset: our loader beside the plain way, and beside readers that do not check anything.

    python -m bench.ingest --data ../shared/data --mb 300 --json out/ingest.json

Every contender runs in a process of its own, in turn, `--rounds` times; the figure is the median of MB of JSON lines per second of CPU
(user and system, all threads), start-up included, and the peak of its memory. `ours` and `plain` decode strictly, validate, make ids and
both hashes and write Parquet. `datasets`, `polars` and `duckdb` only read and write Parquet: they infer types, check no roles, and change
or drop what does not fit (see docs/loading.md), so they are here for scale, not as equals. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from columnar import cli
from columnar.store import write_json

SETS = {
    "chats": "messages of LIMA, Dolly, OASST and evolved code, with two fields of metadata",
    "dolly": "instruction, context, response, category: Dolly as it is published",
    "lists": "a .json list of alpaca records",
}
WAYS = {
    "ours": "python -m columnar.load {file} --out {out}",
    "plain": "python -m bench.ingest --way plain {file} {out}",
    "datasets": "python -m bench.ingest --way datasets {file} {out}",
    "polars": "python -m bench.ingest --way polars {file} {out}",
    "duckdb": "python -m bench.ingest --way duckdb {file} {out}",
}


def make(data: Path, folder: Path, mb: int) -> None:
    """The test files: real rows, written again and again until they have the size."""
    import pyarrow.parquet as pq

    instructions = data / "instructions"

    def rows(name: str) -> list[dict[str, object]]:
        return list(pq.read_table(instructions / f"{name}.parquet").to_pylist())

    asked = [(r["instruction"], r["output"], n) for n in ("lima", "evol_codealpaca_4k") for r in rows(n)]
    asked += [(f"{r['instruction']}\n\n{r['context']}", r["response"], "dolly") for r in rows("dolly_15k")]
    asked += [(r["prompt"], r["completion"], "oasst") for r in rows("oasst1_octopack_1k")]
    chats = [
        {"id": f"row_{i}", "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}], "source": n}
        for i, (q, a, n) in enumerate(asked)
    ]
    alpaca = [{k: r[k] for k in ("instruction", "input", "output")} for r in rows("alpaca_17k")]
    for name, records in (("chats", chats), ("dolly", rows("dolly_15k")), ("lists", alpaca)):
        path = folder / f"{name}.{'json' if name == 'lists' else 'jsonl'}"
        between = b",\n" if name == "lists" else b"\n"
        text = between.join(json.dumps(r, ensure_ascii=False).encode() for r in records)
        with path.open("wb") as file:
            file.write(b"[" if name == "lists" else b"")
            file.write(between.join([text] * max(1, mb * 1_000_000 // len(text))))
            file.write(b"]\n" if name == "lists" else b"\n")


def way(name: str, file: Path, out: Path) -> None:
    """One contender, in a process of its own."""
    out.mkdir(parents=True)
    target = str(out / "rows.parquet")
    if name == "plain":
        plain(file, Path(target))
    elif name == "datasets":
        from datasets import load_dataset

        load_dataset("json", data_files=str(file), split="train", cache_dir=str(out / "cache")).to_parquet(target)
    elif name == "polars":
        import polars as pl

        if file.suffix == ".json":
            pl.read_json(file).write_parquet(target, compression="zstd", compression_level=1)
        else:
            pl.scan_ndjson(file).sink_parquet(target, compression="zstd", compression_level=1)
    elif name == "duckdb":
        import duckdb

        source = f"read_json('{file}', maximum_object_size=100000000)"
        duckdb.sql(f"COPY (SELECT * FROM {source}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)")


def plain(file: Path, target: Path) -> None:
    """The usual Python way to the same rows: json.loads, one dict a row, validate, seal, from_pylist."""
    import pyarrow as pa

    from columnar.formats import detect, named
    from columnar.record import schema_of, seal, validate
    from columnar.store import table_writer

    schema, rows = schema_of(["sft"]), []
    lines = json.loads(file.read_bytes()) if file.suffix == ".json" else map(json.loads, file.open("rb"))
    shape = None
    with table_writer(target, schema) as writer:
        for i, record in enumerate(lines):
            shape = shape or named(detect([record])[0])
            (draft,) = shape.rows(record)
            row = {**draft, "source": "s", "origin": {"uri": file.name, "row": i}, "meta": json.dumps(draft["meta"], ensure_ascii=False)}
            if validate(row):
                raise ValueError(f"row {i}")
            rows.append(seal(row, file.name))
            if len(rows) == 10_000:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
                rows.clear()
        if rows:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))


def measure(command: str, file: Path, out: Path) -> dict[str, float] | None:
    """CPU seconds, wall seconds and peak memory of one run; None when it failed."""
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable if w == "python" else w.format(file=file, out=out) for w in command.split()]
    start = time.time()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        cli.say(f"  failed: {command}: {said.strip().splitlines()[-1] if said.strip() else status}")
        return None
    return {"cpu": used.ru_utime + used.ru_stime, "wall": time.time() - start, "mb": used.ru_maxrss / 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--mb", type=int, default=300, help="size of each test file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(WAYS), help="contenders, with commas between")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--way", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        if args.way[0] == "make":
            make(args.data, Path(args.way[2]), args.mb)
        else:
            way(args.way[0], Path(args.way[1]), Path(args.way[2]))
        return 0
    figures = []
    with tempfile.TemporaryDirectory(prefix="bench-ingest-") as name:
        folder = Path(name)
        # in a process of its own: a child's peak of memory counts from its parent's
        words = [sys.executable, "-m", "bench.ingest", "--data", str(args.data), "--mb", str(args.mb), "--way", "make", ".", str(folder)]
        subprocess.run(words, check=True)
        files = {kind: folder / f"{kind}.{'json' if kind == 'lists' else 'jsonl'}" for kind in SETS}
        measure(WAYS["ours"], files["chats"], folder / "out")  # compiles the kernels once, as an installation does
        for kind, file in files.items():
            size, runs = file.stat().st_size / 1e6, {way: [] for way in args.only.split(",")}
            for _ in range(args.rounds):
                for contender in runs:
                    found = measure(WAYS[contender], file, folder / "out")
                    runs[contender] += [found] if found else []
            for contender, found in runs.items():
                if found:
                    speed = [size / f["cpu"] for f in found]
                    row = {"data": kind, "way": contender, "MB": round(size), "MB/cpu-s": round(statistics.median(speed), 1)}
                    row |= {"least": round(min(speed), 1), "most": round(max(speed), 1)}
                    row["wall s"] = round(statistics.median(f["wall"] for f in found), 1)
                    figures.append(row | {"peak MB": round(max(f["mb"] for f in found)), "checks": contender in ("ours", "plain")})
    print(cli.table(figures))
    if args.json:
        write_json(args.json, {"sets": SETS, "cores": os.cpu_count(), "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
