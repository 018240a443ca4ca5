"""Answers beside each other as safe HTML: what Pairs, Duplicates, Contamination, Compare and Template draw. Pure functions of rows.

    page = beside([pane("chosen", messages_html(row["chosen"], spans), tone="good"), pane("rejected", ...)], pinned=messages_html(prompt))

Every text of a row goes through `render.escape` or `render.mark`; nothing else reaches the page.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app import render
from app.diff import Diff, Span, word_diff
from app.evidence import merged

MOST = render.MOST


def text_html(text: str, spans: Iterable[Span] = (), kind: str = "hit", most: int | None = MOST) -> str:
    """A text with marked spans; after `most` characters it is cut, and says so."""
    shown = text if most is None else text[:most]
    rest = f'<div class="cv-cut">… {len(text) - len(shown):,} more characters</div>' if len(shown) < len(text) else ""
    return f'<div class="cv-text" dir="auto">{render.mark(shown, spans, kind)}</div>{rest}'


def layered(text: str, layers: Sequence[tuple[Iterable[Span], str]]) -> str:
    """Escaped text with spans of several kinds marked; where they overlap the last kind shows."""
    cuts = [(s, e, kind) for spans, kind in layers for s, e in merged(spans, len(text))]
    edges = sorted({0, len(text), *(place for s, e, _ in cuts for place in (s, e))})
    out = []
    for start, end in itertools.pairwise(edges):
        kind = next((k for s, e, k in reversed(cuts) if s <= start and end <= e), None)
        piece = render.escape(text[start:end])
        out.append(f'<mark class="cv-{kind}">{piece}</mark>' if kind else piece)
    return "".join(out)


def messages_html(
    messages: Sequence[Mapping[str, Any]] | None,
    spans: Mapping[int, Iterable[Span]] | None = None,
    kind: str = "hit",
    most: int | None = MOST,
) -> str:
    """Turns one after the other; a single assistant turn needs no label.

    Args:
        spans: to mark in the content of each turn, by its number.
    """
    out = []
    alone = len(messages or ()) == 1 and (messages or ())[0].get("role") == "assistant"
    for number, message in enumerate(messages or ()):
        label = "" if alone else f'<div class="cv-role">{render.escape(str(message.get("role")))}</div>'
        thinking = _folded("thinking", message.get("thinking"), most)
        calls = _folded("tool calls", message.get("tool_calls"), most, opened=True)
        content = message.get("content")
        body = text_html(content, (spans or {}).get(number, ()), kind, most) if content else ""
        out.append(f'<div class="cv-part">{label}{thinking}{body}{calls}</div>')
    return "".join(out) or '<div class="cv-cut">nothing</div>'


def _folded(name: str, text: Any, most: int | None, opened: bool = False) -> str:
    if not text:
        return ""
    return f"<details{' open' if opened else ''}><summary>{name}</summary>{text_html(str(text), most=most)}</details>"


def facts(pairs: Mapping[str, Any]) -> str:
    """Small figures: name and value; what is None is left out."""
    told = (
        f"<span><b>{render.escape(name)}</b> {render.escape(figure(value))}</span>" for name, value in pairs.items() if value is not None
    )
    return f'<div class="cv-figures">{"".join(told)}</div>'


def figure(value: Any) -> str:
    """A number as people read it, anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def pane(title: str, body: str, tone: str = "", under: str = "") -> str:
    """One column: a title (a text), its body and what stands under the title (HTML). Tones: good, bad, or none."""
    return f'<div class="cv-pane cv-{tone or "plain"}"><div class="cv-title">{render.escape(title)}</div>{under}{body}</div>'


def beside(panes: Sequence[str], pinned: str = "", title: str = "prompt") -> str:
    """Panes beside each other, at most two in a line, under a text that stays in sight while one scrolls."""
    top = f'<div class="cv-pinned"><div class="cv-title">{render.escape(title)}</div>{pinned}</div>' if pinned else ""
    return f'<div class="cv-beside">{top}<div class="cv-panes">{"".join(panes)}</div></div>'


def differing(
    a: Sequence[Mapping[str, Any]] | None, b: Sequence[Mapping[str, Any]] | None
) -> tuple[dict[int, list[Span]], dict[int, list[Span]], Diff]:
    """Two lists of turns compared turn by turn: spans to mark in each, and the comparison of their last turns."""
    in_a: dict[int, list[Span]] = {}
    in_b: dict[int, list[Span]] = {}
    last = word_diff("", "")
    if not a or not b:  # nothing to compare with: nothing to mark
        return in_a, in_b, last
    nothing: Mapping[str, Any] = {}
    for number, (one, other) in enumerate(itertools.zip_longest(a, b, fillvalue=nothing)):
        last = word_diff(str(one.get("content") or ""), str(other.get("content") or ""))
        in_a[number], in_b[number] = last.a, last.b
    return in_a, in_b, last


def turns_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A whole row as one list of turns, whatever its kind; answers of a pair or of candidates carry their name as the role."""
    out = [dict(message) for field in ("messages", "prompt") for message in row.get(field) or ()]
    for side in ("chosen", "rejected"):
        out += [{**message, "role": side} for message in row.get(side) or ()]
    for number, candidate in enumerate(row.get("candidates") or (), 1):
        out.append({"role": f"candidate {number}, {candidate.get('model') or 'unknown'}", "content": candidate.get("content")})
    return out
