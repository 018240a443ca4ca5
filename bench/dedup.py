"""Near-duplicates beside datasketch, exact ones beside polars: MB of text per CPU second, memory, and who removes what is no duplicate.

    .venv/bin/python -m bench.dedup --data ../shared/data --mb 400 --json dedup.json

The corpus is real instruction data, repeated in other words: copy n writes every longer word with the letter n behind it, so each copy
has the duplicates of the original inside it and none across. `near copies` repeats it with one word in thirty changed: the worst
case, where almost every row has to be compared. Rates are of one core (CPU time, best of --rounds); the tools take turns.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from columnar import cli
from columnar.record import schema_of, seal, to_batch
from columnar.store import RowWriter, open_dataset, read_batches, write_manifest
from curation.dedup import DedupConfig, NearConfig
from curation.duplicate_keys import keys_of
from curation.duplicate_report import search, write
from curation.duplicate_search import exact
from curation.lsh import find_buckets
from curation.minhash import matrix, records, sign, signatures, stored
from curation.verify import Decisions, Sets, decide
from decontam.ngrams import token_table

FILES = {  # file: prompt column, answer column
    "t0_p3_subset": ("prompt", "completion"),
    "dolly_15k": ("instruction", "response"),
    "alpaca_17k": ("instruction", "output"),
    "evol_codealpaca_4k": ("instruction", "output"),
    "gpt4_alpaca_1k": ("instruction", "output"),
    "flan_v2_cot": ("question", "cot"),
}
WORD = re.compile(r"\b[a-z]{4,}\b")
TOKEN = re.compile(r"\w+")
SAMPLE_ROWS = 20_000  # datasketch runs on these alone


def real(data: Path) -> list[tuple[str, int, str, str]]:
    out = []
    for name, (prompt, answer) in FILES.items():
        frame = pl.read_parquet(data / "instructions" / f"{name}.parquet", columns=[prompt, answer])
        out += [(name, i, q or "", a or "") for i, (q, a) in enumerate(frame.iter_rows())]
    random.Random(0).shuffle(out)
    return out


def in_other_words(text: str, copy: int) -> str:
    letters = chr(97 + copy % 26) * (1 + copy // 26)
    return WORD.sub(lambda word: word.group() + letters, text) if copy else text


def nearly(text: str, copy: int) -> str:
    rng = random.Random(f"{copy}:{text[:200]}:{len(text)}")
    return " ".join(word if rng.random() > 1 / 30 else f"w{rng.randrange(10**6)}" for word in text.split(" ")) if copy else text


def make(path: Path, rows: list[tuple[str, int, str, str]], mb: int, change: Callable[[str, int], str]) -> float:
    """Write a dataset directory of about `mb` MB of text, unless it is there; returns the exact size."""
    if (path / "mb.json").is_file():
        return float(json.loads((path / "mb.json").read_text()))
    shutil.rmtree(path, ignore_errors=True)
    schema, size, copy, started = schema_of(["sft"]), 0, 0, time.time()
    writer = RowWriter(path, schema)
    while size < mb * 1e6:
        made = []
        for name, i, q, a in rows:
            q, a = change(q, copy), change(a, copy)
            size += len(q.encode()) + len(a.encode())
            messages = [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
            row = {"kind": "sft", "source": name, "origin": {"uri": name, "row": copy * 10**6 + i}, "messages": messages}
            made.append(seal(row, name))
            if len(made) == 10_000 or size >= mb * 1e6:
                writer.write(to_batch(made, schema))
                made = []
            if size >= mb * 1e6:
                break
        if made:
            writer.write(to_batch(made, schema))
        copy += 1
    writer.close()
    write_manifest(path, {"name": path.name, "rows": writer.rows, "rows_sha256": writer.content.hexdigest()}, started)
    (path / "mb.json").write_text(json.dumps(size / 1e6))
    return size / 1e6


def engine(batches: list[pa.RecordBatch], near: NearConfig) -> tuple[np.ndarray, Decisions]:
    """The whole search in memory, verified: what datasketch is measured against."""
    starts = np.concatenate([[0], np.cumsum([batch.num_rows for batch in batches])])
    signed = [matrix(signatures(batch, near).column(0)) for batch in batches]
    words = ((starts[i] + rows, values, None) for i, (rows, values) in enumerate(signed))
    buckets = find_buckets(words, int(starts[-1]), *near.banding)
    with Sets(near.num_perm) as sets:
        for i, batch in enumerate(batches):
            low, high = np.searchsorted(buckets.rows, starts[i : i + 2])
            sets.append(*records(batch, near, buckets.rows[low:high] - starts[i]))
        return buckets.rows, decide(buckets, np.arange(len(buckets.rows)), sets, near.threshold)


def shingles(text: str) -> set[str]:
    tokens = TOKEN.findall(text.lower())
    return {" ".join(gram) for gram in zip(*(tokens[i:] for i in range(5)), strict=False)} or {" ".join(tokens)}


def with_datasketch(texts: list[str], near: NearConfig) -> tuple[list[int], np.ndarray]:
    """datasketch as its manual has it: signatures, then query and insert; a row with a match joins the first."""
    from datasketch import MinHash, MinHashLSH

    sketches = list(MinHash.generator(([s.encode() for s in shingles(text)] for text in texts), num_perm=near.num_perm, scheme="affine32"))
    index = MinHashLSH(num_perm=near.num_perm, params=near.banding)
    keeper = list(range(len(texts)))
    for i, sketch in enumerate(sketches):
        found = index.query(sketch)
        if found:
            keeper[i] = min(keeper[j] for j in found)
        index.insert(i, sketch, check_duplication=False)
    return keeper, np.array([s.hashvalues for s in sketches])


RENSA = """
import json, re, sys, time
from rensa import RMinHash, RMinHashLSH
texts, bands, perms = json.load(open(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
start = time.process_time()
sets = []
for text in texts:
    tokens = re.findall(r"\\w+", text.lower())
    sets.append(list({" ".join(gram) for gram in zip(*(tokens[i:] for i in range(5)))} or {" ".join(tokens)}))
matrix = RMinHash.digest_matrix_from_token_sets(sets, num_perm=perms, seed=42)
flags = RMinHashLSH(threshold=0.7, num_perm=perms, num_bands=bands).insert_matrix_and_query_duplicate_flags(matrix)
print(time.process_time() - start, sum(map(bool, flags)))
"""  # rensa's own fast path; it flags every member of a pair, the first one too


def with_rensa(python: Path, texts: list[str], near: NearConfig, folder: Path) -> tuple[float, int]:
    """CPU seconds and flagged rows, in rensa's own virtual environment."""
    file = folder / "texts.json"
    file.write_text(json.dumps(texts))
    bands, rows = near.banding
    command = [python, "-c", RENSA, file, str(bands), str(bands * rows)]
    seconds, flagged = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), int(flagged)


def cpu(function: Callable[[], Any]) -> tuple[float, Any]:
    before = time.process_time()
    value = function()
    return time.process_time() - before, value


def our_grams(turns: list[str]) -> set[tuple[int, ...]]:
    """The 5-grams of a row as we define them, as Python tuples of token hashes."""
    table, out = token_table(pa.array(turns, pa.large_string())), set()
    for start, stop in pairwise(table.bounds.tolist()):
        tokens = table.hashes[start:stop].tolist()
        size = min(5, len(tokens))
        out |= {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1 if size else 0)}
    return out


