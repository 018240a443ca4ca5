"""What a run would ask and cost, before it asks: per model, calls, tokens and dollars, less what the cache already answers.

The run's own work is done by a client that counts instead of asking and answers with as much text as an answer would have, so the
number of calls is exact and the prompts of the judges have their real size. Up to SAMPLE rows are gone through; the rest is scaled.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

from generation.cache import Cache
from generation.client import Client
from generation.judge import Readable
from generation.meter import USUAL_ANSWER, estimate
from generation.models import ModelConfig
from generation.stage import Stage
from generation.wire import Reply, Request, length_limit

SAMPLE = 200
JUDGEMENT = 60  # tokens of one rationale and rating


class Planner(Client):
    """Counts what it would ask: for each model (calls, prompt tokens, answer tokens, dollars)."""

    def __init__(self, models: list[ModelConfig], cache: Cache) -> None:
        super().__init__(models, cache)
        self.planned: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
        self.usual = cache.mean_tokens()

    async def _pay(self, config: ModelConfig, body: dict[str, Any], missing: list[tuple[str, Request]]) -> list[Reply]:
        judged, limit = missing[0][1].tag.startswith("judge"), length_limit(body) or 10**9
        expected = JUDGEMENT * max(1, str(body["messages"][-1]["content"]).count("<answer ")) if judged else USUAL_ANSWER
        each = min(limit, self.usual.get((config.served, "judge" if judged else "respond"), expected))
        line = self.planned[config.name]
        for i, value in enumerate((len(missing), *estimate(config, body, each * len(missing)))):
            line[i] += value
        # a judge's made-up answer is "truncated", so that nobody tries to read it or asks for a repair
        return [Reply(request, "truncated" if judged else "ok", "word " * int(each), raw="-") for _, request in missing]


async def estimate_stage(stage: Stage, cache: Path | None) -> list[dict[str, Any]]:
    """One line per model and one for all; `dollars` is None where a price is not known."""
    with Cache(cache) as kept:
        client = Planner(stage.models, kept)
        rows = 0
        for row in islice(stage.rows(), SAMPLE):
            await stage.work(client, row, Readable(strict=False))
            rows += 1
    scale = stage.total / rows if rows else 0.0
    lines: list[dict[str, Any]] = []
    for config in stage.models:
        calls, prompt, answer, dollars = client.planned[config.name]
        cached = client.meter.of(config.name).cached
        if calls or cached:
            price = round(dollars * scale, 4) if config.rate is not None else None
            lines.append({"model": config.name, "calls": round(calls * scale), "cached": round(cached * scale),
                          "prompt tokens": round(prompt * scale), "answer tokens": round(answer * scale), "dollars": price})  # fmt: skip
    total: dict[str, Any] = {"model": "all"}
    for name in ("calls", "cached", "prompt tokens", "answer tokens"):
        total[name] = sum(line[name] for line in lines)
    known = [line["dollars"] for line in lines if line["dollars"] is not None]
    total["dollars"] = round(sum(known), 4) if len(known) == len(lines) else None
    return [*lines, total]
