"""Answers that a program can compare: numbers (GSM8K), multiple choice, exact strings, token F1.

In: a completion and the row's ground truth. Out: a `Part` with the extraction rule that fired, what was found and what was expected.
The last marked answer counts (see extract); one that names several values (`18 or 20`, `B or C`) is wrong, whichever comes first.

>>> number("16 - 3 - 4 = 9, 9 * 2 = 18. #### 18", {"answer": "18"}).rule
'hash'
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from generation.verifiers import numbers as num
from generation.verifiers.extract import Found, marked
from generation.verifiers.verdict import Part, wrong

_HEDGE = re.compile(r"\b(?:or|and|either|maybe|perhaps|to|through|versus|vs|not|but)\b", re.IGNORECASE)


def gold_number(answer: str) -> num.Number:
    """The ground truth as a number: a bare number, or a worked GSM8K solution ending in `#### 18` or `A: 18`.

    Raises:
        ValueError: no number, or several without a mark.
    """
    for found in reversed(marked(answer)):
        read = _one_number(found.text)
        if read is not None:
            return read
    all_numbers = num.numbers(answer)
    if len(all_numbers) != 1:
        raise ValueError(f"ground truth {answer[:60]!r}: expected one number, found {len(all_numbers)}")
    return all_numbers[0]


def number(completion: str, truth: dict[str, Any]) -> Part:
    """Exact equality of the last marked number, or of the last number when nothing is marked (GSM8K's convention).

    Args:
        truth: `answer`; `marked: true` refuses unmarked numbers; `tolerance`: absolute, for measured quantities (default 0).
    """
    gold = gold_number(str(truth["answer"]))
    rule, found = read_number(completion, bool(truth.get("marked")))
    if found is None:
        return wrong(
            "gsm8k", {"ambiguous": "the marked answer names several values"}.get(rule, "no number found"), rule=rule, expected=gold.text
        )
    tolerance = float(truth.get("tolerance") or 0)
    good = num.same(found, gold) or (tolerance > 0 and abs(found.value - gold.value) <= tolerance)
    reason = "" if good else f"found {found.text.strip()} ({rule}), expected {gold.text.strip()}"
    return Part("gsm8k", float(good), good, rule=rule, found=found.text.strip(), expected=gold.text.strip(), reason=reason)


def read_number(completion: str, only_marked: bool = False) -> tuple[str, num.Number | None]:
    """The number a completion answers with, and the rule: boxed, hash, tag, phrase, last_number, ambiguous or none."""
    for found in reversed(marked(completion)):
        if not num.numbers(found.text):
            continue  # `the answer is below`
        read = _one_number(found.text)
        return (found.rule, read) if read is not None else ("ambiguous", None)
    if only_marked:
        return "none", None
    tail = completion[-4_000:]
    found_numbers = num.numbers(tail) or num.numbers(completion)
    return ("last_number", found_numbers[-1]) if found_numbers else ("none", None)


def _one_number(segment: str) -> num.Number | None:
    """The single number that a marked answer commits to; None when it names several (`18 or 20`, `5-10`, `3 + 4`)."""
    for side in reversed(re.split(r"(?<![<>!:=])=(?!=)", segment)):
        found = num.numbers(side)
        if len(found) == 1:
            hedged = re.match(r"\s*(?:not|n't)\b", side) or re.search(r"[+*/^×÷]\s*[a-z(]|\)\s*[+*/^×÷-]", num.clean(side))
            return None if hedged else found[0]
        if len(found) > 1:
            cleaned = num.clean(side)
            between = cleaned[found[0].end : found[1].start]
            words = re.sub(r"\\[a-zA-Z]+", "", between)
            if not re.search(r"[^\W\d_]", words) or _HEDGE.search(words):
                return None
            return None if re.match(r"\s*not\b", side) else found[0]
    return None


_LETTER = re.compile(r"(?<![\w'’])\(?([A-Z])\)?(?![\w'’])")


def choice(completion: str, truth: dict[str, Any]) -> Part:
    """Multiple choice: the letter (or the whole text of one option) that the completion commits to.

    A bare letter counts only where it is an answer: marked, alone, or `B.` / `(B)` / `B)` at the start of the first or last line, so
    that the article in `A cat sat` chooses nothing.

    Args:
        truth: `answer` (a letter, or the text of an option) and optionally `options` (a list, or a mapping of letters to texts).
    """
    options = truth.get("options") or {}
    if isinstance(options, list):
        options = {chr(ord("A") + i): text for i, text in enumerate(options)}
    answer = str(truth["answer"]).strip()
    gold = answer.strip("().").upper() if len(answer.strip("().")) == 1 else _option(answer, options)
    if not gold or (options and gold not in options):
        raise ValueError(f"ground truth {answer!r} is not one of the options")
    rule, chosen = _choose(completion, options)
    good = chosen == gold
    reason = (
        "" if good else (f"found {chosen} ({rule}), expected {gold}" if chosen else f"no single choice found ({rule}), expected {gold}")
    )
    return Part("choice", float(good), good, rule=rule, found=chosen or "", expected=gold, reason=reason)


def _option(text: str, options: dict[str, str]) -> str | None:
    wanted = normal(text)
    same = [letter for letter, option in options.items() if normal(str(option)) == wanted and wanted]
    return same[0] if len(same) == 1 else None


def _choose(completion: str, options: dict[str, str]) -> tuple[str, str | None]:
    for found in reversed(marked(completion)):
        letter, many = _letter(found.text, options)
        if many:
            return "ambiguous", None
        if letter:
            return found.rule, letter
    lines = [line.strip(" *_`\t") for line in completion.strip().splitlines() if line.strip(" *_`\t")]
    for line in dict.fromkeys(lines[:1] + lines[-1:]):
        letter, many = _letter(line, options)
        bare = len(line.strip("().")) == 1
        if letter and not many and (not _listing(lines) or (bare and line is lines[-1])):
            return "line", letter
    return "none", None


def _listing(lines: list[str]) -> bool:
    """Do several lines start with option letters? Then the completion copied the options and chose none."""
    return sum(bool(re.match(r"\(?[A-Z][).:]", line)) for line in lines) > 1


def _letter(segment: str, options: dict[str, str]) -> tuple[str | None, bool]:
    """The letter a segment commits to, and whether it names more than one."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}", r"\1", segment).strip(" *_`$.:\t\"'")
    text = re.sub(r"^(?:option|choice|answer)\s+(?=\(?[A-Za-z]\b)", "", text, flags=re.IGNORECASE)
    exact = _option(text, options)
    if exact:
        return exact, False
    head = re.match(r"\(?([A-Za-z])(?:\)|\.|:|,|$|\s+[-–—(]|\s+(?:is|because|since|as)\b|(?=\s+(?:or|and|/|&))|(?=[/&,]))", text)
    if not head:
        return None, False
    letter = head.group(1).upper()
    if options and letter not in options:
        return None, False
    rest = text[head.end() :]
    others = {m.group(1) for m in _LETTER.finditer(rest)} - {letter, "I", "A"}
    option = normal(str(options.get(letter, "")))
    if option and normal(rest) == option:
        return letter, False
    hedged = re.match(r"\s*(?:or|and|/|&|,)\s*\(?[A-Za-z]\b\)?", rest) or (head.group().endswith(",") and re.match(r"\s*\(?[A-Z]\b", rest))
    return letter, bool(hedged or (others and _HEDGE.search(rest)))


