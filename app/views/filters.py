"""The filters of Browse: choices with their counts, histograms with bounds, and the pills of those that are set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app import charts, listing, render
from app.shell import Page, current, go
from app.state import NULL, NUMBERS, State

FIRST = ("source", "reason", "split", "lang", "kind")  # shown when a column has more than one value
HISTOGRAMS = ("n_tokens", "n_turns")


def show(page: Page) -> None:
    """Draw the filters, each with counts under the others."""
    place, data = page.state, page.data
    columns = data.columns[listing.view(place)]
    st.subheader("Filters", divider="gray", anchor=False)
    for name in _choices(page):
        _facet(page, name)
    signs = listing.signs(data, place)
    if signs:
        counts = dict(signs)
        chosen = [name for name in counts if "true" in place.chosen(name)]
        _choose(
            "signals", list(counts), chosen, lambda name: f"{render.label(name)} {counts[name]:,}", lambda got: _signs(list(counts), got)
        )
    for name in _bounded(page):
        _histogram(page, name)
    _flags(page)
    others = [
        name
        for name in columns
        if name not in listing.LEAVE_OUT and not columns[name].startswith(("STRUCT", "MAP")) and "[]" not in columns[name]
    ]
    _more(page, others)


def _choices(page: Page) -> list[str]:
    place, columns = page.state, page.data.columns[listing.view(page.state)]
    wanted = [*FIRST, *st.session_state.get("filters.more", []), *(name for name, _ in place.values)]
    return [name for name in dict.fromkeys(wanted) if name in columns and columns[name] not in NUMBERS and columns[name] != "BOOLEAN"]


def _bounded(page: Page) -> list[str]:
    place, columns = page.state, page.data.columns[listing.view(page.state)]
    wanted = [*HISTOGRAMS, *st.session_state.get("filters.more", []), *(name for name, _, _ in place.ranges)]
    return [name for name in dict.fromkeys(wanted) if columns.get(name) in NUMBERS]


def _facet(page: Page, column: str) -> None:
    found, more = listing.facet(page.data, page.state, column)
    chosen = list(page.state.chosen(column))
    if len(found) < 2 and not chosen:
        return
    counts = dict(found)
    names = {NULL: "(none)", "": "(empty)"}

    def label(value: str) -> str:
        said = render.label(names.get(value, value), 40)
        return f"{said} {counts[value]:,}" if counts.get(value, -1) >= 0 else said

    _choose(
        column + (f" (the {len(found)} most frequent)" if more else ""),
        list(counts),
        chosen,
        label,
        lambda got: current().with_values(column, got),
    )


def _choose(title: str, options: list[str], chosen: list[str], label: Callable[[str], str], after: Callable[[list[str]], State]) -> None:
    """Pills of which any number can be chosen."""
    key = f"filter.{title.partition(' ')[0]}"
    st.session_state[key] = chosen
    st.pills(
        title,
        options,
        selection_mode="multi",
        key=key,
        format_func=label,
        on_change=lambda: go(after(list(st.session_state[key])).go(row="")),
    )


def _signs(names: list[str], got: list[str]) -> State:
    place = current()
    for name in names:
        if name in got and "true" not in place.chosen(name):
            place = place.with_values(name, ["true"])
        elif name not in got and "true" in place.chosen(name):
            place = place.with_values(name, [])
    return place


def _histogram(page: Page, column: str) -> None:
    found = listing.histogram(page.data, page.state, column)
    if found is None or len(found.edges) < 3:
        return
    low, high = page.state.bounds(column)
    st.html(f'<p class="cv-note">{render.escape(column)}</p>' + charts.histogram(found.counts, found.edges, (low, high), found.missing))
    ends = sorted({*found.edges, *(bound for bound in (low, high) if bound is not None)})
    start, end = (ends[0] if low is None else low, ends[-1] if high is None else high)
    key = f"filter.range.{column}.{start}.{end}"  # a new one when the URL says other bounds: they are its value

    def changed() -> None:
        least, most = st.session_state[key]
        bounds = (None if least == ends[0] else least, None if most == ends[-1] else most)
        go(current().with_bounds(column, *bounds).go(row=""))

    st.select_slider(
        column, ends, value=(start, end), key=key, format_func=charts.number_text, label_visibility="collapsed", on_change=changed
    )


def _flags(page: Page) -> None:
    place = page.state
    rows = page.data.run("SELECT flag, count(*) AS n FROM flags GROUP BY 1 ORDER BY n DESC, 1 LIMIT 20").rows
    counts = {str(row["flag"]): int(row["n"]) for row in rows}
    if counts or place.flag:
        options = [*dict.fromkeys([*counts, *(flag for flag in place.flag if flag != NULL)]), NULL]
        _choose(
            "flags",
            options,
            list(place.flag),
            lambda value: "not flagged" if value == NULL else f"{render.label(value)} {counts.get(value, 0):,}",
            lambda got: current().go(flag=tuple(got)),
        )
    more: dict[str, Any] = {}
    marks = page.data.run("SELECT benchmark, count(DISTINCT id) AS n FROM hits_decontam GROUP BY 1 ORDER BY n DESC, 1 LIMIT 12").rows
    if marks or place.hit:
        more = {str(row["benchmark"]): int(row["n"]) for row in marks}
        options = list(dict.fromkeys([*more, *place.hit]))
        _choose(
            "benchmarks that share text",
            options,
            list(place.hit),
            lambda value: f"{render.label(value)} {more.get(value, 0):,}",
            lambda got: current().go(hit=tuple(got)),
        )


def _more(page: Page, names: list[str]) -> None:
    """Any other column, and a condition in SQL."""
    st.multiselect("More columns", names, key="filters.more", placeholder="Choose a column")
    st.session_state["filter.where"] = page.state.where
    st.text_input(
        "Condition in SQL",
        key="filter.where",
        placeholder="n_tokens > 10 * n_turns",
        on_change=lambda: go(current().go(where=str(st.session_state["filter.where"] or ""), row="")),
    )
    st.session_state["filter.dup"] = page.state.dup
    if page.state.part == "kept":
        st.toggle(
            "Kept in place of duplicates",
            key="filter.dup",
            on_change=lambda: go(current().go(dup=bool(st.session_state["filter.dup"]), row="")),
        )


def pills(page: Page) -> None:
    """The filters that are set; a click on one takes it away."""
    place = page.state
    without: dict[str, State] = {}
    for column, values in place.values:
        without[f"{column}: {' or '.join('(none)' if v == NULL else v for v in values)}"] = place.with_values(column, [])
    for column, low, high in place.ranges:
        said = " to ".join("…" if bound is None else charts.number_text(bound) for bound in (low, high))
        without[f"{column}: {said}"] = place.with_bounds(column, None, None)
    if place.q:
        without[f"text: {place.q}"] = place.go(q="", role="", regex=False, within="")
    if place.flag:
        without[f"flag: {' or '.join('(none)' if v == NULL else v for v in place.flag)}"] = place.go(flag=())
    if place.hit:
        without[f"shares text with: {' or '.join(place.hit)}"] = place.go(hit=())
    if place.dup:
        without["kept in place of duplicates"] = place.go(dup=False)
    if place.where:
        without[f"where: {place.where}"] = place.go(where="")
    if not without:
        return
    with st.container(horizontal=True):
        for number, (label, target) in enumerate(without.items()):
            st.button(
                render.label(label),
                icon=":material/close:",
                key=f"pill.{number}",
                on_click=go,
                args=(target.go(row=""),),
                help="Take this filter away",
            )
        if len(without) > 1:
            st.button("Clear all", key="pill.all", type="tertiary", on_click=go, args=(place.unfiltered(),))
