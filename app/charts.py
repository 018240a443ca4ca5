"""Charts as plain HTML: bars, histograms, tables. Pure functions of numbers and labels; there before a chart library would be loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.render import escape

COLOURS = ("#c4622d", "#3f7cac", "#6a994e", "#b0413e", "#8e6c8a", "#d8a31a", "#4d908e", "#7f7f7f", "#9c6644", "#577590")


class Bar(NamedTuple):
    """A line of a bar chart: its name, its number, and where a click on it leads (a relative address)."""

    label: str
    value: float
    href: str = ""
    colour: str = ""
    note: str = ""


def bars(lines: Sequence[Bar], of: float | None = None, unit: str = "") -> str:
    """Horizontal bars, each with its number and its share of `of` (default: of the largest, without a share)."""
    if not lines:
        return '<p class="cv-note">nothing to show</p>'
    largest = max((line.value for line in lines), default=0) or 1
    rows = []
    for number, line in enumerate(lines):
        width = 100 * line.value / largest
        part = 100 * line.value / of if of else 0
        share = "" if not of else " · <0.1 %" if 0 < part < 0.1 else f" · {part:.1f} %"
        share = escape(share)
        colour = line.colour or COLOURS[0]
        label = escape(line.label) or "(empty)"
        name = f'<a href="{escape(line.href)}" target="_self">{label}</a>' if line.href else label
        rows.append(
            f'<div class="cv-bar" style="--n:{number}"><span class="cv-name" title="{label}">{name}</span>'
            f'<span class="cv-track"><i style="width:{width:.2f}%;background:{colour}"></i></span>'
            f'<span class="cv-num">{number_text(line.value)}{unit}{share}{f" · {escape(line.note)}" if line.note else ""}</span></div>'
        )
    return f'<div class="cv-bars">{"".join(rows)}</div>'


def stacked(parts: Sequence[Bar]) -> str:
    """One bar of several parts, with a legend."""
    total = sum(part.value for part in parts) or 1
    coloured = [(part, part.colour or COLOURS[n % len(COLOURS)]) for n, part in enumerate(parts)]
    pieces = "".join(
        f'<i style="width:{100 * part.value / total:.3f}%;background:{colour}" title="{escape(part.label)}: {number_text(part.value)}"></i>'
        for part, colour in coloured
    )
    legend = "".join(
        f'<span><b style="background:{colour}"></b>{escape(part.label)} {100 * part.value / total:.1f} %</span>'
        for part, colour in coloured
    )
    return f'<div class="cv-stack">{pieces}</div><div class="cv-legend">{legend}</div>'


def histogram(
    counts: Sequence[float], edges: Sequence[float], lit: tuple[float | None, float | None] = (None, None), missing: int = 0
) -> str:
    """Upright bars, one a bin; bin i counts values from edges[i] up to edges[i + 1] (the last: and above).

    Args:
        lit: bins outside these bounds are drawn pale.
        missing: rows without a value, said beside the bars.
    """
    largest = max(counts, default=0) or 1
    low, high = lit
    columns = []
    for number, count in enumerate(counts):
        start = edges[number]
        end = edges[number + 1] if number + 1 < len(edges) else None
        pale = (low is not None and end is not None and end <= low) or (high is not None and start > high)
        span = f"{number_text(start)} to {number_text(end)}" if end is not None else f"{number_text(start)} and more"
        height = max(100 * count / largest, 1.5) if count else 0
        columns.append(f'<i class="{"cv-pale" if pale else ""}" style="height:{height:.1f}%" title="{span}: {number_text(count)}"></i>')
    said = edges if len(edges) <= 16 else [edges[0], edges[-1]]
    ends = "".join(f"<span>{number_text(edge)}</span>" for edge in said)
    none = f'<p class="cv-note">no value: {missing:,}</p>' if missing else ""
    return f'<div class="cv-hist">{"".join(columns)}</div><div class="cv-axis">{ends}</div>{none}'


def tiles(numbers: Sequence[tuple[str, str, str]]) -> str:
    """Key figures: (name, figure, a remark)."""
    return (
        '<div class="cv-tiles">'
        + "".join(f"<div><small>{escape(a)}</small><b>{escape(b)}</b><small>{escape(c)}&nbsp;</small></div>" for a, b, c in numbers)
        + "</div>"
    )


def table(columns: Sequence[str], lines: Sequence[Sequence[object]], links: Mapping[tuple[int, int], str] | None = None) -> str:
    """A small table; numbers to the right. `links`: (line, column) -> where a click leads."""
    body = []
    for i, line in enumerate(lines):
        cells = []
        for j, value in enumerate(line):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            text = (
                number_text(value)
                if isinstance(value, int | float) and not isinstance(value, bool)
                else escape("" if value is None else str(value))
            )
            href = (links or {}).get((i, j))
            text = f'<a href="{escape(href)}" target="_self">{text}</a>' if href else text
            cells.append(f'<td class="{"cv-n" if number else ""}">{text}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    return f'<div class="cv-scroll"><table class="cv-table"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def number_text(value: float) -> str:
    """A number for people: 12,345 or 0.25."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"
