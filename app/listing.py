"""What Browse asks of a dataset: a page of rows, how many there are, the counts beside each filter, a histogram. No Streamlit.

Only narrow columns are read, except where text is searched. Every number is exact and says under which filter it holds.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import time
from dataclasses import dataclass
from typing import Any

from app.db import Data
from app.state import NULL, NUMBERS, Condition, State, condition
from columnar.ask import Result
from columnar.jsonviews import quoted

PAGE = 25
LARGE = 1_000_000  # rows from which a search looks at the previews unless told otherwise
DRAWN = 2_000  # rows at least among which a random order is made
COUNTED = 300_000  # rows up to which a search of every turn is counted without asking
LEAVE_OUT = {"id", "hash", "prompt_hash", "preview", "key"}  # columns in which every row is different
SHOWN = ("source", "reason", "n_tokens", "n_turns")  # beside the preview, those that there are


@dataclass(frozen=True)
class Found:
    """A page of the list."""

    rows: list[dict[str, Any]]
    sql: str
    condition: Condition
    result: Result


def view(state: State) -> str:
    """The SQL view of a part."""
    return "dropped" if state.part == "dropped" else "rows"


def settled(data: Data, state: State) -> State:
    """With the place where text is looked for decided: every turn, or in a large dataset the previews."""
    if not state.q or state.within or "preview" not in data.columns[view(state)]:
        return state
    return state.go(within="preview" if data.dataset.rows > LARGE else "text", page=state.page)


def limits(data: Data, state: State, without: str = "") -> Condition:
    """The filters as SQL for this dataset."""
    return condition(settled(data, state), data.columns[view(state)], without)


def page(data: Data, state: State) -> Found:
    """The rows of a page, in the order asked for.

    Raises:
        QueryError: a filter that is not SQL, an unknown column, or out of time.
    """
    columns = data.columns[view(state)]
    where = limits(data, state)
    shown = [name for name in SHOWN if name in columns]
    ordered = state.sort.removeprefix("-")
    if ordered in columns and ordered not in shown and ordered not in LEAVE_OUT and columns[ordered] in NUMBERS:
        shown.append(ordered)
    chosen = ", ".join(["id", f"{_preview(columns, settled(data, state))} AS preview", *map(quoted, shown)])
    skip = (state.page - 1) * PAGE
    order = _order(data, state, columns)
    head, tail = f"SELECT {chosen}\nFROM ", f"\nWHERE {where.sql}{order}\nLIMIT {PAGE} OFFSET {skip}"
    sql = f"{head}{view(state)}{tail}"
    given = where.params | ({"q": state.q if state.regex else state.q.lower()} if "$q" in sql else {})
    result = None
    if state.part == "kept" and not state.filtered and not order and "preview" in columns:
        result = _by_place(data, skip, ["id", "preview", *shown])
    if result is None:
        needed = (
            ["id", "preview", *shown, ordered]
            if "preview" in columns and (not state.q or settled(data, state).within == "preview")
            else None
        )
        result = data.run(f"{head}{_source(data, state, needed)}{tail}", given)
    return Found(result.rows, sql, Condition(where.sql, given, where.ignored), result)


def _by_place(data: Data, skip: int, columns: list[str]) -> Result | None:
    """Rows as they lie, without a query: as quick in the middle as at the start."""
    started = time.monotonic()
    table = data.layout.read(skip, PAGE, columns)
    return Result(table, False, time.monotonic() - started) if table is not None else None


def _source(data: Data, state: State, wanted: list[str] | None) -> str:
    """What to read: the view, or, where the filters tell which columns they need, only the files that hold those."""
    if state.part == "dropped" or wanted is None or state.where or (state.q and settled(data, state).within != "preview"):
        return view(state)
    names = {*wanted, *(column for column, _ in state.values), *(column for column, _, _ in state.ranges)}
    names |= {"preview"} if state.q else set()
    names |= {"id"} if state.flag or state.hit or state.dup or state.seed is not None else set()
    return f"({data.layout.select(names & set(data.columns['rows']))})"


def total(data: Data, state: State) -> int:
    """How many rows there are in this part."""
    return data.dataset.rows if state.part == "kept" else int(data.one("SELECT count(*) FROM dropped"))


def count(data: Data, state: State, timeout: float | None = None) -> int:
    """How many rows the filters leave."""
    if not state.filtered:
        return total(data, state)
    where = limits(data, state)
    return int(data.one(f"SELECT count(*) FROM {_source(data, state, [])} WHERE {where.sql}", where.params, timeout or 30))


def counts_itself(data: Data, state: State) -> bool:
    """Whether the count comes without asking: not when it means to read all the text of a large dataset."""
    return not state.q or settled(data, state).within == "preview" or total(data, state) <= COUNTED


def _order(data: Data, state: State, columns: dict[str, str]) -> str:
    if state.seed is not None:
        return f"{_thinned(data, state)}\nORDER BY md5(id || '{state.seed}')"
    name = state.sort.removeprefix("-")
    return f"\nORDER BY {quoted(name)} {'DESC' if state.sort.startswith('-') else 'ASC'} NULLS LAST, id" if name in columns else ""


def _thinned(data: Data, state: State) -> str:
    """Of many rows a random order looks at those whose ids, which are hashes, end in digits that follow from the seed."""
    digits = 0
    if counts_itself(data, state):
        rows = count(data, state)
        while rows > DRAWN * 16 ** (digits + 1):
            digits += 1
    ending = hashlib.sha256(str(state.seed).encode()).hexdigest()[:digits]
    return f" AND ends_with(id, '{ending}')" if ending else ""


def _preview(columns: dict[str, str], state: State) -> str:
    """The beginning of a row; under a search the text around the first find."""
    texts = [
        f"list_transform(coalesce({c}, []), lambda m: m.content)" for c in ("messages", "prompt", "chosen", "rejected") if c in columns
    ]
    if not texts:
        return "preview" if "preview" in columns else "''"
    joined = texts[0] if len(texts) == 1 else f"list_concat({', '.join(texts)})"
    first = "preview" if "preview" in columns else f"substr({joined}[1], 1, 160)"
    if not state.q or state.within == "preview":
        return first
    holds = "regexp_matches(t, $q, 'i')" if state.regex else "contains(lower(t), $q)"
    hit = f"list_filter({joined}, lambda t: {holds})[1]"
    at = f"strpos({hit}, regexp_extract({hit}, $q, 0, 'i'))" if state.regex else f"strpos(lower({hit}), $q)"
    return f"coalesce(CASE WHEN {at} > 21 THEN '… ' ELSE '' END || substr({hit}, greatest(1, {at} - 20), 160), {first})"


def facet(data: Data, state: State, column: str, most: int = 12) -> tuple[list[tuple[str, int]], bool]:
    """The values of a column with their counts, largest first, under all filters but the one on it; and whether there are more.
    No value is `NULL`."""
    where = limits(data, state, without=column)
    counted = f"SELECT {quoted(column)}::VARCHAR AS value, count(*) AS n FROM {_source(data, state, [column])} WHERE {where.sql} GROUP BY 1"
    sql = f"{counted} ORDER BY n DESC, 1 LIMIT {most + 1}"
    rows = data.run(sql, where.params).rows
    found = [(NULL if row["value"] is None else str(row["value"]), int(row["n"])) for row in rows[:most]]
    missing = [value for value in state.chosen(column) if value not in dict(found)]
    return found + [(value, -1) for value in missing], len(rows) > most


def signs(data: Data, state: State) -> list[tuple[str, int]]:
    """The yes-or-no columns that some row says yes to, with how many; those of the filter always."""
    names = [name for name, kind in data.columns[view(state)].items() if kind == "BOOLEAN"]
    if not names:
        return []
    where = limits(data, state)
    sums = ", ".join(f"count_if({quoted(name)}) AS {quoted(name)}" for name in names)
    row = data.run(f"SELECT {sums} FROM {_source(data, state, names)} WHERE {where.sql}", where.params).rows[0]
    return sorted(((name, int(n)) for name, n in row.items() if n or state.chosen(name)), key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True)
class Histogram:
    """Counts by bin; bin i holds edges[i] <= value < edges[i + 1], the last one also its end."""

    edges: list[float]
    counts: list[int]
    missing: int


def histogram(data: Data, state: State, column: str, bins: int = 24) -> Histogram | None:
    """A column's values under all filters but the one on it, over the range it has in the whole part; None without any value."""
    name = quoted(column)
    ends = _span(data, state, column)
    if ends is None:
        return None
    whole = "INT" in data.columns[view(state)][column]
    edges = nice_edges(*ends, whole, bins)
    where = limits(data, state, without=column)
    # whole numbers repeat, so that counting each is cheap; others are counted by step
    step = 1.0 if whole else edges[1] - edges[0]
    value = name if whole else f"CASE WHEN isfinite({name}) THEN floor(({name} - {edges[0]!r}) / {step!r}) END"
    sql = f"SELECT {value} AS value, count(*) AS n FROM {_source(data, state, [column])} WHERE {where.sql} GROUP BY 1"
    counts, missing = [0] * (len(edges) - 1), 0
    for row in data.run(sql, where.params, max_rows=None).rows:
        if row["value"] is None:
            missing += int(row["n"])
        else:
            at = bisect.bisect_right(edges, row["value"]) - 1 if whole else int(row["value"])
            counts[min(max(at, 0), len(counts) - 1)] += int(row["n"])
    return Histogram(edges, counts, missing)


