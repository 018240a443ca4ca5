"""The published RLVR shape, in and out: {messages, ground_truth, dataset, constraint_type, constraint}.

In: a record of allenai/RLVR-GSM-MATH-IF-Mixed-Constraints and its kin -> a row of kind `prompt`; a row -> such a record. The files load
with `python -m columnar.load` as well; this is for rows in memory and for the way out.

>>> to_published({"prompt": [{"role": "user", "content": "2+2?"}], "verifier": "gsm8k", "ground_truth": "4"})["dataset"]
'gsm8k'
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from columnar.errors import ConfigError
from generation.verifiers.dispatch import resolve, truth_of
from generation.verifiers.ifeval import parse

FIELDS = ("messages", "ground_truth", "dataset", "constraint_type", "constraint")


def from_published(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of kind `prompt` (without id and hashes) from a published record; what we do not use stays in `meta`.

    Raises:
        ConfigError: `dataset` names no verifier that we have.
    """
    names = record["dataset"]
    names = [names] if isinstance(names, str) else list(names)
    truth = record["ground_truth"]
    truths = truth if isinstance(truth, list) and len(truth) == len(names) and len(names) > 1 else [truth] * len(names)
    texts = [t if isinstance(t, str) else json.dumps(t, ensure_ascii=False) for t in truths]
    verifier = (
        names[0].lower()
        if len(names) == 1
        else json.dumps([{"name": n.lower(), "ground_truth": t} for n, t in zip(names, texts, strict=True)])
    )
    row = {
        "kind": "prompt",
        "prompt": list(record["messages"]),
        "verifier": verifier,
        "ground_truth": texts[0],
        "meta": json.dumps({k: record[k] for k in record if k not in ("messages", "ground_truth")}, ensure_ascii=False),
    }
    resolve(row)
    return row


def to_published(row: Mapping[str, Any]) -> dict[str, Any]:
    """The published record of a row with one verifier. Constraints go out as the published lists of ids and parameters.

    Raises:
        ConfigError: several verifiers, which the published shape has no place for; an unknown one.
    """
    tasks = resolve(row)
    if len(tasks) != 1:
        raise ConfigError(f"{len(tasks)} verifiers in a row: the published RLVR shape holds one", "export rows with one verifier each")
    (task,) = tasks
    truth = task.truth if isinstance(task.truth, str) else json.dumps(task.truth, ensure_ascii=False)
    kinds, asked = None, None
    if task.name == "ifeval":
        found = parse({k: v for k, v in truth_of(task.truth).items() if k != "mode"})
        truth = json.dumps(
            [{"instruction_id": [kind.id for kind, _ in found], "kwargs": [params or None for _, params in found]}], ensure_ascii=False
        )
        kinds = ", ".join(kind.id for kind, _ in found)
        asked = (json.loads(row.get("meta") or "{}") or {}).get("constraint")
    name = {"math": "MATH"}.get(task.name, task.name)
    return {"messages": list(row["prompt"]), "ground_truth": truth, "dataset": name, "constraint_type": kinds, "constraint": asked}
