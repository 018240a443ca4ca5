"""Rows as token columns: for each purpose one function of a batch of rows, and what it counted.

purpose   kinds of rows                        columns
sft       sft; candidates (the best-scored)    input_ids, labels (-100 where nothing is learnt)
reward    pair                                 chosen_ids, rejected_ids, strength, difference
dpo       pair                                 prompt_ids, chosen_ids, rejected_ids
prompts   every kind (answers left out)        id, prompt, verifier, ground_truth
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from columnar.config import Config
from columnar.record import texts_of
from training import template as chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = {
    "sft": ("sft", "candidates"),
    "reward": ("pair",),
    "dpo": ("pair",),
    "prompts": ("prompt", "sft", "pair", "candidates"),
}
_IDS = pa.list_(pa.int32())
SCHEMAS = {
    "sft": pa.schema([("input_ids", _IDS), ("labels", _IDS)]),
    "reward": pa.schema([("chosen_ids", _IDS), ("rejected_ids", _IDS), ("strength", pa.string()), ("difference", pa.float64())]),
    "dpo": pa.schema(
        [("prompt_ids", _IDS), ("chosen_ids", _IDS), ("rejected_ids", _IDS), ("chosen_model", pa.string()), ("rejected_model", pa.string())]
    ),
    "prompts": pa.schema(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("verifier", pa.string()),
            ("ground_truth", pa.string()),
        ]
    ),
}


class View(Config):
    """How rows become tokens."""

    template: str = "auto"
    loss_on: Literal["all", "last"] = "all"
    max_length: int | None = 1024
    overlong: Literal["cut", "drop"] = "cut"
    control_tokens: Literal["drop", "keep"] = "drop"


@dataclass
class Counts:
    """What became of the rows of one split."""

    rows: int = 0
    kept: int = 0
    cut: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    learnt: int = 0

    def line(self, split: str) -> str:
        """One line for the person at the terminal."""
        lost = "".join(f", {n:,} dropped ({reason.replace('_', ' ')})" for reason, n in sorted(self.dropped.items()))
        share = f" ({self.learnt / self.tokens:.0%} learnt)" if self.tokens and self.learnt else ""
        return f"{split}: {self.kept:,} of {self.rows:,} rows, {self.tokens:,} tokens{share}, {self.cut:,} cut to the context{lost}"


@dataclass(frozen=True)
class Coder:
    """A tokenizer with the template to train with and the settings that decide which tokens are learnt."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    view: View

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, view: View) -> tuple[Coder, list[str]]:
        """The coder and what was decided on the way; see template.prepare."""
        text, notes = chat.prepare(tokenizer, view.template)
        return cls(tokenizer, text, view), notes

    def key(self) -> list[Any]:
        """What the tokens depend on besides the rows."""
        vocabulary = self.tokenizer.backend_tokenizer.to_str() if self.tokenizer.is_fast else self.tokenizer.name_or_path
        return [self.template, vocabulary, self.view.model_dump(exclude={"template"}), self.tokenizer.eos_token, self.tokenizer.pad_token]


def _clean(rows: list[dict[str, Any]], coder: Coder, dropped: Counter[str]) -> list[dict[str, Any]]:
    """Rows without control tokens in their texts: there a user's `<|endoftext|>` would end the conversation, and be learnt."""
    if coder.view.control_tokens == "keep":
        return rows
    special = [token for token in coder.tokenizer.all_special_tokens if len(token) > 2]
    good = [row for row in rows if not any(token in text for _, _, _, text in texts_of(row) for token in special)]
    dropped["control_tokens"] += len(rows) - len(good)
    return good


