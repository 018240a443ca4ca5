"""A small, safe Markdown for messages: headings, lists, quotes, tables, code, emphasis. Pure: text in, HTML out.

Everything is escaped first. Links and images become text that shows their address: nothing is loaded and nothing can be clicked by mistake.
No LaTeX, no colour or icon markup, no HTML. `leaf` turns a piece of text into HTML (and may mark words in it).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from app.render import escape

Leaf = Callable[[str], str]

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*$")
_RULE = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_ITEM = re.compile(r"([ \t]*)(?:[-*+]|(\d{1,9})[.)])[ \t]+(.*)")
_QUOTE = re.compile(r" {0,3}> ?(.*)")
_DIVIDER = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$")
# Every alternative begins with its own character and reaches at most 2,000 further, so that no text takes long.
_INLINE = re.compile(
    r"(?P<code>`{1,3})(?P<verbatim>[^`\n]{1,2000})(?P=code)"
    r"|(?P<image>!?)\[(?P<label>[^\[\]\n]{0,500})\]\((?P<url>[^()\s]{1,1000})(?:[ ]\"[^\"\n]{0,200}\")?\)"
    r"|\*\*(?P<strong>[^*\n]{1,2000})\*\*"
    r"|(?<![\w*])\*(?P<em>[^*\s][^*\n]{0,1000}?)\*(?![\w*])"
    r"|(?<!\w)_(?P<under>[^_\s][^_\n]{0,1000}?)_(?!\w)"
    r"|~~(?P<gone>[^~\n]{1,1000})~~"
)
DEEPEST = 6  # levels of lists and of emphasis within emphasis


def markdown(text: str, leaf: Leaf) -> str:
    """Markdown as HTML."""
    return _blocks(text.split("\n"), leaf, 0)


def _blocks(lines: list[str], leaf: Leaf, depth: int) -> str:
    out: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
        elif fence := _FENCE.match(line):
            at, html = _code(lines, at, fence, leaf)
            out.append(html)
        elif heading := _HEADING.match(line):
            level = len(heading[1])
            out.append(f'<p class="cv-h cv-h{level}" dir="auto">{inline(heading[2], leaf)}</p>')
            at += 1
        elif _RULE.match(line):
            out.append("<hr>")
            at += 1
        elif _QUOTE.match(line) and depth < DEEPEST:
            end = at
            while end < len(lines) and _QUOTE.match(lines[end]):
                end += 1
            inner = [found[1] for line in lines[at:end] if (found := _QUOTE.match(line))]
            out.append(f"<blockquote>{_blocks(inner, leaf, depth + 1)}</blockquote>")
            at = end
        elif _ITEM.match(line) and depth < DEEPEST:
            at, html = _list(lines, at, leaf, depth)
            out.append(html)
        elif "|" in line and at + 1 < len(lines) and _DIVIDER.match(lines[at + 1]):
            at, html = _table(lines, at, leaf)
            out.append(html)
        else:
            end = at + 1
            while end < len(lines) and lines[end].strip() and not _starts_block(lines[end]):
                end += 1
            out.append(f'<p dir="auto">{"<br>".join(inline(line, leaf) for line in lines[at:end])}</p>')
            at = end
    return "".join(out)


def _starts_block(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_FENCE, _HEADING, _RULE, _QUOTE, _ITEM))


def _code(lines: list[str], at: int, fence: re.Match[str], leaf: Leaf) -> tuple[int, str]:
    end = at + 1
    while end < len(lines) and not (lines[end].strip().startswith(fence[1]) and not lines[end].strip().strip(fence[1][0])):
        end += 1
    return end + 1, code_block("\n".join(lines[at + 1 : end]), fence[2].strip(), leaf)


def code_block(text: str, language: str, leaf: Leaf) -> str:
    """A block of code, its language in a corner."""
    return boxed(leaf(text), language)


def boxed(html: str, language: str) -> str:
    """Code that is HTML already, in its box."""
    said = f'<span class="cv-lang">{escape(language[:40])}</span>' if language else ""
    return f'<div class="cv-code">{said}<pre dir="ltr">{html}</pre></div>'


def _list(lines: list[str], at: int, leaf: Leaf, depth: int) -> tuple[int, str]:
    """Items at the first one's indentation; deeper lines belong to the item above them."""
    first = _ITEM.match(lines[at])
    assert first is not None
    indent, ordered = len(first[1]), first[2]
    items: list[list[str]] = []
    while at < len(lines):
        line = lines[at]
        found = _ITEM.match(line)
        own = len(line) - len(line.lstrip())
        if found and own <= indent and bool(found[2]) == bool(ordered) and not _RULE.match(line):
            items.append([found[3]])
        elif line.strip() and own > indent and items:
            items[-1].append(line[indent + 2 :] if line[: indent + 2].isspace() else line.lstrip())
        elif not line.strip() and at + 1 < len(lines) and (_ITEM.match(lines[at + 1]) or lines[at + 1].startswith(" " * (indent + 2))):
            items[-1].append("")
        else:
            break
        at += 1
    body = "".join(f'<li dir="auto">{_item(item, leaf, depth)}</li>' for item in items)
    return at, f'<ol start="{int(ordered)}">{body}</ol>' if ordered else f"<ul>{body}</ul>"


def _item(lines: list[str], leaf: Leaf, depth: int) -> str:
    rest = _blocks(lines[1:], leaf, depth + 1) if any(line.strip() for line in lines[1:]) else ""
    return inline(lines[0], leaf) + rest


def _table(lines: list[str], at: int, leaf: Leaf) -> tuple[int, str]:
    def cells(line: str, tag: str) -> str:
        return "".join(f'<{tag} dir="auto">{inline(cell.strip(), leaf)}</{tag}>' for cell in line.strip().strip("|").split("|"))

    end = at + 2
    while end < len(lines) and "|" in lines[end] and lines[end].strip():
        end += 1
    body = "".join(f"<tr>{cells(line, 'td')}</tr>" for line in lines[at + 2 : end])
    return end, f'<div class="cv-scroll"><table class="cv-md"><tr>{cells(lines[at], "th")}</tr>{body}</table></div>'


def inline(text: str, leaf: Leaf, depth: int = 0) -> str:
    """Emphasis, code and addresses within a line."""
    if depth > DEEPEST:
        return leaf(text)
    out, at = [], 0
    for found in _INLINE.finditer(text):
        out.append(leaf(text[at : found.start()]))
        at = found.end()
        kind = found.lastgroup if found["label"] is None else "label"
        if found["verbatim"] is not None:
            out.append(f"<code>{leaf(found['verbatim'])}</code>")
        elif kind == "label":
            name = "image: " if found["image"] else ""
            address = f' <span class="cv-url">({name}{leaf(found["url"])})</span>'
            out.append(f"<span>{inline(found['label'], leaf, depth + 1)}</span>{address}")
        else:
            tag = {"strong": "strong", "em": "em", "under": "em", "gone": "s"}[str(kind)]
            out.append(f"<{tag}>{inline(found[str(kind)], leaf, depth + 1)}</{tag}>")
    return "".join([*out, leaf(text[at:])])
