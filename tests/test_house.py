"""The house rules: floors, sizes, names, types, quick help, documented reasons, no heavy imports."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ["columnar", "decontam", "curation", "generation", "training", "recipes", "app"]
BELOW = {
    "columnar": set(),
    "decontam": {"columnar"},
    "curation": {"columnar", "decontam"},
    "generation": {"columnar"},
    "training": {"columnar", "generation"},
    "recipes": {"columnar", "decontam", "curation", "generation", "training"},
    "app": {"columnar"},
}
HEAVY = {"torch", "transformers", "trl", "vllm", "openai", "streamlit", "ray", "datasets", "numba", "sentence_transformers"}
FILES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
COMMANDS = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for p in FILES
    if '__name__ == "__main__"' in p.read_text(encoding="utf-8")
)


def imports(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    assert imports(path) & set(ROOMS) <= BELOW[room] | {room}


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "bench").rglob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_files_stay_readable(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "helper", "misc", "manager", "managers", "base"}
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400
    if lines:
        assert ast.get_docstring(ast.parse("\n".join(lines))), "a file says at its top what it is"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_heavy_imports(command: str) -> None:
    code = f"""
import runpy, sys
sys.argv = ["x", "--help"]
try:
    runpy.run_module({command!r}, run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert stop.code == 0, stop.code
heavy = {HEAVY!r} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert f"python -m {command}" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    docs = "\n".join(p.read_text(encoding="utf-8") for p in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    assert f"python -m {command}" in docs


def test_types_hold() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_signal_and_drop_reason_is_documented() -> None:
    from curation.mix import Limits
    from curation.signals import SIGNALS

    text = (ROOT / "docs/mix.md").read_text(encoding="utf-8")
    reasons = [
        "other_kind",
        "where",
        *Limits.model_fields,
        "flagged",
        "exact_duplicate",
        "near_duplicate",
        "contaminated",
        "sampled_out",
        "over_cap",
    ]
    assert [name for name in [*SIGNALS, *reasons] if f"`{name}`" not in text] == []


def test_links_in_the_docs_lead_somewhere() -> None:
    missing = []
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            if not (page.parent / link).exists():
                missing.append(f"{page.name}: {link}")
    assert missing == []


def test_no_path_of_a_machine_is_in_the_project() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\0")
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in listed if name.endswith((".py", ".md", ".yaml", ".toml", ".sql"))}
    assert [name for name, text in texts.items() if re.search(r"(?<![\w./~-])/(?:work|root|home|farm|opt)/\w", text)] == []
