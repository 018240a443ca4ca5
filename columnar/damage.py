"""Which file of a dataset is damaged: looked for when a command ends on data that cannot be decoded, whichever library read it.

explained(error) -> StoreError that names each file and says what to delete, or None: the error has another cause
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from columnar.errors import CaravanError, StoreError
from columnar.filesystem import cache_dir, url_of
from columnar.store import file_sha256, opened

# what the readers of Parquet raise for bytes that make no sense; the names tell them from mistakes in a statement
DECODERS = {"pyarrow.lib": {"ArrowInvalid"}, "polars.exceptions": {"ComputeError"}, "_duckdb": {"Error", "InvalidInputException"}}
NAMED = 20


def explained(error: BaseException | None) -> StoreError | None:
    """The error of a command in terms of the datasets that it has opened: their files against their manifests."""
    while isinstance(error, CaravanError):  # a question that failed, say: why did it?
        error = error.__cause__
    if error is None or not _of_a_decoder(error):
        return None
    return damage()


def damage() -> StoreError | None:
    """What is wrong with the files of the datasets that this command has opened, if anything is."""
    bad = [(dataset, file, problem) for dataset in sorted(opened) for file, problem in _damaged(dataset)]
    if not bad:
        return None
    names = [f"{file}: damaged: {problem}" for _, file, problem in bad]
    more = [f"and {len(names) - NAMED:,} more"] if len(names) > NAMED else []
    return StoreError("\n  ".join([*names[:NAMED], *more]), "; ".join(dict.fromkeys(_mend(dataset, file) for dataset, file, _ in bad)))


def _of_a_decoder(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno is None  # the system's own errors have a number
    return type(error).__name__ in DECODERS.get(type(error).__module__, ())


def _damaged(dataset: Path) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    try:
        outputs = json.loads((dataset / "manifest.json").read_bytes())["identity"].get("outputs", ())
    except (OSError, ValueError):  # it has been removed or is being replaced
        return found
    for output in outputs:
        file = dataset / output["path"]
        if not file.is_file():
            found.append((file, "it is not there"))
        elif file_sha256(file) != output["sha256"]:
            found.append((file, "its bytes are not those that manifest.json lists"))
    for file in sorted(path for part in ("cols", "hits") for path in (dataset / part).glob("*.parquet")):
        try:
            for _ in pq.ParquetFile(file).iter_batches():
                pass
        except (pa.ArrowInvalid, OSError) as error:
            found.append((file, str(error).strip().split("\n")[0]))
    return found


def _mend(dataset: Path, file: Path) -> str:
    if url_of(dataset):
        return f"delete the copies on this machine (rm -r {cache_dir() / 'remote'}): they are fetched again"
    if file.parent.name in ("cols", "hits"):
        return f"delete {file} and run again what made it"
    return f"delete {dataset / 'manifest.json'} and run again what made the dataset (one in a mix's cache: the mix)"
