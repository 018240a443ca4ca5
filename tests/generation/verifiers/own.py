"""Verifiers of a user's own, good and bad, for test_dispatch."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def good(completion: str, truth: dict[str, Any], prompt: str) -> bool:
    return completion == truth["answer"]


def half(completion: str, truth: dict[str, Any], prompt: str) -> float:
    return 0.5


def noisy(completion: str, truth: dict[str, Any], prompt: str) -> bool:
    print('{"name": "noisy", "score": 0.0, "passed": false}')
    return True


def crash(completion: str, truth: dict[str, Any], prompt: str) -> bool:
    return bool({}["missing"])


def die(completion: str, truth: dict[str, Any], prompt: str) -> bool:
    os.kill(os.getpid(), signal.SIGSEGV)
    return True


def hang(completion: str, truth: dict[str, Any], prompt: str) -> bool:
    time.sleep(600)
    return True


def liar(completion: str, truth: dict[str, Any], prompt: str) -> float:
    return -0.83


def held(completion: str, truth: dict[str, Any], prompt: str) -> bool:
    """Waits in the folder that the truth names: says that it has begun, and goes on when it may."""
    folder = Path(truth["answer"])
    (folder / "begun").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return True