def _span(data: Data, state: State, column: str) -> tuple[float, float] | None:
    """The least and the greatest value of a column in the whole part."""
    stated = data.layout.bounds(column) if state.part == "kept" else None
    if stated is not None and all(map(math.isfinite, stated)):
        return stated
    name = quoted(column)
    sql = f"SELECT min({name})::DOUBLE AS low, max({name})::DOUBLE AS high FROM {view(state)} WHERE isfinite({name}::DOUBLE)"
    ends = data.run(sql).rows[0]
    return (ends["low"], ends["high"]) if ends["low"] is not None else None


def nice_edges(low: float, high: float, whole: bool, bins: int = 24) -> list[float]:
    """Edges that people can read: single numbers when there are few, 1-2-5 steps, powers when the values span decades."""
    if whole and high - low < bins:
        return [float(n) for n in range(int(low), int(high) + 2)]
    if low >= 0 and whole and high >= 1000:
        edges = [0.0, *(float(m * 10**e) for e in range(16) for m in (1, 2, 5))]
        start = max((i for i, edge in enumerate(edges) if edge <= low), default=0)
        end = next((i for i, edge in enumerate(edges) if edge > high), len(edges) - 1)
        return edges[start : end + 1]
    if low == high:
        return [low, low + (abs(low) or 1) * 1e-3]
    rough = (high - low) / bins
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = int(low // step)
    edges = [round((first + i) * step, 12) for i in range(bins + 2)]
    return [edge for i, edge in enumerate(edges) if i == 0 or edges[i - 1] < high or edge <= high]
