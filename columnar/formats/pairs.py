"""Preferences that are decided: `chosen` and `rejected` as text, as messages, as whole conversations, as HH-RLHF strings. Kind pair.

    {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?", "score_chosen": 9, "score_rejected": 2}
    {"prompt": "Hi", "chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […]}        UltraFeedback-binarized, TRL
    {"conversations": [{"from": "human", …}], "chosen": {"from": "gpt", …}, "rejected": {…}}             ShareGPT preference

Where both sides are whole conversations, the turns they share are the prompt and the rest is the answer.
"""

from __future__ import annotations

from typing import Any

from columnar.formats.chat import FIELDS, conversation, convert, tools_of
from columnar.formats.instruction import SYSTEM
from columnar.formats.shape import Bad, Draft, Record, Shape, asked, assistant, decoded, first_of, joined, number, optional, rest
from columnar.formats.strings import hh_turns, is_hh
from columnar.record import describe

PROMPTS = ("prompt", "question", "instruction", "query", "input")
_SCORES = ("score_{}", "{}_score", "{}_rating", "rating_{}", "{}-rating")
_MODELS = ("{}_model", "model_{}", "{}-model")


def _match(fields: set[str], samples: list[Record]) -> str | None:
    if not {"chosen", "rejected"} <= fields:
        return None
    if samples and all(is_hh(r.get("chosen")) for r in samples[:3]) and not fields & {*PROMPTS, *FIELDS}:
        return "dialogue strings: the turns that chosen and rejected share -> prompt, the rest -> chosen, rejected"
    field = first_of(fields, (*FIELDS, *PROMPTS))
    scores = [name for name in (_find(fields, _SCORES, "chosen"), _find(fields, _MODELS, "chosen")) if name]
    return (f"{field} -> prompt, " if field else "the shared turns -> prompt, ") + "chosen, rejected" + "".join(f", {s}" for s in scores)


def _find(fields: Any, patterns: tuple[str, ...], side: str) -> str | None:
    return first_of(fields, [pattern.format(side) for pattern in patterns])


def _side(record: Record, side: str, meta: Record) -> list[dict[str, Any]]:
    """One side as messages: an answer, or a whole conversation."""
    value = decoded(record.get(side))
    if isinstance(value, dict) and ({"role", "from"} & set(value)):
        message, left = convert(value, side)
        messages, extra = [message], [left]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        messages, extra = conversation(value, side)
    elif is_hh(value):
        messages, exact = hh_turns(value, side)
        extra = []
        if not exact:
            meta[side] = value
    elif isinstance(record.get(side), str):
        return [assistant(record[side])]
    else:
        raise Bad(side, describe(value), "text, a message, or a list of messages")
    if any(extra):
        meta[side] = extra
    return messages


def _rows(record: Record) -> list[Draft]:
    meta: Record = {}
    chosen, rejected = _side(record, "chosen", meta), _side(record, "rejected", meta)
    prompt, used = _prompt(record)
    if len(chosen) > 1 or len(rejected) > 1:
        shared = _shared(chosen, rejected)
        if shared or not prompt:
            if prompt and [m["content"] for m in shared if m["role"] == "user"][-1:] != [prompt[-1]["content"]]:
                used = []  # the prompt column says something else than the conversation: keep it
            prompt, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
    row: Draft = {"kind": "pair", "prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": tools_of(record)}
    inner = decoded(record.get("metadata"))
    for side in ("chosen", "rejected"):
        score, model = _find(record, _SCORES, side), _find(record, _MODELS, side)
        if score:
            row[f"{side}_score"] = number(record[score], score)
            used.append(score)
        elif isinstance(inner, dict) and (score := _find(inner, _SCORES, side)):
            row[f"{side}_score"] = number(inner[score], f"metadata.{score}")  # and it stays in meta with the rest of it
        if model and isinstance(record[model], str):
            row[f"{side}_model"] = record[model] or None
            used.append(model)
    row["meta"] = {**rest(record, "chosen", "rejected", "tools", "functions", *used), **meta}
    return [row]


def _prompt(record: Record) -> tuple[list[dict[str, Any]], list[str]]:
    """The prompt a record states, and the fields it took."""
    field = first_of(record, (*FIELDS, *PROMPTS))
    if field is None or record[field] is None:
        return [], []
    if (isinstance(decoded(record[field]), list) and not isinstance(record[field], str)) or field in FIELDS:
        messages, left = conversation(record[field], field)
        return messages, [] if any(left) else [field]
    if is_hh(record[field]):
        messages, exact = hh_turns(record[field], field)
        return messages, [field] if exact else []
    system = first_of(record, SYSTEM)
    more = "input" if field == "instruction" and "input" in record else None
    content = joined(optional(record, field), optional(record, more)) if more else optional(record, field)
    said = optional(record, system) if system else ""
    return asked(content, said), [field, *([system] if system and said else []), *([more] if more else [])]


def _shared(chosen: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns both begin with, up to the last user turn that an answer follows on both sides."""
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    while same and chosen[same - 1]["role"] not in ("user", "tool"):
        same -= 1
    return chosen[:same]


CHOSEN_REJECTED = Shape("chosen_rejected", ("pair",), _match, _rows)
