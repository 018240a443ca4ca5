"""A conversation as safe HTML: one card a turn, code in boxes, thinking folded away, tool calls laid out, any script and direction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.markdown import boxed, code_block, markdown
from app.render import FENCE, MOST, escape, find, mark

Span = tuple[int, int]


def chat(
    messages: Sequence[Mapping[str, Any]],
    words: Sequence[str] = (),
    spans: Mapping[int, Sequence[Span]] | None = None,
    as_markdown: bool = False,
    most: int = MOST,
    first: int = 1,
    field: str = "",
) -> str:
    """The turns as cards.

    Args:
        words: what was searched for, marked wherever it occurs.
        spans: evidence to mark, by turn (from 0): start and end in characters of the content. Shown as text, not as Markdown.
        most: characters shown of each message; how many more there are is said.
        first: the number of the first turn.
        field: what the turns are, when not a conversation of its own: "chosen", "rejected".
    """
    return "".join(
        _turn(number, message, words, (spans or {}).get(number, ()), as_markdown, most, first, field)
        for number, message in enumerate(messages)
    )


def _turn(
    number: int,
    message: Mapping[str, Any],
    words: Sequence[str],
    spans: Sequence[Span],
    as_markdown: bool,
    most: int,
    first: int,
    field: str,
) -> str:
    role = str(message.get("role") or field or "?")
    content = str(message.get("content") or "")
    thinking, calls = message.get("thinking"), message.get("tool_calls")
    named = " · ".join(str(message[key]) for key in ("name", "tool_call_id") if message.get(key))
    head = (
        f'<span class="cv-role">{escape(role)}</span><span class="cv-meta">{escape(named)}</span>'
        f'<span class="cv-meta cv-right">{f"{escape(field)} · " if field else ""}turn {number + first} · {len(content):,} chars</span>'
    )
    parts = []
    if thinking:
        parts.append(
            f"<details><summary>thinking · {len(thinking):,} chars</summary>{_body(str(thinking), words, (), as_markdown, most)}</details>"
        )
    if content:
        parts.append(_body(content, words, spans, as_markdown, most))
    if calls:
        parts.append(_calls(str(calls), words, most))
    if not parts:
        parts.append('<p class="cv-empty">(empty)</p>')
    kind = role if role in ("system", "user", "assistant", "tool") else "other"
    return f'<section class="cv-turn cv-{kind}"><header>{head}</header>{"".join(parts)}</section>'


def _body(content: str, words: Sequence[str], spans: Sequence[Span], as_markdown: bool, most: int) -> str:
    shown = content[:most]
    if as_markdown and not spans:
        html = f'<div class="cv-markdown">{markdown(shown.replace(chr(13) + chr(10), chr(10)), lambda piece: _marked(piece, words))}</div>'
    else:
        html = _text(shown, words, spans)
    more = len(content) - len(shown)
    return html + (f'<p class="cv-more">… {more:,} more characters</p>' if more > 0 else "")


def _text(text: str, words: Sequence[str], spans: Sequence[Span]) -> str:
    """Exactly the characters, with fenced code set apart. Spans may cross a fence: each part marks its share."""
    out, at = [], 0

    def part(start: int, end: int) -> str:
        own = [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start]
        return mark(text[start:end], own) if own else _marked(text[start:end], words)

    for fence in FENCE.finditer(text):
        before = text[at : fence.start()].strip("\n")
        if before:
            start = text.index(before, at)
            out.append(f'<div class="cv-text" dir="auto">{part(start, start + len(before))}</div>')
        start, end = fence.span(3)
        end = end - 1 if text[start:end].endswith("\n") else end
        out.append(boxed(part(start, end), fence[2].strip()))
        at = fence.end()
    rest = text[at:].lstrip("\n") if at else text
    if rest:
        out.append(f'<div class="cv-text" dir="auto">{part(len(text) - len(rest), len(text))}</div>')
    return "".join(out)


def _marked(text: str, words: Sequence[str]) -> str:
    return mark(text, [span for word in words for span in find(text, word)], "found") if words else escape(text)


def _calls(text: str, words: Sequence[str], most: int) -> str:
    """Tool calls: the function's name, and its arguments laid out."""
    try:
        calls = json.loads(text)
        functions = [call["function"] for call in calls]
        told = [(str(function["name"]), function.get("arguments")) for function in functions]
    except (ValueError, TypeError, KeyError, RecursionError):
        return code_block(text[:most], "tool calls", lambda piece: _marked(piece, words))
    return "".join(code_block(_pretty(given)[:most], f"calls {name}", lambda piece: _marked(piece, words)) for name, given in told)


def _pretty(value: Any) -> str:
    """JSON, laid out when it is some."""
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
        return json.dumps(parsed, indent=2, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        return str(value)
