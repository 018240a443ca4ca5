"""Small datasets and models for the tests of training; one thread, because tiny steps wait for threads longer than they compute."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from columnar.store import Dataset
from training import tiny
from training.arithmetic import write

Writer = Callable[..., Dataset]


def said(user: str, assistant: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def pair(prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": prompt}]
    sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", chosen), ("rejected", rejected))}
    return {"kind": "pair", "prompt": asked, **sides, **more}


@pytest.fixture
def dataset(tmp_path: Path) -> Writer:
    """Writes a dataset directory of these rows, `held_out` as its validation split."""

    def make(rows: list[dict[str, Any]], held_out: list[dict[str, Any]] | None = None, name: str = "data") -> Dataset:
        return write(tmp_path / name, name, rows, {"seed": 0}, held_out or [])

    return make


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty conversations that a tiny model learns in a few steps, and eight held out."""
    things = ["sky", "grass", "snow", "coal", "blood", "gold", "milk", "sea"]
    hues = ["blue", "green", "white", "black", "red", "yellow", "white", "blue"]
    rows = [
        {"kind": "sft", "messages": said(f"What colour is {thing} number {n}?", f"It is {hue}.")}
        for n in range(6)
        for thing, hue in zip(things, hues, strict=True)
    ]
    return write(tmp_path_factory.mktemp("colours") / "colours", "colours", rows[:40], {"seed": 0}, rows[40:])


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pairs in which `good` beats `bad`, of every strength, with scores and the models that wrote them."""
    rows = []
    for n in range(40):
        least = n % 4
        scores = {
            "chosen_score": 5.0 + least,
            "rejected_score": 5.0,
            "chosen_model": "mine" if n % 2 else "other",
            "rejected_model": "other",
        }
        rows.append(pair(f"Say word {n}.", "good " * (2 + least), "bad " * 2, **scores))
    return write(tmp_path_factory.mktemp("pairs") / "pairs", "pairs", rows[:32], {"seed": 0}, rows[32:])


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, colours: Dataset) -> Path:
    """A random tiny model."""
    out = tmp_path_factory.mktemp("model") / "tiny"
    tiny.make(colours.path, out)
    return out


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy task with numbers up to 3: 12 sums to train on, 4 held out."""
    from training import arithmetic

    out = tmp_path_factory.mktemp("sums")
    arithmetic.make(out, largest=3, copies=20, right=0.5)
    return out


@pytest.fixture(scope="session")
def start(sums: Path) -> Path:
    """A tiny model that answers sums, often wrongly."""
    from running import command

    from training import sft

    more = {"max_steps": 40, "per_device_train_batch_size": 32, "learning_rate": 5e-3, "save_steps": 1000}
    return command(sft, sums / "sft", "tiny", sums / "start", **more)
