"""Small dataset directories for tests, written the way the commands write them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from columnar.record import rehash, row_id, schema_of, to_batch
from columnar.store import RowWriter, open_dataset, write_manifest, write_table


def chat(source: str, number: int, question: str = "", answer: str = "", **envelope: Any) -> dict[str, Any]:
    """An sft row; the id goes by source and number, so that the same call is the same row in every dataset."""
    question, answer = question or f"What is {number} + {number}?", answer or f"It is {2 * number}."
    row = {
        "id": row_id(source, "f.jsonl", number),
        "kind": "sft",
        "source": source,
        "origin": {"uri": "f.jsonl", "revision": "abc", "split": "train", "row": number},
        "license": "mit",
        "meta": None,
        "parents": [],
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        **envelope,
    }
    return rehash(row)


def signals(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of the signals stage for one row (those that queries use)."""
    texts = [m["content"] or "" for field in ("messages", "prompt", "chosen") for m in row.get(field) or ()]
    judged = texts[-1] if texts else ""
    chars = sum(map(len, texts))
    rejected = sum(len(m["content"]) for m in row.get("rejected") or ())
    return {
        "preview": (texts[0] if texts else "")[:160],
        "n_chars": chars,
        "n_words": chars // 5,
        "n_tokens": chars // 4,
        "n_turns": len(texts),
        "prompt_chars": chars - len(judged),
        "response_chars": len(judged),
        "rejected_chars": rejected,
        "lang": "en",
        "lang_score": 0.9,
        "repetition": 0.1,
        "refusal": "sorry" in judged,
        "truncated": False,
        "self_id": False,
        "mentions_ai_brand": False,
        "as_an_ai": False,
        "has_code": "```" in judged,
        "has_thinking": False,
        "has_tools": False,
        "format": "plain",
        "empty": not judged,
        "same_answers": False,
    }


def sidecar(directory: Path, stage: str, ids: list[str], columns: dict[str, Any], tie: str | None = "") -> None:
    """A sidecar file; `tie` is the hash of the rows it claims to be for (default: the right one; None: no claim)."""
    metadata = {"stage": stage, "key": "k"}
    if tie is not None:
        metadata["rows_sha256"] = tie or open_dataset(directory).content
    write_table(directory / "cols" / f"{stage}.parquet", pa.table({"id": pa.array(ids, pa.string()), **columns}), metadata)


def write_rows(directory: Path, rows: list[dict[str, Any]], name: str = "small", kind: str = "sft", **identity: Any) -> Path:
    """rows/ and manifest.json; train and validation shards when rows say `split`, part shards else."""
    schema = schema_of([kind])
    writer = RowWriter(directory, schema)
    splits = sorted({str(row.get("split", "part")) for row in rows}) or ["part"]
    for split in splits:
        writer.prefix, writer.shard = split, 0
        mine = [row for row in rows if row.get("split", "part") == split]
        for start in range(0, max(len(mine), 1), 4):  # several shards even for a few rows
            writer.write(to_batch(mine[start : start + 4], schema))
            writer.close()
    identity = {"name": name, "kind": kind, "stage": {"name": "load", "version": 1}, "key": "k", "config": {}, "inputs": []} | identity
    counts = {"in": len(rows) + 1, "rows": len(rows), "rejects": 1}
    identity = {"counts": counts, "rows": writer.rows, "rows_sha256": writer.content.hexdigest(), "ids_sha256": "x"} | identity
    write_manifest(directory, identity, time.time())
    return directory


def write_signals(directory: Path, rows: list[dict[str, Any]]) -> None:
    """cols/signals.parquet for rows in their order on disk."""
    found = [signals(row) for row in rows]
    types = {name: pa.scalar(value).type for name, value in signals(chat("x", 0)).items()}
    sidecar(directory, "signals", [r["id"] for r in rows], {name: pa.array([f[name] for f in found], kind) for name, kind in types.items()})


