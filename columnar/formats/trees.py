"""OpenAssistant message trees: the best-ranked path as a conversation (`oasst`), ranked siblings as pairs (`oasst_pairs`), or the first
question with its ranked replies (`oasst_ranked`).

    {"message_tree_id": "…", "prompt": {"text": "Hi", "role": "prompter", "replies": [{"text": "Hello", "rank": 0, "replies": []}, …]}}

The path goes down from the root and takes the reply of lowest rank (unranked ones last, then the order of the file); deleted replies
are passed over; it ends with the assistant. A pair is the best and the worst of the ranked assistant replies to one message.
Ranked replies are candidates whose score is minus their rank, as Self-Rewarding (arXiv 2401.10020) uses them.
The whole tree stays in `meta` (of the first row), so no branch is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from columnar.formats.chat import ROLE_OF
from columnar.formats.shape import Bad, Draft, Record, Shape, decoded
from columnar.record import describe

Node = dict[str, Any]
MANY = 1e9  # a rank beyond this is none


def _root(record: Record) -> tuple[str, Node]:
    for field in ("prompt", "tree", "message"):
        value = decoded(record.get(field))
        if isinstance(value, dict) and "text" in value:
            return field, value
    raise Bad("prompt", describe(record.get("prompt")), "a message with text and replies")


def _match(fields: set[str], samples: list[Record]) -> str | None:
    if "message_tree_id" not in fields or not samples or not isinstance(decoded(samples[0].get("prompt")), dict):
        return None
    return "the best-ranked path of each tree -> messages (format oasst_pairs gives pairs of ranked replies)"


def _message(node: Node, path: str) -> dict[str, Any]:
    role = ROLE_OF.get(str(node.get("role")))
    if role not in ("user", "assistant"):
        raise Bad(f"{path}.role", describe(node.get("role")), "prompter or assistant")
    if not isinstance(node.get("text"), str):
        raise Bad(f"{path}.text", describe(node.get("text")), "text")
    return {"role": role, "content": node["text"]}


def _rank(node: Node) -> float | None:
    rank = node.get("rank")
    return float(rank) if isinstance(rank, int | float) and not isinstance(rank, bool) and abs(rank) < MANY else None


def _replies(node: Node) -> list[tuple[int, Node]]:
    """The replies that stand, best first, each with its position in the file."""
    given = node.get("replies") or []
    if not isinstance(given, list):
        raise Bad("replies", describe(given), "a list of messages")
    replies = [(i, reply) for i, reply in enumerate(given) if isinstance(reply, dict) and not reply.get("deleted")]
    return sorted(replies, key=lambda found: (_rank(found[1]) is None, _rank(found[1]) or 0, found[0]))


def _best_path(record: Record) -> list[Draft]:
    field, node = _root(record)
    path, messages, ids = field, [_message(node, field)], [node.get("message_id")]
    while replies := _replies(node):
        at, node = replies[0]
        path += f".replies[{at}]"
        messages.append(_message(node, path))
        ids.append(node.get("message_id"))
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise Bad(field, "a tree without an assistant's reply", "at least one")
    return [{"kind": "sft", "messages": messages, "meta": {**record, "path": ids[: len(messages)]}}]


def _pairs(record: Record) -> list[Draft]:
    field, root = _root(record)
    rows = list(_ranked(root, [], field))
    for i, row in enumerate(rows):
        row["meta"] = dict(record) if i == 0 else {"message_tree_id": record.get("message_tree_id")}
    return rows


def _ranked(node: Node, before: list[dict[str, Any]], path: str) -> Iterator[Draft]:
    thread = [*before, _message(node, path)]
    replies = _replies(node)
    ranked = [(at, reply) for at, reply in replies if _rank(reply) is not None and reply.get("role") == "assistant"]
    if len(ranked) >= 2 and thread[-1]["role"] == "user":
        (best_at, best), (worst_at, worst) = ranked[0], ranked[-1]
        yield {
            "kind": "pair",
            "prompt": thread,
            "chosen": [_message(best, f"{path}.replies[{best_at}]")],
            "rejected": [_message(worst, f"{path}.replies[{worst_at}]")],
            "chosen_score": 0.0 - (_rank(best) or 0.0),
            "rejected_score": 0.0 - (_rank(worst) or 0.0),
        }
    for at, reply in replies:
        yield from _ranked(reply, thread, f"{path}.replies[{at}]")


def _first_turn(record: Record) -> list[Draft]:
    field, root = _root(record)
    found = [(f"{field}.replies[{at}]", reply) for at, reply in _replies(root) if _rank(reply) is not None]
    replies = [(_message(reply, path), _rank(reply) or 0.0) for path, reply in found]
    ranked = [{"content": message["content"], "score": 0.0 - rank} for message, rank in replies if message["role"] == "assistant"]
    if not ranked:
        raise Bad(f"{field}.replies", "no ranked reply of the assistant", "at least one")
    lang = root.get("lang")  # to choose by: a rule can say meta->>'lang' = 'en'
    meta = {**record, "lang": lang} if isinstance(lang, str) else dict(record)
    return [{"kind": "candidates", "prompt": [_message(root, field)], "candidates": ranked, "meta": meta}]


OASST = Shape("oasst", ("sft",), _match, _best_path)
OASST_PAIRS = Shape("oasst_pairs", ("pair",), lambda fields, samples: None, _pairs)
OASST_RANKED = Shape("oasst_ranked", ("candidates",), lambda fields, samples: None, _first_turn)
