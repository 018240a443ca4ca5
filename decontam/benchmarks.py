"""Benchmarks: what to look for. A registry entry, a YAML file of your own, or a folder of files -> items, field by field.

    benchmarks:                       # four lines make a benchmark of your own
      my_eval:
        source: my_eval.jsonl         # any file the loaders read, or hf://datasets/owner/name/data/test-*.parquet
        fields: [question]            # what makes an item; a path (turns.0), a sum (passage+question), docstring(prompt)

Every field of an item is searched for by itself, none is averaged with another. `deciding` fields say whether the item is found
(any of them, or `decide: all`); the others are evidence. An item without text in a deciding field is counted, never lost.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from columnar.config import Config, parse, read_yaml
from columnar.errors import ConfigError, InputError
from columnar.files import SourceFile, SourceSpec, file_type, resolve
from columnar.filesystem import place
from columnar.readers import read
from columnar.record import describe
from columnar.remote import here

REGISTRY = Path(__file__).with_name("benchmarks.yaml")

# Field names that well-known benchmarks use, for files that come without a registry entry: the first found decides.
QUESTIONS = ("question", "problem", "prompt", "instruction", "input", "query", "turns", "goal", "behavior", "adversarial", "text")
EVIDENCE = ("passage", "context", "code", "canonical_solution", "solution", "answer", "output", "target", "choices", "options")
IDS = ("id", "task_id", "question_id", "item_id", "key", "idx", "uid")


class BenchmarkSpec(Config):
    """One benchmark: where its items are, what makes an item, what it is used for."""

    source: str
    fields: list[str]
    deciding: list[str] | None = None  # None: all fields
    decide: Literal["any", "all"] = "any"
    policy: Literal["dev", "unseen"] = "dev"
    id: str | None = None  # field with the item's id; None: its number
    split: str | None = None
    where: dict[str, str | list[str]] = Field(default_factory=dict)  # only records in which these fields have these values
    revision: str | None = None  # hf:// only; None: the newest, resolved and recorded
    license: str | None = None
    note: str | None = None


class BenchmarkFile(Config):
    """A YAML file of benchmarks."""

    root: str | None = None  # where relative sources start; None: the folder of the YAML file
    benchmarks: dict[str, BenchmarkSpec]
    suites: dict[str, list[str]] = Field(default_factory=dict)  # names for groups of benchmarks


class Benchmark(NamedTuple):
    """A benchmark with its items: texts[i][f] is field f of item i ("" where it has none)."""

    name: str
    spec: BenchmarkSpec
    ids: list[str]
    texts: list[list[str]]
    content: dict[str, Any]  # what was read: files, hashes, commit
    guessed: str | None = None  # what was guessed about a file without an entry

    @property
    def deciding(self) -> list[bool]:
        """For each field: does it decide."""
        return [self.spec.deciding is None or field in self.spec.deciding for field in self.spec.fields]


def load_benchmarks(wanted: str | list[str], root: str | None = None) -> list[Benchmark]:
    """Read benchmarks: names or suites of the registry, YAML files, folders, single data files; mixed as you like.

    Raises:
        ConfigError: an unknown name, a wrong YAML file, a name twice, nothing at all.
        InputError: a source that cannot be read, or that has none of the named field.
    """
    return [_read(entry) for entry in _wanted(wanted, root)]


def fingerprint(wanted: str | list[str], root: str | None = None) -> list[Any]:
    """What `load_benchmarks` would read, as names, settings and file hashes: equal when the items are, at a fraction of the work."""
    return [[e.name, e.spec.model_dump(mode="json"), _content(_files(e))] for e in _wanted(wanted, root)]


class Entry(NamedTuple):
    """A benchmark asked for."""

    name: str
    spec: BenchmarkSpec
    base: Path  # where its relative source starts
    guessed: str | None


def _wanted(wanted: str | list[str], root: str | None) -> list[Entry]:
    found: dict[str, Entry] = {}
    for given in [wanted] if isinstance(wanted, str) else wanted:
        for entry in _entries(given, root):
            if found.setdefault(entry.name, entry) != entry:
                raise ConfigError(f"benchmarks: {entry.name} is named twice, with different contents", "rename one of them")
    if not found:
        raise ConfigError("benchmarks: none to look for", "name a suite (tulu3), benchmarks (gsm8k), a YAML file or a folder of files")
    return list(found.values())


def _files(entry: Entry) -> list[SourceFile]:
    spec = entry.spec
    return resolve(SourceSpec(name=entry.name, path=spec.source, revision=spec.revision, split=spec.split), entry.base)


def _entries(entry: str, root: str | None) -> list[Entry]:
    path = here(entry)
    if path.suffix in (".yaml", ".yml"):
        file = parse(BenchmarkFile, read_yaml(path), entry)
        base = place(root or file.root or path.parent)
        return [Entry(name, spec, base, None) for name, spec in file.benchmarks.items()]
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.is_file() and file_type(f) and not f.name.startswith((".", "_")))
        if not files:
            raise ConfigError(f"{entry}: no benchmark files in this folder", "expected json, jsonl, csv, tsv or parquet files")
        return [_guess(file) for file in files]
    if path.is_file():
        return [_guess(path)]
    registry = parse(BenchmarkFile, read_yaml(REGISTRY), str(REGISTRY))
    names = registry.suites.get(entry, [entry])
    unknown = [name for name in names if name not in registry.benchmarks]
    if unknown:
        import difflib

        close = difflib.get_close_matches(entry, [*registry.benchmarks, *registry.suites], 1)
        maybe = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"benchmarks: {entry!r} is no file, no folder, and no name in the registry{maybe}",
            f"suites: {', '.join(registry.suites)}; all names: python -m decontam.scan --list",
        )
    return [Entry(name, registry.benchmarks[name], place(root or "."), None) for name in names]


def _guess(file: Path) -> Entry:
    """A spec for a file without one, by well-known field names."""
    record = next((r.value for r in read(file) if r.value is not None), None)
    keys = list(record or {})
    lower = {key.lower().replace(" ", "_"): key for key in reversed(keys)}
    questions = [lower[name] for name in QUESTIONS if name in lower][:1]
    if not questions:
        raise InputError(f"{file}: cannot guess what makes an item (fields: {', '.join(keys) or 'none'})", "name its fields in a YAML file")
    extra = [lower[name] for name in EVIDENCE if name in lower and lower[name] not in questions]
    name = re.split(r"[.]", file.name, maxsplit=1)[0]
    ident = next((lower[n] for n in IDS if n in lower), None)
    spec = BenchmarkSpec(source=file.name, fields=questions + extra, deciding=questions, id=ident)
    guessed = f"{questions[0]} decides" + (f", evidence: {', '.join(extra)}" if extra else "")
    return Entry(name, spec, file.parent, guessed)


def _read(entry: Entry) -> Benchmark:
    name, spec, _, guessed = entry
    for field in spec.deciding or []:
        if field not in spec.fields:
            raise ConfigError(f"{name}: deciding field {field!r} is not one of its fields ({', '.join(spec.fields)})")
    files = _files(entry)
    ids: list[str] = []
    texts: list[list[str]] = []
    seen: set[str] = set()
    keys: dict[str, None] = {}
    for file in files:
        for record in read(file.path):
            if record.value is None:
                raise InputError(f"{file.uri}, line {record.line}: {record.problem}", f"benchmark {name} must be readable whole")
            keys.update(dict.fromkeys(record.value))
            if any(str(record.value.get(key)) not in ([want] if isinstance(want, str) else want) for key, want in spec.where.items()):
                continue
            fields = [text_of(record.value, field) for field in spec.fields]
            seen.update(field for field, text in zip(spec.fields, fields, strict=True) if text is not None)
            ident = record.value.get(spec.id) if spec.id else None
            ids.append(str(ident) if ident is not None else str(len(ids)))
            texts.append([text or "" for text in fields])
    if not ids:
        raise InputError(f"benchmark {name}: no items in {spec.source}" + (f" where {spec.where}" if spec.where else ""))
    missing = [field for field in spec.fields if field not in seen]
    if missing:
        raise InputError(f"benchmark {name}: no record has the field {missing[0]!r}", f"fields in {spec.source}: {', '.join(keys)}")
    if len(set(ids)) < len(ids):  # the same id in several subjects or files
        ids = [f"{ident}#{i}" for i, ident in enumerate(ids)]
    return Benchmark(name, spec, ids, texts, _content(files), guessed)


def _content(files: list[SourceFile]) -> dict[str, Any]:
    commits = sorted({file.revision for file in files if file.revision})
    return {"files": {file.place: file.sha256 for file in files}, "revision": commits[0] if commits else None}


def text_of(record: dict[str, Any], field: str) -> str | None:
    """The text of a field: a key, a path `turns.0`, a sum `passage+question`, or `docstring(prompt)`; None where there is none.

    Lists of texts are joined by line breaks, numbers become text.
    """
    if field in record:
        return _as_text(record[field])
    if "+" in field:
        parts = [text for part in field.split("+") if (text := text_of(record, part)) is not None]
        return "\n".join(filter(None, parts)) if parts else None
    if field.startswith("docstring(") and field.endswith(")"):
        code = text_of(record, field[len("docstring(") : -1])
        return None if code is None else docstring(code)
    value: Any = record
    for key in field.split("."):
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            return None
    return _as_text(value)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return "\n".join(filter(None, (_as_text(item) for item in value)))
    if isinstance(value, dict):
        return "\n".join(filter(None, (_as_text(item) for item in value.values())))
    raise InputError(f"a benchmark field holds {describe(value)}, expected text")


def docstring(code: str) -> str:
    """What the last docstring of a code prompt says, up to its first example."""
    quoted = re.findall(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', code, re.DOTALL)
    text = max(quoted[-1], key=len) if quoted else ""
    return re.split(r">>>|\bExamples?\b", text, maxsplit=1)[0].strip()
