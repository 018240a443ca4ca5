"""One call: `verify(row, completion)`. Finds the row's verifiers, runs each where it belongs, and weighs their parts.

In: a row with `verifier` (a name, or JSON: a list of {name, weight, ground_truth}) and `ground_truth`; a completion.
Out: a `Verdict`. An unknown name is a ConfigError before any work (`check_rows`); a verifier that fails is named, never a 0.

>>> verify({"verifier": "gsm8k", "ground_truth": "18"}, "So she makes $18.").passed
True
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from columnar.errors import ConfigError
from columnar.store import file_sha256
from generation.verifiers import answers, workers
from generation.verifiers.extract import visible_answer
from generation.verifiers.verdict import Part, Verdict, failed, reweigh, weigh, wrong

MAX_COMPLETION = 1_000_000  # characters: a longer completion is a runaway, and wrong
OWN_TIMEOUT = 30.0


def _math(completion: str, truth: dict[str, Any], prompt: str) -> Part:
    from generation.verifiers.math import verify

    return verify(completion, truth, prompt)


def _ifeval(completion: str, truth: dict[str, Any], prompt: str) -> Part:
    from generation.verifiers.ifeval import verify

    return verify(completion, truth, prompt)


def _code(completion: str, truth: dict[str, Any], prompt: str) -> Part:
    from generation.verifiers.code import verify

    return verify(completion, truth)


class Verifier(NamedTuple):
    """A built-in verifier: its function, and the seconds it may take in a worker process (None: pure and linear, runs in place)."""

    function: Callable[[str, dict[str, Any], str], Part]
    timeout: float | None = None


VERIFIERS: dict[str, Verifier] = {
    "gsm8k": Verifier(lambda completion, truth, prompt: answers.number(completion, truth)),
    "math": Verifier(_math, 10.0),
    "choice": Verifier(lambda completion, truth, prompt: answers.choice(completion, truth)),
    "exact": Verifier(lambda completion, truth, prompt: answers.exact(completion, truth)),
    "f1": Verifier(lambda completion, truth, prompt: answers.f1(completion, truth)),
    "ifeval": Verifier(_ifeval),
    "code": Verifier(_code, 300.0),
}


# what published data sets write in `dataset` or `data_source`, in small letters as the loader does
PUBLISHED = {
    "openai/gsm8k": "gsm8k",
    "strict_math": "math",
    "lighteval/math": "math",
    "digitallearninggmbh/math-lighteval": "math",
    "ifeval_old": "ifeval",
    "string_matcher": "exact",
    "flan": "exact",
    "string_f1": "f1",
    "code_stdio": "code",
}


class Task(NamedTuple):
    """One verifier of a row, resolved."""

    name: str
    weight: float
    truth: Any  # the text of the ground truth, or what its JSON says


def resolve(row: Mapping[str, Any], own: Mapping[str, str] | None = None) -> list[Task]:
    """The verifiers that a row names, with weights and ground truths.

    Raises:
        ConfigError: no verifier, an unknown name, a weight that is not a positive number, or JSON that is not a list of {name, ...}.
    """
    named = _named(row.get("verifier") or "", tuple(own or ()))
    return [Task(name, weight, row.get("ground_truth") if truth is None else truth) for name, weight, truth in named]


@lru_cache(maxsize=1024)
def _named(text: str, own: tuple[str, ...]) -> tuple[tuple[str, float, Any], ...]:
    if not text.strip():
        raise ConfigError("no verifier named", f"set the row's `verifier` to one of: {', '.join((*VERIFIERS, *own))}")
    items: Any = [{"name": text.strip()}]
    if text.lstrip()[0] in "[{":
        try:
            items = json.loads(text)
        except ValueError:
            items = None
        items = [items] if isinstance(items, dict) else items
    if not isinstance(items, list) or not items or not all(isinstance(i, dict) and isinstance(i.get("name"), str) for i in items):
        raise ConfigError(f"verifier {text[:80]!r}: expected a name, or a JSON list of {{name, weight, ground_truth}}")
    out = []
    for item in items:
        name, weight = PUBLISHED.get(item["name"], item["name"]), item.get("weight", 1.0)
        if name not in VERIFIERS and name not in own:
            close = difflib.get_close_matches(name, [*VERIFIERS, *own], 1)
            raise ConfigError(
                f"unknown verifier {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""), f"known: {', '.join((*VERIFIERS, *own))}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e9:
            raise ConfigError(f"verifier {name!r}: weight {weight!r}, expected a number above 0")
        extra = set(item) - {"name", "weight", "ground_truth"}
        if extra:
            raise ConfigError(f"verifier {name!r}: unknown key {sorted(extra)[0]!r} (known: name, weight, ground_truth)")
        out.append((name, float(weight), item.get("ground_truth")))
    return tuple(out)


def check_rows(rows: Iterable[Mapping[str, Any]], own: Mapping[str, str] | None = None) -> Counter[str]:
    """Every row's verifiers resolve; how many rows use each. Call it before spending anything on completions.

    Raises:
        ConfigError: lists every problem once, with how many rows have it and the first one's id.
    """
    counts: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    first: dict[str, Any] = {}
    hint = ""
    for row in rows:
        try:
            tasks = resolve(row, own)
            counts.update(task.name for task in tasks)
            for task in tasks:
                if task.name == "ifeval" and task.truth:
                    _known_constraints(task.truth)
        except ConfigError as error:
            problems[str(error)] += 1
            first.setdefault(str(error), row.get("id", "?"))
            hint = error.hint or hint
    for name, place in (own or {}).items():
        _load(name, place)
    if problems:
        lines = "\n".join(f"  {n} rows (first: {first[p]}): {p}" for p, n in problems.most_common(20))
        raise ConfigError(f"verifiers of {sum(problems.values())} rows cannot be used\n{lines}", hint)
    return counts


def _known_constraints(truth: Any) -> None:
    from generation.verifiers.ifeval import parse

    with contextlib.suppress(
        ValueError, KeyError, TypeError, AttributeError
    ):  # a malformed ground truth is the row's own error, at its verdict
        parse({k: v for k, v in truth_of(truth).items() if k != "mode"})


@lru_cache(maxsize=128)
def _load(name: str, place: str) -> Callable[..., Any]:
    """A verifier of the user's own, `module:function`, named on the command line or in a config, never by a row."""
    module, colon, function = place.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"own verifier {name!r}: {place!r} cannot be loaded: {error}", "expected module:function") from error
    if not callable(loaded):
        raise ConfigError(f"own verifier {name!r}: {place!r} is not module:function")
    return loaded


