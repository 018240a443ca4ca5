"""Both engines write the same bytes, however the work is cut and dealt out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from columnar import cli, store
from columnar.record import SCHEMA, schema_of, seal, to_batch
from curation import build_mix
from decontam import scan
from generation import verify
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


@pytest.fixture
def sums(tmp_path: Path) -> tuple[Path, Path]:
    """Prompts with verifiers in row groups of 25 rows and shards of 100, and two completions of each."""
    writer = store.RowWriter(tmp_path / "sums", schema_of(["prompt"]), shard_rows=100, row_group=25)
    rows = [
        {"kind": "prompt", "prompt": [{"role": "user", "content": f"{i} + 1?"}], "verifier": "gsm8k", "ground_truth": str(i + 1)}
        for i in range(330)
    ]
    for i, row in enumerate(rows):
        row.update(source="ab"[i % 2], origin={"uri": "made", "revision": None, "split": None, "row": i})
        seal(row, "made")
    writer.write(to_batch(rows, SCHEMA))
    writer.close()
    identity = {"name": "sums", "kind": "prompt", "rows": 330, "rows_sha256": writer.content.hexdigest()}
    store.write_manifest(tmp_path / "sums", identity, 0.0)
    answers = tmp_path / "answers.jsonl"
    lines = [{"id": row["id"], "completion": f"#### {i + 1 + (i + turn) % 3 // 2}"} for i, row in enumerate(rows) for turn in (0, 1)]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "sums", answers


def both(capsys: pytest.CaptureFixture[str], run: Callable[[str], int], folder: Path) -> None:
    """Run here and on the cluster; files and what is printed must agree."""
    made = []
    for engine in ("local", "ray"):
        assert run(engine) == 0
        made.append((files_of(folder), capsys.readouterr().out))
    assert made[0] == made[1]


def test_verdicts_of_a_cluster_are_the_verdicts_made_here(
    cluster: str, sums: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, answers = sums
    argv = [str(data), "--completions", str(answers), "--workers", "2", "--force", "--json", "--engine"]
    both(capsys, lambda engine: cli.run(verify.main, verify.arguments(), [*argv, engine]), data)


def test_a_scan_on_a_cluster_finds_what_it_finds_here(cluster: str, sums: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    data, _ = sums
    argv = [str(data), "--benchmarks", str(TINY.parent / "tiny" / "benchmarks" / "benchmarks.yaml"), "--force", "--json", "--engine"]
    both(capsys, lambda engine: scan.main([*argv, engine]), data)


def test_a_cluster_is_joined_by_its_address(cluster: str, sums: tuple[Path, Path]) -> None:
    data, answers = sums
    command = [sys.executable, "-m", "generation.verify", str(data), "--completions", str(answers), "--engine", f"ray://{cluster}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "gsm8k" in done.stdout and "MB in the workers" in done.stderr
