"""Decontamination at size: MB of text per CPU second, memory, cold start, exactness; peers in the same run, alternating.

    python -m bench.decontam --data ../shared/data --mb 400 --work /tmp/bench --json decontam.json
    python -m bench.decontam --data ../shared/data --mb 1000 --only "evidence, tulu3" "evidence, caravan"     # memory at 1 GB

Rows are real conversations from the data folder, repeated with a number in each; benchmarks are those of decontam/local.yaml. Every
measured run is a process of its own; CPU seconds are user + system of all its threads, from Parquet to the written evidence, without
imports and index building (a line of its own). Slow peers get the first megabytes of the same rows.
    evidence    row x item with coverage and spans: ours (tulu3 rule over all roles; caravan: two passes), plain Python with a dict
    any-hit     is any 8-gram shared: ours, polars expressions, duckdb SQL; datatrove with --datatrove PYTHON (of a venv that has it)
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # this file has the name of the package it measures

SOURCES = {
    "dolly": ("instructions/dolly_15k.parquet", "instruction", "response"),
    "alpaca": ("instructions/alpaca_17k.parquet", "instruction", "output"),
    "flan": ("instructions/flan_v2_cot.parquet", "question", "cot"),
    "t0": ("instructions/t0_p3_subset.parquet", "prompt", "completion"),
    "lima": ("instructions/lima.parquet", "instruction", "output"),
    "code": ("instructions/evol_codealpaca_4k.parquet", "instruction", "output"),
    "outputs": ("completions/alpaca_eval_outputs.parquet", "instruction", "output"),
    "judged": ("preferences/just_eval_safety_ratings.parquet", "input", "output_cand"),
}
TOOLS = {  # name -> megabytes it gets (None: all)
    "evidence, tulu3": None,
    "evidence, caravan": None,
    "any-hit": None,
    "any-hit, polars": 60,
    "any-hit, duckdb": 8,
    "evidence, plain Python": 8,
    "any-hit, datatrove": 4,
}
N = 8
LOCAL = Path(__file__).parents[1] / "decontam" / "local.yaml"


def make_data(data: Path, work: Path, mb: float) -> Path:
    """A dataset directory with so many MB of text."""
    import pyarrow.parquet as pq

    from columnar import store
    from columnar.record import schema_of, seal, to_batch

    out = work / f"decontam-{mb:g}"
    if (out / "manifest.json").exists():
        return out
    schema = schema_of(["sft"])
    writer = store.RowWriter(out, schema)
    started = time.time()
    pairs = {}
    for name, (file, ask, answer) in SOURCES.items():
        rows = pq.read_table(data / file, columns=[ask, answer]).to_pylist()
        pairs[name] = [(r[ask], r[answer]) for r in rows if r[ask] and r[answer]]
    left, replica = mb * 1e6, 0
    while left > 0:
        for name, texts in pairs.items():
            rows = []
            for i, (question, response) in enumerate(texts):
                messages = [{"role": "user", "content": f"{replica} {question}"}, {"role": "assistant", "content": response}]
                left -= len(question.encode()) + len(response.encode()) + 2
                rows.append(seal({"source": name, "kind": "sft", "origin": {"row": i}, "messages": messages}, str(replica)))
                if left <= 0:
                    break
            for i in range(0, len(rows), 10_000):
                writer.write(to_batch(rows[i : i + 10_000], schema))
            if left <= 0:
                break
        replica += 1
    writer.close()
    identity = {"name": out.name, "kind": "sft", "rows": writer.rows, "rows_sha256": writer.content.hexdigest()}
    store.write_manifest(out, identity, started)
    return out


def measure(tool: str, dataset: Path, data: Path) -> dict[str, Any]:
    """One run in this process."""
    from columnar.store import open_dataset, peak_rss_mb
    from decontam.benchmarks import Benchmark, BenchmarkSpec, load_benchmarks
    from decontam.index import build_index
    from decontam.rules import DecontamConfig

    opened = open_dataset(dataset)
    roles = None if tool == "evidence, caravan" else ["system", "user", "assistant", "tool"]
    config = DecontamConfig(
        benchmarks=str(LOCAL), root=str(data / "benchmarks"), preset="caravan" if tool == "evidence, caravan" else "tulu3", roles=roles
    )
    warm(build_index([Benchmark("warm", BenchmarkSpec(source="-", fields=["f"]), ["0"], [["warm up"]], {})], config.rule()))
    clock = time.process_time()
    index = build_index(load_benchmarks(config.benchmarks, config.root), config.rule())
    index_seconds = time.process_time() - clock
    result: dict[str, Any] = {"tool": tool, "index_s": index_seconds}
    if tool.startswith("evidence, ") and "Python" not in tool:
        from decontam.scan import scan_dataset

        with tempfile.TemporaryDirectory() as folder:
            cpu, wall = time.process_time(), time.perf_counter()
            report = scan_dataset(opened, config, Path(folder), force=True, index=index)
            result |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "mb": text_mb(opened)}
            result["rows_hit"] = report["rows"]["contaminated"]
    elif tool == "any-hit":
        from dataclasses import replace

        import numpy as np

        from decontam.found import mark_batch
        from decontam.match import scratch_for
        from decontam.pieces import pieces_of, read_piece

        any_rule = build_index(index.benchmarks, replace(index.rule, coverage=((1, 0.0),)))
        scratch = scratch_for(any_rule.table)
        cpu, wall, hit = time.process_time(), time.perf_counter(), 0
        for piece in pieces_of(opened.row_files):
            for batch in read_piece(piece, ["messages"]):
                hit += int(mark_batch(batch, any_rule, scratch, np.zeros(0, np.int32)).sum())
        result |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "mb": text_mb(opened), "rows_hit": hit}
    else:
        items = [text for b in index.benchmarks for fields in b.texts for text in fields]
        texts = first_texts(opened, TOOLS[tool] or 0)
        peers = {"any-hit, polars": any_polars, "any-hit, duckdb": any_duckdb, "evidence, plain Python": evidence_python}
        run = peers.get(tool, any_datatrove)
        result |= run(items, texts)
        result["mb"] = sum(len(t.encode()) for t in texts) / 1e6
    result["mb_per_cpu_s"] = result["mb"] / result["cpu"]
    result["rss_mb"] = peak_rss_mb()
    return result


def warm(index: Any) -> None:
    """Load the kernels, so that what is measured is scanning."""
    from decontam.found import scan_batch
    from decontam.selftest import rows_of

    scan_batch(rows_of(["warm up"]), index)


def text_mb(dataset: Any) -> float:
    import duckdb

    sql = "SELECT sum(list_sum([strlen(m.content) for m in messages])) FROM read_parquet(?)"
    return float(duckdb.execute(sql, [[str(f) for f in dataset.row_files]]).fetchall()[0][0]) / 1e6


def first_texts(dataset: Any, mb: float) -> list[str]:
    """Both turns of every row, as one text; rows are taken evenly from the whole."""
    from columnar.store import read_batches

    texts: list[str] = []
    step = max(1, int(text_mb(dataset) / mb))
    for batch in read_batches(dataset, ["messages"]):
        texts += ["\n".join(m["content"] for m in row) for row in batch.column("messages").to_pylist()[::step]]
    return texts


TOKEN = re.compile("[a-z0-9]+")


def evidence_python(items: list[str], texts: list[str]) -> dict[str, Any]:
    """Coverage of every item by every row, with sets and dicts."""
    postings: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    lengths = []
    for i, item in enumerate(items):
        tokens = TOKEN.findall(item.lower())
        lengths.append(len(tokens))
        for p in range(len(tokens) - N + 1):
            postings.setdefault(tuple(tokens[p : p + N]), []).append((i, p))
    cpu, hit = time.process_time(), 0
    for text in texts:
        tokens = TOKEN.findall(text.lower())
        places: dict[int, set[int]] = {}
        for p in range(len(tokens) - N + 1):
            for item, place in postings.get(tuple(tokens[p : p + N]), ()):
                places.setdefault(item, set()).add(place)
        for item, found in places.items():
            covered = {t for place in found for t in range(place, place + N)}
            if len(covered) > 0.5 * lengths[item]:
                hit += 1
                break
    return {"cpu": time.process_time() - cpu, "rows_hit": hit}


def any_polars(items: list[str], texts: list[str]) -> dict[str, Any]:
    import polars as pl

    def grams(frame: pl.LazyFrame) -> pl.LazyFrame:
        tokens = frame.with_columns(pl.col("text").str.to_lowercase().str.extract_all("[a-z0-9]+")).explode("text")
        token = pl.col("text").hash()
        mixed = pl.sum_horizontal([token.shift(-i) * (2 * i + 1) for i in range(N)])
        return tokens.with_columns(gram=mixed).filter(pl.col("row") == pl.col("row").shift(-N + 1)).select("row", "gram")

    index = grams(pl.LazyFrame({"row": range(len(items)), "text": items})).select("gram").unique().collect()
    frame = pl.LazyFrame({"row": range(len(texts)), "text": texts}).collect()
    cpu = time.process_time()
    hit = grams(frame.lazy()).join(index.lazy(), on="gram", how="semi").select(pl.col("row").n_unique()).collect().item()
    return {"cpu": time.process_time() - cpu, "rows_hit": hit}


def any_duckdb(items: list[str], texts: list[str]) -> dict[str, Any]:
    import duckdb
    import pyarrow as pa

    def grams(table: str) -> str:
        return f"""
            WITH words AS (SELECT row, regexp_extract_all(lower(text), '[a-z0-9]+') AS w FROM {table})
            SELECT row, hash(w[i : i + {N - 1}]) AS gram FROM words, unnest(range(1, len(w) - {N - 2})) AS t(i)
        """

    with duckdb.connect() as database:
        for name, column in (("items", items), ("rows", texts)):
            database.register(f"arrow_{name}", pa.table({"row": range(len(column)), "text": column}))
            database.execute(f"CREATE TABLE {name} AS SELECT * FROM arrow_{name}")
        database.execute(f"CREATE TABLE grams AS SELECT DISTINCT gram FROM ({grams('items')})")
        cpu = time.process_time()
        found = database.execute(f"SELECT count(DISTINCT row) FROM ({grams('rows')}) SEMI JOIN grams USING (gram)").fetchall()
        return {"cpu": time.process_time() - cpu, "rows_hit": found[0][0]}


def any_datatrove(items: list[str], texts: list[str]) -> dict[str, Any]:
    """datatrove's filter in its own environment (DATATROVE: its python): items and texts go over as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "in.json").write_text(json.dumps([items, texts]))
        done = subprocess.run([os.environ["DATATROVE"], "-c", DATATROVE, folder], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


DATATROVE = f"""
import json, sys, time, numpy as np
from loguru import logger; logger.remove()
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.word_tokenizers import load_word_tokenizer
items, texts = json.load(open(sys.argv[1] + "/in.json"))
config = NGramsDecontConfig(n_grams={N}, find_query_ngrams=False, find_overlap_ngrams=False)
indexer = object.__new__(NGramsDecontIndexer)  # its constructor wants lighteval; only its hashing is used
indexer.config, indexer.tokenizer, indexer.hash_func = config, load_word_tokenizer("eng"), create_hash_func(config.hash_config)
found = set()
for item in items:
    found.update(indexer.compute_hashes(item))
np.array(list(found), dtype=config.hash_config.np_descr).tofile(sys.argv[1] + "/all.index.hashes")
check = NGramsDecontFilter(sys.argv[1], config, language="eng"); check.load_index_hashes()
start = time.process_time()
hit = sum(check.filter(Document(text=t, id="")) is not True for t in texts)
print(json.dumps({{"cpu": time.process_time() - start, "rows_hit": hit}}))
"""


def agreement(data: Path, rows: int) -> dict[str, Any]:
    """The same (row, item, coverage) as the plain-Python twin of the tests, on real rows."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "decontam"))
    from collections import defaultdict

    import ngram_oracle
    import pyarrow.parquet as pq

    from decontam.benchmarks import load_benchmarks
    from decontam.found import scan_batch
    from decontam.index import build_index
    from decontam.rules import DecontamConfig
    from decontam.selftest import rows_of

    config = DecontamConfig(benchmarks=str(LOCAL), root=str(data / "benchmarks"), preset="tulu3", threshold=0.3)
    index = build_index(load_benchmarks(config.benchmarks, config.root), config.rule())
    texts = []
    for file, ask, _ in SOURCES.values():
        column = pq.read_table(data / file, columns=[ask])[ask].to_pylist()
        texts += column[:: max(1, len(column) * len(SOURCES) // rows)]
    _, hits = scan_batch(rows_of(texts), index)
    kernel = {(h["id"], h["benchmark"], h["item_id"], h["item_field"], round(h["coverage_item"], 9)) for h in hits.to_pylist()}
    postings = defaultdict(list)
    units = {}
    for b in index.benchmarks:
        for ident, fields in zip(b.ids, b.texts, strict=True):
            for name, text in zip(b.spec.fields, fields, strict=True):
                units[b.name, ident, name] = words = ngram_oracle.words(text)
                for p in range(len(words) - N + 1):
                    postings[tuple(words[p : p + N])].append((b.name, ident, name))
    same = defaultdict(int)
    for (name, _, field), words in units.items():
        same[name, tuple(words)] += 1
        del field
    decides = {(b.name, f) for b in index.benchmarks for f in (b.spec.deciding or b.spec.fields)}
    plain = set()
    for r, text in enumerate(texts):
        words = ngram_oracle.words(text)
        found = set()
        for unit in {u for p in range(len(words) - N + 1) for u in postings.get(tuple(words[p : p + N]), ())}:
            item = units[unit]
            covered = sum(ngram_oracle.covered(item, [words], N))
            if covered > 0.3 * len(item) and same[unit[0], tuple(item)] <= 10:
                found.add((str(r), *unit, round(covered / len(item), 9)))
        items = {f[1:3] for f in found if (f[1], f[3]) in decides}
        plain |= {f for f in found if f[1:3] in items}
    return {"rows": len(texts), "kernel": len(kernel), "plain Python": len(plain), "equal": kernel == plain}


def start_up(cold: bool) -> float:
    """Seconds of wall time until the first batch is scanned, in a new process, without or with the compiled kernels on disk."""
    code = "from decontam.selftest import *; from decontam.index import build_index; from decontam.rules import PRESETS; "
    code += "from decontam.benchmarks import *; from decontam.found import scan_batch; "
    code += "b = Benchmark('b', BenchmarkSpec(source='-', fields=['f']), ['0'], [['one two three four five six seven eight nine']], {}); "
    code += "scan_batch(rows_of(['x y']), build_index([b], PRESETS['caravan']))"
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | ({"NUMBA_CACHE_DIR": folder} if cold else {}))
        return time.perf_counter() - started


def main() -> None:
    from columnar.cli import table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench"))
    parser.add_argument("--mb", type=float, default=400)
    parser.add_argument("--reps", type=int, default=3, help="0: only start-up and agreement")
    parser.add_argument("--only", nargs="*", choices=list(TOOLS))
    parser.add_argument("--datatrove", help="python of an environment that has datatrove")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--agree", type=int, default=6000, help="rows for the check against plain Python; 0: none")
    args = parser.parse_args()
    dataset = make_data(args.data, args.work, args.mb)
    if args.run:
        print(json.dumps(measure(args.run, dataset, args.data)))
        return
    if args.datatrove:
        os.environ["DATATROVE"] = args.datatrove
    tools = args.only or [t for t in TOOLS if args.datatrove or "datatrove" not in t]
    runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    command = [sys.executable, __file__, "--data", str(args.data), "--work", str(args.work), "--mb", str(args.mb)]
    for _ in range(args.reps):
        for tool in tools:
            done = subprocess.run([*command, "--run", tool], capture_output=True, text=True, check=True)
            runs[tool].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{tool}: {runs[tool][-1]['mb_per_cpu_s']:.1f} MB/s of CPU", file=sys.stderr, flush=True)
    lines = []
    for tool, done_runs in runs.items() if args.reps else ():
        rates = [r["mb_per_cpu_s"] for r in done_runs]
        rate = statistics.median(rates)
        lines.append(
            {
                "tool": tool,
                "MB": round(done_runs[0]["mb"]),
                "MB/s of CPU": round(rate, 2),
                "range": f"{min(rates):.1f}..{max(rates):.1f}",
                "peak MB": max(r["rss_mb"] for r in done_runs),
                "rows hit": done_runs[0]["rows_hit"],
                "index s": round(statistics.median(r["index_s"] for r in done_runs), 1),
            }
        )
    if lines:
        print(table(lines))
    result = {"tools": lines, "start, warm s": round(start_up(False), 2), "start, nothing compiled s": round(start_up(True), 2)}
    if args.agree:
        result["agreement"] = agreement(args.data, args.agree)
    print({k: v for k, v in result.items() if k != "tools"})
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
