"""Commands in processes of their own which begin with the heavy libraries loaded: a recipe runs dozens of commands, and loading torch and
its friends takes longer than a tiny model's training.

    code, printed = command("training.sft", ["data", "--out", "model"])       # as `python -m training.sft data --out model`
    process = begin("recipes.serving", ["model", "--port", "8200"], log)
    scores = call(function, "model", texts)

One process loads the libraries (recipes.loaded) and forks for each command (multiprocessing's forkserver): what a command does to its
process is gone with it. A command ends at once when the process that began it is gone, by kill -9 too.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing import connection, context
from pathlib import Path
from typing import Any

from columnar.errors import CaravanError


def begin(module: str, argv: Sequence[str], log: Path, threads: int | None = None, both: bool = True) -> context.ForkServerProcess:
    """Start `python -m MODULE ARGV`.

    Args:
        log: where its output goes; with `both`, what it says to people, too.
        threads: of torch's arithmetic: the order in which floats are added up, and so a model's last digits, depend on it.
    """
    return _begin(_work, module, list(argv), str(log), threads, both)


def command(module: str, argv: Sequence[str], threads: int | None = None) -> tuple[int, str]:
    """Run a command to its end; its exit code and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stdout"
        process = begin(module, argv, log, threads, both=False)
        process.join()
        return process.exitcode or 0, log.read_text(encoding="utf-8") if log.is_file() else ""


def call(function: Callable[..., Any], *args: Any, threads: int | None = None) -> Any:
    """What a function of a module returns, computed in a process of its own.

    Raises:
        CaravanError: it failed; the traceback stands above.
    """
    ours, theirs = connection.Pipe(duplex=False)
    process = _begin(_apply, theirs, function, args, threads)
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise CaravanError(f"{function.__module__}.{function.__name__} failed", "the reason stands above") from None
    finally:
        process.join()


def _begin(target: Callable[..., None], *args: Any) -> context.ForkServerProcess:
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload(["recipes.loaded"])  # heard when the first process is begun
    process = chosen.Process(target=target, args=args)
    process.start()
    return process


def _work(module: str, argv: list[str], log: str, threads: int | None, both: bool) -> None:
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    with Path(log).open("wb") as file:
        os.dup2(file.fileno(), 1)
        if both:
            os.dup2(file.fileno(), 2)
    _arithmetic(threads)
    sys.argv = [module, *argv]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _apply(to: connection.Connection, function: Callable[..., Any], args: tuple[Any, ...], threads: int | None) -> None:
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    _arithmetic(threads)
    to.send(function(*args))


def _arithmetic(threads: int | None) -> None:
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for processes that this one begins, and where torch is not loaded yet
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)


def _end_with_the_other() -> None:
    other = multiprocessing.parent_process()
    if other is not None:
        connection.wait([other.sentinel])
        os._exit(137)
