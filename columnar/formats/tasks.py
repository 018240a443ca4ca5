"""Tasks with instances: Self-Instruct seed tasks, Natural Instructions v1 and Super-NaturalInstructions, whole or flattened. Kind sft.

    {"instruction": "Rewrite it", "instances": [{"input": "…", "output": "…"}, …]}                    one row an instance
    {"Definition": ["Answer …"], "Positive Examples": […], "Instances": [{"input": "…", "output": ["C"]}, …]}
    {"definition": "Answer …", "input": "…", "output": ["C"]}

Of several accepted outputs the first is the answer; the others stay in `meta`. What a task says of itself goes to every row,
except for long fields (its examples): those go to the first row only, so that a task of 6,500 instances does not repeat them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from columnar.formats.shape import Bad, Draft, Record, Shape, assistant, first_of, joined, listed, optional, rest, text, user
from columnar.record import describe

LONG = 1000  # characters of JSON


def _row(instruction: str, given: str, output: Any, meta: Record, path: str) -> Draft:
    if isinstance(output, list):
        if not output:
            raise Bad(path, "an empty list", "at least one output")
        output, others = output[0], output[1:]
        if others:
            meta = {**meta, "other_outputs": others}
    if not isinstance(output, str):
        raise Bad(path, describe(output), "text, or a list of texts")
    return {"kind": "sft", "messages": [user(joined(instruction, given)), assistant(output)], "meta": meta}


def _instances(record: Record, field: str, instruction: str, about: Record) -> list[Draft]:
    rows = []
    for i, instance in enumerate(listed(record, field)):
        path = f"{field}[{i}]"
        if not isinstance(instance, dict):
            raise Bad(path, describe(instance), "an instance with input and output")
        given = optional(instance, "input")
        own = rest(instance, "input", "output")
        meta = {**(about if i == 0 else _short(about)), **({"instance": own} if own else {})}
        rows.append(_row(instruction, given, instance.get("output"), meta, f"{path}.output"))
    return rows


def _short(about: Record) -> Record:
    return {key: value for key, value in about.items() if len(msgspec.json.encode(value)) <= LONG}


def _seed_match(fields: set[str], _: list[Record]) -> str | None:
    return (
        "instruction + blank line + instances[].input -> user, instances[].output -> assistant"
        if {"instruction", "instances"} <= fields
        else None
    )


def _seed(record: Record) -> list[Draft]:
    return _instances(record, "instances", text(record, "instruction"), rest(record, "instruction", "instances"))


def _task_match(fields: set[str], _: list[Record]) -> str | None:
    return (
        "Definition + blank line + Instances[].input -> user, Instances[].output[0] -> assistant"
        if {"Definition", "Instances"} <= fields
        else None
    )


def _task(record: Record) -> list[Draft]:
    definition = record["Definition"] if isinstance(record.get("Definition"), list) else [record.get("Definition")]
    if not definition or not isinstance(definition[0], str):
        raise Bad("Definition", describe(record.get("Definition")), "text, or a list of texts")
    about = rest(record, "Definition", "Instances") | ({"other_definitions": definition[1:]} if definition[1:] else {})
    return _instances(record, "Instances", definition[0], about)


def _flat_match(fields: set[str], _: list[Record]) -> str | None:
    output = first_of(fields, ("output", "targets", "target"))
    found = "definition" in fields and first_of(fields, ("input", "inputs"))
    return f"definition + blank line + {found} -> user, {output} (the first of several) -> assistant" if found and output else None


def _flat(record: Record) -> list[Draft]:
    given, output = first_of(record, ("input", "inputs")) or "input", first_of(record, ("output", "targets", "target")) or "output"
    return [_row(text(record, "definition"), text(record, given), record.get(output), rest(record, "definition", given, output), output)]


SEED_TASKS = Shape("self_instruct", ("sft",), _seed_match, _seed)
TASK_FILE = Shape("natural_instructions", ("sft",), _task_match, _task)
TASK_ROWS = Shape("natural_instructions_flat", ("sft",), _flat_match, _flat)
