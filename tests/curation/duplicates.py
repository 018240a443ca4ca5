"""For the tests of duplicates: dataset directories from a few lines, and n-gram sets in plain Python."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1] / "decontam"))

from ngram_oracle import words

from columnar.record import KINDS, schema_of, seal, texts_of, to_batch
from columnar.store import Dataset, RowWriter, open_dataset, write_manifest


def sft(prompt: str, answer: str, source: str = "s", **more: Any) -> dict[str, Any]:
    return {"kind": "sft", "source": source, "messages": [message("user", prompt), message("assistant", answer)], **more}


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def make(path: Path, rows: Iterable[dict[str, Any]], shard_rows: int = 100_000) -> Dataset:
    """A dataset directory of these rows (ids and hashes are made here)."""
    made = [seal({"origin": {"uri": "test", "row": i}, **row}, path.name) for i, row in enumerate(rows)]
    schema = schema_of(sorted({row["kind"] for row in made}) or KINDS)
    writer = RowWriter(path, schema, shard_rows=shard_rows)
    if made:
        writer.write(to_batch(made, schema))
    writer.close()
    write_manifest(path, {"name": path.name, "rows": writer.rows, "rows_sha256": writer.content.hexdigest()}, time.time())
    return open_dataset(path)


def grams(row: dict[str, Any], n: int = 5, by: str = "row", system: bool = False) -> set[tuple[str, ...]]:
    """The definition in curation.minhash, in plain Python."""
    out = set()
    for field, _, role, text in texts_of(row):
        if (role == "system" and not system) or (by == "prompt" and (role == "assistant" or field not in ("messages", "prompt"))):
            continue
        tokens = words(text)
        size = min(n, len(tokens))
        out |= {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1 if size else 0)}
    return out


def jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


def marks(dataset: Dataset) -> pl.DataFrame:
    return pl.read_parquet(dataset.sidecar("dedup"))


def real_rows(shared: Path, name: str, prompt: str, answer: str, limit: int) -> list[dict[str, Any]]:
    frame = pl.read_parquet(shared / "instructions" / name, columns=[prompt, answer]).head(limit)
    return [sft(q or "", a or "", name) for q, a in frame.iter_rows()]
