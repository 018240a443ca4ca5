"""What is asked without an answer to train on: RLVR prompts, personas, benchmark items, bare prompts and texts. Kind prompt.

{"messages": [{"role": "user", …}], "ground_truth": "18", "dataset": "gsm8k"}    the published RLVR shape: dataset -> verifier
{"persona": "A beekeeper who …"}                                                 the persona is the prompt's text
{"task_id": "HumanEval/0", "prompt": "def f(…)", "entry_point": "f", …}          a benchmark item: its answer -> ground_truth if it is one
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from columnar.formats.chat import conversation, tools_of
from columnar.formats.shape import Bad, Draft, Record, Shape, asked, decoded, first_of, joined, listed, optional, rest, text
from columnar.record import describe

PROMPTS = ("prompt", "instruction", "question", "problem", "query", "Instruction", "Question", "Prompt", "text", "input", "raw_text")
PERSONAS = ("persona", "input persona", "user 1 personas")


class Item(NamedTuple):
    """How a benchmark writes its items: the fields that tell it, those that make the prompt, the one that is the answer."""

    benchmark: str
    fields: set[str]
    asks: tuple[str, ...]
    answer: str | None


ITEMS = (
    Item("HumanEval", {"task_id", "prompt", "entry_point"}, ("prompt",), None),
    Item("MBPP", {"text", "code", "test_list"}, ("text",), None),
    Item("IFEval", {"prompt", "instruction_id_list", "kwargs"}, ("prompt",), None),
    Item("TruthfulQA", {"Question", "Best Answer"}, ("Question",), "Best Answer"),
    Item("TruthfulQA multiple choice", {"question", "mc1_targets"}, ("question",), None),
    Item("DROP", {"passage", "question", "ref_text"}, ("passage", "question"), "ref_text"),
    Item("DROP", {"passage", "question", "answers_spans"}, ("passage", "question"), None),
    Item("PopQA", {"input", "output", "s_pop"}, ("input",), "output"),
    Item("PopQA", {"question", "possible_answers"}, ("question",), "possible_answers"),
    Item("BBH", {"input", "target"}, ("input",), "target"),
    Item("HarmBench", {"Behavior", "BehaviorID"}, ("Behavior", "ContextString"), None),
    Item("WizardLM test set", {"Instruction", "Skill"}, ("Instruction",), None),
    Item("LLM decontaminator", {"test", "train", "results"}, ("test",), None),
)


def _item(fields: Any) -> Item | None:
    return next((item for item in ITEMS if item.fields <= set(fields)), None)


def _choices(fields: set[str]) -> tuple[str, list[str], str] | None:
    """Question, options and answer of a multiple-choice item in columns, named or (MMLU's csv) not."""
    if {"question", "A", "B", "C", "D", "answer"} <= fields:
        return "question", ["A", "B", "C", "D"], "answer"
    if fields == {f"c{i}" for i in range(6)}:
        return "c0", ["c1", "c2", "c3", "c4"], "c5"
    return None


def _benchmark_match(fields: set[str], samples: list[Record]) -> str | None:
    columns = _choices(fields)
    if columns and (columns[0] == "question" or all(r.get("c5") in ("A", "B", "C", "D") for r in samples)):
        return f"multiple choice: {columns[0]} and {', '.join(columns[1])} -> prompt, {columns[2]} -> ground_truth"
    if {"question", "choices", "answer"} <= fields:
        return "multiple choice: question and choices[] -> prompt, answer -> ground_truth"
    if {"question_id", "choices"} <= fields and "turns" not in fields:
        return "the reference answers of a benchmark without its questions: the answer's text -> prompt"
    if "turns" in fields and samples and isinstance(decoded(samples[0].get("turns")), list):
        return "turns[0] -> prompt; the later turns stay in meta (a prompt row asks one thing)"
    item = _item(fields)
    return (
        f"{item.benchmark}: {' and '.join(item.asks)} -> prompt" + (f", {item.answer} -> ground_truth" if item.answer else "")
        if item
        else None
    )


def _benchmark(record: Record) -> list[Draft]:
    columns = _choices(set(record))
    if columns:
        question, options, answer = columns
        lines = [f"{letter}. {text(record, option)}" for letter, option in zip("ABCD", options, strict=True)]
        return [_draft("\n".join([text(record, question), *lines]), text(record, answer), rest(record, question, answer, *options))]
    if "turns" in record:
        turns = listed(record, "turns")
        if not turns or not isinstance(turns[0], str):
            raise Bad("turns", describe(turns[0] if turns else turns), "at least one text")
        return [_draft(turns[0], None, rest(record, "turns") if len(turns) == 1 else record)]
    if "choices" in record:
        return [_with_choices(record)]
    item = _item(record)
    if item is None:
        raise Bad("", f"keys {', '.join(map(str, record)) or 'none'}", "the fields of a benchmark we know")
    content = joined(*(text(record, field) if i == 0 else optional(record, field) for i, field in enumerate(item.asks)))
    truth = record.get(item.answer) if item.answer else None
    known = [item.answer] if item.answer and isinstance(truth, str) else []
    return [_draft(content, truth if isinstance(truth, str) else None, rest(record, *item.asks, *known))]


def _with_choices(record: Record) -> Draft:
    choices = listed(record, "choices")
    if "question" not in record:  # FastChat's reference answers
        turns = choices[0].get("turns") if choices and isinstance(choices[0], dict) else None
        if not isinstance(turns, list) or not turns or not isinstance(turns[0], str):
            raise Bad("choices[0].turns", describe(turns), "a list of texts")
        return _draft(turns[0], None, record)
    if not all(isinstance(choice, str) for choice in choices):
        raise Bad("choices", "something that is not text", "a list of texts")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    answer = record.get("answer")
    known = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices) <= len(letters)
    truth = letters[answer] if known and isinstance(answer, int) else answer if isinstance(answer, str) else None
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False)]
    return _draft("\n".join([text(record, "question"), *lines]), truth, rest(record, "question", "choices"))


