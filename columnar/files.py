"""A source as the user names it -> the local files it means, each with its place, its hash and, from the Hub, its commit.

    path: chats.jsonl | dir/ | "dir/**/*.parquet" | hf://datasets/owner/name@revision/data/train-*.parquet | s3://bucket/raw/*.jsonl |
          a list of these

`place` is where a file is inside its source (never an absolute path): ids are made of it, so they are the same on every machine.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import hashlib
import json
import os
import posixpath
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from columnar.config import Config
from columnar.errors import InputError, StoreError
from columnar.filesystem import Object, Refused, cache_dir, is_remote, place, url_of
from columnar.store import file_sha256, write_json

TYPES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
COMPRESSED = (".gz", ".zst")
_EXPECTED = f"expected files ending in {', '.join(TYPES)}, also with .gz or .zst"
NAMED = 50  # bad files that an error names
LEAVE_OUT = "make it readable, or leave out such files whole: on_bad_file: skip"
SPLITS = ("train", "validation", "valid", "val", "dev", "test")


class SourceSpec(Config):
    """One source to load: what to read, how, and what to call it."""

    name: str
    path: str | list[str]
    format: str = "auto"
    columns: dict[str, str] = Field(default={})  # our name (or the shape's) -> theirs: {messages: dialog, role: speaker, content: said}
    license: str | None = None
    revision: str | None = None  # hf:// only: branch, tag or commit; a commit in the path does the same
    split: str | None = None  # of several splits, the one to read; kept in origin.split
    max_reject: float | None = None  # share of rows that may be malformed; None: the command's default
    on_bad_file: Literal["fail", "skip"] = "fail"  # a file that cannot be read to its end: end the run, or leave all of it out, and say so
    limit: int | None = None  # read only so many records
    header: bool | None = None  # csv, tsv: is the first line a header; None: look


class SourceFile(NamedTuple):
    """One file to read."""

    path: Path
    place: str
    uri: str
    revision: str | None
    bytes: int = 0
    sha256: str = ""
    problem: str | None = None  # why it cannot be read at all, where that is known without reading it


def file_type(path: Path | str) -> str | None:
    """`.jsonl` for chats.jsonl.gz and so on; None when it is not a type we read."""
    name = str(path).lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return next((kind for kind in TYPES if name.endswith(kind)), None)


def resolve(spec: SourceSpec, root: Path = Path()) -> list[SourceFile]:
    """The files of a source, in a fixed order, each hashed; under `on_bad_file: skip` also those that cannot be read, with their problem.

    Args:
        root: where relative paths start; it is not part of a file's place or uri.

    Raises:
        InputError: a missing file, a directory without data, a pattern that matches nothing, a type we do not read, no permission.
    """
    found: list[SourceFile] = []
    for entry in [spec.path] if isinstance(spec.path, str) else spec.path:
        if entry.startswith("hf://"):
            from columnar.hub import resolve_hub

            found += [SourceFile(*file) for file in resolve_hub(entry, spec.revision, spec.split)]
            continue
        try:
            found += _from_store(url, spec) if is_remote(url := placed(entry, root)) else _local(entry, spec.split, root)
        except (NotThere, PermissionError) as error:
            if spec.on_bad_file == "fail" or file_type(entry) is None or glob.has_magic(entry):
                raise
            said = str(error) if isinstance(error, NotThere) else error.strerror
            found.append(SourceFile(root / entry, Path(entry).name, url, None, problem=str(said).removeprefix(f"{url}: ")))
    if not found:
        raise InputError(f"{spec.name}: path is empty", "give a file, a directory, a pattern or hf://datasets/owner/name")
    places = _distinct([file.place for file in found], [file.uri for file in found])
    files = [_hashed(file._replace(place=place)) for file, place in zip(found, places, strict=True)]
    bad = {file.uri: file.problem for file in files if file.problem}
    if bad and (spec.on_bad_file == "fail" or len(bad) == len(files)):
        raise unreadable(bad, len(files), LEAVE_OUT if spec.on_bad_file == "fail" else None)
    return files


def _hashed(file: SourceFile) -> SourceFile:
    if file.problem:
        return file
    try:
        return file._replace(bytes=file.path.stat().st_size, sha256=sha256_of(file.path))
    except OSError as error:
        return file._replace(problem=(error.strerror or str(error)).lower())


def unchanged(file: SourceFile) -> None:
    """A file that is written to while it is read is neither its old nor its new self.

    Raises:
        InputError: it is not as it was.
    """
    if sha256_of(file.path) != file.sha256:
        raise InputError(f"{file.uri}: changed while it was read", "run again when nothing writes to it")


def unreadable(bad: dict[str, str], of: int, hint: str | None) -> InputError:
    """The error of files that cannot be read: uri -> what is wrong."""
    lines = [f"{uri}: {problem}" for uri, problem in bad.items()]
    if len(lines) == 1:
        return InputError(lines[0], hint)
    more = [f"and {len(lines) - NAMED:,} more"] if len(lines) > NAMED else []
    return InputError("\n  ".join([f"{len(lines):,} of {of:,} files cannot be read:", *lines[:NAMED], *more]), hint)


def placed(entry: str, root: Path) -> str:
    """A source's path; a relative one below a remote root as what it is there."""
    base = url_of(root)
    if base is None or is_remote(entry) or Path(entry).expanduser().is_absolute():
        return entry
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{posixpath.normpath(f'{rest}/{entry}')}"


class NotThere(InputError):
    """What a source names is not there, or not for us."""


