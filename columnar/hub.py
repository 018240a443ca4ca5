"""hf://datasets/owner/name@revision/pattern -> local files, pinned to a commit.

The revision is resolved to a commit once; the files come through the Hub's own cache (resumable, shared with other tools). What a
commit holds is noted beside our cache, so that with HF_HUB_OFFLINE=1 the same source means the same files, or is an error: a cache
that holds half of a pattern never passes for the whole. Dataset scripts are never run.
"""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from columnar.errors import InputError, StoreError
from columnar.files import file_type, of_split, split_of
from columnar.filesystem import cache_dir
from columnar.store import write_json

_FORM = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<pattern>.*))?$")
_COMMIT = re.compile(r"[0-9a-f]{40}$")


class HubUnreachable(InputError):
    """The Hub does not answer, and what was asked is not known from before."""


def resolve_hub(uri: str, revision: str | None = None, split: str | None = None) -> list[tuple[Path, str, str, str | None]]:
    """The files of a Hub source as (local path, path in the repository, uri with the commit, commit).

    Args:
        revision: branch, tag or commit where the uri has none; a branch with a slash is written %2F in the uri.

    Raises:
        InputError: malformed uri, no such dataset or revision, a pattern that matches nothing, several splits and none chosen, offline
            and not known from before.
    """
    repo, commit, names = list_hub(uri, revision, split)
    return [(_download(repo, commit, name, uri), name, f"hf://datasets/{repo}@{commit}/{name}", commit) for name in names]


def list_hub(uri: str, revision: str | None = None, split: str | None = None) -> tuple[str, str, list[str]]:
    """What a Hub source means, (owner/name, commit, paths of the files in the repository), without fetching a file.

    Raises:
        InputError: as for `resolve_hub`.
    """
    form = _FORM.match(uri)
    if form is None:
        raise InputError(
            f"{uri}: not a Hub source", "expected hf://datasets/owner/name@revision/pattern, for example …/data/train-*.parquet"
        )
    repo, pattern = form["repo"], (form["pattern"] or "").strip("/")
    wanted = unquote(form["revision"]) if form["revision"] else revision or "main"
    commit, names = _commit(repo, wanted, uri)
    chosen = matching(names, pattern)
    if not chosen:
        data = [n for n in names if file_type(n)]
        raise InputError(f"{uri}: no data file matches", f"the dataset holds: {', '.join(data[:10]) or 'no file of a type we read'}")
    return repo, commit, _one_split(chosen, split, uri) if split or not pattern else chosen


def fetch_dataset(uri: str, directory: Path) -> None:
    """Lay out a dataset directory of ours that is on the Hub, as `build_mix --push-to-hub` uploads it: links into the Hub's own cache.

    Raises:
        StoreError: not a dataset directory of ours; or as for `resolve_hub`.
    """
    form = _FORM.match(uri)
    if form is None:
        raise StoreError(f"{uri}: not a dataset on the Hub", "expected hf://datasets/owner/name, or …/name@revision/folder")
    folder = f"{form['pattern'].strip('/')}/" if form["pattern"] else ""
    commit, names = _commit(form["repo"], unquote(form["revision"] or "main"), uri)
    ours = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    if "manifest.json" not in ours:
        raise StoreError(f"{uri}: no manifest.json: not a dataset directory", "to load its files, use: python -m columnar.load")
    for name in sorted(ours, key=lambda name: name == "manifest.json"):
        file, there = directory / name, _download(form["repo"], commit, folder + name, uri)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(there)
    for file in directory.rglob("*"):
        if file.is_symlink() and str(file.relative_to(directory)) not in ours:
            file.unlink()


def is_fetched(repo: str, commit: str, name: str) -> bool:
    """Is this file in the Hub's cache on this machine already?"""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, name, revision=commit, repo_type="dataset"), str)


def matching(names: list[str], pattern: str) -> list[str]:
    """Names that a pattern means: `*` stays inside a folder, `**` does not; a folder means what is in it; nothing means everything."""
    data = sorted(name for name in names if file_type(name))
    if not pattern:
        return data
    if not any(sign in pattern for sign in "*?["):
        return [n for n in data if n == pattern or n.startswith(pattern + "/")]
    parts = [p for p in re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", pattern) if p]
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = "".join(signs.get(p) or (fnmatch.translate(p)[4:-3] if p.startswith("[") else re.escape(p)) for p in parts)
    return [n for n in data if re.fullmatch(expression, n)]


def _one_split(names: list[str], split: str | None, uri: str) -> list[str]:
    if split:
        return [str(path) for path in of_split([Path(n) for n in names], split, uri)]
    splits = sorted({found for found in map(split_of, names) if found})
    if len(splits) > 1:
        raise InputError(f"{uri}: holds several splits ({', '.join(splits)})", "choose one with split:, or name the files in the path")
    return names


def _commit(repo: str, revision: str, uri: str) -> tuple[str, list[str]]:
    """The commit a revision means and the names of its files; noted, and read back when the Hub cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    folder = cache_dir() / "hub" / repo.replace("/", "--")
    note, pinned = folder / f"{revision.replace('/', '%2F')}.json", bool(_COMMIT.match(revision))
    known: dict[str, Any] | None = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    if known and pinned:  # a commit never changes
        return known["commit"], known["files"]
    try:
        info = HfApi().dataset_info(repo, revision=revision, timeout=30)
    except GatedRepoError as error:
        raise InputError(
            f"{uri}: the dataset asks for consent or a token", "accept its terms on the Hub, then run: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{uri}: no revision {revision!r} in {repo}") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{uri}: no dataset {repo} on the Hub (or it is private)", "check the name; for a private one run: hf auth login"
        ) from error
    except Exception as error:  # what the HTTP library under the Hub's client raises differs from version to version
        if known:
            return known["commit"], known["files"]
        raise HubUnreachable(
            f"{uri}: the Hub cannot be reached, and this revision was not fetched before: {error}", "go online once"
        ) from error
    commit, files = str(info.sha), sorted(s.rfilename for s in info.siblings or ())
    for name in {note.name, f"{commit}.json"}:
        write_json(folder / name, {"commit": commit, "files": files})
    return commit, files


def _download(repo: str, commit: str, name: str, uri: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset", revision=commit))
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{uri}: {name} is not in the local cache, and the Hub cannot be reached", "go online once, or unset HF_HUB_OFFLINE"
        ) from error
    except Exception as error:
        raise InputError(f"{uri}: {name} cannot be fetched: {error}") from error