def _draft(content: str, truth: str | None, meta: Record) -> Draft:
    return {"kind": "prompt", "prompt": asked(content), "ground_truth": truth, "meta": meta}


def _rlvr_match(fields: set[str], samples: list[Record]) -> str | None:
    field = first_of(fields, ("messages", "prompt", "question", "problem"))
    if not field:
        return None
    if "ground_truth" in fields:
        verifier = first_of(fields, ("verifier", "dataset", "data_source"))
        if field != "messages" and not verifier:
            return (
                None
                if any(isinstance(r.get("ground_truth"), dict | list) for r in samples) or field == "question"
                else f"{field} -> prompt"
            )
        return f"{field} -> prompt, ground_truth -> ground_truth" + (f", {verifier} -> verifier" if verifier else "")
    if samples and all(isinstance(r.get("reward_model"), dict) for r in samples[:3]):
        return f"{field} -> prompt, reward_model.ground_truth -> ground_truth, data_source -> verifier"
    return None


def _rlvr(record: Record) -> list[Draft]:
    field = first_of(record, ("messages", "prompt", "question", "problem")) or "messages"
    value = decoded(record.get(field)) if field == "messages" else record.get(field)
    messages, left = conversation(value, field) if isinstance(value, list) else (asked(text(record, field)), [])
    nested = record.get("reward_model")
    truth = nested.get("ground_truth") if isinstance(nested, dict) and "ground_truth" not in record else record.get("ground_truth")
    verifier = first_of(record, ("verifier", "dataset", "data_source"))
    if truth is not None and not isinstance(truth, str):
        truth = msgspec.json.encode(truth).decode()
    named = optional(record, verifier) if verifier else ""
    meta = rest(record, field, "ground_truth", "tools", *([verifier] if verifier and named and named == named.lower() else []))
    if any(left):
        meta[field] = left
    return [
        {
            "kind": "prompt",
            "prompt": messages,
            "ground_truth": truth,
            "verifier": named.lower() or None,
            "tools": tools_of(record),
            "meta": meta,
        }
    ]


def _persona_match(fields: set[str], _: list[Record]) -> str | None:
    field = first_of(fields, PERSONAS)
    if field is None or fields & {"messages", "conversations"}:
        return None
    return f"{field} -> prompt" + (" and user 2 personas -> a second prompt" if field == "user 1 personas" else "")


def _persona(record: Record) -> list[Draft]:
    field = first_of(record, PERSONAS) or PERSONAS[0]
    both = [field, "user 2 personas"] if field == "user 1 personas" and "user 2 personas" in record else [field]
    return [_draft(text(record, name), None, rest(record, *both)) for name in both]


def _prompt_match(fields: set[str], _: list[Record]) -> str | None:
    field = first_of(fields, PROMPTS)
    return f"{field} -> prompt (no field that holds an answer)" if field else None


def _prompt(record: Record) -> list[Draft]:
    field = first_of(record, PROMPTS) or PROMPTS[0]
    value = record.get(field)
    messages = conversation(value, field)[0] if isinstance(value, list) else asked(text(record, field))
    return [{"kind": "prompt", "prompt": messages, "tools": tools_of(record), "meta": rest(record, field, "tools", "functions")}]


RLVR = Shape("rlvr", ("prompt",), _rlvr_match, _rlvr)
PERSONA = Shape("persona", ("prompt",), _persona_match, _persona)
BENCHMARK = Shape("benchmark", ("prompt",), _benchmark_match, _benchmark)
PROMPT = Shape("prompt", ("prompt",), _prompt_match, _prompt)
