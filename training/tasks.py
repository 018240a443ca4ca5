"""Evaluation tasks: everything that a score depends on, fixed in one YAML file each (training/tasks/, or one of your own).

    task = find_task("gsm8k::tulu3")
    items = read_items(task, data=Path("benchmarks"))     # a folder of benchmark files; None: from the Hub

Prompt, examples, decoding, extraction (the verifier) and metric are part of a task's key; two scores are comparable when their keys are
equal. A dataset directory of kind prompt is a task too: its rows name their verifiers, answers are greedy.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from columnar import store
from columnar.config import Config, parse, read_yaml
from columnar.errors import ConfigError, InputError
from columnar.files import SourceSpec, file_type, resolve
from columnar.readers import read

FOLDER = Path(__file__).with_name("tasks")
VERSION = 1
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")


class Decoding(Config):
    """How answers are sampled; `samples` is how many for each item."""

    temperature: float = 0.0
    top_p: float | None = None
    max_tokens: int = 1024
    stop: list[str] = Field(default_factory=list)
    samples: int = Field(1, ge=1)
    seed: int = 0


class Task(Config):
    """One task.

    Attributes:
        policy: dev = looked at while developing; unseen = only at the end.
        source: where the items are on the Hub; `file`: what the file is called in a folder of benchmark files (without suffix).
        id: the field with an item's id; without it (or where a file lacks it) its number.
        within: only items whose field, as a number, lies between these two.
        literal: fields that some files hold as the text of a list.
        lettered: fields with a list of options, shown as `A. ...` lines.
        rename: a file's name for a field -> ours.
        benchmarks: what decontamination calls this benchmark: its hits there are this task's items.
        prompt, answer: texts with {field}s; `answer` is how the examples in `shots` answer.
        ground_truth: what the verifier gets: a text with {field}s, or a mapping of them ("{field}" alone is the field's own value).
        readings: several ways to verify the same answer: name -> what is added to the ground truth.
        metric: what is reported: passed, score (partial credit), the name of a reading, or pass@k; `also`: further ones.
    """

    name: str
    policy: Literal["dev", "unseen"] = "dev"
    source: str = ""
    file: str = ""
    revision: str | None = None
    license: str | None = None
    id: str | None = None
    within: dict[str, tuple[float, float]] = Field(default_factory=dict)
    literal: list[str] = Field(default_factory=list)
    lettered: list[str] = Field(default_factory=list)
    rename: dict[str, str] = Field(default_factory=dict)
    benchmarks: list[str] = Field(default_factory=list)
    system: str | None = None
    prompt: str
    answer: str = ""
    shots: list[dict[str, str]] = Field(default_factory=list)
    verifier: str
    ground_truth: str | dict[str, Any]
    readings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    decoding: Decoding = Decoding()
    metric: str = "passed"
    also: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> Task:
        for metric in [self.metric, *self.also]:
            k = re.fullmatch(r"pass@(\d+)", metric)
            if k and int(k[1]) > self.decoding.samples:
                raise ValueError(f"metric {metric} needs decoding.samples of at least {k[1]}, found {self.decoding.samples}")
            if not k and metric not in ("passed", "score", *self.readings):
                raise ValueError(f"metric {metric!r}: expected passed, score, pass@K or a reading ({', '.join(self.readings) or 'none'})")
        if self.decoding.samples > 1 and self.decoding.temperature == 0:
            raise ValueError("decoding: several samples at temperature 0 are all the same")
        return self

    @property
    def key(self) -> str:
        """16 hex of everything a score depends on but the items and the model."""
        said = self.model_dump(mode="json", exclude={"policy", "license", "benchmarks", "file", "source", "revision"})
        return store.stage_key("task", VERSION, said, None)


class Item(NamedTuple):
    """One question: its id, what is asked, and what checks an answer (one verifier row for each reading)."""

    id: str
    messages: list[dict[str, str]]
    checks: dict[str, dict[str, Any]]


def find_task(name: str) -> Task:
    """A task by name, by the path of a YAML file, or a dataset directory of prompts.

    Raises:
        ConfigError: no such task, or a YAML file with mistakes.
    """
    if name.endswith((".yaml", ".yml")):
        return parse(Task, read_yaml(name), name)
    if (Path(name) / "manifest.json").is_file():
        said = store.open_dataset(name).manifest["identity"].get("name") or Path(name).name
        return Task(name=said, source=name, prompt="{prompt}", verifier="row", ground_truth="{ground_truth}")
    known = {str(read_yaml(p)["name"]): p for p in sorted(FOLDER.glob("*.yaml"))}
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        raise ConfigError(
            f"unknown task {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            f"tasks: {', '.join(known)}; or a YAML file, or a dataset directory of prompts",
        )
    return parse(Task, read_yaml(known[name]), str(known[name]))


def read_items(task: Task, data: Path | None = None, limit: int | None = None) -> tuple[list[Item], str]:
    """The items in file order, and a hash of what was read.

    Raises:
        InputError: no file, a field that is missing, or no items.
    """
    if task.verifier == "row":
        return _from_rows(task, limit)
    path = _local(task, data) if data is not None else task.source
    files = resolve(SourceSpec(name=task.name, path=str(path), revision=task.revision))
    items: list[Item] = []
    number = 0
    for file in files:
        for record in read(file.path):
            if record.value is None:
                raise InputError(f"{file.uri}, line {record.line}: {record.problem}", f"task {task.name} must be readable whole")
            fields = _fields(task, record.value)
            if limit is not None and len(items) >= limit:
                break
            if _inside(task, fields, file.uri):
                items.append(_item(task, fields, str(fields.get(task.id or "", number)), file.uri))
            number += 1
    if not items:
        raise InputError(f"task {task.name}: no items in {path}")
    twice = len(items) - len({item.id for item in items})
    if twice:
        items = [item._replace(id=f"{item.id}#{i}") for i, item in enumerate(items)]
    return items, store.stage_key("items", VERSION, limit, [file.sha256 for file in files])


def _local(task: Task, data: Path) -> Path:
    found = sorted(p for p in data.glob(f"{task.file}.*") if file_type(p)) if data.is_dir() else []
    if not found:
        raise InputError(
            f"{data}: no file {task.file}.* for task {task.name}",
            "expected jsonl, json, csv, tsv or parquet; without --data the Hub is asked",
        )
    return found[0]


def _fields(task: Task, record: dict[str, Any]) -> dict[str, Any]:
    out = {task.rename.get(key, key): value for key, value in record.items()}
    for name in task.literal:
        if isinstance(out.get(name), str):
            out[name] = _read_list(out[name])
    for name in task.lettered:
        if isinstance(out.get(name), list):
            out[name] = [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(out[name])]
    return out


def _read_list(text: str) -> Any:
    """A list that a file holds as text, in JSON or as Python writes it."""
    for reader in (json.loads, ast.literal_eval):
        try:
            return reader(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _inside(task: Task, fields: dict[str, Any], uri: str) -> bool:
    try:
        return all(low <= float(fields[name]) <= high for name, (low, high) in task.within.items())
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{uri}: task {task.name} selects by {', '.join(task.within)}, which a record lacks: {error}") from error


def _item(task: Task, fields: dict[str, Any], ident: str, uri: str) -> Item:
    try:
        messages = [{"role": "system", "content": task.system}] if task.system else []
        for shot in task.shots:
            messages += [{"role": "user", "content": _fill(task.prompt, shot)}, {"role": "assistant", "content": _fill(task.answer, shot)}]
        messages.append({"role": "user", "content": _fill(task.prompt, fields)})
        truth = _truth(task.ground_truth, fields)
    except KeyError as error:
        raise InputError(
            f"{uri}: a record has no field {error} that task {task.name} needs", f"fields: {', '.join(map(str, fields))}"
        ) from error
    checks = {}
    for reading, more in (task.readings or {"": {}}).items():
        said = (
            truth
            if isinstance(truth, str) and not more
            else json.dumps({**(truth if isinstance(truth, dict) else {"answer": truth}), **more})
        )
        checks[reading] = {"id": ident, "prompt": messages, "verifier": task.verifier, "ground_truth": said}
    return Item(ident, messages, checks)


def _fill(text: str, fields: dict[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        said = fields[found[1]]
        return "\n".join(map(str, said)) if isinstance(said, list) else "" if said is None else str(said)

    return _FIELD.sub(value, text)


def _truth(wanted: str | dict[str, Any], fields: dict[str, Any]) -> Any:
    if isinstance(wanted, dict):
        return {key: _truth(value, fields) if isinstance(value, str) else value for key, value in wanted.items()}
    alone = _FIELD.fullmatch(wanted)
    return fields[alone[1]] if alone else _fill(wanted, fields)


def _from_rows(task: Task, limit: int | None) -> tuple[list[Item], str]:
    dataset = store.open_dataset(task.source)
    if dataset.manifest["identity"].get("kind") != "prompt":
        raise InputError(f"{task.source}: rows of kind {dataset.manifest['identity'].get('kind')!r}, expected prompt")
    items = []
    for batch in store.read_batches(dataset, ["id", "prompt", "verifier", "ground_truth"]):
        for row in batch.to_pylist():
            messages = [{"role": m["role"], "content": m["content"] or ""} for m in row["prompt"]]
            items.append(Item(row["id"], messages, {"": {**row, "prompt": messages}}))
    return items[:limit], store.stage_key("items", VERSION, limit, dataset.content)
