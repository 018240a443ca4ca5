"""The README's first command on a machine that has the core and nothing else: what only the extras install may not be needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import runpy, sys

class Absent:
    names = set({names!r})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = {argv!r}
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]).lower()


def installed_by_core() -> set[str]:
    """The distributions that `pip install .` brings: the dependencies of pyproject.toml and theirs, without extras."""
    waiting = [canonical(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            try:
                waiting += [canonical(line) for line in requires(name) or () if "extra ==" not in line]
            except PackageNotFoundError:  # for another platform
                continue
    return found


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    core = installed_by_core()
    absent = {
        name for name, owners in packages_distributions().items() if not any(canonical(owner) in core | {"caravan"} for owner in owners)
    }
    absent -= set(sys.stdlib_module_names)
    assert "pytest" in absent and "polars" not in absent
    code = RUN.format(names=sorted(absent), argv=list(argv))
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_example_needs_nothing_but_the_core(tmp_path: Path) -> None:
    out = str(tmp_path / "tiny")
    built = command("curation.build_mix", "recipes/mixes/tiny.yaml", "--out", out, "--json")
    assert built.returncode == 0, built.stderr
    first = json.loads(command("columnar.query", out, "SELECT id FROM rows LIMIT 1", "--json").stdout)[0]["id"]
    for argv in (
        ["columnar.query", out, "-f", "funnel"],
        ["columnar.explain", out, first],
        ["columnar.compare", out, out],
        ["columnar.load", "recipes/mixes/tiny/faq.csv", "--out", str(tmp_path / "faq"), "--max-reject", "1"],
        ["curation.dedup", str(tmp_path / "faq"), "--out", str(tmp_path / "dedup")],
        ["curation.ablate", "recipes/mixes/tiny.yaml", "--out", str(tmp_path / "family"), "--sizes", "", "--limit", "20", "--dry-run"],
    ):
        done = command(*argv)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
