"""A recipe's toy config made smaller still and run as a user does: whole, or killed on the way and run again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASKED = bool(os.environ.get("CARAVAN_WHOLE_RUNS"))
WHY = "a whole toy run takes minutes on two cores; CARAVAN_WHOLE_RUNS=1 runs it"


class Toy:
    """The recipe of this name; `small` are the settings that make its toy config the smallest there is."""

    def __init__(self, name: str, small: dict[str, Any]) -> None:
        self.name, self.small = name, small
        self.config, self.paper = ROOT / "recipes" / f"{name}.toy.yaml", ROOT / "recipes" / f"{name}.paper.yaml"

    def command(self, out: Path, *more: str, config: Path | None = None) -> list[str]:
        config = config or self.config
        small = [f"--set={key}={value}" for key, value in self.small.items()] if config == self.config else []
        return [sys.executable, "-m", f"recipes.{self.name}", str(config), "--out", str(out), *small, *more]

    def run(self, out: Path, *more: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(out, *more, config=config), cwd=ROOT, capture_output=True, text=True, check=False)

    def whole(self, out: Path) -> Path:
        """A finished run, for the tests of a file to share."""
        if not ASKED:
            pytest.skip(WHY)
        done = self.run(out)
        assert done.returncode == 0, done.stderr[-3000:]
        return out

    def killed_then_finished(self, whole: Path, out: Path) -> None:
        """Killed with all its processes at a random moment and run again, it writes the report of the run that nobody disturbed."""
        seconds = sum(json.loads(path.read_text())["seconds"] for path in (whole / "steps").iterdir())
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(self.command(out), cwd=ROOT, start_new_session=True, **quiet)
        time.sleep(random.uniform(0.2, 0.9) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = self.run(out)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (out / "report.md").read_text() == (whole / "report.md").read_text()


def figures(out: Path, step: str) -> dict[str, Any]:
    """What a step of a run told."""
    return dict(json.loads((out / "steps" / f"{step}.json").read_text())["figures"])
