"""Curves: a few lines over the same axes, with the values where they end. A pure function of numbers and names.

The lines are an SVG inside an image's address: SVG of its own would not pass the page's sanitiser, and an image cannot run anything.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence

from app.charts import COLOURS
from app.render import escape

WIDTH, HEIGHT = 420, 150


def curve(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """One figure: for each series its points (x, y), in the order of x. The y axis ends at what the 2nd to the 98th percentile need,
    so that one spike does not flatten everything else; what lies outside is drawn at the edge."""
    ys = sorted(y for points in series.values() for _, y in points)
    xs = [x for points in series.values() for x, _ in points]
    low, high = ys[int(0.02 * (len(ys) - 1))], ys[math.ceil(0.98 * (len(ys) - 1))]
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.05, high + (abs(high) or 1) * 0.05
    left, right = min(xs), max(max(xs), min(xs) + 1e-9)

    def place(x: float, y: float) -> str:
        across = WIDTH * (x - left) / (right - left)
        down = HEIGHT * (1 - (min(max(y, low), high) - low) / (high - low))
        return f"{across:.1f},{down:.1f}"

    drawn, key = [], []
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6" vector-effect="non-scaling-stroke"/>')
        key.append(f'<span><b style="background:{colour}"></b>{escape(name)} {points[-1][1]:.4g}</span>')
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">{"".join(drawn)}</svg>'
    image = base64.b64encode(svg.encode()).decode()
    return (
        f'<figure class="cv-curve"><figcaption>{escape(title)} <span>{low:.4g} to {high:.4g}</span></figcaption>'
        f'<div class="cv-plot"><img alt="" src="data:image/svg+xml;base64,{image}"></div>'
        f'<div class="cv-ends"><span>{left:,.6g}</span><span>{right:,.6g}</span></div><div class="cv-key">{"".join(key)}</div></figure>'
    )
