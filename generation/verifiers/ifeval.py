"""The constraints of a row, checked: IFEval's shape, the published RLVR shapes, ours; strict or loose; partial credit or all-or-nothing.

In: a completion, and a ground truth in one of these shapes:

    {"instruction_id_list": [...], "kwargs": [...]}        IFEval (Zhou et al. 2023); null parameters are absent
    [{"instruction_id": [...], "kwargs": [...]}]           the published multi-constraint RLVR sets (JSON or a Python literal)
    {"func_name": "validate_title", "N": null, ...}        the RLVR set of Tulu 3
    {"constraints": [{"id": ..., "params": {...}}]}        ours; with "mode": "loose" for IFEval's loose reading

Out: a `Part` with one check per constraint: `score` is the share met, `passed` says whether all are.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from columnar.errors import ConfigError
from generation.verifiers.constraints import CONSTRAINTS, Constraint
from generation.verifiers.constraints.constraint import Params
from generation.verifiers.verdict import Part, combine, failed

_WHOLE_NUMBERS = frozenset(
    [
        "frequency",
        "let_frequency",
        "num_sentences",
        "num_paragraphs",
        "num_words",
        "nth_paragraph",
        "num_placeholders",
        "num_bullets",
        "num_highlights",
        "num_sections",
        "capital_frequency",
        "small_n",
        "n_start",
        "n_end",
        "N",
        "n_sent",
        "n_words",
        "n",
        "m",
        "rows",
        "columns",
        "total",
    ]
)
_LISTS = frozenset(["keywords", "forbidden_words", "options"])
_QUANTIFIED: Callable[[str, str], Callable[[Params], Params]] = lambda count, relation: (  # noqa: E731
    lambda p: {count: p.get("N"), relation: p.get("quantifier") or "exactly"}
)
FUNCTIONS: dict[str, tuple[str, Callable[[Params], Params]]] = {
    "verify_keywords": ("keywords:existence", lambda p: {"keywords": p.get("keyword_list")}),
    "verify_keyword_frequency": (
        "keywords:frequency",
        lambda p: {"keyword": p.get("word"), "frequency": p.get("N"), "relation": "exactly"},
    ),
    "validate_forbidden_words": ("keywords:forbidden_words", lambda p: {"forbidden_words": p.get("forbidden_words")}),
    "verify_letter_frequency": (
        "keywords:letter_frequency",
        lambda p: {"letter": p.get("letter"), "let_frequency": p.get("N"), "let_relation": "exactly"},
    ),
    "validate_response_language": ("language:response_language", lambda p: {"language": p.get("language")}),
    "verify_paragraph_count": ("length_constraints:number_paragraphs", lambda p: {"num_paragraphs": p.get("N")}),
    "validate_word_constraint": ("length_constraints:number_words", _QUANTIFIED("num_words", "relation")),
    "verify_sentence_constraint": ("length_constraints:number_sentences", _QUANTIFIED("num_sentences", "relation")),
    "validate_paragraphs": (
        "length_constraints:nth_paragraph_first_word",
        lambda p: {"num_paragraphs": p.get("N"), "first_word": p.get("first_word"), "nth_paragraph": p.get("i")},
    ),
    "verify_postscript": ("detectable_content:postscript", lambda p: {"postscript_marker": p.get("postscript_marker")}),
    "validate_placeholders": ("detectable_content:number_placeholders", lambda p: {"num_placeholders": p.get("N")}),
    "verify_bullet_points": ("detectable_format:number_bullet_lists", lambda p: {"num_bullets": p.get("N")}),
    "validate_title": ("detectable_format:title", lambda p: {}),
    "validate_choice": ("detectable_format:constrained_response", lambda p: {"options": p.get("options")}),
    "validate_highlighted_sections": ("detectable_format:number_highlighted_sections", lambda p: {"num_highlights": p.get("N")}),
    "validate_sections": (
        "detectable_format:multiple_sections",
        lambda p: {"num_sections": p.get("N"), "section_spliter": p.get("section_splitter")},
    ),
    "validate_json_format": ("detectable_format:json_format", lambda p: {}),
    "validate_repeat_prompt": ("combination:repeat_prompt", lambda p: {"prompt_to_repeat": p.get("original_prompt")}),
    "validate_two_responses": ("combination:two_responses", lambda p: {}),
    "validate_uppercase": ("change_case:english_capital", lambda p: {}),
    "validate_lowercase": ("change_case:english_lowercase", lambda p: {}),
    "validate_frequency_capital_words": ("change_case:capital_word_frequency", _QUANTIFIED("capital_frequency", "capital_relation")),
    "validate_end": ("startend:end_checker", lambda p: {"end_phrase": p.get("end_phrase")}),
    "validate_quotation": ("startend:quotation", lambda p: {}),
    "validate_no_commas": ("punctuation:no_comma", lambda p: {}),
}


def constraint(name: str) -> Constraint:
    """The constraint with this id.

    Raises:
        ConfigError: unknown; suggests the nearest.
    """
    if name not in CONSTRAINTS:
        close = difflib.get_close_matches(str(name), CONSTRAINTS, 1)
        raise ConfigError(f"unknown constraint {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return CONSTRAINTS[name]


def parse(truth: dict[str, Any]) -> list[tuple[Constraint, Params]]:
    """The constraints and parameters of a ground truth, whichever shape it has.

    Raises:
        ConfigError: an unknown constraint or function name.
        ValueError: a shape we do not know, or parameters that are missing, unknown or of the wrong type.
    """
    return _parse(json.dumps(truth, sort_keys=True))


@lru_cache(maxsize=4096)
def _parse(text: str) -> list[tuple[Constraint, Params]]:
    truth = json.loads(text)
    if isinstance(truth.get("answer"), str):  # the published sets write Python literals
        try:
            read = ast.literal_eval(truth["answer"])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            read = None
        truth = {"items": read} if isinstance(read, list) else read if isinstance(read, dict) else truth
    items = truth.get("items") or [truth]
    pairs: list[tuple[str, Params]] = []
    for item in items:
        if isinstance(item, str):
            item = json.loads(item)
        ids = item.get("instruction_id_list") or item.get("instruction_id")
        if "func_name" in item:
            if item["func_name"] not in FUNCTIONS:
                raise ConfigError(f"unknown constraint function {item['func_name']!r}", f"known: {', '.join(FUNCTIONS)}")
            name, translate = FUNCTIONS[item["func_name"]]
            pairs.append((name, translate(item)))
        elif ids:
            ids = [ids] if isinstance(ids, str) else ids
            kwargs = item.get("kwargs") or [{}] * len(ids)
            kwargs = json.loads(kwargs) if isinstance(kwargs, str) else [kwargs] if isinstance(kwargs, dict) else kwargs
            if len(kwargs) != len(ids):
                raise ValueError(f"{len(ids)} constraints with {len(kwargs)} sets of parameters")
            pairs += [(name, given or {}) for name, given in zip(ids, kwargs, strict=True)]
        elif isinstance(item.get("constraints"), list):
            pairs += [(c["id"], c.get("params") or {}) for c in item["constraints"]]
        else:
            raise ValueError(f"ground truth {text[:80]}: no constraints in it (see generation/verifiers/ifeval.py for the shapes)")
    return [(constraint(name), _params(constraint(name), given)) for name, given in pairs]


def _params(kind: Constraint, given: Params) -> Params:
    out: Params = {}
    for key, value in given.items():
        if value is None:
            continue
        if key not in kind.params and key not in kind.optional:
            raise ValueError(f"{kind.id}: unknown parameter {key!r} (known: {', '.join(kind.params + kind.optional) or 'none'})")
        if key in _WHOLE_NUMBERS:
            if isinstance(value, bool) or float(value) != int(float(value)):
                raise ValueError(f"{kind.id}: {key} is {value!r}, expected a whole number")
            value = int(float(value))
        elif key in _LISTS:
            value = [value] if isinstance(value, str) else [str(v) for v in value]
        else:
            value = str(value)
        if value in ("", []):
            raise ValueError(f"{kind.id}: {key} is empty")
        out[key] = value
    missing = [name for name in kind.params if name not in out]
    if missing:
        raise ValueError(f"{kind.id}: parameter {missing[0]!r} is missing")
    return out


def variants(completion: str) -> list[str]:
    """IFEval's loose reading: also without the first line, the last line, or both, each with and without asterisks."""
    lines = completion.split("\n")
    cut = [completion, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return list(dict.fromkeys([*cut, *(text.replace("*", "") for text in cut)]))


def verify(completion: str, truth: dict[str, Any], prompt: str = "") -> Part:
    """Check every constraint of the ground truth.

    Args:
        truth: one of the shapes above; `"mode": "loose"` takes the best of IFEval's eight variants of the completion.
    """
    loose = truth.get("mode") == "loose"
    if truth.get("mode") not in (None, "strict", "loose"):
        raise ValueError(f"mode {truth['mode']!r}: expected strict or loose")
    checks = [check(kind, params, completion, prompt, loose) for kind, params in parse({k: v for k, v in truth.items() if k != "mode"})]
    return combine("ifeval", checks, rule="loose" if loose else "strict")


def check(kind: Constraint, params: Params, completion: str, prompt: str = "", loose: bool = False) -> Part:
    """One constraint on one completion, as a `Part`."""
    try:
        score = max(kind.follows(text, params, prompt) for text in (variants(completion) if loose else [completion]))
    except Exception as error:  # a checker's own fault must be seen, not scored
        return failed(kind.id, f"{type(error).__name__}: {error}")
    shown = json.dumps(params, ensure_ascii=False)[:200] if params else ""
    return Part(kind.id, score, score >= 1.0, expected=shown, reason="" if score >= 1.0 else f"not met {shown}".strip())