def write_dropped(directory: Path, rows: list[tuple[dict[str, Any], str, str, str]], kind: str = "sft", text: bool = True) -> None:
    """dropped/part-00000.parquet: rows with stage, reason and detail; without their text when `text` is false."""
    kept = [{k: v for k, v in row.items() if text or k not in ("messages", "prompt", "chosen", "rejected")} for row, *_ in rows]
    table = pa.Table.from_batches([to_batch(kept, schema_of([kind]))])
    found = [signals(row) for row, *_ in rows]
    for column in signals(chat("x", 0)):
        table = table.append_column(column, pa.array([f[column] for f in found]))
    for place, column in enumerate(("stage", "reason", "detail"), 1):
        table = table.append_column(column, pa.array([entry[place] for entry in rows], pa.string()))
    path = (
        directory
        / "dropped"
        / f"part-{len(list((directory / 'dropped').glob('*'))) if (directory / 'dropped').is_dir() else 0:05d}.parquet"
    )
    write_table(path, table)


def mix(directory: Path, name: str = "small", count: int = 10) -> tuple[Path, list[dict[str, Any]]]:
    """A whole mix of two sources: rows of both splits, all sidecars, dropped rows of several reasons, hits, flags, rejects.

    Returns:
        the directory and its rows in their order on disk.
    """
    rows = sorted((chat("north", n) if n % 2 else chat("süd 'quoted\"", n) for n in range(count)), key=lambda row: row["id"])
    for position, row in enumerate(rows):
        row["split"] = "validation" if position < 2 else "train"
    rows = sorted(rows, key=lambda row: row["split"])
    near = chat("north", 901, answer="It is, I think, 1802.")
    leak = chat("north", 902, "Natalia sold clips to 48 of her friends in April?", "72 clips.")
    drawn = chat("süd 'quoted\"", 903)
    lines = {"dropped": {"near_duplicate": 1, "contaminated": 1}, "rejected": 1, "kept": count // 2, "copies": 0, "out": count // 2}
    by_source = {
        "north": {"in": count // 2 + 3, **lines},
        "süd 'quoted\"": {"in": (count + 1) // 2 + 1, "rejected": 0, "dropped": {"sampled_out": 1}, "copies": 0, "out": (count + 1) // 2},
    }
    identity = {
        "stage": {"name": "mix", "version": 1},
        "seed": 17,
        "config": {"name": name, "seed": 17, "sources": [{"name": "north", "rows": count // 2}, {"name": "süd 'quoted\"", "all": True}]},
        "inputs": [{"source": "north", "uri": "f.jsonl", "sha256": "0" * 64, "license": "mit", "rows": 10, "bytes": 99, "amount": "all"}],
        "counts": {"in": count + 4, "out": count, "by_source": by_source},
    }
    write_rows(directory, rows, name, **identity)
    write_signals(directory, rows)
    ids = [row["id"] for row in rows]
    sidecar(
        directory, "decontam", ids, {"contaminated": [False] * count, "coverage": [0.0] * count, "reason": pa.nulls(count, pa.string())}
    )
    sidecar(directory, "select", ids, {"split": [row["split"] for row in rows], "copy": pa.array([0] * count, pa.uint16())})
    write_dropped(
        directory,
        [(near, "dedup", "near_duplicate", f"of {ids[0]}"), (leak, "decontam", "contaminated", "gsm8k")],
    )
    write_dropped(directory, [(drawn, "sample", "sampled_out", "not among the 5 of 6 drawn")], text=False)
    write_table(
        directory / "hits" / "duplicates.parquet",
        pa.table({"id": [near["id"]], "source": ["north"], "kept_id": [ids[0]], "kept_source": [rows[0]["source"]], "jaccard": [0.91]}),
    )
    flags = [{"id": ids[0], "flag": "bad", "note": "wrong sum", "who": "ann", "at": "2026-11-20T10:00:00Z"}, {"id": ids[1], "flag": "good"}]
    (directory / "flags.jsonl").write_text("".join(json.dumps(f) + "\n" for f in [*flags, {**flags[1], "undo": True}]), encoding="utf-8")
    reject = {"source": "north", "file": "f.jsonl", "line": 7, "path": "messages", "found": "nothing", "expected": "a list", "raw": "{}"}
    (directory / "rejects.jsonl").write_text(json.dumps(reject) + "\n", encoding="utf-8")
    return directory, rows
