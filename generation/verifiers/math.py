"""MATH answers: exact forms first, then math-verify (sympy) on what is left.

In: a completion and a LaTeX answer (or a whole reference solution with \\boxed{}). Out: a `Part` with the extraction rule and the
comparison that decided. This file may hang or eat memory on hostile LaTeX: `dispatch` runs it in a worker process with a time-out.

Only evaluated answers count: where the gold answer is a plain number, `17 \\cdot 23` is not an answer for 391, and an operation that
the gold answer does not have (a logarithm, a binomial, a sum, ...) is a question handed back, however equal its value.

>>> verify("Thus $x$ is \\\\boxed{\\\\frac12}.", {"answer": "0.5"}).passed
True
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from generation.verifiers import numbers as num
from generation.verifiers.extract import Found, boxed, last_math, marked
from generation.verifiers.latex import assigned, canonical, is_words, split_top, squeezed
from generation.verifiers.text import visible
from generation.verifiers.verdict import Part, wrong

MAX_ANSWER = 2_000  # characters: longer than any answer of MATH, short enough to compare
_OPERATIONS = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|lg|exp|sum|prod|int|lim|binom|dbinom|tbinom|choose|gcd|lcm|min|max|det|sqrt|lfloor|lceil|mod|bmod|pmod)"
    r"(?![a-zA-Z])|!|(?<![a-zA-Z\\])(?:sin|cos|tan|log|ln|sqrt|gcd|lcm|floor|ceil|binom|det|mod)(?![a-z])|[CP]\("
)
_PLAIN = re.compile(r"-?(?:\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\}|\d+\\frac\{\d+\}\{\d+\})%?")
_UNEVALUATED = re.compile(
    r"\d\s*[*+^]|[*+]\s*\d|(?<=[\d)}])-\s*[\d(\\]|\)\(|\d\(|[<>]|\\(?:approx|sim|pm|mp|div|cap|cup|pi)(?![a-z])|[a-zA-Z]\^|\bor\b|\band\b"
)
_JOINED = re.compile(r",?\s*(?:\\text(?:bf|it|rm)?\s*\{\s*,?\s*(?:or|and)\s*\}|(?<![\\a-zA-Z])(?:or|and)(?![a-zA-Z]))")
_ANOTHER = re.compile(  # right behind the answer: `$\boxed{2}$ or $3$`
    r"[\s$),]*(?:or|maybe|perhaps)\b[^.\n]*[\d$\\]|[\s$).,]*(?:no|wait|actually|sorry)[,:;][^\n]*[\d$\\]", re.IGNORECASE
)
_IRRATIONAL = re.compile(r"\\(?:sqrt|pi|log|ln|sin|cos|tan)|(?<![a-zA-Z\\])e(?![a-zA-Z])|sqrt")
_HEDGED = re.compile(r"\\text\s*\{[^{}]*\b(?:or|either|maybe)\b[^{}]*\}|(?<![\\a-zA-Z])(?:or|either)(?![a-zA-Z])")


def gold_answer(answer: str) -> str:
    """The ground truth: the last box of a solution, or the text itself.

    Raises:
        ValueError: empty.
    """
    boxes = boxed(answer)
    text = boxes[-1].text if boxes else answer.strip()
    if not text:
        raise ValueError("ground truth is empty")
    return text


def extract(completion: str, strict: bool = False) -> Found | None:
    """The answer: last box, else the last tag, `Final Answer: ...` phrase or #### line, else (not strict) the last $...$."""
    boxes = boxed(completion)
    if boxes:
        return boxes[-1]
    found = [f for f in marked(completion) if f.text]
    if found:
        text = re.sub(r"\s*\.?\s*I hope it is correct\.?$", "", found[-1].text).strip()
        inner = re.match(r"^[^$]{0,40}\$([^$]+)\$[^$]{0,40}$", text)
        return found[-1]._replace(text=inner.group(1).strip() if inner else text)
    return None if strict else last_math(completion[-4_000:])


def verify(completion: str, truth: dict[str, Any], prompt: str = "") -> Part:
    """Is the completion's answer mathematically the gold answer?

    Args:
        truth: `answer`; `strict: true` takes marked answers only, not the last $...$.
        prompt: the question; what stands in it word for word, and is not the gold answer's own text, is the question handed back.
    """
    gold = gold_answer(str(truth["answer"]))
    completion = visible(completion)
    found = extract(completion, bool(truth.get("strict")))
    if found is None or not found.text.strip():
        return wrong("math", "no answer found", rule="none", expected=gold[:200])
    good, how = equal(found.text, gold)
    if good and how in ("number", "math-verify") and _copied(found.text, prompt):
        good, how = False, "handed back from the question"
    if good and _ANOTHER.match(completion[found.end : found.end + 200]):
        good, how = False, "another answer follows"
    reason = "" if good else f"found {found.text[:60]} ({found.rule}), expected {gold[:60]}: {how}"
    rule = f"{found.rule}, {how}" if good else found.rule
    return Part("math", float(good), good, rule=rule, found=found.text[:200], expected=gold[:200], reason=reason)


def _copied(answer: str, prompt: str) -> bool:
    """Does an answer with an operation in it stand in the question?"""
    text = squeezed(answer)
    return len(text) > 2 and bool(re.search(r"[-+*/^(\\]", text)) and text in squeezed(prompt)