def source_of(name: str, place: str) -> str | None:
    """A hash of the module that a verifier of the user's own is in: its verdicts change with it. None where it is not a file.

    Raises:
        ConfigError: it cannot be loaded.
    """
    _load(name, place)
    file = getattr(sys.modules[place.partition(":")[0]], "__file__", None)
    return file_sha256(Path(file)) if file else None


def truth_of(truth: Any) -> dict[str, Any]:
    """The ground truth as a mapping: JSON objects as they are, everything else under `answer`."""
    return truth if isinstance(truth, dict) else _read(truth) if isinstance(truth, str) else {"answer": truth}


@lru_cache(maxsize=1024)
def _read(text: str) -> dict[str, Any]:
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            data = json.loads(text)
            if isinstance(data, dict):
                return data
            if isinstance(data, list) and data and all(isinstance(item, dict) for item in data):
                return {"items": data}
    return {"answer": text}


def prompt_of(row: Mapping[str, Any]) -> str:
    """The last user turn of the row: what `repeat the request` repeats."""
    turns = [m for m in row.get("prompt") or row.get("messages") or () if m.get("role") == "user"]
    return (turns[-1].get("content") or "") if turns else ""


def verify(row: Mapping[str, Any], completion: str, own: Mapping[str, str] | None = None) -> Verdict:
    """Judge one completion of a row by the verifiers it names.

    Verifiers that may hang (math, code, the user's own) run in a worker process with a time-out of their own; the others are pure
    functions, linear in the completion's length, and run here. Safe from several threads.

    Args:
        row: needs `verifier` and `ground_truth`; `prompt` where a constraint speaks about the request.
        own: verifiers of the user's own, name -> `module:function`; the function takes (completion, truth, prompt) and returns a
            score from 0 to 1, a bool, or a `Part`.

    Raises:
        ConfigError: the row names no verifier or an unknown one.
    """
    return weigh([reweigh(_one(task, completion, prompt_of(row), own), task.weight) for task in resolve(row, own)])


def _one(task: Task, completion: str, prompt: str, own: Mapping[str, str] | None) -> Part:
    request = request_of(task, completion, prompt, own)
    if isinstance(request, Part):
        return request
    timeout = timeout_of(task.name)
    if timeout is not None:
        return workers.call(request, timeout)
    return run(task.name, request["completion"], request["truth"], prompt)


def timeout_of(name: str) -> float | None:
    """Seconds a verifier may take in a worker; None when it runs in place."""
    return VERIFIERS[name].timeout if name in VERIFIERS else OWN_TIMEOUT


def request_of(task: Task, completion: str, prompt: str, own: Mapping[str, str] | None) -> dict[str, Any] | Part:
    """What a worker needs to run a task; a `Part` when there is nothing to run."""
    if task.truth is None or task.truth == "":
        return failed(task.name, "the row has no ground truth")
    answer = visible_answer(completion)
    if answer is None:
        return wrong(task.name, "the reasoning section never ends, so there is no answer")
    if not answer.strip():
        return wrong(task.name, "empty completion")
    if len(answer) > MAX_COMPLETION:
        return wrong(task.name, f"a completion of {len(answer)} characters")
    place = (own or {}).get(task.name)
    return {"name": task.name, "completion": answer, "truth": truth_of(task.truth), "prompt": prompt, "own": place}


def prepare(name: str, own: str | None = None) -> None:
    """What a fresh worker imports before the clock of its first request runs."""
    with contextlib.suppress(Exception):  # what is missing is told by `run`, at the row that needs it
        if own:
            _load(name, own)
        elif name == "math":
            importlib.import_module("generation.verifiers.math")
            importlib.import_module("math_verify")
        elif name == "code":
            importlib.import_module("generation.verifiers.code")


def run(name: str, completion: str, truth: dict[str, Any], prompt: str, own: str | None = None) -> Part:
    """Run one verifier in this process; whatever it raises becomes an error part."""
    try:
        if own:
            result = _load(name, own)(completion, truth, prompt)
            if isinstance(result, Part):
                return result
            score = float(result)
            if not 0 <= score <= 1:
                return failed(name, f"returned {score}, expected 0 to 1")
            return Part(name, score, score == 1.0, reason="" if score == 1.0 else f"score {score:g}")
        return VERIFIERS[name].function(completion, truth, prompt)
    except KeyError as error:
        return failed(name, f"the ground truth has no {error}" if not own else f"KeyError: {error}")
    except Exception as error:
        text = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        return failed(name, text)
