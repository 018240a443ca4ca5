"""A recipe's toy config made smaller still and run: whole, or killed on the way and run again.

Whole runs are calls in this process, so that one process which has torch loaded (recipes.workers) serves all tests; those to be killed are
begun as a user begins them."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from columnar import cli
from recipes.steps import arguments

ROOT = Path(__file__).resolve().parents[2]


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

    def finish(self, out: Path, *more: str) -> Path:
        """Run to the end."""
        recipe = importlib.import_module(f"recipes.{self.name}")
        assert cli.run(recipe.main, arguments(self.name, ""), self.command(out, *more)[3:]) == 0, "what it said stands above"
        return out

    def killed_then_finished(self, whole: Path, out: Path) -> None:
        """Killed with all its processes at a random moment and run again, it writes the report of the run that nobody disturbed."""
        took = [json.loads(path.read_text())["seconds"] for path in (whole / "steps").iterdir()]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(self.command(out), cwd=ROOT, start_new_session=True, **quiet)
        while process.poll() is None and not (out / "steps").exists():
            time.sleep(0.05)
        time.sleep(seconds := random.uniform(0.1, 0.9) * sum(took))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.finish(out)
        assert (out / "report.md").read_text() == (whole / "report.md").read_text(), f"killed after {seconds:.1f} seconds"


def figures(out: Path, step: str) -> dict[str, Any]:
    """What a step of a run told."""
    return dict(json.loads((out / "steps" / f"{step}.json").read_text())["figures"])
