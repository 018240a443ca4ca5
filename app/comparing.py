"""Two datasets beside each other, without Streamlit: the counts of columnar.compare, the rows behind each count, and distributions.

lists = rows_sql("removed", source=True)           # the rows only the first has, as SQL over the schemas `a` and `b`
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

from app.db import Data
from app.state import NUMBERS
from columnar.compare import compare
from columnar.jsonviews import quoted
from columnar.view import stamp

CELLS = {"removed": "only in A", "added": "only in B", "changed": "changed", "moved": "moved"}
BINS = 24

# As columnar.compare: rows whose id only one side has; those of equal text are paired off one to one, the k-th with the k-th.
ONLY = """
    WITH only_a AS (SELECT *, row_number() OVER (PARTITION BY hash ORDER BY id) AS k
                    FROM (SELECT id, hash, source FROM a.text ANTI JOIN b.text USING (id))),
      only_b AS (SELECT *, row_number() OVER (PARTITION BY hash ORDER BY id) AS k
                 FROM (SELECT id, hash, source FROM b.text ANTI JOIN a.text USING (id)))
"""
LISTS = {
    "removed": f"""{ONLY} SELECT g.id, g.source, coalesce(d.stage || ': ' || d.reason, '') AS why
        FROM (FROM only_a ANTI JOIN only_b USING (hash, k)) AS g
        LEFT JOIN (SELECT DISTINCT ON (id) id, stage, reason FROM b.dropped) AS d USING (id)""",
    "added": f"""{ONLY} SELECT g.id, g.source, coalesce(d.stage || ': ' || d.reason, '') AS why
        FROM (FROM only_b ANTI JOIN only_a USING (hash, k)) AS g
        LEFT JOIN (SELECT DISTINCT ON (id) id, stage, reason FROM a.dropped) AS d USING (id)""",
    "changed": "SELECT id, g.source FROM a.text AS g JOIN b.text AS y USING (id) WHERE g.hash <> y.hash",
    "moved": f"{ONLY} SELECT g.id, g.source, y.id AS now, y.source AS source_now FROM only_a AS g JOIN only_b AS y USING (hash, k)",
}

_kept: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()
_one = threading.Lock()


def compared(a: Path, b: Path) -> dict[str, Any]:
    """The comparison of columnar.compare, from memory while no file of either changes.

    Raises:
        StoreError: one of them is not a dataset.
    """
    key = (a.resolve(), b.resolve(), stamp([a.resolve(), b.resolve()]))
    with _one:  # one at a time: it may need memory
        if key not in _kept:
            _kept[key] = compare(a, b)
            while len(_kept) > 8:
                _kept.popitem(last=False)
        return _kept[key]


def rows_sql(cell: str, source: str | None = None) -> str:
    """The rows behind a count, in a stable order; `$source` is to be given when there is one."""
    return f"SELECT * FROM ({LISTS[cell]}) WHERE {'source = $source' if source is not None else 'true'} ORDER BY md5(id), id"


def shared_numbers(data: Data) -> list[str]:
    """The columns of numbers that both datasets have."""
    sides = [{line["column_name"]: str(line["column_type"]) for line in data.run(f"DESCRIBE FROM {side}.rows").rows} for side in "ab"]
    return [name for name, kind in sides[0].items() if kind in NUMBERS and sides[1].get(name) in NUMBERS]


class Overlay(NamedTuple):
    """One column's distribution in both: the lower edge of each bin and the share of each side's rows in it."""

    edges: list[float]
    a: list[float]
    b: list[float]
    without: tuple[int, int]  # rows without a value


def overlay(data: Data, column: str) -> Overlay | None:
    """The distribution of a column in both datasets, in the same bins; the last holds what is above the 99th percentile."""
    name = quoted(column)
    both = f"(SELECT {name}::DOUBLE AS v FROM a.rows UNION ALL SELECT {name}::DOUBLE FROM b.rows)"
    found = data.run(
        f"SELECT min(v) AS low, quantile_disc(v, 0.99) AS high, max(v) AS top FROM {both} WHERE isfinite(v)", timeout=120
    ).rows[0]
    if found["low"] is None:
        return None
    low, high = float(found["low"]), float(found["high"])
    if high <= low:
        high = float(found["top"]) if found["top"] > low else low + 1
    step = (high - low) / BINS
    if low == int(low) and high == int(high):
        step = max(1, -(-(high - low) // BINS))
    bins = int((high - low) // step) + 1
    place = f"least({bins - 1}, greatest(0, floor(({name}::DOUBLE - {low!r}) / {step!r})))"
    counts: list[dict[int | None, int]] = []
    for side in "ab":
        sql = f"SELECT CASE WHEN isfinite({name}::DOUBLE) THEN {place}::INTEGER END AS bin, count(*) AS n FROM {side}.rows GROUP BY 1"
        counts.append({line["bin"]: line["n"] for line in data.run(sql, timeout=120).rows})
    shares = []
    for one in counts:
        total = sum(n for bin_, n in one.items() if bin_ is not None) or 1
        shares.append([one.get(i, 0) / total for i in range(bins)])
    return Overlay([low + i * step for i in range(bins)], shares[0], shares[1], (counts[0].get(None, 0), counts[1].get(None, 0)))


def overlaid(found: Overlay, names: tuple[str, str], escape: Any) -> str:
    """Two distributions drawn over each other, as HTML."""
    most = max([*found.a, *found.b]) or 1
    bins = []
    for i, (a, b) in enumerate(zip(found.a, found.b, strict=True)):
        end = f" to {found.edges[i + 1]:,.6g}" if i + 1 < len(found.edges) else " and more"
        title = f"{found.edges[i]:,.6g}{end}: {100 * a:.1f} % and {100 * b:.1f} %"
        bars = f'<b class="cv-a" style="height:{100 * a / most:.1f}%"></b><b class="cv-b" style="height:{100 * b / most:.1f}%"></b>'
        bins.append(f'<i title="{title}">{bars}</i>')
    ends = f"<span>{found.edges[0]:,.6g}</span><span>{found.edges[-1]:,.6g} and more</span>"
    key = "".join(f'<span><b class="cv-{side}"></b>{escape(name)}</span>' for side, name in zip("ab", names, strict=True))
    return f'<div class="cv-key">{key}</div><div class="cv-over">{"".join(bins)}</div><div class="cv-ends">{ends}</div>'
