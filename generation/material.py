"""What makers start from: prompts that exist, and personas, out of a dataset directory or any file we read.

dataset = open_prompts("prompts.jsonl", Path("out/x"))     # a file is loaded into out/x/inputs/prompts first
for prompt in each_prompt(dataset): prompt.id, prompt.messages, prompt.license

people = read_personas(PersonaFile(path="personas.jsonl"))  # the field is found by its name, or given
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from columnar import filesystem, store
from columnar.config import Config
from columnar.errors import InputError
from columnar.files import SourceSpec, resolve
from columnar.load import iter_records, load_source
from columnar.record import normalise, row_id
from columnar.remote import peek


class Prompts(Config):
    """Prompts to start from: a dataset directory of any kind, or a file of a shape we know."""

    path: str
    format: str = "auto"
    columns: dict[str, str] = Field(default_factory=dict)
    license: str | None = None
    limit: int | None = None


class Asked(NamedTuple):
    """A prompt that exists: the messages before the first answer."""

    id: str
    messages: list[dict[str, Any]]
    license: str | None
    source: str

    @property
    def usable(self) -> bool:
        """The last turn is the user's, and says something."""
        return bool(self.messages) and self.messages[-1]["role"] == "user" and bool((self.messages[-1].get("content") or "").strip())

    @property
    def text(self) -> str:
        """The last user turn: what is asked."""
        return str(self.messages[-1]["content"] or "")


def open_prompts(spec: Prompts, out: Path) -> store.Dataset:
    """The dataset of these prompts; a foreign file becomes one under OUT/inputs/ (and is not loaded again while it stays the same).

    Raises:
        InputError: nothing there, no known shape, or no rows.
    """
    path = filesystem.place(spec.path)
    if peek(path) if filesystem.url_of(path) else (path / "manifest.json").is_file():
        dataset = store.open_dataset(path)
    else:
        name = path.name.split(".")[0] or "prompts"
        where = out / "inputs" / name
        load_source(SourceSpec(name=name, path=spec.path, format=spec.format, columns=spec.columns, license=spec.license), where)
        dataset = store.open_dataset(where)
    if not dataset.rows:
        raise InputError(f"{spec.path}: no rows", "prompts are needed to start from")
    return dataset


def describe_input(spec: Prompts, out: Path) -> list[dict[str, Any]]:
    """What a manifest says of these prompts: where they were, what they held."""
    dataset = open_prompts(spec, out)
    return [{"uri": spec.path, "rows_sha256": dataset.content, "rows": dataset.rows}]


def each_prompt(dataset: store.Dataset, limit: int | None = None) -> Iterator[Asked]:
    """The prompts in row order; of a conversation, everything before its first answer; also those that are not `usable`."""
    given = 0
    for batch in store.read_batches(dataset, ["id", "kind", "messages", "prompt", "license", "source"], rows=1000):
        for row in batch.to_pylist():
            if limit is not None and given >= limit:
                return
            messages = row.get("prompt") or before_answer(row.get("messages") or [])
            given += 1
            yield Asked(row["id"], [bare(m) for m in messages], row["license"], row["source"])


def longest_text(dataset: store.Dataset, sample: int = 50) -> str:
    """The longest of the first prompts, for estimates."""
    return max((p.text for p in each_prompt(dataset, sample) if p.usable), key=len, default="")


def before_answer(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns before the first assistant turn."""
    first = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))
    return messages[:first]


def bare(message: dict[str, Any]) -> dict[str, Any]:
    """A message without its empty fields."""
    return {k: v for k, v in message.items() if v is not None}


class PersonaFile(Config):
    """Where the personas are; `field` is found by its name when left out."""

    path: str
    field: str | None = None
    license: str | None = None
    limit: int | None = None


class Persona(NamedTuple):
    """One persona; the id is the one that its record would have as a row."""

    id: str
    text: str


def read_personas(spec: PersonaFile) -> tuple[list[Persona], dict[str, int]]:
    """The personas, each text once, and how many records gave none: {records, empty, repeated}.

    Raises:
        InputError: the field is not there, or cannot be told; no persona at all.
    """
    name = Path(spec.path).name.split(".")[0]
    field = spec.field
    people: list[Persona] = []
    seen: set[bytes] = set()
    counts = {"records": 0, "empty": 0, "repeated": 0}
    for place, number, record in iter_records(SourceSpec(name=name, path=spec.path, limit=spec.limit)):
        field = field or persona_field(record, spec.path)
        if field not in record:
            found = ", ".join(map(str, record)) or "none"
            raise InputError(
                f"{spec.path}, record {number}: no field {field!r}; fields there: {found}", "set personas.field to the one with the persona"
            )
        if spec.limit is not None and counts["records"] >= spec.limit:
            break
        counts["records"] += 1
        text = " ".join(str(record[field]).split()) if isinstance(record[field], str) else ""
        key = normalise(text)
        if not key:
            counts["empty"] += 1
        elif key in seen:
            counts["repeated"] += 1
        else:
            seen.add(key)
            people.append(Persona(row_id(name, place, number), text))
    if not people:
        raise InputError(f"{spec.path}: no persona in {counts['records']:,} records", f"is {field!r} the right field?")
    return people, counts


def persona_field(record: dict[str, Any], path: str) -> str:
    """The one field whose name speaks of a persona.

    Raises:
        InputError: none, or several.
    """
    named = [f for f in record if "persona" in str(f).lower()]
    exact = [f for f in named if str(f).lower() in ("persona", "input persona", "persona_text")]
    chosen = exact or named
    if len(chosen) != 1:
        found = (
            f"several fields speak of personas: {', '.join(chosen)}"
            if chosen
            else f"no field speaks of personas; fields there: {', '.join(record)}"
        )
        raise InputError(f"{path}: {found}", "set personas.field to the one with the persona")
    return str(chosen[0])


def persona_input(spec: PersonaFile) -> list[dict[str, Any]]:
    """What a manifest says of the personas."""
    files = resolve(SourceSpec(name="personas", path=spec.path))
    return [{"uri": f.uri, "sha256": f.sha256, "bytes": f.bytes} for f in files]
