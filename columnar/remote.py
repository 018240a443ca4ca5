"""Mirrors: what a command reads of an object store lies below the cache as files; what it writes there is sent when it is whole.

    fetch(place("s3://bucket/mix"))                     a dataset, brought up to date: only what changed is copied
    with output(place("s3://bucket/mix")) as out: ...   written as files, sent at the end of the block; manifest.json last
    sources("s3://bucket/raw/**/*.jsonl.gz", ...)       the objects a source means, each copied once

A store has no rename. What stands for it: every object appears whole, and a dataset is complete when its manifest.json is there.
So a replaced dataset loses its manifest before anything else of it changes, and gets the new one when everything else has arrived;
a reader checks each row file against the hash in the manifest, and that the manifest is still the same at the end.

Whether a file and an object are the same is noted below `remote/tags`: the file's size and times, and the object's tag (size, ETag).
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from columnar import cli, filesystem
from columnar.errors import StoreError
from columnar.filesystem import Object, Refused, asked, at_once, cache_dir, get, listed, look, objects, place, put, url_of, use_copies

MANIFEST, FLAGS = "manifest.json", "flags.jsonl"
FOLDERS = ("rows", "cols", "hits", "dropped")
FILES = ("README.md", "config.yaml", "rejects.jsonl", "report.json", FLAGS, MANIFEST)
FRESH = 30  # seconds in which a process does not ask again whether a dataset changed
_fetched: dict[Path, float] = {}
_writing: set[Path] = set()  # outputs of this process: their mirror is ahead of the store, and nothing is fetched into it


def fetch(path: Path) -> None:
    """Bring the mirror of a dataset directory up to date; nothing to do for a path that is no mirror.

    Raises:
        StoreError: nothing there, no manifest (incomplete), replaced while it was read, or not what its manifest says.
    """
    url = url_of(path)
    if url is None or path in _writing or time.monotonic() - _fetched.get(path, -FRESH) < FRESH:
        return
    use_copies()
    if url.startswith("hf://"):
        from columnar.hub import fetch_dataset

        fetch_dataset(url, path)
    else:
        with _alone(url):
            _fetch(path, url)
    _fetched[path] = time.monotonic()


def _fetch(path: Path, url: str) -> None:
    names = [name for name, _ in listed(url)]
    if not names:
        raise StoreError(f"{url}: nothing there", "make a dataset with: python -m columnar.load FILE --out " + url)
    manifest = look(f"{url}/{MANIFEST}")
    if manifest is None:
        known = any(name.startswith("rows/") for name in names)
        raise StoreError(
            f"{url}: no {MANIFEST}: " + ("the dataset is incomplete (its upload was cut off)" if known else "not a dataset directory"),
            "run the command that makes it again: it sends what is missing" if known else None,
        )
    there = [item for item in objects(url, filter(_of_dataset, names)) if item.name != MANIFEST]
    replaced = not same(path / MANIFEST, manifest)
    others = set(_files(path)) - {item.name for item in there} - {MANIFEST}
    if replaced:
        gone, stale = others, [item for item in there if not same(path / item.name, item)]
    else:  # columns that were made here and could not be sent stay, until they are sent or the rows change
        gone = {name for name in others if _noted(path / name)}
        stale = [item for item in there if not same(path / item.name, item) and not _ahead(path / item.name, item)]
    if stale or gone or replaced:
        (path / MANIFEST).unlink(missing_ok=True)  # until all is there, the mirror is no dataset
        for name in gone:
            (path / name).unlink()
            _note_of(path / name).unlink(missing_ok=True)
        copy(stale, url)
        copied = path / f".{MANIFEST}.{os.getpid()}.tmp"
        get(manifest, copied)
        _check(path, copied, url)
        copied.replace(path / MANIFEST)
        _note(path / MANIFEST, manifest)
    if look(manifest.url) != manifest._replace(name=MANIFEST):
        raise StoreError(f"{url}: was replaced while it was read", "run again when nothing writes to it")


def _check(path: Path, manifest: Path, url: str) -> None:
    """What was copied is what the manifest lists: another build may be on its way into the same place."""
    from columnar.files import sha256_of

    try:
        outputs = [(o["path"], o["bytes"], o["sha256"]) for o in json.loads(manifest.read_bytes())["identity"]["outputs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{url}/{MANIFEST}: damaged, or not a manifest of ours", "make the dataset again") from error
    for name, size, sha256 in outputs:
        if not (path / name).is_file() or (path / name).stat().st_size != size:
            raise StoreError(
                f"{url}/{name}: missing, or not as its manifest says", "something else was written there: make the dataset again"
            )
        if sha256_of(path / name) != sha256:
            raise StoreError(f"{url}/{name}: another file than its manifest lists", "it is being replaced, or is damaged: make it again")


def copy(items: list[Object], source: str) -> None:
    """Copy objects of a source to their places in the mirror, each whole or not at all, and note that they are the same."""
    from columnar.store import whole_file

    if not items:
        return
    total = sum(item.size for item in items)
    with cli.Progress(f"fetch {source}", total, unit="bytes") as bar:

        def one(item: Object) -> None:
            file = place(item.url)
            with whole_file(file) as temporary:
                get(item, temporary)
            _note(file, item)
            bar.add(item.size)

        at_once(one, items)
    cli.say(f"fetched {len(items):,} objects, {total / 1e6:,.1f} MB, from {source}")


@contextlib.contextmanager
def output(path: Path) -> Iterator[Path]:
    """What is written to `path` in this block is sent to where it is the mirror of, when the block ends well. A local path stays local.

    Raises:
        StoreError: the store refuses to be written to (known before the work begins), other things are there, another writer interferes.
    """
    url = url_of(path)
    if url is None:
        yield path
        return
    with _alone(url):
        if _peek(path, url) is None:
            _may_write(url)
        _writing.add(path)
        try:
            yield path
            _send(path, url)
        finally:
            _writing.discard(path)


def peek(path: Path) -> Object | None:
    """Bring manifest.json and flags.jsonl of a remote dataset here, and nothing else of it: enough to see whether there is work to do.

    Returns:
        the manifest's object, None when there is none.
    """
    url = url_of(path)
    if url is None or url.startswith("hf://"):
        return None
    with _alone(url):
        return _peek(path, url)


def _peek(path: Path, url: str) -> Object | None:
    manifest = look(f"{url}/{MANIFEST}")
    if manifest is not None and not same(path / MANIFEST, manifest):  # made elsewhere: what is here is of another build
        for name in _files(path):
            (path / name).unlink()
    known = objects(url, [FLAGS, MANIFEST])
    copy([item for item in known if not same(path / item.name, item)], url)
    return manifest


def _may_write(url: str) -> None:
    """Better known now than after hours of work: is the place free, and may it be written and cleared?"""
    strange = sorted({name.partition("/")[0] for name, _ in listed(url) if not _hidden(name)} - {*FOLDERS, *FILES})
    if strange:
        raise StoreError(f"{url}: not empty and not a dataset (found {', '.join(strange[:5])})", "give another --out")
    with tempfile.NamedTemporaryFile() as probe:
        put(Path(probe.name), f"{url}/.probe")
    filesystem.delete(f"{url}/.probe")


@contextlib.contextmanager
def exchange(file: Path) -> Iterator[None]:
    """One file of a dataset is brought up to date, changed in this block, and sent; of a local path, only the block.

    Two who do it in the same second: the later wins, since a store has no lock.
    """
    url = url_of(file)
    if url is None:
        yield
        return
    with _alone(url):
        now = look(url)
        copy([now] if now and not same(file, now) else [], url)
        yield
        _note(file, put(file, url))


def holds(path: Path, sizes: dict[str, int]) -> bool:
    """Does the remote dataset of a mirror hold files of these names and sizes? False for a path that is no mirror."""
    url = url_of(path)
    return url is not None and sizes.items() <= dict(listed(url)).items()


def _send(path: Path, url: str) -> None:
    """Make the store hold what the mirror holds."""
    there = dict(listed(url))
    manifest = look(f"{url}/{MANIFEST}")
    known = {item.name: item for item in objects(url, [name for name in _files(path) if name in there])}
    mine = [name for name in _files(path) if name not in (MANIFEST, FLAGS)]
    changed = [name for name in mine if not (name in known and same(path / name, known[name]))]
    replaced = (path / MANIFEST).is_file() and not (manifest and same(path / MANIFEST, manifest))
    if not (replaced or changed):
        return
    if replaced and manifest is not None:
        filesystem.delete(manifest.url)
    sent = sum((path / name).stat().st_size for name in changed)
    with cli.Progress(f"send {url}", sent, unit="bytes") as bar:

        def one(name: str) -> None:
            _note(path / name, put(path / name, f"{url}/{name}"))
            bar.add((path / name).stat().st_size)

        at_once(one, changed)
    if replaced:
        here = {name: (path / name).stat().st_size for name in mine}
        gone = [name for name in there if _of_dataset(name) and name not in {*here, FLAGS, MANIFEST}]
        at_once(lambda name: filesystem.delete(f"{url}/{name}"), gone)
        if {name: size for name, size in listed(url) if name in here} != here or look(f"{url}/{MANIFEST}") is not None:
            raise StoreError(f"{url}: something else writes there at the same time", "run again when it has ended")
        _note(path / MANIFEST, put(path / MANIFEST, f"{url}/{MANIFEST}"))
    cli.say(f"sent {len(changed) + replaced:,} objects, {sent / 1e6:,.1f} MB, to {url}")


@contextlib.contextmanager
def _alone(url: str) -> Iterator[None]:
    """One process of this machine at a time works on a mirror: else one would fetch what another is about to send."""
    use_copies()
    scheme, _, rest = url.partition("://")
    lock = cache_dir() / "remote" / "locks" / scheme / f"{rest}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            cli.say(f"waiting for another command that uses {url}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sources(url: str, split: str | None) -> list[Object]:
    """The objects that a source means: one object, a folder, a pattern (`**` for folders), or a dataset directory's rows; by name.

    One of several that has gone or is refused comes with its problem.

    Raises:
        StoreError: nothing there, nothing of a type we read, an unfinished dataset.
    """
    from columnar.files import file_type, of_split
    from columnar.hub import matching

    use_copies()
    fixed = url.partition("://")[2].partition("/")[2]
    magic = next((i for i, sign in enumerate(fixed) if sign in "*?["), None)
    if magic is None:
        one = look(url)
        if one is not None:
            if file_type(one.name) is None:
                raise StoreError(f"{url}: not a type we read", "expected json, jsonl, csv, tsv, parquet or xlsx, also with .gz or .zst")
            return [one]
        base = url.rstrip("/")
    else:
        base = (url[: len(url) - len(fixed)] + fixed[:magic]).rpartition("/")[0]
    there = [name for name, _ in listed(base) if not _hidden(name)]
    if magic is not None:
        found = matching(there, fixed[len(fixed[:magic].rpartition("/")[0]) :].lstrip("/"))
    elif any(name.startswith("rows/") for name in there) and all(map(_of_dataset, there)):
        if MANIFEST not in there:
            raise StoreError(
                f"{url}: no {MANIFEST}: the dataset is incomplete (its upload was cut off)",
                "run the command that makes it again; to read it all the same, name its files: " + f"{base}/rows/*.parquet",
            )
        found = [name for name in there if name.startswith("rows/") and name.endswith(".parquet")]
    else:
        found = [name for name in there if file_type(name)]
    if not found:
        if not there and magic is None:
            parent, _, name = base.rpartition("/")
            near = difflib.get_close_matches(name, [n for n, _ in listed(parent) if "/" not in n], 1) if "://" in parent[:-1] else []
            raise Refused(f"{url}: nothing there", f"did you mean {parent}/{near[0]}?" if near else None)
        some = ", ".join(there[:8]) or "nothing"
        raise StoreError(f"{url}: no data file {'matches' if magic is not None else 'in it'}", f"{base} holds: {some}")
    chosen = of_split([Path(name) for name in found], split, url)
    return asked(base, map(str, chosen))


def here(path: str) -> Path:
    """A file, or a folder with the files in it, as local paths: the mirror, brought up to date, when it is remote.

    Raises:
        StoreError: nothing there.
    """
    if not filesystem.is_remote(path) or path.startswith("hf://"):
        return Path(path)
    use_copies()
    local = filesystem.place(path)
    one = look(path)
    if one is not None:
        copy([] if same(local, one) else [one], path)
        return local
    names = [name for name, _ in listed(path) if "/" not in name and not _hidden(name)]
    if not names:
        raise StoreError(f"{path}: nothing there")
    items = objects(path, names)
    for file in local.iterdir() if local.is_dir() else ():
        if file.is_file() and file.name not in names:
            file.unlink()
    copy([item for item in items if not same(local / item.name, item)], path)
    return local


def fetched(file: Path) -> bool:
    """Is this file still what was fetched or sent, so that the store has it?"""
    known = _noted(file)
    return known is not None and known["mark"] == _mark(file)


def forget(file: Path) -> None:
    """Remove a copy, and what was noted of it."""
    file.unlink()
    _note_of(file).unlink(missing_ok=True)


def same(file: Path, item: Object) -> bool:
    """Is this file what that object is, as far as was noted when they were copied?"""
    return file.is_file() and _noted(file) == {"mark": _mark(file), "tag": item.tag}


def _ahead(file: Path, item: Object) -> bool:
    """Was this file that object when they were last compared, and was made anew since? Never said of rows."""
    known = _noted(file)
    return known is not None and known["tag"] == item.tag and file.is_file() and not item.name.startswith(("rows/", "dropped/"))


def _noted(file: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(_note_of(file).read_bytes())
        return found
    except (OSError, ValueError):
        return None


def _note(file: Path, item: Object) -> None:
    from columnar.store import write_json

    write_json(_note_of(file), {"mark": _mark(file), "tag": item.tag})


def _note_of(file: Path) -> Path:
    root = cache_dir() / "remote"
    return root / "tags" / file.absolute().relative_to(root.absolute()).with_name(file.name + ".json")


def _mark(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _files(path: Path) -> list[str]:
    """The files of a dataset in a mirror, as names below it."""
    found = (str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    return sorted(filter(_of_dataset, found))


def _of_dataset(name: str) -> bool:
    """Does an object below a dataset directory belong to it?"""
    return name.partition("/")[0] in {*FOLDERS, *FILES} and not _hidden(name)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
