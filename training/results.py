"""An evaluation's result as a dataset directory, read back as scores, and written as OLMES writes its own.

rows/                     kind candidates: the question with its examples, every answer, what each reading of the verifier said
cols/evaluation.parquet   item, score (the task's metric), clean, answers, passes, every other metric: one line a row
manifest.json             the task, the model, the scores with intervals
"""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from columnar import store
from columnar.errors import StoreError
from columnar.record import rehash, row_id, schema_of, to_batch
from training.tasks import Task

if TYPE_CHECKING:
    from training.evaluate import Answered

VERSION = 1


def write_results(
    out: Path,
    task: Task,
    model: str,
    answered: list[Answered],
    dirty: set[str] | None,
    scores: dict[str, Any],
    identity: dict[str, Any],
    started: float,
) -> dict[str, Any]:
    """Write OUT; returns the manifest's identity."""
    (out / "manifest.json").unlink(missing_ok=True)
    for part in ("rows", "cols"):
        shutil.rmtree(out / part, ignore_errors=True)
    rows = [_row(task, model, one, number) for number, one in enumerate(answered)]
    writer = store.RowWriter(out, schema_of(["candidates"]))
    writer.write(to_batch(rows, writer.schema))
    writer.close()
    lines = [
        {"id": row["id"], "item": one.item.id, "clean": None if dirty is None else one.item.id not in dirty, **_values(task, one)}
        for row, one in zip(rows, answered, strict=True)
    ]
    numbers = [name for name in lines[0] if name not in ("id", "item", "clean", "answers", "passes")]
    schema = pa.schema(
        [("id", pa.string()), ("item", pa.string()), ("clean", pa.bool_()), ("answers", pa.int32()), ("passes", pa.int32())]
        + [(name, pa.float64()) for name in numbers]
    )
    made = {
        "name": f"{task.name}/{identity['model']['name']}",
        "kind": "candidates",
        "stage": {"name": "evaluate", "version": VERSION},
        **identity,
        "task": task.model_dump(mode="json"),
        "scores": scores,
        "inputs": [],
        "rows": writer.rows,
        "rows_sha256": writer.content.hexdigest(),
        "ids_sha256": writer.ids.hexdigest(),
        "counts": {"rows": writer.rows},
    }
    metadata = {"stage": "evaluation", "key": identity["key"], "rows_sha256": writer.content.hexdigest()}
    store.write_table(out / "cols" / "evaluation.parquet", pa.Table.from_pylist(lines, schema), metadata)
    store.write_manifest(out, made, started)
    return made


def _values(task: Task, one: Answered) -> dict[str, Any]:
    first = [v for v in next(iter(one.verdicts.values())) if v is not None]
    names = dict.fromkeys([*task.also, *task.readings])
    values = {"score": one.values(task.metric), **{name: one.values(name) for name in names}}
    return {
        "answers": len(first),
        "passes": sum(v.passed for v in first),
        **{name: None if math.isnan(value) else value for name, value in values.items()},
    }


def _row(task: Task, model: str, one: Answered, number: int) -> dict[str, Any]:
    candidates = []
    for i, reply in enumerate(one.replies):
        ratings = []
        for reading, verdicts in one.verdicts.items():
            verdict = verdicts[i]
            if verdict is not None:
                known = None if math.isnan(verdict.score) else verdict.score
                ratings.append({"aspect": reading or "verified", "rating": known, "rationale": verdict.error or verdict.reason})
        main = one.verdicts.get(task.metric, next(iter(one.verdicts.values())))[i]
        told = {"outcome": reply.outcome, "sample": i, "tokens": reply.completion_tokens}
        candidates.append(
            {
                "model": model,
                "content": reply.content,
                "thinking": reply.thinking,
                "finish_reason": reply.finish_reason,
                "params": json.dumps(told | task.decoding.model_dump(), sort_keys=True),
                "ratings": ratings,
                "score": None if main is None or math.isnan(main.score) else float(main.passed),
            }
        )
    check = next(iter(one.item.checks.values()))
    meta = {"item": one.item.id, "task": task.name, "verifier": check["verifier"], "ground_truth": check["ground_truth"]}
    return rehash(
        {
            "id": row_id(task.name, one.item.id, number),
            "kind": "candidates",
            "source": task.name,
            "origin": {"uri": task.source, "revision": task.revision, "split": None, "row": number},
            "license": task.license,
            "meta": json.dumps(meta, sort_keys=True, ensure_ascii=False),
            "parents": [],
            "prompt": one.item.messages,
            "candidates": candidates,
        }
    )


def read_scores(directory: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """(score by item, the manifest's identity) of a result.

    Raises:
        StoreError: not the result of an evaluation.
    """
    dataset = store.open_dataset(directory)
    identity = dataset.manifest["identity"]
    if identity.get("stage", {}).get("name") != "evaluate":
        raise StoreError(f"{directory}: not the result of an evaluation", "make one: python -m training.evaluate --task ... --out DIR")
    table = pq.read_table(dataset.sidecar("evaluation"), columns=["item", "score"])
    scores = {item: math.nan if s is None else s for item, s in zip(table["item"].to_pylist(), table["score"].to_pylist(), strict=True)}
    return scores, identity


def write_olmes(directory: Path, out: Path, number: int = 0) -> list[Path]:
    """The result in the files that OLMES writes for a task: task-NNN-NAME-{metrics.json, predictions.jsonl, requests.jsonl}."""
    scores, identity = read_scores(directory)
    task, name = identity["task"], re.sub(r"[^A-Za-z0-9.-]+", "_", identity["task"]["name"])
    stem = f"task-{number:03d}-{name}"
    rows = [row for batch in store.read_batches(store.open_dataset(directory)) for row in batch.to_pylist()]
    metrics = {metric: found["value"] for metric, found in identity["scores"]["metrics"].items()}
    told = {
        "task_name": task["name"],
        "task_hash": identity["task_key"],
        "model_hash": identity["model"]["revision"],
        "model_config": {"model": identity["model"]["name"]},
        "task_config": {
            "primary_metric": task["metric"],
            "num_shots": len(task["shots"]),
            "generation_kwargs": task["decoding"],
            "metadata": task,
        },
        "task_idx": number,
        "num_instances": identity["scores"]["items"],
        "metrics": {**metrics, "primary_score": metrics[task["metric"]]},
    }
    store.write_json(out / f"{stem}-metrics.json", told)
    predictions, requests = [], []
    for number_of_doc, row in enumerate(rows):
        meta = json.loads(row["meta"])
        doc = {"doc_id": number_of_doc, "native_id": meta["item"], "label": meta["ground_truth"]}
        outputs = [
            {"continuation": c["content"], "num_tokens": json.loads(c["params"])["tokens"], "stop_reason": c["finish_reason"]}
            for c in row["candidates"]
        ]
        score = scores[meta["item"]]
        value = None if math.isnan(score) else score
        hashes = {"task_hash": told["task_hash"], "model_hash": told["model_hash"]}
        predictions.append({**doc, "metrics": {task["metric"]: value}, "model_output": outputs, **hashes})
        request = {"context": {"messages": row["prompt"]}, "generation_kwargs": task["decoding"]}
        asked = {"request_type": "generate_until", "request": request, "idx": 0, "task_name": task["name"]}
        requests.append({**doc, "doc": {"messages": row["prompt"], **doc}, **asked})
    for kind, lines in (("predictions", predictions), ("requests", requests)):
        with store.whole_file(out / f"{stem}-{kind}.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return [out / f"{stem}-{kind}" for kind in ("metrics.json", "predictions.jsonl", "requests.jsonl")]