def sources_of(url: str, split: str | None) -> list[Object]:
    """The objects a source means (columnar.remote.sources); what is wrong with them is wrong with an input."""
    from columnar.remote import sources

    try:
        return sources(url, split)
    except StoreError as error:
        raise (NotThere if isinstance(error, Refused) else InputError)(str(error), error.hint) from error


def _from_store(url: str, spec: SourceSpec) -> list[SourceFile]:
    """The files of a source in an object store, copied once; what did not change is not copied again."""
    from columnar.remote import copy, same

    items = sources_of(url, spec.split)
    bad = {item.url: item.problem for item in items if item.problem}
    if bad and spec.on_bad_file == "fail":  # before anything is copied
        raise unreadable(bad, len(items), LEAVE_OUT)
    try:
        copy([item for item in items if item.url not in bad and not same(place(item.url), item)], url)
    except StoreError as error:
        raise InputError(str(error), error.hint) from error
    return [SourceFile(place(item.url), item.name, item.url, None, problem=item.problem) for item in items]


def _local(entry: str, split: str | None, root: Path) -> list[SourceFile]:
    def chosen(files: list[Path], names: Callable[[Path], tuple[str, str]]) -> list[SourceFile]:
        return [SourceFile(file, *names(file), None) for file in of_split(files, split, entry)]

    path = root / Path(entry).expanduser()
    if path.is_dir():
        if (path / "manifest.json").is_file() and (path / "rows").is_dir():  # a dataset directory of ours: its rows, not its sidecars
            rows = sorted((path / "rows").glob("*.parquet"))
            return chosen(rows, lambda file: (f"rows/{file.name}", f"{entry.rstrip('/')}/rows/{file.name}"))
        files = sorted(f for f in path.rglob("*") if _wanted(f) and not _hidden(f.relative_to(path)))
        if not files:
            others = sorted({f.suffix or f.name for f in path.rglob("*") if f.is_file()})
            raise InputError(
                f"{entry}: a directory without data" + (f" (found only {', '.join(others[:8])})" if others else " (it is empty)"),
                _EXPECTED,
            )
        return chosen(files, lambda file: (str(file.relative_to(path)), f"{entry.rstrip('/')}/{file.relative_to(path)}"))
    if path.exists():
        if file_type(path) is None:
            raise InputError(f"{entry}: not a type we read", _EXPECTED)
        return [SourceFile(path, path.name, entry, None)]
    if glob.has_magic(entry):
        named = Path(entry).expanduser()
        matches = sorted(root / p for p in glob.glob(str(named), root_dir=root, recursive=True))  # noqa: PTH207 -- patterns may be absolute
        files = [f for f in matches if _wanted(f)]
        files += [f for f in matches if f.is_dir() and file_type(f) and not any(f in other.parents for other in files)]
        files.sort()
        if not files:
            raise InputError(f"{entry}: the pattern matches no data file", _EXPECTED)
        fixed = root / Path(re.split(r"[*?\[]", str(named), maxsplit=1)[0] + "x").parent
        return chosen(files, lambda f: (str(f.relative_to(fixed)), str(f if named.is_absolute() else f.relative_to(root))))
    if "://" in entry:
        raise InputError(f"{entry}: not a kind of place we read", "expected a local path, hf://datasets/…, s3://bucket/… or gs://bucket/…")
    near = [p.name for p in path.parent.glob("*") if p.is_file()][:1000] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, near, 1)
    raise NotThere(f"{entry}: no such file or directory", f"did you mean {path.parent / close[0]}?" if close else None)


def _wanted(path: Path) -> bool:
    """Is this a file to read, or something that stands where one should be (a link to nothing, a folder that nobody may look into)?"""
    if path.is_dir():
        return not os.access(path, os.R_OK | os.X_OK)
    return file_type(path) is not None and (path.is_file() or path.is_symlink())


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def split_of(name: str) -> str | None:
    """The split a file's path names: `data/train-00000-of-00002.parquet` -> train."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((split for split in SPLITS if split in words), None)


def of_split(files: list[Path], split: str | None, entry: str) -> list[Path]:
    """The files of one split, when one is asked for; a single file is taken whatever it is called."""
    if split is None or len(files) == 1:
        return files
    chosen = [f for f in files if split in re.split(r"[^a-z0-9]+", str(f).lower())]
    if not chosen:
        names = sorted({split_of(str(f)) or f.name for f in files})
        raise InputError(f"{entry}: no file of split {split!r}", f"found: {', '.join(names[:10])}")
    return chosen


def _distinct(places: list[str], uris: list[str]) -> list[str]:
    """Places made different, by as much of the path in front as it takes."""
    if len(set(places)) == len(places):
        return places
    parts = [uri.split("/") for uri in uris]
    for depth in range(1, max(map(len, parts)) + 1):
        longer = ["/".join(p[-max(depth, place.count("/") + 1) :]) for p, place in zip(parts, places, strict=True)]
        if len(set(longer)) == len(longer):
            return longer
    repeated = next(uri for uri in uris if uris.count(uri) > 1)
    raise InputError(f"{repeated}: named twice in one source", "to use rows twice, say repeat: 2")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; not read again while its size, times and inode stay the same.

    The change time (ctime) is part of it because nobody can set it back. A file changed within the last two seconds is
    not remembered: another change in the same clock tick would go unseen.
    """
    stat = path.stat()
    mark = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    note = cache_dir() / "sha256" / f"{name}.json"
    try:
        known: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        if known["mark"] == mark:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = file_sha256(path)
    if time.time() - max(stat.st_mtime, stat.st_ctime) > 2:
        with contextlib.suppress(OSError):  # no cache, only slower
            write_json(note, {"mark": mark, "sha256": digest})
    return digest
