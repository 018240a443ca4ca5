"""Answers to prompts: for each prompt its models, assigned before anything is asked; one dataset directory of kind `candidates`.

    python -m generation.respond CONFIG.yaml --out out/answers [--dry-run] [--max-cost 5] [--limit 100] [--set seed=2]

    prompts: out/prompts                 # a dataset directory, or a file (jsonl, parquet, csv, ...)
    models: [{name: a, base_url: http://localhost:8000/v1}, {name: b, ...}, {name: c, ...}, {name: d, ...}, {name: e, ...}]
    per_prompt: 4                        # of the models, for each prompt
    on_policy: tulu                      # this one is always among them
    reserve: [spare]                     # asked in place of a model that failed
    principles: {helpfulness: 3, honesty: 1}

Which models answer a prompt depends on the seed and the prompt's id alone: adding, removing or reordering prompts changes nobody
else's models, so nothing that was paid for is lost; over many prompts every model gets its equal share (the counts are in the
manifest). Every answer keeps its finish_reason and, in `params`, its outcome: a truncated, refused or empty one is there to be
seen, and `pairs` leaves it out. What has no answer is in hits/ledger.parquet with the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import Field, field_validator, model_validator

from columnar.config import Config
from columnar.errors import ConfigError
from columnar.record import rehash, row_id
from columnar.store import Dataset, read_batches
from generation.client import Client
from generation.material import Prompts, bare
from generation.models import ModelConfig
from generation.rubrics import PRINCIPLES
from generation.wire import Reply, Request

VERSION = 1
REPLACED = ("failed", "timeout", "unparsable")  # outcomes for which a reserve model is asked
_REFUSING = re.compile(
    r"(i['’]?m|i am) (really |very |truly )?(sorry|afraid)\b.{0,60}\b(can['’]?t|cannot|unable|not able)|"
    r"(i['’]?m sorry, )?(but )?as an ai\b|"
    r"i (can['’]?t|cannot|won['’]?t|will not|am not able to|'m not able to) (help|assist|provide|comply|fulfill|answer|do that)",
    re.IGNORECASE,
)


class RespondConfig(Config):
    """What `generation.respond` is told.

    Attributes:
        pool: the names of the models that answer; left out = all but the reserves.
        per_prompt: how many of the pool answer each prompt.
        samples: answers of each model to each prompt (for rejection sampling and self-rewarding).
        on_policy: a model that always answers, beside per_prompt - 1 others: the policy under training.
        principles: system prompts of these kinds, drawn with these weights (UltraFeedback); empty = none.
        params: over the models' own, for all answers.
    """

    prompts: Prompts
    models: list[ModelConfig]
    pool: list[str] | None = None
    per_prompt: int = Field(4, ge=1)
    samples: int = Field(1, ge=1)
    on_policy: str | None = None
    reserve: list[str] = Field(default_factory=list)
    principles: dict[str, float] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    name: str = "responses"
    cache: str | None = None

    @field_validator("prompts", mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> RespondConfig:
        names = [m.name for m in self.models]
        unknown = [n for n in (*(self.pool or ()), *self.reserve, *([self.on_policy] if self.on_policy else ())) if n not in names]
        if unknown:
            raise ValueError(f"no model is called {', '.join(map(repr, unknown))} (models: {', '.join(names)})")
        odd = [p for p in self.principles if p not in PRINCIPLES]
        if odd:
            raise ValueError(f"principles: {', '.join(odd)} unknown (known: {', '.join(PRINCIPLES)})")
        if any(w < 0 for w in self.principles.values()) or (self.principles and not sum(self.principles.values())):
            raise ValueError("principles: weights must not be negative, and not all zero")
        return self

    def answering(self, not_these: tuple[str, ...] = ()) -> list[str]:
        """The pool.

        Raises:
            ConfigError: fewer models than per_prompt.
        """
        pool = self.pool if self.pool is not None else [m.name for m in self.models if m.name not in (*self.reserve, *not_these)]
        if len(pool) < self.per_prompt:
            raise ConfigError(
                f"per_prompt: {self.per_prompt} models for each prompt, but only {len(pool)} can answer ({', '.join(pool) or 'none'})",
                f"add models, or set per_prompt: {max(1, len(pool))}; for several answers of one model there is `samples`",
            )
        return pool


class Slot(NamedTuple):
    """One answer that is wanted: by whom, which sample, under which principle."""

    model: str
    sample: int
    principle: str = ""
    system: str = ""


class Lost(NamedTuple):
    """A line of the ledger: something wanted that there is not."""

    stage: str
    model: str
    what: str
    outcome: str
    reason: str


def draw(seed: int, purpose: str, name: str) -> float:
    """A number in [0, 1) that depends on nothing but these three."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{name}".encode(), digest_size=8).digest()) / 2**64


def assign(prompt_id: str, config: RespondConfig, pool: list[str]) -> list[Slot]:
    """The answers a prompt gets: its models, in an order that tells nothing about them."""
    own = config.on_policy
    others = sorted((m for m in pool if m != own), key=lambda m: draw(config.seed, "assign", f"{prompt_id}/{m}"))
    chosen = ([own] if own else []) + others[: config.per_prompt - (1 if own else 0)]
    chosen.sort(key=lambda m: draw(config.seed, "order", f"{prompt_id}/{m}"))
    return [Slot(m, s, *_principle(prompt_id, m, s, config)) for m in chosen for s in range(config.samples)]


