"""Run untrusted Python: a task's tests against a candidate, or a whole program on an input.

In: source texts and `Limits`. Out: results per test, or the program's output. Judge and candidate are two locked processes with two
pipes between them: the candidate sees calls and arguments, never a test, an expected value or the verdict (jail.py, candidate.py,
judge.py).

>>> [r["passed"] for r in run_tests("def f(x): return x + 1", ["assert f(1) == 2", "assert f(1) == 3"])]
[True, False]
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START = 20.0  # seconds a process may take to lock itself in


class SandboxError(RuntimeError):
    """The sandbox itself could not be set up: nothing is known about the code."""


@dataclass(frozen=True)
class Limits:
    """What code may use: wall-clock and CPU seconds for all tests of a task, bytes of memory, of one file, and of output."""

    seconds: float = 10.0
    memory: int = 2 << 30
    files: int = 16 << 20
    output: int = 1 << 20


@dataclass
class _Jailed:
    process: subprocess.Popen[bytes]
    ready: int
    root: str


def _readable() -> list[str]:
    """What the interpreter needs to see: its standard library, the C library, numpy when it is installed. Nothing of the user's."""
    base = os.path.realpath(sys.base_prefix)
    wanted = [base, "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"]
    wanted += [str(p) for p in _numpy()]
    kept: list[str] = []
    for path in wanted:
        inside = any(path.startswith(k + "/") for k in kept if not Path(k).is_symlink())
        if os.path.lexists(path) and not inside and path not in kept:
            kept.append(path)
    return kept


def _numpy() -> list[Path]:
    with contextlib.suppress(ImportError):
        import importlib.util

        spec = importlib.util.find_spec("numpy")
        if spec and spec.origin:
            package = Path(spec.origin).parent
            return [p for p in (package, package.with_name("numpy.libs")) if p.is_dir()]
    return []


@lru_cache(maxsize=1)
def isolation() -> str:
    """What this machine can enforce: `namespaces`, else `landlock` (with seccomp), else `none`. Found out by trying."""
    if sys.platform != "linux":
        return "none"
    for name, namespaces in (("namespaces", True), ("landlock", False)):
        with contextlib.suppress(SandboxError):
            if run_program("print(6 * 7)", "", Limits(), namespaces=namespaces).output == "42\n":
                return name
    return "none"


def _weak() -> bool:
    return os.environ.get("CARAVAN_WEAK_SANDBOX") == "1"


def require() -> bool:
    """Whether to use namespaces.

    Raises:
        SandboxError: this machine cannot lock code in, and `CARAVAN_WEAK_SANDBOX=1` does not accept that.
    """
    kind = isolation()
    if kind == "none" and not _weak():
        raise SandboxError(
            "this machine can enforce neither namespaces nor Landlock with seccomp, so untrusted code is not run; "
            "use Linux 5.13 or newer (in Docker: --security-opt seccomp=unconfined), "
            "or set CARAVAN_WEAK_SANDBOX=1 inside a throw-away machine"
        )
    return kind == "namespaces"


@contextlib.contextmanager
def _jailed(role: str, descriptors: dict[int, int], limits: Limits, namespaces: bool, weak: bool, **streams: Any) -> Iterator[_Jailed]:
    """A locked process; killed with all that belongs to it, and its directory removed, at the end."""
    root = tempfile.mkdtemp(prefix="caravan-jail-")
    ready, tell = os.pipe()
    config = {
        "sources": [str(HERE / "wire.py"), str(HERE / role)],
        "root": root,
        "binds": _readable(),
        "paths": [str(p.parent) for p in _numpy()[:1]],
        "limits": {"seconds": limits.seconds, "memory": limits.memory, "files": limits.files},
        "descriptors": {**descriptors, 6: tell},
        "namespaces": namespaces,
        "weak": weak,
    }
    process: subprocess.Popen[bytes] | None = None
    try:
        process = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", "-B", str(HERE / "jail.py"), json.dumps(config)],
            pass_fds=[*descriptors.values(), tell],
            start_new_session=True,
            env={"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
            cwd="/",
            stderr=subprocess.PIPE,
            **streams,
        )
        os.close(tell)
        tell = -1
        yield _Jailed(process, ready, root)
    finally:
        for descriptor in (ready, tell):
            if descriptor >= 0:
                os.close(descriptor)
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()
        shutil.rmtree(root, ignore_errors=True)


