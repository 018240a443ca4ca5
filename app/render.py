"""Rows as safe HTML. Pure functions of text: everything a row holds is escaped first, and nothing in the result can run or load anything.

escape(text)        mark(text, spans)        problem(message, hint)
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path

MOST = 20_000  # characters of one message that are shown before "show all"

# What would steer a reader rather than be read: control characters (ANSI colours), and those that turn or hide text.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]")
FENCE = re.compile(r"^(`{3,}|~{3,})([^\n`]*)\n(.*?)(?:^\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


def escape(text: str) -> str:
    """Text as HTML that shows exactly it; what cannot be seen (control characters, direction overrides) as its code."""
    return _UNSEEN.sub(_code, html.escape(text.replace("\r\n", "\n").replace("\r", "\n")))


def _code(found: re.Match[str]) -> str:
    return f'<span class="cv-unseen" title="a character that cannot be seen">U+{ord(found[0]):04X}</span>'


def mark(text: str, spans: Iterable[tuple[int, int]], kind: str = "hit") -> str:
    """Escaped text with these spans (start, end in characters) marked; overlapping ones as one."""
    out, at = [], 0
    for start, end in _merged(spans, len(text)):
        out.append(escape(text[at:start]))
        out.append(f'<mark class="cv-{kind}">{escape(text[start:end])}</mark>')
        at = end
    return "".join([*out, escape(text[at:])])


def _merged(spans: Iterable[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted((max(start, 0), min(end, length)) for start, end in spans):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def command(text: str) -> str:
    """A command to run."""
    return f'<pre class="cv-command">{escape(text)}</pre>'


def note(text: str) -> str:
    """A remark."""
    return f'<p class="cv-note">{escape(text)}</p>'


def problem(message: str, hint: str | None = None) -> str:
    """What is wrong, and what to do."""
    return f'<div class="cv-problem" role="alert"><b>{escape(message)}</b>' + (f"<p>{escape(hint)}</p>" if hint else "") + "</div>"


def label(text: str, most: int = 80) -> str:
    """Text as the label of a button or pill, which Streamlit reads as Markdown: nothing in it is markup, and it stays on one line."""
    flat = _UNSEEN.sub(lambda found: f"U+{ord(found[0]):04X}", " ".join(text[: 4 * most].split()))
    short = flat if len(flat) <= most else flat[: most - 1] + "…"
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", short)


def find(text: str, q: str) -> list[tuple[int, int]]:
    """Where the words asked for occur, whatever their case."""
    if not q:
        return []
    return [found.span() for found in re.finditer(re.escape(q), text, re.IGNORECASE)]


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and what is said of them."""
    return '<dl class="cv-facts">' + "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in pairs) + "</dl>"


STYLE = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("style.css", "beside.css"))