def _conversation(row: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The conversation to learn from a row: its messages, or its prompt and the candidate with the best score (the first of equals)."""
    if row["kind"] == "sft":
        return list(row["messages"])
    scored = [c for c in row["candidates"] if c["score"] is not None]
    if not scored:
        return None
    best = max(scored, key=lambda c: c["score"])
    return [*row["prompt"], {"role": "assistant", "content": best["content"], "thinking": best.get("thinking")}]


def last_run(mask: list[int]) -> list[int]:
    """Only the last unbroken run of ones: the last answer."""
    end = len(mask) - mask[::-1].index(1) if 1 in mask else 0
    start = end
    while start and mask[start - 1]:
        start -= 1
    return [int(start <= i < end) for i in range(len(mask))]


def _sft(rows: list[dict[str, Any]], coder: Coder, counts: Counts, dropped: Counter[str]) -> list[dict[str, Any]]:
    rows = _clean(rows, coder, dropped)
    talks = [(talk, row.get("tools")) for row in rows if (talk := _conversation(row)) is not None]
    dropped["no_scored_candidate"] += len(rows) - len(talks)
    out, limit = [], coder.view.max_length
    for ids, mask in chat.encode(coder.tokenizer, coder.template, [t for t, _ in talks], [tools for _, tools in talks]) if talks else []:
        if coder.view.loss_on == "last":
            mask = last_run(mask)
        if limit and len(ids) > limit:
            if coder.view.overlong == "drop":
                dropped["longer_than_the_context"] += 1
                continue
            ids, mask = ids[:limit], mask[:limit]
            counts.cut += 1
        if 1 not in mask:
            dropped["no_answer_within_the_context" if limit and len(ids) == limit else "no_answer"] += 1
            continue
        counts.tokens += len(ids)
        counts.learnt += sum(mask)
        out.append({"input_ids": ids, "labels": [token if on else -100 for token, on in zip(ids, mask, strict=True)]})
    return out


def _pairs(rows: list[dict[str, Any]], coder: Coder) -> Iterator[tuple[dict[str, Any], list[int], list[int], list[int], list[int]]]:
    tools = [row.get("tools") for row in rows]
    sides = [
        chat.encode(coder.tokenizer, coder.template, [[*r["prompt"], *r[side]] for r in rows], tools) for side in ("chosen", "rejected")
    ]
    for row, (chosen, chosen_mask), (rejected, rejected_mask) in zip(rows, *sides, strict=True):
        yield row, chosen, chosen_mask, rejected, rejected_mask


def _reward(rows: list[dict[str, Any]], coder: Coder, counts: Counts, dropped: Counter[str]) -> list[dict[str, Any]]:
    rows, out, limit = _clean(rows, coder, dropped), [], coder.view.max_length
    for row, chosen, _, rejected, _ in _pairs(rows, coder) if rows else ():
        if limit and max(len(chosen), len(rejected)) > limit:  # a reward model reads the last token: cutting would change what it judges
            dropped["longer_than_the_context"] += 1
            continue
        if chosen == rejected:
            dropped["same_answers"] += 1
            continue
        counts.tokens += len(chosen) + len(rejected)
        meta = json.loads(row["meta"]) if row.get("meta") else {}
        scores = row.get("chosen_score"), row.get("rejected_score")
        difference = None if None in scores else scores[0] - scores[1]  # type: ignore[operator]
        strength = meta.get("strength") if isinstance(meta, dict) else None
        out.append({"chosen_ids": chosen, "rejected_ids": rejected, "strength": strength and str(strength), "difference": difference})
    return out


def _dpo(rows: list[dict[str, Any]], coder: Coder, counts: Counts, dropped: Counter[str]) -> list[dict[str, Any]]:
    rows, out, limit = _clean(rows, coder, dropped), [], coder.view.max_length
    prompts = chat.encode_prompts(coder.tokenizer, coder.template, [r["prompt"] for r in rows], [r.get("tools") for r in rows])
    for prompt, (row, chosen, chosen_mask, rejected, rejected_mask) in zip(prompts, _pairs(rows, coder) if rows else (), strict=True):
        start = _common(prompt, chosen, rejected)
        chosen, rejected = _up_to_answer_end(chosen, chosen_mask), _up_to_answer_end(rejected, rejected_mask)
        if chosen == rejected:
            dropped["same_answers"] += 1
            continue
        if limit and max(len(chosen), len(rejected)) > limit:
            if start >= limit or coder.view.overlong == "drop":
                dropped["longer_than_the_context"] += 1
                continue
            counts.cut += 1
            chosen, rejected = chosen[:limit], rejected[:limit]
        counts.tokens += len(chosen) + len(rejected)
        counts.learnt += len(chosen) + len(rejected) - 2 * start
        models = {"chosen_model": row.get("chosen_model"), "rejected_model": row.get("rejected_model")}
        out.append({"prompt_ids": chosen[:start], "chosen_ids": chosen[start:], "rejected_ids": rejected[start:], **models})
    return out


def _common(*lists: list[int]) -> int:
    """How many leading tokens all have in common."""
    n = 0
    for tokens in zip(*lists, strict=False):
        if len(set(tokens)) > 1:
            break
        n += 1
    return n


def _up_to_answer_end(ids: list[int], mask: list[int]) -> list[int]:
    """Without what a template puts after the answer: the model never writes that line break."""
    return ids[: len(mask) - mask[::-1].index(1)] if 1 in mask else ids


def _prompts(rows: list[dict[str, Any]], coder: Coder, counts: Counts, dropped: Counter[str]) -> list[dict[str, Any]]:
    from generation.verify import task_row

    rows, out, limit = _clean(rows, coder, dropped), [], coder.view.max_length
    asked = [[*row["prompt"]] if row["kind"] != "sft" else row["messages"][:-1] for row in rows]
    encoded = chat.encode_prompts(coder.tokenizer, coder.template, asked, [row.get("tools") for row in rows])
    for row, prompt, ids in zip(rows, asked, encoded, strict=True):
        if limit and len(ids) > limit:
            dropped["longer_than_the_context"] += 1
            continue
        counts.tokens += len(ids)
        task = task_row(row) or {}
        said = [{"role": m["role"], "content": m["content"] or ""} for m in prompt]
        line = {
            "id": row["id"],
            "source": row["source"],
            "prompt": said,
            "verifier": task.get("verifier"),
            "ground_truth": task.get("ground_truth"),
        }
        out.append(line)
    return out


MAKERS: dict[str, Callable[[list[dict[str, Any]], Coder, Counts, Counter[str]], list[dict[str, Any]]]] = {
    "sft": _sft,
    "reward": _reward,
    "dpo": _dpo,
    "prompts": _prompts,
}
