"""Line charts as SVG files, without a plotting library: curves with bands, in docs and run directories.

write_chart(Path("curve.svg"), "Reward against K", "K", "reward", [Curve("max", [1, 2, 4], [0.2, 0.4, 0.5])])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from columnar.store import whole_file

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 36, 48
COLOURS = ("#1f5fa8", "#c4572b", "#2e8b57", "#7b4fa3", "#8a6d1d", "#555555", "#b0307a", "#1c8c9c")  # told apart by dashes as well
DASHES = ("", "7 4", "2 3", "9 3 2 3")


class Curve(NamedTuple):
    """One line; `low` and `high` draw a band around it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from low to high."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / wanted
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= rough)
    return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def write_chart(path: Path, title: str, x_name: str, y_name: str, curves: Sequence[Curve], log_x: bool = False) -> None:
    """Write the chart in one step; points that are no numbers are left out.

    Raises:
        ValueError: no point at all.
    """
    curves = [_known(curve) for curve in curves]
    xs = [x for c in curves for x in c.x]
    ys = [y for c in curves for part in (c.y, c.low or (), c.high or ()) for y in part]
    if not xs:
        raise ValueError(f"{path}: nothing to draw")
    x_low, x_high, y_low, y_high = min(xs), max(xs), min(ys), max(ys)
    pad = (y_high - y_low) * 0.05 or 0.5
    y_low, y_high = (0.0 if 0 <= y_low < 0.3 * y_high else y_low - pad), y_high + pad
    bend = math.log if log_x else float
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def px(x: float) -> float:
        return LEFT + wide * (bend(x) - bend(x_low)) / ((bend(x_high) - bend(x_low)) or 1)

    def py(y: float) -> float:
        return TOP + tall * (1 - (y - y_low) / (y_high - y_low))

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>',
        f'<text transform="translate(16 {TOP + tall / 2}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>',
    ]
    for y in ticks(y_low, y_high):
        out.append(f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{py(y):.1f}" y2="{py(y):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{py(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in sorted(set(xs)) if log_x and len(set(xs)) <= 12 else ticks(x_low, x_high):
        out.append(f'<text x="{px(x):.1f}" y="{TOP + tall + 18}" text-anchor="middle">{x:g}</text>')
    for i, curve in enumerate(curves):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // 2 % len(DASHES)]
        if curve.low and curve.high:
            around = [*zip(curve.x, curve.high, strict=True), *reversed(list(zip(curve.x, curve.low, strict=True)))]
            out.append(f'<polygon points="{_points(around, px, py)}" fill="{colour}" opacity="0.15"/>')
        line = _points(zip(curve.x, curve.y, strict=True), px, py)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
        at = TOP + 14 + 18 * i
        place = WIDTH - RIGHT + 10
        stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        out.append(f'<line x1="{place}" x2="{place + 24}" y1="{at - 4}" y2="{at - 4}" {stroke}/>')
        out.append(f'<text x="{place + 30}" y="{at}">{escape(curve.name)}</text>')
    with whole_file(path) as temporary:
        temporary.write_text("\n".join([*out, "</svg>"]) + "\n", encoding="utf-8")


def _known(curve: Curve) -> Curve:
    low, high = curve.low or curve.y, curve.high or curve.y
    kept = [p for p in zip(curve.x, curve.y, low, high, strict=True) if all(v is not None and math.isfinite(v) for v in p)]
    x, y, low, high = ([p[i] for p in kept] for i in range(4))
    return Curve(curve.name, x, y, low if curve.low else None, high if curve.high else None)


def _points(pairs: Iterable[tuple[float, float]], px: Callable[[float], float], py: Callable[[float], float]) -> str:
    return " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in pairs)
