"""What is kept on this machine of remote data: how large it is, when it was last used; removed on demand.

    python -m columnar.cache                            a line for each folder of copies, the largest first
    python -m columnar.cache --older-than 30d           those not used for 30 days (also h, w)
    python -m columnar.cache --older-than 30d --remove

Removed is only what can be fetched or made again: copies that are still what was fetched, and the loads of mixes whose output is
remote. What was made here and not sent yet stays, and nothing is removed while another command uses copies. Last use is as
exact as the file system notes reading: often to the day, on some only when it was written.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from columnar import cli
from columnar.errors import ConfigError, StoreError
from columnar.filesystem import SCHEMES, alone_with_copies, cache_dir, shown
from columnar.remote import fetched, forget

UNITS = {"h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class Kept:
    """A folder of the cache: a dataset, the objects of a folder in a bucket, or the loads of a bucket's mixes."""

    path: Path
    files: list[Path]
    made: bool  # here, from sources, and not fetched

    @property
    def used(self) -> float:
        """When one of its files was last read or written, in seconds since 1970."""
        return max(max(stat.st_atime, stat.st_mtime) for stat in (file.lstat() for file in self.files))

    @property
    def state(self) -> str:
        """What it could be had from again."""
        if self.made:
            return "can be made again"
        whole = all(file.is_symlink() or fetched(file) for file in self.files)
        return "can be fetched again" if whole else "not sent yet: stays"

    def remove(self) -> None:
        """Its files, what is noted of them, and the folders that are empty then."""
        if self.made:
            shutil.rmtree(self.path)
            return
        for file in self.files:
            forget(file)
        for folder in sorted({file.parent for file in self.files} | {self.path}, reverse=True):
            while folder != cache_dir() / "remote" and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent


def kept() -> Iterator[Kept]:
    """Everything in the cache that takes room, in the order of paths."""
    root = cache_dir()
    for bucket in sorted((root / "mixes").glob("*")):
        yield Kept(bucket, _files(bucket), made=True)
    for scheme in SCHEMES:
        for name, folders, files in os.walk(root / "remote" / scheme):
            path = Path(name)
            if "rows" in folders or "manifest.json" in files:  # a dataset stays or goes whole
                folders.clear()
                yield Kept(path, _files(path), made=False)
            elif files:
                yield Kept(path, [path / file for file in files], made=False)


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() or file.is_symlink()]


def _seconds(age: str) -> float:
    form = re.fullmatch(r"(\d+)([hdw])", age)
    if form is None:
        raise ConfigError(f"--older-than {age}: expected a number of hours, days or weeks: 12h, 30d or 2w")
    return int(form[1]) * UNITS[form[2]]


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    now = time.time()
    before = now - _seconds(args.older_than) if args.older_than else now + 1
    lines: list[dict[str, Any]] = []
    with alone_with_copies(args.remove) as alone:
        if not alone:
            raise StoreError(f"{cache_dir()}: another command uses copies of remote data", "run again when it has ended")
        for one in kept():
            if not one.files or one.used >= before:
                continue
            size, days = sum(file.lstat().st_size for file in one.files), round((now - one.used) / 86_400, 1)
            lines.append({"what": shown(one.path), "bytes": size, "days unused": days, "state": one.state})
            if args.remove and one.state.startswith("can"):
                one.remove()
    lines.sort(key=lambda line: -int(line["bytes"]))
    cli.emit(lines) if args.json else print(cli.table(lines))
    total = sum(line["bytes"] for line in lines if line["state"].startswith("can"))
    cli.say(f"{total / 1e6:,.1f} MB " + ("removed" if args.remove else "can be removed (--remove)"))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("columnar.cache", __doc__)
    made.add_argument("--older-than", metavar="AGE", help="only what was not used for so long: 12h, 30d, 2w")
    made.add_argument("--remove", action="store_true", help="remove what is listed, but for what stays")
    return made


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
