"""Answers that a program can compare: numbers (GSM8K), multiple choice, exact strings, token F1.

In: a completion and the row's ground truth. Out: a `Part` with the extraction rule that fired, what was found and what was expected.
The last marked answer counts (see extract); one that names several values (`18 or 20`, `B or C`) is wrong, whichever comes first.

>>> number("16 - 3 - 4 = 9, 9 * 2 = 18. #### 18", {"answer": "18"}).rule
'hash'
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Any

from generation.verifiers import numbers as num
from generation.verifiers.extract import REFUSED, Found, marked, taken_back
from generation.verifiers.text import visible
from generation.verifiers.verdict import Part, wrong

_HEDGE = re.compile(
    r"\b(?:or|and|either|maybe|perhaps|to|through|versus|vs|not|but|no|wait|actually|sorry|rather|else|otherwise|unless)\b", re.IGNORECASE
)
_BOUND = re.compile(  # before a number: `at least 18`, `x > 18`
    r"(?:\b(?:than|at least|at most|up to)|[<>≤≥≠±]|\\(?:leq?|geq?|lt|gt|neq?|pm|mp)(?![a-z])|\+/?-)\s*[$€£]?$", re.IGNORECASE
)
_SUM = re.compile(r"^[^,;.]{0,40}\b(?:than|minus|plus|times|over)\s*[$€£]?$", re.IGNORECASE)  # between two numbers: `18 more than 20`
_TWO_UNITS = re.compile(  # between two numbers, a single word: `18 feet 6 inches`, `18 eggs, 19 ducks`, but not `18 in 2 weeks`
    r"^\s*(?!(?:in|per|after|from|for|at|since|because|with|by|of|out|within|during|on|each|every|when|if|as|so|is|was|are)\b)[a-z]+\.?\s*,?\s*[$€£]?$",
    re.IGNORECASE,
)
_PART = re.compile(r"^\s*(?:\w+\s+)?and\s+(?:a|one|two|three)[\s-]+(?:half|third|quarter|fourth|fifth)|^[xyzn]\b", re.IGNORECASE)


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
    rule, found = read_number(visible(completion), bool(truth.get("marked")))
    if found is None:
        return wrong(
            "gsm8k", {"ambiguous": "the marked answer names several values"}.get(rule, "no number found"), rule=rule, expected=gold.text
        )
    tolerance = float(truth.get("tolerance") or 0)
    good = num.same(found, gold) or (tolerance > 0 and abs(found.value - gold.value) <= tolerance)
    reason = "" if good else f"found {found.text.strip()} ({rule}), expected {gold.text.strip()}"
    if good and num.unevaluated(found) and not num.unevaluated(gold):
        good, reason = False, f"not evaluated: {found.text.strip()}"
    return Part("gsm8k", float(good), good, rule=rule, found=found.text.strip(), expected=gold.text.strip(), reason=reason)


def read_number(completion: str, only_marked: bool = False) -> tuple[str, num.Number | None]:
    """The number a completion answers with, and the rule: boxed, hash, tag, phrase, last_number, ambiguous or none."""
    for found in reversed(marked(completion)):
        if not num.numbers(found.text):
            if REFUSED.match(found.text):
                return "none", None
            continue  # `the answer is below`
        read = _one_number(found.text)
        if read is None or any(not num.same(other, read) for other in num.numbers(taken_back(completion, found))):
            return "ambiguous", None
        return found.rule, read
    if only_marked:
        return "none", None
    start = max(0, len(completion) - 4_000)
    while start and not completion[start - 1].isspace():  # not in the middle of a number
        start -= 1
    found_numbers = num.numbers(completion[start:]) or num.numbers(completion)
    return ("last_number", found_numbers[-1]) if found_numbers else ("none", None)


def _one_number(segment: str) -> num.Number | None:
    """The single number that a marked answer commits to; None when it names several (`18 or 20`, `5-10`, `3 + 4`) or a bound (`> 18`)."""
    sides = [num.clean(side) for side in re.split(r"(?<![<>!:=])=(?!=)", segment)]
    for i in range(len(sides) - 1, -1, -1):
        side = sides[i]
        found = num.numbers(side)
        if not found:
            continue
        first = found[0]
        if _BOUND.search(side[: first.start]) or _PART.match(side[first.end :]) or re.match(r"\s*(?:not|n't)\b", side):
            return None
        if len(found) == 1 and re.search(r"[+*/^×÷]\s*[a-z(]|\)\s*[+*/^×÷-]", side):
            return None
        if len(found) > 1:
            between = side[first.end : found[1].start]
            words = re.sub(r"\\[a-zA-Z]+", "", between)
            if not re.search(r"[^\W\d_]", words) or _HEDGE.search(words) or _SUM.match(words) or _TWO_UNITS.match(words):
                return None
        return first if all(_agrees(other, first) for other in sides[:i]) else None
    return None


def _agrees(side: str, value: num.Number) -> bool:
    """Does the other side of an equation not claim another number? `19 = 18` does."""
    found = num.numbers(side)
    alone = len(found) == 1 and not re.search(r"\w", side[: found[0].start] + side[found[0].end :])
    return not alone or num.same(found[0], value)


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
    rule, chosen = _choose(visible(completion), options)
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
        if many or (letter and _another(completion[found.end :].split("\n")[0], taken_back(completion, found), letter, options)):
            return "ambiguous", None
        if letter:
            return found.rule, letter
        if REFUSED.match(found.text):
            return "none", None
    lines = [line.strip(" *_`\t") for line in completion.strip().splitlines() if line.strip(" *_`\t")]
    rule, chosen = "none", None
    for line in dict.fromkeys(lines[:1] + lines[-1:]):
        letter, many = _letter(line, options)
        bare = len(line.strip("().")) == 1
        if letter and not many and (not _listing(lines) or (bare and line is lines[-1])):
            if chosen and letter != chosen:
                return "ambiguous", None
            rule, chosen = "line", letter
    return rule, chosen


def _another(rest: str, retraction: str, letter: str, options: dict[str, str]) -> bool:
    """Does what stands behind a chosen letter choose another: `B. Or C.`, `B; C`, `B? C?`, `B. <the text of A>`?"""
    if {m.group(1) for m in _LETTER.finditer(retraction)} - {letter, "I"}:
        return True
    next_one = re.match(r"[.;?!]\s*\(?([A-Z])\)?\s*(?:[.;?!]|$)", rest)
    return bool(next_one and next_one.group(1) != letter) or _option(rest.strip(" .:;()"), options) not in (None, letter)


def _listing(lines: list[str]) -> bool:
    """Do several lines start with option letters? Then the completion copied the options and chose none."""
    return sum(bool(re.match(r"\(?[A-Z][).:]", line)) for line in lines) > 1


def _letter(segment: str, options: dict[str, str]) -> tuple[str | None, bool]:
    """The letter a segment commits to, and whether it names more than one."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}", r"\1", segment).strip(" *_`$.:\t\"'")
    text = re.sub(r"^(?:definitely|clearly|certainly|simply|indeed|therefore|thus)\s+", "", text, flags=re.IGNORECASE)
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
    behind = head.group()[1:].strip(" ).:") + " " + rest
    if re.match(r"\s*(?:(?:is|was|isn't|[-–—])\s*)?(?:not\b|wrong|incorrect|false\b)", behind, re.IGNORECASE):
        return None, False
    named = _option(rest.strip(" .:;()"), options)
    if named:
        return (letter, False) if named == letter else (letter, True)
    rest = re.split(r"\b(?:because|since|as|given)\b", head.group()[1:] + rest)[0][len(head.group()) - 1 :]
    others = {m.group(1) for m in _LETTER.finditer(rest)} - {letter, "I", "A"}
    hedged = re.match(r"\s*(?:or|and|/|&|,)\s*\(?[A-Za-z]\b\)?|\s*\([A-Z]\)", rest) or (
        head.group().endswith(",") and re.match(r"\s*\(?[A-Z]\b", rest)
    )
    return letter, bool(hedged or (others and _HEDGE.search(rest)))


