"""The first pass of a stage on a cluster: each worker asks for spans of rows, all of them through the one cache of replies.

In: a Stage and the engine. Out: every answer in the cache, and what was asked, for the ledger of costs. The second pass is the same as
ever (generation.stage). A worker that is lost is started again with the span it had, and what was answered is in the cache: it asks
only for what was in flight. With several `base_url` every worker uses all of them, each with its share of `concurrency`; with
`backend: vllm` every worker holds a replica of its own, on GPUs of its own.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from columnar.cli import Progress
from columnar.engine import Engine, places_in
from columnar.errors import ConfigError
from columnar.store import stage_key
from generation.cache import Cache
from generation.client import Client
from generation.flow import each
from generation.judge import Readable
from generation.meter import Count, Meter

if TYPE_CHECKING:
    from generation.stage import Stage

SPANS = 8  # for each worker: a lost one has little to look up again, and no one waits long for the last
FEWEST = 16  # rows in a span


class Rows(NamedTuple):
    """Rows of a stage, by place."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"rows {self.first:,} to {self.last:,}"


@dataclass
class Asker:
    """What a worker holds: the stage, its way to the cache, and a client that stays open from span to span."""

    stage: Stage
    cache: Any  # a Cache, in another process
    retry_failed: bool
    client: Client | None = None
    loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, rows: Rows) -> dict[str, Count]:
        """Ask for all that these rows want; the counts of this span."""
        if self.client is None or self.loop is None:
            self.loop = asyncio.new_event_loop()
            self.client = Client(self.stage.models, self.cache, retry_failed=self.retry_failed)
        self.client.meter.models.clear()
        self.loop.run_until_complete(self._ask(self.client, rows))
        return {name: replace(count) for name, count in self.client.meter.models.items()}

    async def _ask(self, client: Client, rows: Rows) -> None:
        readable = Readable()
        work = partial(self._one, client, readable)
        async for _ in each(work, islice(self.stage.rows(), rows.first, rows.last), limit=client.width):
            pass

    async def _one(self, client: Client, readable: Readable, row: dict[str, Any]) -> None:
        await self.stage.work(client, row, readable)


def ask_on(engine: Engine, stage: Stage, cache: Path, folder: Path, retry_failed: bool) -> Meter:
    """Ask for all rows of a stage; what was asked.

    Args:
        folder: for the counts of the spans that are done, until all are.

    Raises:
        ConfigError: the stage asks row after row until enough have passed, which is not to be shared out.
    """
    if stage.wanted is not None:
        raise ConfigError("until: asks until enough rows have passed, one after the other", "leave until out, or take --engine local")
    gpus = max((float(m.engine.get("tensor_parallel_size", 1)) for m in stage.models if m.backend == "vllm"), default=0.0)
    workers = engine.width(gpus)
    models = [m.model_copy(update={"concurrency": max(1, -(-m.concurrency // workers))}) for m in stage.models]
    size = max(FEWEST, -(-stage.total // (SPANS * workers)))
    spans = [Rows(first, min(first + size, stage.total)) for first in range(0, stage.total, size)]
    meter = Meter()
    divided = folder / stage_key("spans", 1, [size, str(cache.absolute()), retry_failed], None)  # another division is another work
    with Progress(stage.name, stage.total) as bar, engine.shared(partial(Cache, cache.absolute())) as shared:
        work = Asker(replace(stage, models=models), shared, retry_failed)
        for span, counts in zip(spans, engine.map(work, spans, places_in(divided, len(spans)), held=True, gpus=gpus), strict=True):
            for name, count in counts.items():
                _add(meter.of(name), count)
            bar.add(span.last - span.first, note=meter.line())
    shutil.rmtree(folder, ignore_errors=True)
    return meter


def _add(total: Count, more: Count) -> None:
    for name in ("asked", "cached", "retries", "prompt_tokens", "completion_tokens", "dollars"):
        setattr(total, name, getattr(total, name) + getattr(more, name))
    for outcome, n in more.outcomes.items():
        total.outcomes[outcome] = total.outcomes.get(outcome, 0) + n
