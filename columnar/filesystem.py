"""Object stores: s3://bucket/key and gs://bucket/key, through pyarrow's filesystems. List, look, get, put, delete; errors in words.

Credentials, region and endpoint come from the environment alone, as the stores' own tools read them (AWS_ACCESS_KEY_ID, AWS_PROFILE,
AWS_ENDPOINT_URL, AWS_REGION, GOOGLE_APPLICATION_CREDENTIALS, ...). A path never holds them, so no manifest and no log can.

A remote place has one local place, its mirror (`place`, `url_of`): below it code sees paths and files. columnar.remote keeps it true.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from columnar.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs", "hf")
THREADS = 8  # requests at a time
BLOCK = 8 << 20
_FORM = re.compile(rf"({'|'.join(SCHEMES)})://([^/]+)(?:/(.*))?$", re.DOTALL)
_using: list[IO[str]] = []  # the lock of a process that uses copies, once it does
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")

Item = TypeVar("Item")
Made = TypeVar("Made")


class Object(NamedTuple):
    """One object of a store."""

    name: str  # its place below what was listed
    url: str
    size: int
    tag: str  # another one whenever the object is another one
    problem: str | None = None  # why it cannot be had


class Refused(StoreError):
    """A store that answers has no such thing, or not for us."""


def cache_dir() -> Path:
    """Where what is known of files is kept between runs, and copies of what is remote."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "caravan"


def use_copies() -> None:
    """From now to its end this process uses copies: columnar.cache removes none meanwhile."""
    if not _using:
        (cache_dir() / "remote").mkdir(parents=True, exist_ok=True)
        _using.append((cache_dir() / "remote" / "in-use.lock").open("w"))
        fcntl.flock(_using[0], fcntl.LOCK_SH)


@contextlib.contextmanager
def alone_with_copies(needed: bool) -> Iterator[bool]:
    """Is no other command using copies? None begins to in this block; where that is not needed, nobody is asked."""
    lock = cache_dir() / "remote" / "in-use.lock"
    if not needed or not lock.parent.is_dir():
        yield True
        return
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def is_remote(path: Path | str) -> bool:
    """Does this name something in an object store, or on the Hub?"""
    return isinstance(path, str) and path.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def place(path: Path | str) -> Path:
    """A path as it is; of a remote place its mirror, below the cache. Asks no server: for command lines.

    Raises:
        ConfigError: not a place: no bucket, `..`, or a key or password in it.
    """
    if isinstance(path, Path) or not is_remote(path):
        return Path(path)
    scheme, bucket, key = _parts(path)
    return cache_dir() / "remote" / scheme / bucket / key


def under(root: Path, path: str) -> Path:
    """`path` as seen from `root`; a remote one is where it is."""
    return place(path) if is_remote(path) else root / Path(path).expanduser()


def url_of(path: Path) -> str | None:
    """The remote place that a path of the mirror stands for; None for every other path."""
    try:
        scheme, *parts = path.absolute().relative_to((cache_dir() / "remote").absolute()).parts
    except ValueError:
        return None
    return f"{scheme}://{'/'.join(parts)}" if scheme in SCHEMES and parts else None


def shown(path: Path | str) -> str:
    """A path for people: the remote place rather than its mirror."""
    return (url_of(path) if isinstance(path, Path) else None) or str(path)


def remote_names(text: str) -> str:
    """A text in which paths of the mirror are called by the remote places they stand for."""
    root = re.escape(str(cache_dir() / "remote"))
    return re.sub(rf"{root}/({'|'.join(SCHEMES)})/", r"\1://", text)


def _parts(url: str) -> tuple[str, str, str]:
    form = _FORM.match(url)
    if form is None:
        raise ConfigError(f"{url}: expected {url.partition(':')[0]}://BUCKET/KEY")
    scheme, bucket, key = form[1], form[2], (form[3] or "").strip("/")
    if scheme != "hf" and ("@" in bucket or ":" in bucket):  # not repeated: it may be a secret
        raise ConfigError(
            f"{scheme}://…: a key or a password in a path", "paths hold none: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
        )
    if bucket in (".", "..") or (key and {".", "..", ""} & set(key.split("/"))):
        raise ConfigError(f"{url}: a part of the path is empty, . or ..", "write the key as it is in the bucket")
    return scheme, bucket, key


