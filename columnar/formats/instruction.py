"""Instruction and answer in named fields: Alpaca, Dolly, prompt/completion, question/answer/cot. Kind sft.

{"instruction": "Translate to French", "input": "Good day", "output": "Bonjour", "history": [["Hi", "Hello"]]}
{"question": "2 + 2?", "answer": "4", "cot": "Two and two make four."}
"""

from __future__ import annotations

from columnar.formats.chat import conversation
from columnar.formats.shape import Bad, Draft, Record, Shape, asked, assistant, first_of, joined, listed, optional, rest, text, user
from columnar.record import describe

QUESTIONS = ("prompt", "question", "problem", "query", "instruction", "input", "user", "inputs")
ANSWERS = ("completion", "response", "output", "answer", "solution", "assistant", "targets", "target")
THOUGHTS = ("cot", "rationale", "chain_of_thought")
SYSTEM = ("system", "system_prompt")


def _alpaca_match(fields: set[str], _: list[Record]) -> str | None:
    if not {"instruction", "output"} <= fields:
        return None
    middle = " + blank line + input" if "input" in fields else ""
    history = "history -> earlier turns, " if "history" in fields else ""
    return f"{history}instruction{middle} -> user, output -> assistant"


def _alpaca(record: Record) -> list[Draft]:
    return _answered(record, "instruction", "input", "output")


def _dolly_match(fields: set[str], _: list[Record]) -> str | None:
    if not {"instruction", "context", "response"} <= fields:
        return None
    return "instruction + blank line + context -> user, response -> assistant"


def _dolly(record: Record) -> list[Draft]:
    return _answered(record, "instruction", "context", "response")


def _answered(record: Record, question: str, more: str, answer: str) -> list[Draft]:
    messages = [user(joined(text(record, question), optional(record, more))), assistant(text(record, answer))]
    used = [question, more, answer]
    if record.get("history"):
        messages = history(record) + messages
        used.append("history")
    system = first_of(record, SYSTEM)
    if system and optional(record, system):
        messages.insert(0, {"role": "system", "content": record[system]})
        used.append(system)
    return [{"kind": "sft", "messages": messages, "meta": rest(record, *used)}]


def history(record: Record) -> list[dict[str, str]]:
    """Earlier turns as LLaMA-Factory writes them: [[question, answer], …]."""
    turns = []
    for i, pair in enumerate(listed(record, "history")):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(side, str) for side in pair)):
            raise Bad(f"history[{i}]", describe(pair), "[question, answer]")
        turns += [user(pair[0]), assistant(pair[1])]
    return turns


def _fields(fields: set[str]) -> tuple[str, str, str | None] | None:
    question = first_of(fields, QUESTIONS)
    # MATH and its kin hold the worked solution beside the bare answer: the solution is what a model should write
    answer = "solution" if "solution" in fields else first_of(fields - {question or ""}, ANSWERS)
    return (question, answer, first_of(fields, THOUGHTS)) if question and answer and question != answer else None


def _flan_match(fields: set[str], samples: list[Record]) -> str | None:
    if fields == {"c0", "c1"}:
        return "a table without header: first column -> user, second -> assistant"
    if fields == {"c0", "c1", "c2"}:
        return "a table without header, as FLAN's chain of thought: c0 -> user, c2 (reasoning) + blank line + c1 (answer) -> assistant"
    return None


def _flan(record: Record) -> list[Draft]:
    said = joined(optional(record, "c2"), text(record, "c1"))
    return [{"kind": "sft", "messages": [user(text(record, "c0")), assistant(said)], "meta": rest(record, "c0", "c1", "c2")}]


def _pc_match(fields: set[str], samples: list[Record]) -> str | None:
    found = _fields(fields)
    if found is None:
        return None
    question, answer, cot = found
    if samples and all(record.get(answer) in ("", None) for record in samples):
        return None  # an evaluation set: the answer column is there and empty
    system = first_of(fields, SYSTEM)
    return (
        (f"{system} -> system, " if system else "")
        + f"{question} -> user, "
        + (f"{cot} + blank line + {answer}" if cot else answer)
        + " -> assistant"
    )


def _pc(record: Record) -> list[Draft]:
    found = _fields(set(record))
    if found is None:
        raise Bad("", f"keys {', '.join(map(str, record)) or 'none'}", "a question (" + ", ".join(QUESTIONS) + ") and an answer")
    question, answer, cot = found
    if isinstance(record[question], list):  # TRL's conversational prompt-completion
        prompt, _ = conversation(record[question], question)
        completion, _ = conversation(record[answer], answer)
        return [{"kind": "sft", "messages": prompt + completion, "meta": rest(record, question, answer)}]
    system = first_of(record, SYSTEM)
    said = joined(optional(record, cot), text(record, answer)) if cot else text(record, answer)
    messages = [*asked(text(record, question), optional(record, system) if system else ""), assistant(said)]
    return [{"kind": "sft", "messages": messages, "meta": rest(record, question, answer, cot or answer, system or answer)}]


ALPACA = Shape("alpaca", ("sft",), _alpaca_match, _alpaca)
COLUMNS = Shape("unnamed_columns", ("sft",), _flan_match, _flan)
DOLLY = Shape("dolly", ("sft",), _dolly_match, _dolly)
PROMPT_COMPLETION = Shape("prompt_completion", ("sft",), _pc_match, _pc)
