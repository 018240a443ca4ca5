"""Several answers to one prompt, or one answer with a verdict on it. Kind candidates.

{"instruction": "…", "completions": [{"model": "a", "response": "…", "annotations": {"helpfulness": {"Rating": "4", …}}}, …]}  UltraFeedback
{"prompt": "…", "responses": ["…", "…"], "rewards_armorm": [{"score": 0.1}, …]}                                                Magpie
{"instruction": "…", "output": ["best", "second", …], "history": []}                  ranked: the first is the best, score = -rank
{"messages": […], "label": true}                              KTO: one candidate, score 1 or 0, so that no bad answer is trained on
{"instruction": "…", "output": "…", "generator": "gpt-4"}                             the outputs of a named model
"""

from __future__ import annotations

from typing import Any

import msgspec

from columnar.formats.chat import FIELDS, conversation, tools_of
from columnar.formats.instruction import history
from columnar.formats.shape import Bad, Draft, Record, Shape, asked, decoded, first_of, joined, listed, number, optional, rest, text
from columnar.record import describe

PROMPTS = ("prompt", "instruction", "question", "raw_text", "query", "input")
LISTS = ("completions", "responses", "answers", "candidates", "generations")
ANSWERS = ("output", "completion", "response", "answer")
_JUDGED = {
    "generator": {"dataset", "datasplit", "target"},
    "model": {"target", "final_label", "annotation_1", "datasplit", "score", "rating"},
}
_CONTENT = ("response", "completion", "answer", "content", "text", "output", "generated_text", "solution")
_MODEL, _SCORE = ("model", "model_name", "generator"), ("overall_score", "score", "reward", "is_correct")


def _prompt(record: Record) -> tuple[list[dict[str, Any]], list[str]]:
    field = first_of(record, PROMPTS)
    if field is None:
        raise Bad("prompt", "nothing", "one of " + ", ".join(PROMPTS))
    if isinstance(record[field], list):
        return conversation(record[field], field)[0], [field]
    more = field == "instruction" and isinstance(record.get("input"), str)
    content = joined(text(record, field), record["input"]) if more else text(record, field)
    before = history(record) if isinstance(decoded(record.get("history")), list) else []
    return [*before, *asked(content)], [field, *(["input"] if more else []), *(["history"] if "history" in record else [])]


def _list_match(fields: set[str], samples: list[Record]) -> str | None:
    field, prompt = first_of(fields, LISTS), first_of(fields, PROMPTS)
    if not field or not prompt or not samples or not isinstance(decoded(samples[0].get(field)), list):
        return None
    scores = _scores(fields)
    return f"{prompt} -> prompt, {field}[] -> candidates" + (f", {scores}[] -> score" if scores else "")


def _scores(fields: Any) -> str | None:
    return next((f for f in sorted(fields) if f in ("scores", "rewards", "ratings") or f.startswith("rewards_")), None)


def _list(record: Record) -> list[Draft]:
    prompt, used = _prompt(record)
    field = first_of(record, LISTS) or LISTS[0]
    items, scores, models = listed(record, field), _scores(record), record.get("models")
    used.append(field)
    marks: list[Any] = [None] * len(items)
    if scores and isinstance(record[scores], list) and len(record[scores]) == len(items):
        marks = [m.get("score") if isinstance(m, dict) else m for m in record[scores]]
    names = models if isinstance(models, list) and len(models) == len(items) and all(isinstance(m, str) for m in models) else None
    candidates = []
    for i, item in enumerate(items):
        candidate = _candidate(item, f"{field}[{i}]")
        if names:
            candidate["model"] = names[i]
        if scores and marks[i] is not None:
            candidate["score"] = number(marks[i], f"{scores}[{i}]")
        candidates.append(candidate)
    if names:
        used.append("models")
    return [{"kind": "candidates", "prompt": prompt, "candidates": candidates, "meta": rest(record, *used)}]


def _candidate(item: Any, path: str) -> dict[str, Any]:
    if isinstance(item, str):
        return {"content": item}
    if not isinstance(item, dict):
        raise Bad(path, describe(item), "text, or an object with a response")
    content, model = first_of(item, _CONTENT), first_of(item, _MODEL)
    if content is None or not isinstance(item[content], str):
        raise Bad(f"{path}.{content or _CONTENT[0]}", describe(item.get(content or "")), "text")
    candidate: dict[str, Any] = {"content": item[content]}
    used = [content]
    if model and isinstance(item[model], str):
        candidate["model"] = item[model]
        used.append(model)
    score = first_of(item, _SCORE)
    if score and isinstance(item[score], bool | int | float):
        candidate["score"] = number(item[score] + 0, f"{path}.{score}")  # true and false are 1 and 0
        used.append(score)
    elif isinstance(item.get("rank"), int | float):
        candidate["score"] = 0.0 - (number(item["rank"] + 0, f"{path}.rank") or 0.0)
    ratings = aspects(item.get("annotations"))
    if ratings:
        candidate["ratings"] = ratings
    left = {k: v for k, v in item.items() if k not in used and v is not None}
    if left:
        candidate["params"] = msgspec.json.encode(left, enc_hook=str).decode()
    return candidate