def false_share(pairs: list[tuple[set[Any], set[Any]]]) -> float:
    """Share of (removed, kept) pairs whose n-gram Jaccard, counted with Python's sets, is below 0.7."""
    return sum(len(x & y) < 0.7 * len(x | y) for x, y in pairs) / max(1, len(pairs))


def turns_of(batches: list[pa.RecordBatch]) -> Iterator[list[str]]:
    for batch in batches:
        for messages in batch.column("messages").to_pylist():
            yield [m["content"] for m in messages]


def measure(path: Path, mb: float, rounds: int, rensa: Path | None) -> list[dict[str, Any]]:
    near, dataset = NearConfig(), open_dataset(path)
    config = DedupConfig(near=near)
    batches = list(read_batches(dataset, ["messages"]))
    out: list[dict[str, Any]] = []

    def line(what: str, seconds: float, size: float, rows: int, **more: Any) -> None:
        out.append(
            {
                "corpus": path.name,
                "what": what,
                "cpu_s": seconds,
                "mb_per_core_s": size / seconds,
                "rows_per_core_s": round(rows / seconds),
                **more,
            }
        )

    head, rows = [], 0
    for batch in batches:
        head.append(batch.slice(0, min(batch.num_rows, SAMPLE_ROWS - rows)))
        rows += head[-1].num_rows
        if rows >= SAMPLE_ROWS:
            break
    turns = list(turns_of(head))
    texts = ["\n".join(t) for t in turns]
    sample_mb = sum(len(text.encode()) for text in texts) / 1e6
    engine(head, near)  # compiled, loaded
    times: dict[str, list[float]] = {"sample": [], "datasketch": [], "whole": []}
    for _ in range(rounds):
        times["datasketch"].append((peer := cpu(lambda: with_datasketch(texts, near)))[0])
        times["sample"].append((ours := cpu(lambda: engine(head, near)))[0])
        times["whole"].append((whole := cpu(lambda: engine(batches, near)))[0])
    slow, fast = min(times["datasketch"]), min(times["sample"])
    keeper = peer[1][0]
    wrong = false_share([(shingles(texts[i]), shingles(texts[k])) for i, k in enumerate(keeper) if k != i][:3000])
    line(
        "datasketch, shared band -> first match",
        slow,
        sample_mb,
        len(texts),
        removed=sum(k != i for i, k in enumerate(keeper)),
        below_threshold=wrong,
    )
    if rensa:
        seconds, flagged = min(with_rensa(rensa, texts, near, path.parent) for _ in range(rounds))
        line("rensa, not verified", seconds, sample_mb, len(texts), removed=flagged, times_datasketch=slow / seconds)
    numbers, decided = ours[1]
    gone = [(our_grams(turns[numbers[i]]), our_grams(turns[numbers[k]])) for i, k in enumerate(decided.keeper) if k >= 0][:3000]
    line(
        "ours, verified, same rows",
        fast,
        sample_mb,
        len(texts),
        removed=int((decided.keeper >= 0).sum()),
        below_threshold=false_share(gone),
        times_datasketch=slow / fast,
    )
    line("ours, verified, all rows in memory", min(times["whole"]), mb, dataset.rows, removed=int((whole[1][1].keeper >= 0).sum()))

    def unsigned() -> None:
        dataset.sidecar("minhash").unlink(missing_ok=True)
        sign(dataset, near)

    seconds = min(cpu(unsigned)[0] for _ in range(rounds))
    line("sign: Parquet to cols/minhash", seconds, mb, dataset.rows)
    second = min(cpu(lambda: write(*search([dataset], config), config))[0] for _ in range(rounds))
    line("search: signed Parquet to cols/dedup, hits", second, mb, dataset.rows)
    line("the whole command, Parquet to marks", seconds + second, mb, dataset.rows)
    signed = [(first + rows, values, None) for first, rows, values in stored(dataset, near)]
    for name, limit in (("LSH in memory", 1 << 40), ("LSH with bands on disk", 0)):
        seconds = min(cpu(lambda limit=limit: find_buckets(signed, dataset.rows, *near.banding, limit))[0] for _ in range(rounds))
        line(name, seconds, mb, dataset.rows)

    everything = pl.Series("text", ["\n".join(t) for t in turns_of(batches)])
    plain = DedupConfig()
    keys = keys_of([dataset], [0], plain)
    a = min(cpu(lambda: everything.to_frame().unique("text", keep="first", maintain_order=True))[0] for _ in range(rounds + 2))
    b = min(cpu(lambda: exact(keys, plain))[0] for _ in range(rounds + 2))
    line("exact: polars unique on the text in memory", a, mb, dataset.rows)
    line("exact: ours on the hash column", b, mb, dataset.rows, times_polars_unique=b / a)
    return out


