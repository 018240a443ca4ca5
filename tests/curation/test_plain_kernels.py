"""Small inputs go through the kernels uncompiled: the first build of a machine does not wait for the compiler, and nothing else changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BUILD = """
import decontam.compiled as compiled
compiled.PLAIN_WORK = {work}
import runpy, sys
sys.argv = ["build_mix", "recipes/mixes/tiny.yaml", "--out", "{out}"]
runpy.run_module("curation.build_mix", run_name="__main__")
"""


def build(root: Path, out: Path, work: int) -> dict[str, bytes]:
    code = BUILD.format(work=work, out=out)
    env = {**os.environ, "PYTHONWARNINGS": "error::RuntimeWarning"}  # numpy warns where a number no longer fits, numba wraps it
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file() and p.name != "manifest.json"}


def test_compiled_and_uncompiled_kernels_build_the_same_mix(root: Path, tmp_path: Path) -> None:
    plain = build(root, tmp_path / "plain" / "out", 1 << 60)
    compiled = build(root, tmp_path / "compiled" / "out", 0)
    assert plain.keys() == compiled.keys()
    assert [name for name in plain if name != "config.yaml" and plain[name] != compiled[name]] == []


STALE = """
import pathlib, decontam.compiled as compiled
{change}
from decontam import match
match.fill_table(*[__import__("numpy").zeros(4, t) for t in ("u8", "u8", "u8", "i4", "u8", "i8")])
print(sum(match.fill_table.stats.cache_hits.values()))
"""


def test_kernels_that_were_compiled_with_another_tokeniser_are_not_used_again(root: Path, tmp_path: Path) -> None:
    def hits(change: str = "") -> str:
        env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", STALE.format(change=change)], cwd=root, capture_output=True, text=True, env=env, check=True
        )
        return done.stdout.strip()

    assert [hits(), hits()] == ["0", "1"]
    assert hits("compiled._stamp = 'another'") == "0"