def normal(text: str) -> str:
    """Text for comparing answers: one Unicode form, case folded, white space collapsed, no quotes, `\\text{}` or full stop around it."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}", r"\1", unicodedata.normalize("NFKC", text))
    return " ".join(text.casefold().split()).strip(" .!*_`\"'“”‘’$")


def _golds(truth: dict[str, Any]) -> list[str]:
    return [str(a) for a in truth["answer"]] if isinstance(truth["answer"], list) else [str(truth["answer"])]


def _readings(completion: str) -> list[Found]:
    """The last marked answer: as its sentence, and as the rest of its line, because `St. Louis` is one answer. Or the whole completion."""
    candidates = marked(completion)
    if not candidates:
        return [Found(completion.strip(), "whole", 0, len(completion))]
    last = candidates[-1]
    line = completion[last.end - len(last.text) :].split("\n")[0] if last.rule == "phrase" else ""
    return [last, *([last._replace(text=line[:1_000].strip(" *_"))] if line else [])]


def exact(completion: str, truth: dict[str, Any]) -> Part:
    """The marked answer, or the whole completion when nothing is marked, equals a gold answer. Never a substring.

    Args:
        truth: `answer`: a text or a list of them; `case: true` compares capital letters and punctuation too.
    """
    golds = _golds(truth)
    if not any(g.strip() for g in golds):
        raise ValueError("ground truth is empty")
    shape = (lambda t: " ".join(unicodedata.normalize("NFC", t).split())) if truth.get("case") else normal
    completion = visible(completion)
    readings = [Found(completion.strip(), "whole", 0, len(completion)), *_readings(completion)]
    wanted = {shape(gold) for gold in golds if gold.strip()}
    good = any(shape(found.text) in wanted for found in readings) and not taken_back(completion, readings[1])
    found = next((f for f in readings if shape(f.text) in wanted), readings[1])
    reason = "" if good else f"found {found.text[:60]!r} ({found.rule}), expected {golds[0][:60]!r}"
    return Part("exact", float(good), good, rule=found.rule, found=found.text[:200], expected=golds[0][:200], reason=reason)


_NEGATIONS = frozenset(
    ["no", "not", "never", "nor", "neither", "without", "cannot", "cant", "isnt", "dont", "doesnt", "didnt", "wasnt", "arent"]
)


def tokens(text: str) -> list[str]:
    """SQuAD's tokens (Rajpurkar et al. 2016): lower case, no punctuation, no articles; the articles stay when nothing else is there.

    Unlike there, marks inside a number stay (`1.5` is not 15, `-5` is not 5), and so do the plus and hash of `C++` and `C#`.
    """
    words = []
    for token in unicodedata.normalize("NFKC", text).lower().split():
        if any(map(str.isdigit, token)):
            token = re.sub(r"^[^\w+-]+|^[+-](?!\W*\d)|\W+$", "", token).lstrip("$€£+")
            words.append(re.sub(r"(?<=\d),(?=\d{3})|^(-?)[$€£]", r"\1", token))
        else:
            marks = re.search(r"(?<=\w)[+#]+(?=\W*$)", token)
            words.append(re.sub(r"[^\w\s]", "", token) + (marks.group() if marks else ""))
    words = [w for w in words if w]
    return [w for w in words if w not in ("a", "an", "the")] or words


def f1(completion: str, truth: dict[str, Any]) -> Part:
    """Token F1 of the marked answer (or the whole completion) against the best gold answer; `score` is the F1 itself.

    Args:
        truth: `answer`: a text or a list of them; `threshold`: what counts as passed, above 0 to 1 (default 0.8: of a gold answer of
            one word, the word alone). A negation on one side only never passes.
    """
    golds = _golds(truth)
    threshold = float(truth.get("threshold", 0.8))
    if not any(tokens(g) for g in golds):
        raise ValueError("ground truth has no words")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold:g}: expected above 0, at most 1")
    completion = visible(completion)
    best, good, found = 0.0, False, _readings(completion)[0]
    for reading in _readings(completion):
        said = Counter(tokens(reading.text))
        for gold in golds:
            wanted = Counter(tokens(gold))
            if reading.text.startswith(found.text) and reading.text != found.text and said != wanted:
                continue  # the rest of the line counts only as an answer that is right as it stands
            common = sum((said & wanted).values())
            score = 2 * common / (sum(said.values()) + sum(wanted.values())) if common else 0.0
            denied = bool(_NEGATIONS & set(said)) != bool(_NEGATIONS & set(wanted))
            if (score, score >= threshold and not denied) > (best, good):
                best, good, found = score, score >= threshold and not denied, reading
    reason = "" if good else f"F1 {best:.2f} ({found.rule})"
    return Part("f1", best, good, rule=found.rule, found=found.text[:200], expected=golds[0][:200], reason=reason)
