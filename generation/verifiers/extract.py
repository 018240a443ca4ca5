"""Where in a completion its answer stands: the marks that models and data sets use, and which of them fired.

In: text. Out: `Found`s, in the order of the text. The callers decide what may stand there (a number, a letter, LaTeX, words).

    boxed   \\boxed{18}            the braces balanced
    hash    #### 18               to the end of the line
    tag     <answer>18</answer>
    phrase  The final answer is 18.   Answer: 18   A: 18      to the end of the sentence

>>> [f.rule for f in marked("The answer is 3. #### 4")]
['phrase', 'hash']
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HASH = re.compile(r"^[ \t]*#{4}(?!#)[ \t]*([^\n]*)$|(?<=[ \t.])#{4}(?!#)[ \t]+([^\n]*)$", re.MULTILINE)
_PHRASE = re.compile(
    r"(?:\b(?:answer|(?:correct|right|best|final) (?:option|choice))"
    r"[*_]*(?:[ ]\([^()\n]{0,40}\))?[ ]?(?:(?:is|are|would be|must be|comes to|equals)\b|[:=：])|^[*_]*A[*_]*:)"
    r"[*_:]*[ ]*(?:\n[ ]*(?=\S))?[*_]*",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=[\s*\"'”)]|$)|;(?=\s)")
_TAKEN_BACK = re.compile(
    r"[\s.!?;:,*_$\"'”)]*(?:[-–—]+\s*)?(?:(?:or|wait|actually|sorry|correction|rather|alternatively|maybe|perhaps)\b|(?:no|nope)[,.:;!—–-])",
    re.IGNORECASE,
)
REFUSED = re.compile(
    r"(?:still )?(?:unknown|unclear|undetermined|undecided|impossible|indeterminate|none|n/a|"
    r"not (?:known|clear|enough|possible|given)|(?:cannot|can't|can not)\b)",
    re.IGNORECASE,
)

_LAST = 50  # boxes, phrases and lines looked at: the last ones; a million unclosed boxes must not take a million scans
_LONGEST = 5_000  # characters of one answer


class Found(NamedTuple):
    """A place that claims to be the answer: its text, the rule that found it, where it starts, and where it ends."""

    text: str
    rule: str
    start: int
    end: int


def visible_answer(completion: str) -> str | None:
    """The completion without its reasoning section: what follows the last `</think>`.

    None when a section was opened and never closed: there is no answer then.
    """
    _, closed, tail = completion.rpartition("</think>")
    if closed:
        return tail.strip("\n") if "<think>" not in tail else None
    return None if completion.lstrip().startswith("<think>") else completion


def boxed(text: str) -> list[Found]:
    """Every \\boxed{...} and \\fbox{...} with balanced braces; `\\boxed 7` takes the next token."""
    out = []
    for match in list(re.finditer(r"\\f?boxed(?![a-zA-Z])\s*|\\fbox\s*", text))[-_LAST:]:
        at = match.end()
        if at >= len(text):
            continue
        if text[at] != "{":
            token = re.match(r"\\?[^\s{}$]+", text[at:])
            if token:
                out.append(Found(token.group().rstrip(".,"), "boxed", match.start(), at + token.end()))
            continue
        depth = 0
        for i in range(at, len(text)):
            if text[i] in "{}" and text[i - 1] != "\\":
                depth += 1 if text[i] == "{" else -1
                if depth == 0:
                    out.append(Found(text[at + 1 : i].strip(), "boxed", match.start(), i + 1))
                    break
            if i - at > _LONGEST:
                break
    return out


def marked(text: str) -> list[Found]:
    """Every marked answer, by place."""
    out = boxed(text) if "box" in text else []
    if "####" in text:
        out += [Found((m.group(1) or m.group(2) or "").strip(), "hash", m.start(), m.end()) for m in list(_HASH.finditer(text))[-_LAST:]]
    close = text.lower().rfind("</answer>") if "<" in text else -1
    if close >= 0:
        start = text.lower().rfind("<answer>", 0, close)
        if start >= 0:
            out.append(Found(text[start + len("<answer>") : close].strip(), "tag", start, close + len("</answer>")))
    for match in list(_PHRASE.finditer(text))[-_LAST:]:
        end = _sentence_end(text, match.end())
        out.append(Found(text[match.end() : end].strip(" \t*_"), "phrase", match.start(), end))
    return sorted(out, key=lambda f: f.start)


def _sentence_end(text: str, start: int) -> int:
    """Where the sentence that starts here ends; inside $...$ a full stop ends nothing."""
    at, limit = start, min(len(text), start + _LONGEST)
    while True:
        match = _SENTENCE_END.search(text, at, limit)
        if match is None:
            return limit
        if match.group() != "\n" and text.count("$", start, match.start()) % 2 and "$" in text[match.end() : match.end() + 200]:
            at = match.end()
            continue
        return match.start()


def taken_back(text: str, found: Found) -> str:
    """What the completion says right behind an answer to take it back (`The answer is 18. No, 19.`), to the end of that line; else ''."""
    rest = text[found.end : found.end + 200].split("\n")[0]
    return rest if _TAKEN_BACK.match(rest) else ""


def last_math(text: str) -> Found | None:
    """The last $...$ or \\(...\\) of the text."""
    skip = max(0, len(text) - 20_000)
    text = text[skip:]
    spans = list(re.finditer(r"\$\$?([^$\n]+)\$\$?|\\\(([^\n]+?)\\\)|\\\[(.+?)\\\]", text, re.DOTALL))
    if not spans:
        return None
    return Found(
        next(g for g in spans[-1].groups() if g is not None).strip(), "last_math", skip + spans[-1].start(), skip + spans[-1].end()
    )
