"""The server that misbehaves, for every test of this room."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fault_server import Faults, Running


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """`serve(latency=..., shares={...})` starts a fake server; all are closed after the test."""
    running: list[Running] = []

    def start(**faults: object) -> Running:
        running.append(Running(Faults(**faults)))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for server in running:
        server.close()