def equal(found: str, gold: str) -> tuple[bool, str]:
    """Whether two LaTeX answers are the same, and what decided: same text, number, list, math-verify, or why not."""
    if len(found) > MAX_ANSWER:
        return False, f"an answer of {len(found)} characters"
    gold = _JOINED.sub(",", gold) if re.search(r"\d", gold) else gold
    a, b = canonical(found), canonical(gold)
    if not a:
        return False, "empty"
    name_a, name_b = assigned(found), assigned(gold)
    if name_a and name_b and name_a != name_b:
        return False, f"{name_a} is given, {name_b} was asked"
    if a == b:
        return True, "same text"
    base = re.fullmatch(r"(-?[0-9A-Z.]+)_(?:\{?\d+\}?)", b)
    if base:  # 4210_5: the base may be left out, not changed
        return (True, "same digits") if a == base.group(1) else (False, "another number")
    if len(split_top(_brackets(b)[1])) > 1 and _brackets(b)[0] == "":  # `x = 1 or x = 2` is a way to write 1,2
        found = _JOINED.sub(",", found)
        a = ",".join(canonical(item) for item in split_top(found))
    if _HEDGED.search(found) and not _HEDGED.search(gold):
        return False, "names several answers"
    if _PLAIN.fullmatch(b):
        return _plain(a, b)
    if is_words(gold) or is_words(found):
        listed = _lists(a, b)
        return (True, "list") if listed else (False, "another text")
    if "." not in b and re.search(r"\d\.\d", a) and (_IRRATIONAL.search(b) or re.search(r"\d\.\d{4}", a)):
        return False, "rounded"
    extra = {m.group() for m in _OPERATIONS.finditer(a)} - {m.group() for m in _OPERATIONS.finditer(f"{b} {gold}")}
    if extra - ({"\\sqrt", "sqrt"} if "sqrt" in b or "^{" in b or "^\\frac" in b else set()):
        return False, f"not evaluated: {', '.join(sorted(extra))}"
    listed = _lists(a, b)
    if listed is not None:
        return listed, "list" if listed else "another list"
    if ("=" in a) != ("=" in b) and a.count("=") > 1:
        return False, "a chain of equations"
    return _math_verify(a, b)


def _plain(a: str, b: str) -> tuple[bool, str]:
    """The gold answer is a plain number: the found one must be a number too, in any notation, and nothing that is still to be evaluated."""
    if _UNEVALUATED.search(re.sub(r"\*10\^\{?-?\d+\}?$", "", a)) or _OPERATIONS.search(a):
        return False, "not evaluated"
    gold, found = num.numbers(b), num.numbers(a)
    if len(gold) != 1 or len(found) != 1:
        return False, "not one number"
    rest = a[: found[0].start] + a[found[0].end :]
    letters = re.sub(r"[^a-zA-Z]", "", rest)
    rest = rest.removeprefix("-") if found[0].value < 0 else rest
    rest = rest[1:-1] if rest.startswith("(") and rest.endswith(")") else rest
    if not re.fullmatch(r"[a-zA-Z.']*", rest) or 0 < len(letters) < 3:  # 5x is not 5; `5 bananas` is
        return False, "more than a number"
    if num.unevaluated(found[0]) and not num.unevaluated(gold[0]):
        return False, "not evaluated"
    return (True, "number") if num.same(found[0], gold[0]) else (False, "another number")


def _lists(a: str, b: str) -> bool | None:
    """Tuples, intervals and sets, item by item: order matters in (1,2) and [1,2), not in {1,2} and 1,2. None: not lists."""
    open_a, open_b = _brackets(a), _brackets(b)
    items_a, items_b = split_top(open_a[1]), split_top(open_b[1])
    if len(items_a) < 2 and len(items_b) < 2:
        return None
    if len(items_a) != len(items_b):
        return False
    if "\\pm" in a + b or "\\cup" in a + b or "=" in a + b:
        return None
    if open_a[0] != open_b[0]:
        return False
    if open_b[0] == "":  # a set: each item once
        rest = list(items_a)
        for item in items_b:
            match = next((x for x in rest if equal(x, item)[0]), None)
            if match is None:
                return False
            rest.remove(match)
        return True
    return all(equal(x, y)[0] for x, y in zip(items_a, items_b, strict=True))


def _brackets(text: str) -> tuple[str, str]:
    """The kind of a list and its inside: `()`, `[)`, ... are ordered; braces and nothing are sets."""
    if text.startswith("\\{") and text.endswith("\\}"):
        return "", text[2:-2]
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]":
        depth = 0
        for i, char in enumerate(text):
            depth += (char in "([") - (char in ")]")
            if depth == 0 and i < len(text) - 1:
                return "", text
        return text[0] + text[-1], text[1:-1]
    return "", text


@lru_cache(maxsize=4096)
def _math_verify(a: str, b: str) -> tuple[bool, str]:
    try:
        from math_verify import parse
        from math_verify import verify as equivalent

        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time-out is off: ours is on
    except ImportError:
        return False, "different text (install the extra `verify` to compare by value)"
    gold = parse(f"$\\boxed{{{b}}}$", parsing_timeout=None)
    found = parse(f"$\\boxed{{{a}}}$", parsing_timeout=None)
    if not gold or not found:
        return False, "could not be parsed"
    same = equivalent(gold, found, timeout_seconds=None) and equivalent(found, gold, timeout_seconds=None)
    return (True, "math-verify") if same else (False, "another value")
