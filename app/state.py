"""What the URL says, and back: dataset, filters, order, page and row as one frozen value, and the filters as a SQL condition.

    ?data=tiny&source=alpaca&source=chats&min.n_tokens=100&q=hello&row=3f2a91c04d5e6b78

Every key that is not reserved names a column: its values (several: any of them; ∅: no value), or `min.COLUMN` and `max.COLUMN`.
So any column a sidecar brings can be filtered, and a link means the same in every view. What only one view knows (which lint, which
benchmark) is `view.NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from columnar.jsonviews import quoted

NULL = "∅"  # how a link and a facet write "no value"
PARTS = ("kept", "dropped")
WITHIN = ("text", "preview")
ROLES = ("system", "user", "assistant", "tool")
RESERVED = {"data", "part", "q", "role", "regex", "flag", "hit", "dup", "where", "in", "sort", "seed", "page", "row", "other"}
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE")


@dataclass(frozen=True)
class State:
    """One place in the browser. The defaults do not appear in the URL."""

    data: str = ""  # which dataset; empty: the first
    part: str = "kept"
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (column, any of these)
    ranges: tuple[tuple[str, float | None, float | None], ...] = ()  # (column, at least, at most)
    q: str = ""  # text in any turn
    within: str = ""  # where it is looked for: "text" (every turn), "preview" (the first characters of a row), empty: as suits the size
    role: str = ""  # only turns of this role
    regex: bool = False
    flag: tuple[str, ...] = ()  # rows with any of these flags; ∅: with none
    hit: tuple[str, ...] = ()  # rows that share text with items of any of these benchmarks
    dup: bool = False  # rows that stand for removed duplicates
    where: str = ""  # a condition in SQL
    sort: str = ""  # a column, with a minus for descending
    seed: int | None = None  # a random order
    page: int = 1
    row: str = ""
    other: str = ""  # the second dataset of a comparison
    choices: tuple[tuple[str, str], ...] = ()  # (name, value) of what a view of its own lets one choose

    @property
    def filtered(self) -> bool:
        """Whether any filter is set."""
        return bool(self.values or self.ranges or self.q or self.flag or self.hit or self.dup or self.where)

    def chosen(self, column: str) -> tuple[str, ...]:
        """The values of a column that are asked for."""
        return dict(self.values).get(column, ())

    def choice(self, name: str, default: str = "") -> str:
        """What was chosen in a view."""
        return dict(self.choices).get(name, default)

    def with_choice(self, name: str, value: str) -> State:
        """With this choice of a view; an empty one takes it away."""
        others = {key: said for key, said in self.choices if key != name}
        return self.go(choices=tuple(sorted((others | {name: value} if value else others).items())))

    def bounds(self, column: str) -> tuple[float | None, float | None]:
        """The bounds of a column."""
        return next(((low, high) for name, low, high in self.ranges if name == column), (None, None))

    def go(self, **changes: Any) -> State:
        """Another place; when the list changes with it, at its first page."""
        moved = set(changes) - {"row", "page", "other", "choices"}
        return replace(self, **({"page": 1, **changes} if moved else changes))

    def with_values(self, column: str, chosen: Iterable[str]) -> State:
        """With this choice for one column; an empty one takes the filter away."""
        others = {name: values for name, values in self.values if name != column}
        chosen = tuple(dict.fromkeys(chosen))
        return self.go(values=tuple(sorted((others | {column: chosen} if chosen else others).items())))

    def with_bounds(self, column: str, low: float | None, high: float | None) -> State:
        """With these bounds for one column; none at all takes the filter away."""
        others = [item for item in self.ranges if item[0] != column]
        return self.go(ranges=tuple(sorted(others + ([(column, low, high)] if (low, high) != (None, None) else []), key=str)))

    def unfiltered(self) -> State:
        """The same dataset and part without any filter."""
        return State(data=self.data, part=self.part, other=self.other)


def parse(query: Mapping[str, list[str]]) -> State:
    """The place a URL names. What cannot be understood (a page that is no number) counts as not said."""

    def one(key: str) -> str:
        return (query.get(key) or [""])[-1]

    bounds: dict[str, list[float | None]] = {}
    values: dict[str, tuple[str, ...]] = {}
    choices: dict[str, str] = {}
    for key, given in query.items():
        side, dot, column = key.partition(".")
        if dot and side in ("min", "max") and column:
            bound = _number(given[-1])
            if bound is not None:
                bounds.setdefault(column, [None, None])[side == "max"] = bound
        elif dot and side == "col" and column:
            values[column] = tuple(dict.fromkeys(given))
        elif dot and side == "view" and column:
            choices[column] = given[-1]
        elif key not in RESERVED:
            values[key] = tuple(dict.fromkeys(given))
    page, seed = _whole(one("page")), _whole(one("seed"))
    return State(
        data=one("data"),
        part=one("part") if one("part") in PARTS else "kept",
        values=tuple(sorted(values.items())),
        ranges=tuple(sorted(((column, low, high) for column, (low, high) in bounds.items()), key=str)),
        q=one("q"),
        within=one("in") if one("in") in WITHIN else "",
        role=one("role") if one("role") in ROLES else "",
        regex=one("regex") == "1",
        flag=tuple(query.get("flag") or ()),
        hit=tuple(query.get("hit") or ()),
        dup=one("dup") == "1",
        where=one("where"),
        sort=one("sort"),
        seed=seed,
        page=max(page or 1, 1),
        row=one("row"),
        other=one("other"),
        choices=tuple(sorted(choices.items())),
    )


def params(state: State) -> dict[str, list[str]]:
    """The place as query parameters; `parse` of it gives the same place."""
    out: dict[str, list[str]] = {}
    for key in ("data", "q", "role", "where", "sort", "row", "other"):
        if getattr(state, key):
            out[key] = [getattr(state, key)]
    if state.within:
        out["in"] = [state.within]
    if state.part != "kept":
        out["part"] = [state.part]
    for column, chosen in state.values:
        plain = column not in RESERVED and column.partition(".")[0] not in ("min", "max", "col", "view")
        out[column if plain else f"col.{column}"] = list(chosen)
    for column, low, high in state.ranges:
        out |= {f"min.{column}": [f"{low:.12g}"]} if low is not None else {}
        out |= {f"max.{column}": [f"{high:.12g}"]} if high is not None else {}
    out |= {key: list(getattr(state, key)) for key in ("flag", "hit") if getattr(state, key)}
    out |= {key: ["1"] for key in ("regex", "dup") if getattr(state, key)}
    out |= {f"view.{name}": [value] for name, value in state.choices}
    if state.seed is not None:
        out["seed"] = [str(state.seed)]
    if state.page != 1:
        out["page"] = [str(state.page)]
    return out


@dataclass(frozen=True)
class Condition:
    """The filters in SQL: an expression with $parameters, and what of the URL does not apply to this dataset."""

    sql: str
    params: dict[str, Any]
    ignored: tuple[str, ...] = ()


def condition(state: State, columns: Mapping[str, str], without: str = "") -> Condition:
    """The filters as an expression over a view with these columns (name -> SQL type).

    Args:
        without: leave out the filter on this column (or "flag", "hit"), as the counts beside a choice need it.
    """
    parts: list[str] = []
    given: dict[str, Any] = {}
    ignored = []

    def bind(value: Any) -> str:
        given[f"p{len(given)}"] = value
        return f"$p{len(given) - 1}"

    for column, chosen in state.values:
        if column not in columns:
            ignored.append(column)
        elif column != without:
            name = quoted(column) if columns[column] == "VARCHAR" else f"{quoted(column)}::VARCHAR"
            some = [value for value in chosen if value != NULL]
            said = [f"{name} IN ({', '.join(map(bind, some))})"] if some else []
            parts.append(" OR ".join([*said, *([f"{quoted(column)} IS NULL"] if NULL in chosen else [])]))
    for column, low, high in state.ranges:
        if columns.get(column) not in NUMBERS:
            ignored.append(column)
        elif column != without:
            parts += [f"{quoted(column)} >= {bind(low)}"] if low is not None else []
            parts += [f"{quoted(column)} <= {bind(high)}"] if high is not None else []
    if state.q:
        parts.append(_text(state, columns, bind))
    if state.flag and without != "flag":
        some = [flag for flag in state.flag if flag != NULL]
        said = [f"id IN (SELECT id FROM flags WHERE flag IN ({', '.join(map(bind, some))}))"] if some else []
        parts.append(" OR ".join([*said, *(["id NOT IN (SELECT id FROM flags)"] if NULL in state.flag else [])]))
    if state.hit and without != "hit":
        parts.append(f"id IN (SELECT id FROM hits_decontam WHERE benchmark IN ({', '.join(map(bind, state.hit))}))")
    if state.dup:
        parts.append("id IN (SELECT kept_id FROM hits_duplicates)")
    if state.where:
        parts.append(f"{state.where}\n")  # a comment at its end must not hide the bracket
    return Condition(" AND ".join(f"({part})" for part in parts) or "true", given, tuple(ignored))


def _text(state: State, columns: Mapping[str, str], bind: Any) -> str:
    """Turns (and candidates) that hold the text: their content, thinking or tool calls."""
    wanted = bind(state.q if state.regex else state.q.lower())
    if state.within == "preview" and "preview" in columns:
        return f"regexp_matches(preview, {wanted}, 'i')" if state.regex else f"contains(lower(preview), {wanted})"
    role = f"m.role = {bind(state.role)} AND " if state.role else ""

    def holds(column: str) -> str:
        # a dataset whose turns have no thinking or tool calls has no such fields either
        fields = [f"m.{field}" for field in ("content", "thinking", "tool_calls") if re.search(rf"\b{field}\b", columns[column])]
        if state.regex:
            return " OR ".join(f"regexp_matches({field}, {wanted}, 'i')" for field in fields)
        return " OR ".join(f"contains(lower({field}), {wanted})" for field in fields)

    tests = [
        f"list_bool_or(list_transform({column}, lambda m: {role if column != 'candidates' else ''}({holds(column)})))"
        for column in ("messages", "prompt", "chosen", "rejected", "candidates")
        if column in columns and (column != "candidates" or state.role in ("", "assistant"))
    ]
    return " OR ".join(f"coalesce({test}, false)" for test in tests) or "false"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None  # neither infinity nor NaN


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