def _await(jailed: _Jailed) -> dict[str, bool]:
    """Wait until the process has locked itself in; which layers hold."""
    data = b""
    deadline = time.monotonic() + START
    while not data.endswith(b"\n"):
        if not select.select([jailed.ready], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise SandboxError("the sandbox did not start in time")
        chunk = os.read(jailed.ready, 4096)
        if not chunk:
            assert jailed.process.stderr is not None
            os.killpg(jailed.process.pid, signal.SIGKILL)
            last = jailed.process.stderr.read(20_000).decode(errors="replace").strip().splitlines()
            raise SandboxError("the sandbox could not be set up: " + (last[-1] if last else f"exit code {jailed.process.wait()}"))
        data += chunk
    return dict(json.loads(data))


def run_tests(
    code: str,
    tests: list[str],
    setup: str = "",
    entry: str = "",
    form: str = "asserts",
    limits: Limits | None = None,
    namespaces: bool | None = None,
) -> list[dict[str, Any]]:
    """Run tests against code; one {test, passed, text} per test (for `humaneval`: per assert).

    Args:
        tests: statements, each a test (`asserts`); or one source that defines check(candidate) (`humaneval`).
        setup: run on the judge's side before the tests; trusted as much as they are, and no more.

    Raises:
        SandboxError: the sandbox could not be set up; says nothing about the code.
    """
    limits = limits or Limits()
    locked = require() if namespaces is None else namespaces
    weak = namespaces is None and _weak()  # what is asked for by name is never less than that
    ask_r, ask_w = os.pipe()
    reply_r, reply_w = os.pipe()
    result_r, result_w = os.pipe()
    ours = [ask_r, ask_w, reply_r, reply_w, result_r, result_w]
    task = {"code": code, "setup": setup, "tests": tests, "entry": entry, "form": form, "seconds": limits.seconds}
    nothing = subprocess.DEVNULL
    try:
        with (
            _jailed("candidate.py", {3: ask_r, 4: reply_w}, limits, locked, weak, stdin=nothing, stdout=nothing) as candidate,
            _jailed("judge.py", {3: reply_r, 4: ask_w, 5: result_w}, limits, locked, weak, stdin=subprocess.PIPE, stdout=nothing) as judge,
        ):
            for descriptor in (ask_r, ask_w, reply_r, reply_w, result_w):
                os.close(descriptor)
                ours.remove(descriptor)
            _await(candidate)
            _await(judge)
            assert judge.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                judge.process.stdin.write(json.dumps(task).encode())
                judge.process.stdin.close()
            return _results(result_r, limits)
    finally:
        for descriptor in ours:
            os.close(descriptor)


def _results(source: int, limits: Limits) -> list[dict[str, Any]]:
    """The judge's reports until it is done, the time is over, or it has died (then one failed test says so)."""
    deadline = time.monotonic() + limits.seconds
    data, over = b"", ""
    while not data.endswith(b'{"done": true}\n'):
        if not select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0]:
            over = f"timed out after {limits.seconds:g} s"
            break
        chunk = os.read(source, 1 << 16)
        if not chunk or len(data) > 8 * limits.output:
            over = "the tests' process ended" if not chunk else "too much output"
            break
        data += chunk
    found = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            report = json.loads(line)
            if "test" in report:
                found.append(report)
    if over or not found:
        found.append({"test": "process", "passed": False, "text": over or "no test ran"})
    return found


@dataclass(frozen=True)
class Output:
    """What a program wrote to standard output, and why it ended: ok, exit CODE, signal NAME, timed out, or too much output."""

    output: str
    ended: str


def run_program(code: str, stdin: str, limits: Limits | None = None, namespaces: bool | None = None) -> Output:
    """Run a whole program on an input.

    Raises:
        SandboxError: the sandbox could not be set up.
    """
    limits = limits or Limits()
    locked = require() if namespaces is None else namespaces
    weak = namespaces is None and _weak()  # what is asked for by name is never less than that
    source_r, source_w = os.pipe()
    unused_r, unused_w = os.pipe()
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    try:
        with _jailed("program.py", {3: source_r, 4: unused_w}, limits, locked, weak, **streams) as jailed:
            _await(jailed)
            message = json.dumps({"code": code}).encode() + b"\n"
            return _talk(jailed.process, source_w, message, stdin.encode("utf-8", "replace"), limits)
    finally:
        for descriptor in (source_r, source_w, unused_r, unused_w):
            os.close(descriptor)


def _talk(process: subprocess.Popen[bytes], source: int, message: bytes, stdin: bytes, limits: Limits) -> Output:
    """Feed source and input, collect output, all within the limits."""
    assert process.stdin is not None and process.stdout is not None
    inputs = {source: memoryview(message), process.stdin.fileno(): memoryview(stdin)}
    for descriptor in inputs:
        os.set_blocking(descriptor, False)
    deadline, data = time.monotonic() + limits.seconds, b""
    if not stdin:
        process.stdin.close()
        inputs.pop(next(d for d in inputs if d != source))
    while True:
        read, write, _ = select.select([process.stdout], list(inputs), [], max(0.0, deadline - time.monotonic()))
        if not read and not write:
            return Output(data.decode(errors="replace"), "timed out")
        for descriptor in write:
            with contextlib.suppress(BlockingIOError):
                try:
                    inputs[descriptor] = inputs[descriptor][os.write(descriptor, inputs[descriptor]) :]
                except BrokenPipeError:
                    inputs[descriptor] = memoryview(b"")
            if not inputs[descriptor]:
                del inputs[descriptor]
                if descriptor != source:
                    process.stdin.close()
        if read:
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            data += chunk
            if len(data) > limits.output:
                return Output(data[: limits.output].decode(errors="replace"), "too much output")
            if not chunk:
                break
    try:
        code = process.wait(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Output(data.decode(errors="replace"), "timed out")
    ended = "ok" if code == 0 else f"signal {code - 128}" if code > 128 else f"exit {code}"
    return Output(data.decode(errors="replace"), ended)
