"""Code: a task's tests against a completion, in the sandbox. Pass rate, and the result of every test.

In: a completion, and a ground truth in one of these forms (a JSON object):

    {"form": "humaneval", "prompt": ..., "entry_point": ..., "test": "def check(candidate): ..."}     HumanEval, HumanEval+
    {"form": "mbpp", "tests": ["assert ...", ...], "setup": ""}                                       MBPP
    {"form": "stdio", "cases": [{"input": ..., "output": ...}]}                                       programs

with "seconds" (for all tests of a task, default 10) and "memory" (bytes). Out: a `Part` with a check per test; `score` is the pass rate.
"""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any

from generation.verifiers.sandbox.launch import Limits, Output, run_program, run_tests
from generation.verifiers.verdict import Part, combine, wrong

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
MAX_SECONDS = 120.0


def verify(completion: str, truth: dict[str, Any]) -> Part:
    """Run the task's tests.

    Raises:
        ValueError: the ground truth has none of the three forms, or no tests.
        SandboxError: this machine cannot lock code in.
    """
    truth = _published(truth)
    limits = Limits(seconds=min(float(truth.get("seconds") or 10.0), MAX_SECONDS), memory=int(truth.get("memory") or 2 << 30))
    form = truth.get("form")
    if form == "humaneval":
        return _humaneval(completion, truth, limits)
    if form == "mbpp":
        return _asserts(completion, truth, limits)
    if form == "stdio":
        return _stdio(completion, truth, limits)
    raise ValueError(f"form {form!r}: expected humaneval, mbpp or stdio")


def _published(truth: dict[str, Any]) -> dict[str, Any]:
    """The published RLVR shape (a list of asserts, or of {input, output}) in ours."""
    if "form" in truth:
        return truth
    items = truth.get("items")
    if isinstance(truth.get("answer"), str):
        try:
            items = ast.literal_eval(truth["answer"])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            items = None
    if isinstance(items, list) and items and all(isinstance(item, str) for item in items):
        return {"form": "mbpp", "tests": items}
    if isinstance(items, list) and items and all(isinstance(item, dict) and {"input", "output"} <= set(item) for item in items):
        return {"form": "stdio", "cases": items}
    return truth


def extract(completion: str, name: str = "") -> tuple[str, str]:
    """The code of a completion, and the rule: the last fenced block that defines `name`, else the last Python block, else everything."""
    blocks = [(kind.lower(), body) for kind, body in _FENCE.findall(completion)]
    python = [body for kind, body in blocks if kind in ("", "python", "py", "python3")]
    defining = [
        body
        for body in python
        if name and re.search(rf"^[ \t]*(?:async\s+)?(?:def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\s*=", body, re.M)
    ]
    if defining:
        return textwrap.dedent(defining[-1]) if not defining[-1].startswith(" ") else defining[-1], "fence"
    if python:
        return python[-1], "fence"
    return completion, "whole"


def _humaneval(completion: str, truth: dict[str, Any], limits: Limits) -> Part:
    prompt, entry, test = str(truth["prompt"]), str(truth["entry_point"]), str(truth["test"])
    code, rule = extract(completion, entry)
    if re.search(rf"^(?:async\s+)?def\s+{re.escape(entry)}\b", code, re.MULTILINE):
        code = _before(prompt, entry) + "\n" + code  # the imports and helpers of the prompt, then a whole function
    else:
        first = next((line for line in code.splitlines() if line.strip()), "")
        code = prompt + (code if first.startswith((" ", "\t")) else textwrap.indent(code, "    "))
        rule += ", continues the prompt"
    problem = _syntax(code)
    if problem:
        return wrong("code", problem, rule=rule)
    return _part(run_tests(code, [test], setup=prompt, entry=entry, form="humaneval", limits=limits), rule)


def _before(prompt: str, entry: str) -> str:
    match = re.search(rf"^def\s+{re.escape(entry)}\b", prompt, re.MULTILINE)
    return prompt[: match.start()] if match else prompt


def _asserts(completion: str, truth: dict[str, Any], limits: Limits) -> Part:
    tests = [str(t) for t in truth.get("tests") or ()]
    if not tests:
        raise ValueError("no tests")
    called = re.search(r"\b([A-Za-z_]\w*)\s*\(", tests[0].replace("assert", "", 1))
    code, rule = extract(completion, called.group(1) if called else "")
    problem = _syntax(code)
    if problem:
        return wrong("code", problem, rule=rule)
    return _part(run_tests(code, tests, setup=str(truth.get("setup") or ""), limits=limits), rule)


def _stdio(completion: str, truth: dict[str, Any], limits: Limits) -> Part:
    cases = truth.get("cases") or []
    if not cases:
        raise ValueError("no cases")
    code, rule = extract(completion)
    problem = _syntax(code)
    if problem:
        return wrong("code", problem, rule=rule)
    checks = []
    for i, case in enumerate(cases):
        result = run_program(code, str(case["input"]), limits)
        good = result.ended == "ok" and same_output(result.output, str(case["output"]))
        checks.append(Part(f"case {i}", float(good), good, found=result.output[:200], reason="" if good else _why(result)))
    return combine("code", checks, rule)


def _why(result: Output) -> str:
    return "another output" if result.ended == "ok" else result.ended


def same_output(found: str, expected: str) -> bool:
    """Equal line by line, but for white space at line ends and empty lines at the end."""

    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.replace("\r\n", "\n").rstrip().split("\n")]

    return lines(found) == lines(expected)


def _syntax(code: str) -> str:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"does not parse: {error}"[:200]
    return ""


def _part(results: list[dict[str, Any]], rule: str) -> Part:
    checks = [Part(r["test"], float(r["passed"]), bool(r["passed"]), reason=r["text"] if not r["passed"] else "") for r in results]
    return combine("code", checks, rule)
