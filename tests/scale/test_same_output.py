"""Both engines write the same bytes, however the work is cut and dealt out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from columnar import cli
from curation import build_mix
from tests.scale.conftest import TINY, files_of


def test_a_mix_built_on_a_cluster_is_the_mix_built_here(
    cluster: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny"
    assert cli.run(build_mix.main, build_mix.parser(), [str(TINY), "--out", str(out), "--engine", "ray"]) == 0
    assert files_of(out) == files_of(tiny)
    ours, theirs = (json.loads((folder / "manifest.json").read_text())["identity"] for folder in (out, tiny))
    assert ours == theirs
    assert not list(out.parent.rglob("*.result")), "results of blocks are cleared away"
    told = capsys.readouterr().err
    assert "ray: " in told and "MB in the workers" in told
