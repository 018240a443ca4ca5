"""Commands in processes that have torch loaded: what they print, how they end, and that they end with whoever began them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import ROOT

from columnar.errors import CaravanError
from recipes import workers


def test_a_command_is_as_python_m_runs_it() -> None:
    argv = ["prompts", "--rows", "3", "--json", "--out"]
    code, printed = workers.command("recipes.world.data", [*argv, os.devnull + "/no"])
    assert code == 1 and printed == ""
    code, printed = workers.command("training.sft", ["--help"])
    assert code == 0 and "python -m training.sft" in printed


def threads() -> int:
    import torch

    return int(torch.get_num_threads())


def fails() -> None:
    raise ValueError("of no use")


def test_a_function_and_its_threads(capfd: pytest.CaptureFixture[str]) -> None:
    assert workers.call(threads, threads=1) == 1 and workers.call(threads, threads=2) == 2
    with pytest.raises(CaravanError, match="fails failed"):
        workers.call(fails)


def test_a_command_ends_when_its_recipe_is_killed(tmp_path: Path) -> None:
    """Else a server would go on for ever, and a training would write into a directory that the next run uses."""
    served = "workers.begin('recipes.world.serve', [sys.argv[1], '--port', '0'], pathlib.Path(sys.argv[2]))"
    script = f"import pathlib, sys\nfrom recipes import workers\np = {served}\nprint(p.pid, flush=True)\np.join()\n"
    (tmp_path / "begin.py").write_text(script)
    (tmp_path / "models.yaml").write_text("good: {skill: 1.0}")
    argv = [sys.executable, str(tmp_path / "begin.py"), str(tmp_path / "models.yaml"), str(tmp_path / "log")]
    with subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True) as recipe:
        assert recipe.stdout is not None
        pid = int(recipe.stdout.readline())
        os.kill(pid, 0)
        recipe.send_signal(signal.SIGKILL)
    for _ in range(2400):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("it went on without its recipe")