def _opened(url: str) -> tuple[FileSystem, str]:
    """The filesystem of a URL, and its path there."""
    scheme, bucket, key = _parts(url)
    if scheme == "hf":
        raise StoreError(f"{url}: the Hub is read here, not written", "write to a folder; build_mix --push-to-hub uploads a finished mix")
    with _refusals(url, "be reached"):
        system = _s3(bucket, _endpoint("s3"), os.environ.get("AWS_PROFILE")) if scheme == "s3" else _gs(_endpoint("gs"))
    return system, f"{bucket}/{key}".rstrip("/")


@cache
def _s3(bucket: str, endpoint: str | None, _profile: str | None) -> FileSystem:
    from pyarrow import fs

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        region=region or "us-east-1",
        endpoint_override=endpoint,
        anonymous=os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes"),  # public buckets
        allow_delayed_open=True,  # small objects in one request
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


@cache
def _gs(endpoint: str | None) -> FileSystem:
    from pyarrow import fs

    there = urlsplit(endpoint or "")
    return fs.GcsFileSystem(
        anonymous=bool(endpoint),
        endpoint_override=there.netloc or None,
        scheme=there.scheme or None,
        retry_time_limit=timedelta(seconds=15),
    )


def _endpoint(scheme: str) -> str | None:
    if scheme == "gs":
        return os.environ.get("STORAGE_EMULATOR_HOST") or None
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def look(url: str) -> Object | None:
    """One object; None when there is none of this name.

    Raises:
        StoreError: the store refuses or does not answer; as in every function here.
    """
    system, path = _opened(url)
    if "/" not in path:
        return None
    try:
        with _refusals(url, "be read"), system.open_input_file(path) as file:
            return Object(path.rpartition("/")[2], url.rstrip("/"), file.size(), _tag(file.metadata(), file.size()))
    except FileNotFoundError:
        return None


def _tag(metadata: dict[Any, Any], size: int) -> str:
    known = {(k.decode() if isinstance(k, bytes) else k).lower(): v.decode() if isinstance(v, bytes) else v for k, v in metadata.items()}
    marks = [known[name] for name in ("etag", "generation", "versionid", "last-modified") if known.get(name)]
    return " ".join([str(size), *marks])


def listed(url: str) -> list[tuple[str, int]]:
    """(name below the URL, size) of every object there, by name; nothing when there is nothing."""
    from pyarrow import fs

    system, path = _opened(url)
    try:
        with _refusals(url, "be listed"):
            # of S3 a missing prefix is told from a missing bucket only when it may not be missing
            found = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=not url.startswith("s3:")))
    except FileNotFoundError:
        return []
    return sorted((info.path[len(path) :].lstrip("/"), info.size) for info in found if info.is_file)


def objects(url: str, names: Iterable[str]) -> list[Object]:
    """These objects below a URL, each looked at; one that has gone meanwhile is left out."""
    base, names = url.rstrip("/"), list(names)
    found = at_once(lambda name: look(f"{base}/{name}"), names)
    return [item._replace(name=name) for name, item in zip(names, found, strict=True) if item]


def asked(url: str, names: Iterable[str]) -> list[Object]:
    """The same, with the problem of each that has gone or that the store refuses to give."""
    base = url.rstrip("/")

    def one(name: str) -> Object:
        try:
            found = look(f"{base}/{name}")
        except Refused as error:
            return Object(name, f"{base}/{name}", 0, "", str(error).removeprefix(f"{base}/{name}: "))
        return found._replace(name=name) if found else Object(name, f"{base}/{name}", 0, "", "was listed, and is gone")

    return at_once(one, names)


