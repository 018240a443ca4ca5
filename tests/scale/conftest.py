"""One real Ray cluster for all tests of a session: two workers in processes of their own, on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from columnar import cli
from curation import build_mix

TINY = Path("recipes/mixes/tiny.yaml")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Its address."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    # a machine whose memory others fill would end workers that the tests count
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", POLARS_MAX_THREADS="1", RAY_memory_monitor_refresh_ms="0")
    options = {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    context = ray.init("local", object_store_memory=256 << 20, **options)
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example mix, built here."""
    out = tmp_path_factory.mktemp("local") / "tiny"
    assert cli.run(build_mix.main, build_mix.parser(), [str(TINY), "--out", str(out)]) == 0
    return out


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file but what tells of paths and times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in ("manifest.json", "config.yaml"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
