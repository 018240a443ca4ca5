"""Two answers and a judge's label: LLMBar, Auto-J, PandaLM, Tülu 1's human evaluation, AlpacaEval annotations, Arena, SHP.

    {"input": "…", "output_1": "…", "output_2": "…", "label": 1}        which one is better -> a pair
    {"instruction": "…", "response1": "…", "response2": "…", "annotator1": 1, "annotator2": 2, "annotator3": 0}   the majority decides

A decided comparison is a pair; a tie (or no verdict) cannot be one and becomes two candidates without scores. Both kinds may
stand in one file. The label stays in `meta` as the source wrote it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from columnar.formats.chat import conversation
from columnar.formats.pairs import _shared
from columnar.formats.shape import Bad, Draft, Record, Shape, asked, assistant, first_of, joined, listed, optional, rest, text
from columnar.record import describe

SIDES = (
    ("output_1", "output_2"),
    ("response1", "response2"),
    ("response_1", "response_2"),
    ("response 1", "response 2"),
    ("completion_a", "completion_b"),
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("conversation_a", "conversation_b"),
    ("human_ref_A", "human_ref_B"),
)
PROMPTS = ("instruction", "prompt", "question", "input", "history")
_MODELS = (("model_a", "model_b"), ("generator_1", "generator_2"), ("model_1", "model_2"))
_ANNOTATORS = ("annotator1", "annotator2", "annotator3")
_WORDS = {"model_a": 1, "a": 1, "model_b": 2, "b": 2}


def _sides(fields: Any) -> tuple[str, str] | None:
    return next(((a, b) for a, b in SIDES if a in fields and b in fields), None)


def _label(fields: Any) -> str | None:
    return first_of(fields, ("label", "preference", "winner", "labels", *_ANNOTATORS[:1]))


def _match(fields: set[str], _: list[Record]) -> str | None:
    sides, label = _sides(fields), _label(fields)
    if sides is None or label is None:
        return None
    who = "the majority of the annotators" if label == "annotator1" else label
    return f"{sides[0]}, {sides[1]} -> chosen, rejected by {who}; a tie -> two candidates"


def _verdict(record: Record, sides: tuple[str, str]) -> int | None:
    """1 or 2: which answer is better; 0: a tie; None: nobody judged it."""
    if _ANNOTATORS[0] in record:
        votes = Counter(record.get(name) for name in _ANNOTATORS if record.get(name) is not None)
        first, second = votes.get(1, 0) + votes.get("1", 0), votes.get(2, 0) + votes.get("2", 0)
        return 0 if first == second or max(first, second) * 2 <= sum(votes.values()) else 1 if first > second else 2
    field = _label(record) or "label"
    value = record.get(field)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _WORDS or word.startswith(("tie", "both")):
            return _WORDS.get(word, 0)
        if word.startswith(("a-is", "b-is")):
            return 1 if word[0] == "a" else 2
        try:
            value = float(word)
        except ValueError:
            raise Bad(field, describe(value), "a verdict: 1, 2, tie, a-is-better, model_a") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Bad(field, describe(value), "a verdict: 1, 2 or a tie")
    if sides == ("response 1", "response 2"):  # Auto-J counts from nought: first, second, tie
        value = {0.0: 1, 1.0: 2, 2.0: 0}.get(value, -1)
    elif sides == ("human_ref_A", "human_ref_B"):  # SHP: 1 is A, 0 is B
        value = {1.0: 1, 0.0: 2}.get(value, -1)
    if not 0 <= value <= 2:
        raise Bad(field, describe(record[field]), "a verdict between 0 and 2")
    return 0 if value in (0, 1.5) else 1 if value < 1.5 else 2


def _rows(record: Record) -> list[Draft]:
    sides = _sides(record)
    if sides is None:
        raise Bad("", f"keys {', '.join(map(str, record)) or 'none'}", "two answers, such as output_1 and output_2")
    models = next(((a, b) for a, b in _MODELS if a in record and b in record), None)
    used: list[str] = list(sides)
    if sides[0] == "conversation_a":
        first, second = (conversation(listed(record, side), side)[0] for side in sides)
        prompt = _shared(first, second)
        answers = [first[len(prompt) :], second[len(prompt) :]]
    else:
        field = first_of(record, PROMPTS)
        if field is None:
            raise Bad("prompt", "nothing", "one of " + ", ".join(PROMPTS))
        more = "input" if field == "instruction" and "input" in record else None
        prompt = asked(joined(text(record, field), optional(record, more)) if more else text(record, field))
        answers = [[assistant(text(record, side))] for side in sides]
        used += [field, *([more] if more else [])]
    names = [record[m] if isinstance(record[m], str) else None for m in models] if models else [None, None]
    used += models if models and all(names) else ()
    verdict = _verdict(record, sides)
    meta = rest(record, *used)
    if verdict:
        best, worst = (0, 1) if verdict == 1 else (1, 0)
        row: Draft = {"kind": "pair", "prompt": prompt, "chosen": answers[best], "rejected": answers[worst], "meta": meta}
        return [{**row, "chosen_model": names[best], "rejected_model": names[worst]}]
    if any(len(answer) != 1 for answer in answers):
        raise Bad("winner", "a tie of two conversations that part early", "a decided comparison, or answers of one turn")
    candidates = [{"model": name, "content": answer[0]["content"]} for name, answer in zip(names, answers, strict=True)]
    return [{"kind": "candidates", "prompt": prompt, "candidates": candidates, "meta": meta}]


COMPARISON = Shape("comparison", ("pair", "candidates"), _match, _rows)
