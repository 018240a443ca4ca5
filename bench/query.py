"""SQL over a large dataset directory: seconds for the questions a browser and a person ask, beside a join by id and polars.

    python -m bench.query --rows 10000000 --work /tmp/bench-query [--json FILE]

Makes a dataset of that many chat rows with four sidecars (reused when it is there already), then asks each question by each way in
turn, `--times` times; the table shows the best wall and CPU seconds, files in the page cache. `view`: columnar.view, which lays row
files and sidecars side by side. `join`: DuckDB over the same files, sidecars joined by id. `polars`: a lazy horizontal concat.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from columnar.annotate import annotate
from columnar.cli import table
from columnar.explain import explain
from columnar.record import schema_of, to_batch
from columnar.store import Dataset, RowWriter, open_dataset, peak_rss_mb, write_manifest
from columnar.view import connect

BATCH = 50_000
SOURCES = ("tulu", "flan", "oasst", "dolly", "wildchat", "code", "maths", "persona")
FACET_TARGET = 0.2

QUESTIONS = {
    "how many rows": "SELECT count(*) FROM rows",
    "facet: rows per source": "SELECT source, count(*) FROM rows GROUP BY 1",
    "facet: rows per language": "SELECT lang, count(*) FROM rows GROUP BY 1",
    "facet under a filter": "SELECT lang, count(*) FROM rows WHERE source = 'tulu' AND n_tokens > 1000 AND NOT refusal GROUP BY 1",
    "source by language": "SELECT source, lang, count(*) FROM rows GROUP BY ALL",
    "histogram of tokens": "SELECT n_tokens // 100, count(*) FROM rows GROUP BY 1",
    "a page of a filtered list": "SELECT id, source, preview FROM rows WHERE lang = 'de' AND contaminated LIMIT 25 OFFSET 100",
    "a word in the previews": "SELECT count(*) FROM rows WHERE preview LIKE '%w12 w13%'",
    "the 25 most repetitive": "SELECT id, preview FROM rows ORDER BY repetition DESC LIMIT 25",
}


def make(directory: Path, count: int) -> Dataset:
    """The dataset, unless it is there; ids are hashes in order, as a mix writes them."""
    if (directory / "manifest.json").is_file() and open_dataset(directory).rows == count:
        return open_dataset(directory)
    started = time.time()
    random = np.random.default_rng(0)
    words = np.array([f"w{n}" for n in range(5000)])
    texts = [" ".join(words[random.integers(0, 5000, 60)]) for _ in range(2000)]
    ids = np.sort(random.integers(0, 2**63, count, dtype=np.int64))
    schema = schema_of(["sft"])
    writer = RowWriter(directory, schema, "train")
    drafts = [
        {
            "kind": "sft",
            "license": "mit",
            "parents": [],
            "origin": {"uri": "file.jsonl", "split": "train", "row": n},
            "messages": [{"role": "user", "content": texts[n % 2000][:120]}, {"role": "assistant", "content": texts[n % 2000]}],
        }
        for n in range(BATCH)
    ]
    base = to_batch(drafts, schema)
    for start in range(0, count, BATCH):
        names = _hex(ids[start : start + BATCH])
        columns = {name: base.column(name).slice(0, len(names)) for name in schema.names}
        columns |= {"id": pa.array(names), "hash": pa.array([n + n for n in names]), "prompt_hash": pa.array([n + n[::-1] for n in names])}
        columns["source"] = pa.array(np.array(SOURCES)[random.integers(0, len(SOURCES), len(names))])
        writer.write(pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema.names))
    writer.close()
    identity = {
        "name": "bench",
        "kind": "sft",
        "stage": {"name": "mix", "version": 1},
        "key": "k",
        "config": {},
        "inputs": [],
        "counts": {},
    }
    identity |= {"rows": writer.rows, "rows_sha256": writer.content.hexdigest(), "ids_sha256": writer.ids.hexdigest()}
    write_manifest(directory, identity, started)
    dataset = open_dataset(directory)
    for stage, columns_of in (("signals", _signals(texts)), ("dedup", _dedup), ("decontam", _decontam), ("select", _select)):
        annotate([dataset], stage, 1, {}, columns_of, ["id"])
    return dataset


def _hex(numbers: np.ndarray) -> list[str]:
    raw = numbers.astype(">i8").tobytes().hex()
    return [raw[n : n + 16] for n in range(0, len(raw), 16)]


def _random(batch: pa.RecordBatch) -> np.random.Generator:
    return np.random.default_rng(int(batch.column("id")[0].as_py(), 16) if batch.num_rows else 0)


def _signals(texts: list[str]) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    def columns(batch: pa.RecordBatch) -> pa.RecordBatch:
        n, random = batch.num_rows, _random(batch)
        tokens = random.integers(1, 2000, n)
        made = {
            "preview": pa.array([texts[k][:160] for k in random.integers(0, 2000, n)], pa.string()),
            **{name: pa.array(tokens * k) for name, k in (("n_chars", 4), ("n_words", 1), ("n_tokens", 1), ("prompt_chars", 1))},
            "n_turns": pa.array(2 * np.minimum(random.geometric(0.5, n), 20)),
            "lang": pa.array(np.array(["en", "de", "fr", "zh"])[random.integers(0, 4, n)]),
            **{name: pa.array(random.random(n)) for name in ("lang_score", "repetition")},
            **{name: pa.array(random.random(n) < 0.02) for name in ("refusal", "truncated", "self_id", "empty")},
        }
        return pa.RecordBatch.from_arrays(list(made.values()), list(made))

    return columns


def _dedup(batch: pa.RecordBatch) -> pa.RecordBatch:
    jaccard = pa.array(_random(batch).random(batch.num_rows))
    return pa.RecordBatch.from_arrays(
        [batch.column("id"), jaccard, pa.nulls(batch.num_rows, pa.string())], ["kept_id", "jaccard", "reason"]
    )


def _decontam(batch: pa.RecordBatch) -> pa.RecordBatch:
    share = _random(batch).random(batch.num_rows)
    return pa.RecordBatch.from_arrays(
        [pa.array(share < 0.01), pa.array(share), pa.nulls(batch.num_rows, pa.string())], ["contaminated", "coverage", "reason"]
    )


def _select(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(["train"] * batch.num_rows), pa.array([0] * batch.num_rows)], ["split", "copy"])


def join_by_id(dataset: Dataset) -> duckdb.DuckDBPyConnection:
    """The same view made the obvious way."""
    connection = duckdb.connect()
    joins = " ".join(f"JOIN '{dataset.sidecar(stage)}' AS {stage} USING (id)" for stage in ("signals", "decontam"))
    connection.execute(f"CREATE VIEW rows AS SELECT * FROM '{dataset.path}/rows/*.parquet' {joins}")
    return connection


def with_polars(dataset: Dataset) -> dict[str, Callable[[], Any]]:
    """The questions in polars."""
    rows = pl.scan_parquet(dataset.row_files).select("id", "source")
    sides = [pl.scan_parquet(dataset.sidecar(stage)).drop("id") for stage in ("signals", "decontam")]
    both = pl.concat([rows, *sides], how="horizontal")
    asked = {
        "how many rows": both.select(pl.len()),
        "facet: rows per source": both.group_by("source").len(),
        "facet: rows per language": both.group_by("lang").len(),
        "facet under a filter": both.filter(pl.col("source") == "tulu", pl.col("n_tokens") > 1000, ~pl.col("refusal"))
        .group_by("lang")
        .len(),
        "source by language": both.group_by("source", "lang").len(),
        "histogram of tokens": both.group_by(pl.col("n_tokens") // 100).len(),
        "a page of a filtered list": both.filter(pl.col("lang") == "de", "contaminated").select("id", "source", "preview").slice(100, 25),
        "a word in the previews": both.filter(pl.col("preview").str.contains("w12 w13", literal=True)).select(pl.len()),
        "the 25 most repetitive": both.select("id", "preview", "repetition").top_k(25, by="repetition"),
    }
    return {name: (lambda frame=frame: frame.collect(engine="streaming").rows()) for name, frame in asked.items()}


class Cost(NamedTuple):
    """The cheapest of several runs: on a shared machine the others measure its neighbours."""

    wall: float
    cpu: float  # user + system of this process and its children, all threads


def timed(ways: dict[str, Callable[[], Any]], times: int) -> tuple[dict[str, Cost], dict[str, Any]]:
    """Cost of each way, asked in turn, and their last answers."""
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    answers = {}
    for _ in range(times):
        for name, way in ways.items():
            before, started = os.times(), time.perf_counter()
            answers[name] = way()
            wall, after = time.perf_counter() - started, os.times()
            found[name].append(Cost(wall, sum(after[:4]) - sum(before[:4])))
    return {name: Cost(min(c.wall for c in costs), min(c.cpu for c in costs)) for name, costs in found.items()}, answers


def line(question: str, costs: dict[str, Cost]) -> dict[str, Any]:
    """One line of the table: wall and CPU seconds of each way."""
    return {"question": question} | {f"{way}{kind}": value for way, c in costs.items() for kind, value in (("", c.wall), (" cpu", c.cpu))}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=int, default=10_000_000)
    made.add_argument("--work", type=Path, default=Path("/tmp/bench-query"))
    made.add_argument("--times", type=int, default=5)
    made.add_argument("--json", type=Path)
    args = made.parse_args()
    dataset = make(args.work / f"rows-{args.rows}", args.rows)

    opened, answers = timed({"view": lambda: connect(dataset.path)}, 3)
    connection = answers["view"]
    figures = [line("open", opened)]
    middle = connection.sql(f"SELECT id FROM text LIMIT 1 OFFSET {args.rows // 2}").fetchall()[0][0]
    ours = {name: (lambda sql=sql: connection.cursor().sql(sql).fetchall()) for name, sql in QUESTIONS.items()}
    single = {
        "the story of one row (explain)": lambda: explain(dataset.path, middle, connection),
        "the text of one row by id": lambda: connection.cursor().sql(f"SELECT * FROM text WHERE id = '{middle}'").fetchall(),
    }
    for name, way in single.items():
        figures.append(line(name, timed({"view": way}, args.times)[0]))
    for way in ours.values():  # once each before the peers, so that the peak of memory is ours
        way()
    memory = peak_rss_mb()
    joined, polars = join_by_id(dataset), with_polars(dataset)
    for name, sql in QUESTIONS.items():
        ways = {"view": ours[name], "join": lambda sql=sql: joined.cursor().sql(sql).fetchall(), "polars": polars[name]}
        seconds, answers = timed(ways, args.times)
        if "GROUP BY" in sql or "count(*)" in sql:
            assert len({str(sorted(answer, key=str)) for answer in answers.values()}) == 1, f"{name}: the ways disagree"
        figures.append(line(name, seconds))
    command = [sys.executable, "-m", "columnar.query", str(dataset.path), QUESTIONS["facet: rows per source"]]
    cold = timed({"view": lambda: subprocess.run(command, check=True, capture_output=True)}, args.times)[0]
    figures.append(line("the command, a facet, from start to end", cold))
    print(f"{args.rows:,} rows; best of {args.times}, seconds; peak memory of all questions by view: {memory:,} MB")
    print(table(figures, ["question", "view", "view cpu", "join", "join cpu", "polars", "polars cpu"]))
    missed = [f["question"] for f in figures if str(f["question"]).startswith("facet") and float(f["view"]) >= FACET_TARGET]
    print(f"facets under {FACET_TARGET} s: {'all' if not missed else 'missed by ' + ', '.join(map(str, missed))}")
    if args.json:
        args.json.write_text(json.dumps({"rows": args.rows, "peak_rss_mb": memory, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
