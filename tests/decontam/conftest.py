"""Kernels are tested compiled, though the inputs here are so small that a run would not compile them."""

import pytest

from decontam import compiled as kernels


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "PLAIN_WORK", 0)
