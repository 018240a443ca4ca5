"""Worker processes for verifiers that may crash, hang or eat memory: each call has its own time-out, and a lost worker is named.

In: requests {name, completion, truth, prompt, own}. Out: a `Part` each, in order. A worker that does not answer in time is killed with
everything it started; the request it was on becomes an error part, the others go on in a fresh worker.

>>> call({"name": "math", "completion": "\\\\boxed{2}", "truth": {"answer": "2"}, "prompt": ""}, timeout=10).passed
True
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from generation.verifiers.verdict import Part, failed

MEMORY = 6 << 30  # bytes of address space that a built-in verifier may use
AHEAD = 4  # requests sent before their turn; small enough that pipes never fill both ways
START = 30.0  # seconds a fresh worker may take for its imports; the first request's own time begins after them


class Lost(Exception):
    """A worker ended or had to be killed; the message says which and how."""


class Worker:
    """One worker process; not for use by two threads at once."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([root, str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from generation.verifiers.workers import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        os.set_blocking(self.process.stdin.fileno(), False)
        self.inbox, self.outbox = b"", bytearray()
        self.fresh = True

    def send(self, request: dict[str, Any]) -> None:
        """Hand over a request; what the pipe does not take yet goes out during `receive`, so that a hanging worker blocks nobody."""
        self.outbox += json.dumps(request).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        assert self.process.stdin is not None
        try:
            while self.outbox:
                del self.outbox[: os.write(self.process.stdin.fileno(), self.outbox[: 1 << 16])]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self.outbox.clear()  # receive() finds out how it ended

    def receive(self, timeout: float) -> Part:
        """The next answer.

        Raises:
            Lost: none within `timeout` seconds, or the process ended.
        """
        if self.fresh:
            self._line(START, "did not start")
            self.fresh = False
        return Part.from_json(json.loads(self._line(timeout, "timed out")))

    def _line(self, timeout: float, what: str) -> bytes:
        """The next line that the process writes."""
        assert self.process.stdin is not None and self.process.stdout is not None
        read = self.process.stdout.fileno()
        deadline = time.monotonic() + timeout
        while b"\n" not in self.inbox:
            left = deadline - time.monotonic()
            ready = select.select([read], [self.process.stdin] if self.outbox else [], [], max(0.0, left))
            if left <= 0 or not (ready[0] or ready[1]):
                self.kill()
                raise Lost(f"{what} after {timeout:g} s")
            if ready[1]:
                self._write()
            if not ready[0]:
                continue
            chunk = os.read(read, 1 << 16)
            if not chunk:
                code = self.process.wait()
                self.kill()
                raise Lost(f"crashed ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})")
            self.inbox += chunk
        line, self.inbox = self.inbox.split(b"\n", 1)
        return line

    def kill(self) -> None:
        """End the process and everything in its session."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


_idle: queue.LifoQueue[Worker] = queue.LifoQueue()


def call(request: dict[str, Any], timeout: float) -> Part:
    """One request in a worker; safe from several threads, each of which gets a worker of its own."""
    worker = _take()
    try:
        worker.send(request)
        part = worker.receive(timeout)
    except Lost as lost:
        return failed(request["name"], str(lost))
    except BaseException:
        worker.kill()
        raise
    _idle.put(worker)
    return part


def stream(requests: Iterable[tuple[dict[str, Any], float]]) -> Iterator[Part]:
    """Many requests with their time-outs through one worker, a few ahead of the answers; the order is kept."""
    waiting: list[tuple[dict[str, Any], float]] = []
    source = iter(requests)
    worker = _take()
    try:
        while True:
            while len(waiting) < AHEAD and (item := next(source, None)) is not None:
                waiting.append(item)
                worker.send(item[0])
            if not waiting:
                break
            try:
                part = worker.receive(waiting[0][1])
            except Lost as lost:
                part = failed(waiting[0][0]["name"], str(lost))
                worker = Worker()
                for request, _ in waiting[1:]:
                    worker.send(request)
            waiting.pop(0)
            yield part
    except BaseException:
        worker.kill()
        raise
    _idle.put(worker)


def run_all(requests: list[tuple[dict[str, Any], float]], processes: int, chunk: int = 64) -> Iterator[Part]:
    """Every request, on so many worker processes, in the order given."""
    chunks = [requests[i : i + chunk] for i in range(0, len(requests), chunk)]
    with ThreadPoolExecutor(max(1, processes)) as threads:
        for parts in threads.map(lambda part: list(stream(part)), chunks):
            yield from parts


def _take() -> Worker:
    """An idle worker, or a new one."""
    try:
        return _idle.get_nowait()
    except queue.Empty:
        return Worker()


def _end_idle() -> None:
    while not _idle.empty():
        _idle.get_nowait().kill()


def _forget_idle() -> None:
    """A forked child must not talk to its parent's workers."""
    global _idle
    _idle = queue.LifoQueue()


atexit.register(_end_idle)
os.register_at_fork(after_in_child=_forget_idle)


def main() -> None:
    """Answer requests until the caller is gone."""
    with contextlib.suppress(BrokenPipeError):
        _serve()


def _serve() -> None:
    """Requests in, answers out; what a verifier prints goes to standard error, never among the answers."""
    import resource

    from generation.verifiers.dispatch import prepare, run

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    fresh = True
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if fresh:
            prepare(request["name"], request.get("own"))
            out.write(b"ready\n")
            out.flush()
            fresh = False
        limit = hard if request.get("own") else MEMORY
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            part = run(request["name"], request["completion"], request["truth"], request["prompt"], request.get("own"))
        except BaseException as error:
            part = failed(request["name"], f"{type(error).__name__}: {error}")
        out.write(json.dumps(part.to_json()).encode() + b"\n")
        out.flush()
