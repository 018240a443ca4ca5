"""What every command line shares: one parser style, errors without tracebacks, exit codes, progress that stays quiet in pipes."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from columnar.errors import CaravanError, ConfigError
from columnar.filesystem import SCHEMES, remote_names


def parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """An argument parser whose help is the module's docstring, with `--json` and `--traceback`."""
    made = argparse.ArgumentParser(prog=f"python -m {prog}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    made.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
    return made


def run(main: Callable[[argparse.Namespace], int | None], made: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Parse, run, and turn errors into `error: ...` lines and exit codes (see columnar.errors)."""
    traceback = "--traceback" in (sys.argv if argv is None else argv)
    if store := sys.modules.get("columnar.store"):  # of a command before, in the same process
        store.opened.clear()
    try:
        args = made.parse_args(argv)
        _only_local(args)
        return main(args) or 0
    except CaravanError as error:
        if traceback:
            raise
        return _say_error(_damage(error) or error)
    except BrokenPipeError:  # `| head` closed the pipe: not an error of the user's
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        say("interrupted: what was finished is kept, run the same command again to go on")
        return 130
    except Exception as error:
        damage = None if traceback else _damage(error)
        if damage:
            return _say_error(damage)
        if traceback or not isinstance(error, OSError):
            raise
        say(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "))
        return 1


def _damage(error: Exception) -> CaravanError | None:
    """The damaged files of a dataset that are behind an error, if that is what it is about."""
    if "columnar.store" not in sys.modules:
        return None
    from columnar.damage import explained

    return explained(error)


def _say_error(error: CaravanError) -> int:
    say(f"error: {remote_names(str(error))}")
    if error.hint:
        say(f"  {remote_names(error.hint)}")
    return error.exit_code


def _only_local(args: argparse.Namespace) -> None:
    """Options that take remote places have the type `filesystem.place`; in the others one would become a folder called `s3:`."""
    for name, value in vars(args).items():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and path.parts[:1] and path.parts[0] in {f"{scheme}:" for scheme in SCHEMES}:
                where = f"{path.parts[0]}//{'/'.join(path.parts[1:])}"
                raise ConfigError(
                    f"{where}: this command takes only local paths here ({name})", "docs/object_stores.md says which take remote ones"
                )


def say(text: str) -> None:
    """One line for the person at the terminal: standard error, so that standard output stays machine-readable."""
    print(text, file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    """JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(rows: list[dict[str, Any]], columns: list[str] | None = None) -> str:
    """Rows as an aligned text table: numbers right, text left, missing values as a dot."""
    if not rows:
        return "(no rows)"
    names = columns or list(rows[0])

    def show(value: Any) -> str:
        if value is None:
            return "·"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, int):
            return f"{value:,}"
        if isinstance(value, float):
            return f"{value:,.3f}".rstrip("0").rstrip(".")
        return printable(str(value))

    cells = [[show(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]

    def line(values: list[str]) -> str:
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)).rstrip()

    return "\n".join([line(names), line(["-" * w for w in widths]), *map(line, cells)])


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # also those that turn the reading direction


def printable(text: str) -> str:
    """Text on one line that cannot steer the terminal: a line's end as ⏎, other control characters as escapes."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text.replace("\r\n", "⏎").replace("\n", "⏎"))


class Progress:
    """One line on standard error, redrawn at most five times a second; in a log a line a minute.

    >>> with Progress("load", total=100) as bar: bar.add(10, note="3 rejected")
    """

    def __init__(self, label: str, total: int | None = None, unit: str = "rows", quiet: bool = False) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.note = 0, ""
        self.start = self.shown = time.monotonic()
        self.live, self.quiet = sys.stderr.isatty() and not quiet, quiet

    def add(self, n: int, note: str = "") -> None:
        """Count n more units and redraw when it is time."""
        self.done += n
        self.note = note or self.note
        if not self.quiet and time.monotonic() - self.shown > (0.2 if self.live else 60):
            self._draw()

    def _draw(self) -> None:
        self.shown = time.monotonic()
        rate = self.done / max(self.shown - self.start, 1e-6)
        of = f"/{self.total:,} ({100 * self.done / self.total:.0f} %)" if self.total else ""
        left = f", {(self.total - self.done) / rate:.0f} s left" if self.total and rate and self.done < self.total else ""
        text = f"{self.label}: {self.done:,}{of} {self.unit}, {rate:,.0f}/s{left}{'  ' + self.note if self.note else ''}"
        print(f"\r\x1b[K{text}" if self.live else text, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live and self.done:
            self._draw()
            print(file=sys.stderr)