def get(item: Object, target: Path) -> None:
    """Copy an object to a file.

    Raises:
        StoreError: it was replaced meanwhile.
    """
    system, path = _opened(item.url)
    with _refusals(item.url, "be read"), system.open_input_stream(path, compression=None) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK)
    now = look(item.url)
    if now is None or now.tag != item.tag or target.stat().st_size != item.size:
        raise StoreError(f"{item.url}: changed while it was read", "run again when nothing writes to it")


def put(file: Path, url: str) -> Object:
    """Copy a file to an object, and look whether it arrived whole. An object is there whole or not at all, never half."""
    system, path = _opened(url)
    with file.open("rb") as source:
        try:
            with _refusals(url, "be written"), system.open_output_stream(path, compression=None) as target:
                shutil.copyfileobj(source, target, BLOCK)
        except FileNotFoundError as error:
            raise _refused(url, "be written", "NO_SUCH_BUCKET") from error
    made = look(url)
    if made is None or made.size != file.stat().st_size:
        raise StoreError(f"{url}: was written, but the store does not give it back", "is this endpoint an object store?")
    return made


def delete(url: str) -> None:
    """Delete an object; one that is not there is deleted already."""
    system, path = _opened(url)
    with contextlib.suppress(FileNotFoundError), _refusals(url, "be deleted"):
        system.delete_file(path)


def at_once(function: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """A few requests at a time; the answers in order. The first failure is raised, and what has not begun by then is not begun."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _refusals(url: str, what: str) -> Iterator[None]:
    """A store's errors as ours. `FileNotFoundError` and what is wrong with local files pass."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is not None:  # of this machine: disk full, ...
            raise
        raise _refused(url, what, str(error)) from error


def _refused(url: str, what: str, said: str) -> StoreError:
    scheme, bucket, _ = _parts(url)
    for name in _SECRETS:
        if secret := os.environ.get(name):
            said = said.replace(secret, "…")
    server = urlsplit(_endpoint(scheme) or "").hostname or {"s3": "Amazon S3", "gs": "Google Cloud Storage"}[scheme]
    if re.search(r"NO_SUCH_BUCKET|bucket does not exist|Bucket '.*' not found", said):
        return Refused(f"{url}: no bucket {bucket!r} at {server}", f"make it first, or check its name and {_SET[scheme]}")
    if re.search(
        r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_SIGNATURE|SIGNATURE_DOES_NOT|UNRECOGNIZED|EXPIRED|HTTP status 40[13]|PERMISSION", said
    ):
        hint = "the permissions needed: s3:ListBucket and s3:GetObject to read, s3:PutObject and s3:DeleteObject to write"
        return Refused(f"{url}: cannot {what}: {server} refuses (access denied)", hint if _credentials(scheme) else _NO_CREDENTIALS[scheme])
    if re.search(r"NETWORK_CONNECTION|REQUEST_TIMEOUT|[Tt]imed out|[Cc]ould not (connect|resolve)|UNAVAILABLE", said):
        reason = re.split(r" error_info=| \(Request ID", re.split(r"Details: |with a last message of ", said)[-1])[0].strip()
        return StoreError(f"{url}: {server} does not answer: {reason}", f"check the network and {_SET[scheme]}")
    return StoreError(f"{url}: cannot {what}: {said.splitlines()[0] if said else 'no reason given'}")


_SET = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST (and GOOGLE_APPLICATION_CREDENTIALS)"}
_NO_CREDENTIALS = {
    "s3": "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (public bucket: AWS_NO_SIGN_REQUEST=1)",
    "gs": "no credentials found: set GOOGLE_APPLICATION_CREDENTIALS, or run: gcloud auth application-default login",
}


def _credentials(scheme: str) -> bool:
    """Are there credentials where the store's own tools look first?"""
    if scheme == "gs":
        default = Path.home() / ".config/gcloud/application_default_credentials.json"
        return bool(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")) or default.is_file()
    named = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    shared = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws/credentials")
    return any(os.environ.get(name) for name in named) or shared.is_file()
