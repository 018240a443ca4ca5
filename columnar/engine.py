"""Where the blocks of a stage are worked on: in threads of this process, or on a Ray cluster (`--engine local|ray[://HOST:PORT]`).

    with chosen("ray") as engine:
        for made in engine.map(work, blocks, places): ...     # in the order of the blocks, whoever finished first

A block is a small description (a row group of a file, a source file, a span of prompts) whose text says what to call it in an error;
`work` is a pure function of one. So both engines give the same results, for any number of blocks and workers. This is the only
seam: whatever takes an engine does not know which one it has. Ray itself is imported by columnar.cluster alone.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from columnar.errors import ConfigError

Block = TypeVar("Block")
Result = TypeVar("Result")
Held = TypeVar("Held")


class Engine(Protocol):
    """What works on blocks."""

    @property
    def remote(self) -> bool:
        """Whether blocks are worked on in other processes, so that work must be whole in each result and may not leave notes elsewhere."""

    def width(self, gpus: float = 0) -> int:
        """How many blocks that want so many GPUs each are worked on at once, unless a stage says otherwise.

        Raises:
            ConfigError: there are not so many.
        """

    def shared(self, make: Callable[[], Held]) -> contextlib.AbstractContextManager[Held]:
        """An object that all workers call: made once, beside this process, and called by one of them at a time."""

    def map(
        self,
        work: Callable[[Block], Result],
        blocks: Sequence[Block],
        places: Sequence[Path],
        *,
        threads: int = 1,
        held: bool = False,
        gpus: float = 0,
    ) -> Iterator[Result]:
        """The results of all blocks in their order.

        Args:
            places: a file for the result of each block, which the caller removes in the end: on a cluster a block whose file is there
                is not worked on again, so their folder's name must change with all that results depend on.
            threads: blocks at once in this process; a cluster has its own number of workers.
            held: `work` is heavy (an index, a client): with many blocks a cluster keeps it in actors.
            gpus: of each actor.

        Raises:
            CaravanError: what `work` raised, or that blocks could not be worked on (they are named; all others are finished and kept).
        """


class Local:
    """This process: `threads` blocks at once, at most twice as many results waiting."""

    remote = False

    def width(self, gpus: float = 0) -> int:
        """One: a stage says how many threads it wants."""
        return 1

    @contextlib.contextmanager
    def shared(self, make: Callable[[], Held]) -> Iterator[Held]:
        """The object itself."""
        yield make()

    def map(
        self,
        work: Callable[[Block], Result],
        blocks: Sequence[Block],
        places: Sequence[Path],
        *,
        threads: int = 1,
        held: bool = False,
        gpus: float = 0,
    ) -> Iterator[Result]:
        """See `Engine.map`; nothing is written."""
        if threads <= 1:
            yield from map(work, blocks)
            return
        waiting: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for block in blocks:
                    waiting.append(pool.submit(work, block))
                    if len(waiting) >= 2 * threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)


LOCAL = Local()


def places_in(folder: Path, count: int) -> list[Path]:
    """A file for each of so many results."""
    return [folder / f"{number:08d}.result" for number in range(count)]


def add_flag(made: argparse.ArgumentParser) -> None:
    """`--engine`, the same in all commands that have it."""
    made.add_argument(
        "--engine",
        default="local",
        metavar="local|ray[://HOST:PORT]",
        help="where the work is done: here (local, the default), or on a Ray cluster: ray starts one here or takes that of RAY_ADDRESS,"
        " ray://HOST:PORT the one whose head is there. The output is the same (docs/scale.md)",
    )


@contextlib.contextmanager
def chosen(name: str) -> Iterator[Engine]:
    """The engine of this name; a cluster is left, and its figures are told, at the end.

    Raises:
        ConfigError: no such engine, or Ray is not installed.
        InputError: nobody answers at the cluster's address.
    """
    if name == "local":
        yield LOCAL
        return
    found = re.fullmatch(r"ray(?:://([^/\s:]+)(?::(\d+))?/?)?", name)
    if found is None:
        raise ConfigError(f"--engine {name}: expected local, ray or ray://HOST:PORT")
    from columnar.cluster import Cluster

    host, port = found.groups()
    with Cluster(f"{host}:{port or 6379}" if host else None) as cluster:
        yield cluster
