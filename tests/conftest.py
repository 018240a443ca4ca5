"""Shared fixtures. Real data with ground truth lies beside the checkout; tests that need it say so when it is absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from vllm_server import Unavailable
from vllm_server import shared as shared_server

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# no test is timed; CI looks at the same examples every time, everybody else at new ones
hypothesis.settings.register_profile("caravan", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("caravan")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root: commands run from here."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real test data."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the shared test data is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real vLLM server with a tiny model under the names a, b, c, d and judge; one for the whole test session (url, model, python)."""
    base = tmp_path_factory.getbasetemp()
    try:
        with shared_server((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "vllm") as server:
            yield server
    except Unavailable as why:
        pytest.skip(str(why))
