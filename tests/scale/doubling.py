"""Work that fails in all the ways that work can fail; a module of its own, so that workers can import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers; does worse with those it is told of. Leaves a mark for each time it begins."""

    marks: Path
    unreadable: tuple[int, ...] = ()
    deadly: tuple[int, ...] = ()
    once: bool = True  # deadly only the first time

    def __call__(self, number: int) -> int:
        begun = self.marks / str(number)
        before = len(begun.read_text()) if begun.exists() else 0
        begun.write_text("x" * (before + 1))
        if number in self.unreadable:
            raise OSError(f"shard {number} is cut short")
        if number in self.deadly and not (self.once and before):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return 2 * number

    def times(self) -> list[int]:
        return [len(mark.read_text()) for mark in self.marks.iterdir()]