def normal(text: str) -> str:
    """Text for comparing answers: case folded, white space collapsed, no quotes or full stop around it."""
    return " ".join(text.casefold().split()).strip(" .!*_`\"'“”‘’$")


def exact(completion: str, truth: dict[str, Any]) -> Part:
    """The marked answer, or the whole completion when nothing is marked, equals a gold answer. Never a substring.

    Args:
        truth: `answer`: a text or a list of them; `case: true` compares capital letters and punctuation too.
    """
    golds = [str(a) for a in truth["answer"]] if isinstance(truth["answer"], list) else [str(truth["answer"])]
    if not any(g.strip() for g in golds):
        raise ValueError("ground truth is empty")
    shape = (lambda t: " ".join(t.split())) if truth.get("case") else normal
    candidates = marked(completion)
    found = candidates[-1] if candidates else Found(completion.strip(), "whole", 0)
    if any(shape(completion) == shape(gold) for gold in golds):
        found = Found(completion.strip(), "whole", 0)
    good = any(shape(found.text) == shape(gold) for gold in golds if gold.strip())
    reason = "" if good else f"found {found.text[:60]!r} ({found.rule}), expected {golds[0][:60]!r}"
    return Part("exact", float(good), good, rule=found.rule, found=found.text[:200], expected=golds[0][:200], reason=reason)


def tokens(text: str) -> list[str]:
    """SQuAD's tokens (Rajpurkar et al. 2016): lower case, no punctuation, no articles; the articles stay when nothing else is there."""
    words = re.sub(r"[^\w\s]", "", text.lower()).split()
    return [w for w in words if w not in ("a", "an", "the")] or words


def f1(completion: str, truth: dict[str, Any]) -> Part:
    """Token F1 of the marked answer (or the whole completion) against the best gold answer; `score` is the F1 itself.

    Args:
        truth: `answer`: a text or a list of them; `threshold`: what counts as passed (default 0.5).
    """
    golds = [str(a) for a in truth["answer"]] if isinstance(truth["answer"], list) else [str(truth["answer"])]
    if not any(tokens(g) for g in golds):
        raise ValueError("ground truth has no words")
    candidates = marked(completion)
    found = candidates[-1] if candidates else Found(completion, "whole", 0)
    said = Counter(tokens(found.text))
    best = 0.0
    for gold in golds:
        wanted = Counter(tokens(gold))
        common = sum((said & wanted).values())
        if common:
            precision, recall = common / sum(said.values()), common / sum(wanted.values())
            best = max(best, 2 * precision * recall / (precision + recall))
    good = best >= float(truth.get("threshold") or 0.5)
    reason = "" if good else f"F1 {best:.2f} ({found.rule})"
    return Part("f1", best, good, rule=found.rule, found=found.text[:200], expected=golds[0][:200], reason=reason)
