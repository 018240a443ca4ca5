"""Benchmarks and rows made by hand."""

from __future__ import annotations

import pyarrow as pa

from columnar.record import SCHEMA, to_batch
from decontam.benchmarks import Benchmark, BenchmarkSpec


def benchmark(texts: list[str] | list[list[str]], name: str = "b", fields: list[str] | None = None, **spec: object) -> Benchmark:
    """Items of one field, or of several."""
    rows = [[text] if isinstance(text, str) else text for text in texts]
    fields = fields or [f"f{i}" for i in range(max(map(len, rows), default=1))]
    return Benchmark(name, BenchmarkSpec(source="-", fields=fields, **spec), [str(i) for i in range(len(rows))], rows, {})  # type: ignore[arg-type]


def chat(*turns: str, ident: str = "r", source: str = "s") -> dict[str, object]:
    """A row of user and assistant turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"id": ident, "kind": "sft", "source": source, "messages": messages}


def batch(rows: list[dict[str, object]]) -> pa.RecordBatch:
    return to_batch(rows, SCHEMA)