def _principle(prompt_id: str, model: str, sample: int, config: RespondConfig) -> tuple[str, str]:
    if not config.principles:
        return "", ""
    place = f"{prompt_id}/{model}"  # the samples of a model share it: they are samples of one request
    at = draw(config.seed, "principle", place) * sum(config.principles.values())
    for name, weight in sorted(config.principles.items()):
        at -= weight
        if at < 0:
            texts = PRINCIPLES[name]
            return name, texts[int(draw(config.seed, "wording", place) * len(texts))]
    raise AssertionError("the weights were checked")


def prompts_of(dataset: Dataset, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The rows of any kind as prompts, in row order: what comes before the last answer, and what checks it (verifier, ground_truth)."""
    given = 0
    columns = ["id", "kind", "source", "origin", "license", "meta", "messages", "prompt", "tools", "verifier", "ground_truth"]
    for batch in read_batches(dataset, columns, rows=1000):
        for row in batch.to_pylist():
            if limit is not None and given >= limit:
                return
            given += 1
            if row["kind"] == "sft":
                last = max((i for i, m in enumerate(row["messages"]) if m["role"] == "assistant"), default=len(row["messages"]))
                row["prompt"], row["reference"] = row["messages"][:last], row["messages"][last:][:1]
            yield row


async def respond(client: Client, row: dict[str, Any], config: RespondConfig, pool: list[str]) -> tuple[dict[str, Any] | None, list[Lost]]:
    """A prompt's candidates as a row, and what is missing from it; None when there is no answer at all."""
    import asyncio

    slots = assign(row["id"], config, pool)
    groups = [slots[i : i + config.samples] for i in range(0, len(slots), config.samples)]
    answers = await asyncio.gather(*(_group(client, row, group, config) for group in groups))
    candidates = [c for found, _ in answers for c in found]
    lost = [line for _, missing in answers for line in missing]
    assert len(candidates) + sum(line.what.startswith("answer") for line in lost) == len(slots)
    return (candidate_row(row, candidates, config.name) if candidates else None), lost


async def _group(client: Client, row: dict[str, Any], slots: list[Slot], config: RespondConfig) -> tuple[list[dict[str, Any]], list[Lost]]:
    """The samples of one model, asked together; those that failed asked again of the reserves, in turn."""
    messages = with_principle([bare(m) for m in row["prompt"]], slots[0].system)
    extra = {"tools": json.loads(row["tools"])} if row.get("tools") else None
    params = {**config.params, **({"extra": extra} if extra else {})}
    request = Request(slots[0].model, messages, params, slots[0].sample, f"respond {row['id']}")
    replies = await client.samples(request, len(slots))
    candidates, lost = [], []
    for slot, first in zip(slots, replies, strict=True):
        reply, instead_of = first, ""
        for spare in config.reserve:
            if reply.outcome not in REPLACED:
                break
            instead_of = f"{slot.model}: {first.outcome}: {first.reason}"
            reply = await client.complete(Request(spare, messages, params, slot.sample, f"respond {row['id']}"))
        if reply.outcome in ("ok", "truncated", "refused", "empty") and reply.raw:
            candidates.append(candidate(reply, slot, {**client.config(reply.request.model).params, **config.params}, instead_of))
        else:
            lost.append(Lost("respond", slot.model, f"answer {slot.sample}", first.outcome, first.reason))
    return candidates, lost


def with_principle(messages: list[dict[str, Any]], system: str) -> list[dict[str, Any]]:
    """The conversation under a system text; one that has its own keeps it, in front."""
    if not system:
        return messages
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0].get('content') or ''}\n\n{system}"}, *messages[1:]]
    return [{"role": "system", "content": system}, *messages]


def candidate(reply: Reply, slot: Slot, params: dict[str, Any], instead_of: str) -> dict[str, Any]:
    """One answer as a candidate of the row; nothing in it changes from run to run."""
    told: dict[str, Any] = {"outcome": reply.outcome, "sample": slot.sample, "tokens": reply.completion_tokens, **params}
    if reply.ok and refuses(reply.content):
        told["refuses"] = True
    if slot.principle:
        told["principle"], told["system"] = slot.principle, slot.system
    if instead_of:
        told["instead_of"] = instead_of
    return {
        "model": reply.request.model,
        "content": reply.content,
        "thinking": reply.thinking,
        "finish_reason": reply.finish_reason,
        "params": json.dumps(told, sort_keys=True, ensure_ascii=False),
        "ratings": [],
        "score": None,
    }


def refuses(text: str) -> bool:
    """The answer begins like a refusal ("I'm sorry, but I can't ..."): marked, not judged; declining can be the right answer."""
    return _REFUSING.match(text[:200].strip()) is not None


def candidate_row(row: dict[str, Any], candidates: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The row of a prompt's candidates: the prompt's licence and origin, and in `meta` what checks an answer."""
    meta = json.loads(row["meta"]) if row.get("meta") else {}
    meta |= {k: row[k] for k in ("verifier", "ground_truth") if row.get(k)}
    if row.get("reference"):
        meta["reference"] = row["reference"][0].get("content")
    return rehash(
        {
            "id": row_id(name, row["id"], 0),
            "kind": "candidates",
            "source": row["source"],
            "origin": row["origin"],
            "license": row["license"],
            "meta": json.dumps(meta, sort_keys=True, ensure_ascii=False) if meta else None,
            "parents": [row["id"]],
            "prompt": row["prompt"],
            "candidates": candidates,
            "tools": row.get("tools"),
        }
    )


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    from generation.commands import command

    return command("respond", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