def aspects(value: Any) -> list[dict[str, Any]]:
    """{"helpfulness": {"score" or "Rating": "4", "reason" or "Rationale": "…"}, …} as our ratings; a score that is no number is null."""
    value = decoded(value)
    ratings = []
    for aspect, given in value.items() if isinstance(value, dict) else ():
        if not isinstance(given, dict):
            continue
        score = next((given[k] for k in ("score", "Rating", "rating") if given.get(k) is not None), None)
        reason = next((given[k] for k in ("reason", "Rationale", "rationale") if isinstance(given.get(k), str)), None)
        try:
            rating = number(score, aspect)
        except Bad:
            rating = None
        ratings.append({"aspect": aspect, "rating": rating, "rationale": reason})
    return ratings


def _solutions(record: Record) -> list[str]:
    return [
        k for k, v in record.items() if isinstance(v, dict) and isinstance(v.get("solution"), str) and isinstance(v.get("is_correct"), bool)
    ]


def _solution_match(fields: set[str], samples: list[Record]) -> str | None:
    found = _solutions(samples[0]) if samples else []
    return f"question -> prompt, {', '.join(found)} -> candidates with score = is_correct" if "question" in fields and found else None


def _solution(record: Record) -> list[Draft]:
    names = _solutions(record)
    candidates = [{"model": n, "content": record[n]["solution"], "score": float(record[n]["is_correct"])} for n in names]
    extra = {n: left for n in names if (left := rest(record[n], "solution", "is_correct"))}
    meta = {**rest(record, "question", *names), **extra}
    return [{"kind": "candidates", "prompt": asked(text(record, "question")), "candidates": candidates, "meta": meta}]


def _ranked_match(fields: set[str], samples: list[Record]) -> str | None:
    if not {"instruction", "output"} <= fields or not samples or not isinstance(samples[0].get("output"), list):
        return None
    return "instruction -> prompt, output[] (best first) -> candidates with score = -rank"


def _ranked(record: Record) -> list[Draft]:
    prompt, used = _prompt(record)
    candidates = [_candidate(item, f"output[{i}]") | {"score": float(-i)} for i, item in enumerate(listed(record, "output"))]
    return [{"kind": "candidates", "prompt": prompt, "candidates": candidates, "meta": rest(record, "output", *used)}]


def _kto_match(fields: set[str], samples: list[Record]) -> str | None:
    if not samples or not all(isinstance(r.get("label", r.get("kto_tag")), bool) for r in samples):
        return None
    field = first_of(fields, FIELDS)
    if field:
        return f"{field} without its last turn -> prompt, the last -> one candidate with score = label"
    return "prompt -> prompt, completion -> one candidate with score = label" if {"prompt", "completion"} <= fields else None


def _kto(record: Record) -> list[Draft]:
    label = first_of(record, ("label", "kto_tag")) or "label"
    if not isinstance(record.get(label), bool):
        raise Bad(label, describe(record.get(label)), "true or false")
    field = first_of(record, FIELDS)
    if field:
        messages, left = conversation(record[field], field)
        used = [field]
    else:
        messages = []
        for name in ("prompt", "completion"):
            role = "user" if name == "prompt" else "assistant"
            listing = isinstance(record.get(name), list)
            messages += conversation(record[name], name)[0] if listing else [{"role": role, "content": text(record, name)}]
        left, used = [], ["prompt", "completion"]
    if not messages or messages[-1]["role"] != "assistant":
        raise Bad(field or "completion", "no assistant's turn at the end", "an assistant last")
    last = messages.pop()
    candidate = {"content": last["content"] or "", "thinking": last.get("thinking"), "score": float(record[label])}
    meta = rest(record, label, "tools", *used) | ({field: left} if field and any(left) else {})
    if last.get("tool_calls"):
        meta["tool_calls"] = last["tool_calls"]
    return [{"kind": "candidates", "prompt": messages, "candidates": [candidate], "tools": tools_of(record), "meta": meta}]


def _output_match(fields: set[str], _: list[Record]) -> str | None:
    if {"input", "output_cand"} <= fields:
        return "input -> prompt, output_cand -> one candidate, generator_cand -> model, parsed_result -> ratings"
    prompt, answer, model = first_of(fields, PROMPTS), first_of(fields, ANSWERS), first_of(fields, ("generator", "model"))
    if prompt and answer and model and fields & _JUDGED[model]:
        return f"{prompt} -> prompt, {answer} -> one candidate, {model} -> model (say format: alpaca or prompt_completion to train on it)"
    return None


def _output(record: Record) -> list[Draft]:
    if "output_cand" in record:
        by = "model" if isinstance(record.get("model"), str) else "generator_cand"
        ratings = aspects(record.get("parsed_result"))
        candidate = {
            "content": text(record, "output_cand"),
            "model": optional(record, by) or None,
            "ratings": ratings or None,
        }
        candidate["score"] = ratings[0]["rating"] if len(ratings) == 1 else None
        prompt, used = asked(text(record, "input")), ["input", "output_cand", by]
    else:
        prompt, used = _prompt(record)
        answer, model = first_of(record, ANSWERS) or "output", first_of(record, ("generator", "model"))
        candidate = {"content": text(record, answer), "model": optional(record, model) or None if model else None}
        used += [answer, *([model] if model else [])]
    return [{"kind": "candidates", "prompt": prompt, "candidates": [candidate], "meta": rest(record, *used)}]


CANDIDATES = Shape("candidates", ("candidates",), _list_match, _list)
SOLUTIONS = Shape("solutions", ("candidates",), _solution_match, _solution)
RANKED = Shape("ranked", ("candidates",), _ranked_match, _ranked)
UNPAIRED = Shape("unpaired", ("candidates",), _kto_match, _kto)
MODEL_OUTPUTS = Shape("model_outputs", ("candidates",), _output_match, _output)
