"""Shared fixtures. Real data with ground truth lies beside the checkout; tests that need it say so when it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")


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
