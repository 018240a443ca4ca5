"""A table of counts coloured by size, each cell a link: source by source, source by benchmark. A pure function of numbers and names."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence

from app import render


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    counts: Mapping[tuple[str, str], int],
    href: Callable[[str, str], str],
    corner: str = "",
    chosen: tuple[str, str] | None = None,
    told: Callable[[str, str], str] | None = None,
) -> str:
    """The table; an empty cell stands for nought.

    Args:
        href: the link of a cell.
        corner: what rows and columns are, for the top left.
        told: what a cell says when pointed at.
    """
    most = max(counts.values(), default=0)
    head = "".join(f'<th scope="col"><span>{render.escape(name)}</span></th>' for name in columns)
    lines = []
    for row in rows:
        cells = "".join(_cell(row, column, counts.get((row, column), 0), most, href, chosen, told) for column in columns)
        total = sum(counts.get((row, column), 0) for column in columns)
        lines.append(f'<tr><th scope="row">{render.escape(row)}</th>{cells}<td class="cv-total">{total:,}</td></tr>')
    return (
        f'<div class="cv-heat"><table><thead><tr><th class="cv-corner">{render.escape(corner)}</th>{head}<th>all</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(
    row: str,
    column: str,
    count: int,
    most: int,
    href: Callable[[str, str], str],
    chosen: tuple[str, str] | None,
    told: Callable[[str, str], str] | None,
) -> str:
    if not count:
        return "<td></td>"
    strength = 0.12 + 0.68 * math.log1p(count) / math.log1p(most)
    title = f' title="{html.escape(told(row, column))}"' if told else ""
    here = " cv-here" if chosen == (row, column) else ""
    link = html.escape(href(row, column))
    cell = f'<a href="{link}" target="_self"{title}>{count:,}</a>'
    return f'<td class="cv-cell{here}" style="background:rgba(209,73,91,{strength:.2f})">{cell}</td>'