def peak(path: Path) -> dict[str, Any]:
    """The command in a process of its own, signatures not there: its largest memory."""
    shutil.rmtree(path / "cols", ignore_errors=True)
    code = (  # VmHWM, not ru_maxrss: that one starts from the parent's
        "import re, sys, time; from curation import dedup; from columnar import cli; cli.run(dedup.main, dedup.parser(), sys.argv[1:]);"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024, time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    rss, seconds = done.stdout.split()[-2:]
    return {"corpus": path.name, "what": "the command in its own process", "peak_rss_mb": int(rss), "cpu_s": float(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench-dedup"))
    parser.add_argument("--mb", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rensa", type=Path, metavar="PYTHON", help="a Python that has rensa installed: measured too")
    parser.add_argument("--memory-only", action="store_true", help="only the peak memory, for a large --mb")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows, results = real(args.data), []
    for name, change in (("other words", in_other_words), ("near copies", nearly)):
        path = args.work / f"{name.replace(' ', '_')}_{args.mb}"
        mb = make(path, rows, args.mb, change)
        memory = peak(path)
        results += (
            [{**memory, "mb_per_core_s": mb / memory["cpu_s"]}]
            if args.memory_only
            else [*measure(path, mb, args.rounds, args.rensa), memory]
        )
    columns = [
        "corpus",
        "what",
        "cpu_s",
        "mb_per_core_s",
        "rows_per_core_s",
        "removed",
        "below_threshold",
        "times_datasketch",
        "times_polars_unique",
        "peak_rss_mb",
    ]
    print(cli.table(results, columns))
    if args.json:
        args.json.write_text(
            json.dumps(
                {"mb": args.mb, "results": results, "bench_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}, indent=2
            )
        )


if __name__ == "__main__":
    main()
