"""Many pieces of work at once, as few in memory as there are places: the one loop that every stage of this room runs in.

async for result in each(work, items, limit=256): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def each(
    work: Callable[[Item], Awaitable[Result]],
    items: Iterable[Item] | AsyncIterable[Item],
    limit: int,
    stopped: Callable[[], bool] = lambda: False,
) -> AsyncIterator[Result]:
    """The results of `work(item)` as they come, at most `limit` items begun and not yet handed out.

    When one raises, no new item is begun, those under way are finished (their answers are paid for, and cached), then it is raised.

    Args:
        stopped: asked before each item; True ends the intake.
    """
    done: asyncio.Queue[Result | BaseException] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()
    error: BaseException | None = None

    async def one(item: Item) -> None:
        try:
            done.put_nowait(await work(item))
        except Exception as problem:
            done.put_nowait(problem)

    source = aiter(items) if isinstance(items, AsyncIterable) else _async(items)
    more, waiting = True, 0
    try:
        while more or waiting:
            while more and waiting < limit and error is None and not stopped():
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    more = False
                    break
                task = asyncio.create_task(one(item))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                waiting += 1
            if not waiting:
                break
            result = await done.get()
            waiting -= 1
            if isinstance(result, BaseException):
                error = error or result
            elif error is None:
                yield result
        if error is not None:
            raise error
    finally:
        for task in tasks:
            task.cancel()


async def _async(items: Iterable[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item
