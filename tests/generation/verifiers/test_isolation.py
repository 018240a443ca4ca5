"""The sandbox on machines as they are: as root and as nobody, in containers that refuse namespaces, and where nothing can be enforced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from generation.verifiers.sandbox.launch import isolation

pytestmark = pytest.mark.skipif(isolation() == "none", reason="this machine cannot lock code in")
ROOT = Path(__file__).resolve().parents[3]

# a machine is made poorer by a seccomp filter that refuses system calls to all that follows
REFUSE = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def op(code, k, true=0, false=0): return struct.pack("HBBI", code, true, false, k)
program = [op(0x20, 0)]
for number in map(int, sys.argv[1].split(",")): program += [op(0x15, number, 0, 1), op(0x06, 0x00050026)]
program += [op(0x06, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(program))
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)), 0, 0) == 0
"""
TRY = """
import json
from generation.verifiers.sandbox.launch import isolation
from generation.verifiers import verify
row = {"verifier": "code", "ground_truth": json.dumps({"form": "mbpp", "tests": ["assert f(1) == 2", "assert f(2) == 3"]})}
right, wrong = verify(row, "def f(x): return x + 1"), verify(row, "def f(x): return 9")
print(json.dumps([isolation(), right.passed, wrong.passed, right.error]))
"""
UNSHARE, LANDLOCK = (272, 444) if os.uname().machine == "x86_64" else (97, 444)


def on_a_machine_without(*calls: int, **environment: str) -> list:
    done = subprocess.run(
        [sys.executable, "-c", REFUSE + TRY, ",".join(map(str, calls))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_where_namespaces_are_refused_landlock_holds() -> None:
    kind, right, wrong, error = on_a_machine_without(UNSHARE)
    if kind == "none":
        pytest.skip("this kernel has no Landlock")
    assert (kind, right, wrong, error) == ("landlock", True, False, "")


def test_where_nothing_can_be_enforced_code_is_not_run_and_the_error_says_so() -> None:
    kind, right, wrong, error = on_a_machine_without(UNSHARE, LANDLOCK)
    assert (kind, right, wrong) == ("none", False, False)
    assert "SandboxError" in error and "CARAVAN_WEAK_SANDBOX" in error
    assert on_a_machine_without(UNSHARE, LANDLOCK, CARAVAN_WEAK_SANDBOX="1")[:3] == ["none", True, False]


def test_as_another_user_than_root() -> None:
    """Only the sandbox, with the system's Python: this interpreter and its packages may lie where nobody can read."""
    python, drop = shutil.which("python3", path="/usr/bin:/usr/local/bin"), shutil.which("setpriv")
    if os.getuid() != 0 or not python or not drop:
        pytest.skip("needs root, setpriv and a system Python (without root, all other tests already run as another user)")
    script = (
        "import os, sys, types\n"
        "for name in ('generation', 'generation.verifiers'):\n"
        f"    package = types.ModuleType(name); package.__path__ = [{str(ROOT)!r} + '/' + name.replace('.', '/')]\n"
        "    sys.modules[name] = package\n"
        "from generation.verifiers.sandbox.launch import run_tests, isolation\n"
        "found = run_tests('def f(x): return x + 1', ['assert f(1) == 2', 'assert f(1) == 3'])\n"
        "print(os.getuid(), isolation(), [r['passed'] for r in found])\n"
    )
    command = [drop, "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    if any(text in done.stderr for text in ("Permission denied", "No module", "SyntaxError")):
        pytest.skip(f"the system Python cannot read the source tree: {done.stderr.strip().splitlines()[-1][:100]}")
    assert done.stdout.startswith("65534 ") and done.stdout.endswith("[True, False]\n"), done
