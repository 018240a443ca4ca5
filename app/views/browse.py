"""Rows under filters: the filters in the sidebar, a list of 25, and the one that is open."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app import listing, render, shell, state
from app.shell import Page, current, go
from app.views import filters, row

ORDERS = {"": "as stored", "random": "random"}


def show(page: Page) -> None:
    """Draw the page."""
    _top(page)
    with shell.guarded():
        head = st.container()
        listed(page)  # first: counts and facets may take a moment longer
        _heading(page, head)
        with st.sidebar:
            filters.show(page)


def _top(page: Page) -> None:
    """Search, part and order: written into the URL when they change."""
    place = page.state
    words = {"q": place.q, "role": place.role, "regex": place.regex, "in": listing.settled(page.data, place).within == "preview"}
    for name, value in words.items():
        st.session_state[f"browse.{name}"] = value
    st.session_state["browse.part"] = place.part
    st.session_state["browse.order"] = "random" if place.seed is not None else place.sort

    def changed() -> None:
        got = {name: st.session_state.get(f"browse.{name}") for name in (*words, "part", "order")}
        here = current()
        order = str(got["order"] or "")
        seed = (here.seed or 1) if order == "random" else None
        within = "" if got["in"] is None or bool(got["in"]) == words["in"] else "preview" if got["in"] else "text"
        go(
            here.go(
                q=str(got["q"] or ""),
                role=str(got["role"] or ""),
                regex=bool(got["regex"]),
                part=str(got["part"] or "kept"),
                within=within or here.within,
                sort="" if seed is not None else order,
                seed=seed,
                row="",
            )
        )

    search, part, order = st.columns([6, 2.2, 2.2], vertical_alignment="bottom")
    with search:
        st.text_input(
            "Search",
            key="browse.q",
            placeholder="Search any turn",
            label_visibility="collapsed",
            icon=":material/search:",
            on_change=changed,
        )
    with part:
        st.segmented_control(
            "Part", list(state.PARTS), key="browse.part", label_visibility="collapsed", on_change=changed, required=True, width="stretch"
        )
    with order:
        st.selectbox(
            "Order",
            _orders(page),
            key="browse.order",
            format_func=_order_name,
            label_visibility="collapsed",
            on_change=changed,
            help="The order of the list",
        )
    if place.q:
        with st.container(horizontal=True):
            st.selectbox(
                "In turns of",
                ["", *state.ROLES],
                key="browse.role",
                format_func=lambda r: r or "any turn",
                label_visibility="collapsed",
                width=150,
                on_change=changed,
            )
            st.toggle("Regular expression", key="browse.regex", on_change=changed)
            if "preview" in page.data.columns[listing.view(place)]:
                st.toggle(
                    "Only the beginnings of rows", key="browse.in", on_change=changed, help="The first 160 characters: quick at any size"
                )


def _orders(page: Page) -> list[str]:
    columns = page.data.columns[listing.view(page.state)]
    numbers = [name for name, kind in columns.items() if kind in state.NUMBERS and name not in listing.LEAVE_OUT]
    first = [name for name in ("n_tokens", "n_turns") if name in numbers]
    orders = ["", "random", *(sign + name for name in [*first, *(n for n in numbers if n not in first)] for sign in ("-", ""))]
    given = page.state.sort
    return orders if given in orders or not given else [*orders, given]


def _order_name(order: str) -> str:
    if order in ORDERS:
        return ORDERS[order]
    return f"{order.removeprefix('-')} {'↓' if order.startswith('-') else '↑'}"


def _heading(page: Page, head: st.delta_generator.DeltaGenerator) -> None:
    """How many rows, the filters as pills that a click removes, and what of the URL does not apply here."""
    place, data = page.state, page.data
    with head:
        everything = listing.total(data, place)
        where = listing.limits(data, place)
        if where.ignored:
            names = ", ".join(where.ignored)
            st.html(render.note(f"This part of the dataset has no usable column {names}: that filter of the link is left out."))
        noun = "dropped rows" if place.part == "dropped" else "rows"
        with st.container(horizontal=True, vertical_alignment="center"):
            if listing.counts_itself(data, place) or st.session_state.get("browse.counted") == where:
                left = listing.count(data, place, 120)
                said = f"<b>{left:,}</b> of {everything:,} {noun}" if place.filtered else f"<b>{left:,}</b> {noun}"
                st.session_state["browse.left"] = left
            else:
                said = f"first finds of {everything:,} {noun}, not counted"
                st.session_state["browse.left"] = None
                if st.button("Count them all", help="Reads the text of every row", key="browse.count"):
                    st.session_state["browse.counted"] = where
                    st.rerun()
            if place.q and listing.settled(data, place).within == "preview":
                said += ", searched in their first 160 characters"
            if place.seed is not None:
                said += f", in random order {place.seed}"
            st.html(f'<p class="cv-lead">{said}</p>', width="content")
            if place.seed is not None:
                st.button(
                    "Another sample",
                    icon=":material/casino:",
                    key="browse.again",
                    on_click=lambda: go(current().go(seed=(current().seed or 0) + 1, row="")),
                )
        filters.pills(page)


@st.fragment
def listed(page: Page) -> None:
    """The list and the open row; moving through them runs nothing else."""
    page = replace(page, state=current())
    place = page.state
    with shell.guarded():
        found = listing.page(page.data, place)
        if not found.rows:
            _none(page)
            return
        ids = [line["id"] for line in found.rows]
        opened = place.row or (ids[-1] if st.session_state.pop("browse.last", False) else ids[0])
        st.session_state["browse.ids"], st.session_state["browse.opened"] = ids, opened
        left, right = st.columns([5, 7], gap="medium")
        with left:
            _list(page, found, ids, opened)
            below = st.container()
            shell.asked(found.sql, found.result, found.condition.params)
        with right:
            row.show(page, opened)
        with below:
            _pages(page, len(ids) == listing.PAGE)


def _none(page: Page) -> None:
    place = page.state
    if place.page > 1:
        st.html(render.note("There is no such page."))
        st.button("First page", on_click=lambda: go(current().go(page=1, row="")))
    elif place.filtered:
        st.html(render.note("No row fits these filters."))
    elif place.part == "dropped":
        st.html(render.note("No row of this dataset was dropped."))
    else:
        shell.problem("This dataset has no rows.", "see why in the funnel of the overview, then change the mix and build again")
    if place.row:
        row.show(page, place.row)


def _list(page: Page, found: listing.Found, ids: list[str], opened: str) -> None:
    flags = row.flags_of(page, ids)
    lines = [
        {"preview": line.pop("preview") or ""}
        | ({"flags": " ".join(flags.get(line["id"], ()))} if flags else {})
        | {name: value for name, value in line.items() if name != "id"}
        for line in map(dict, found.rows)
    ]
    key = f"list.{hash(tuple(ids))}"

    def picked() -> None:
        chosen = st.session_state[key]["selection"]
        lines = [line for line, _ in chosen["cells"]] or chosen["rows"]  # a click anywhere in a line opens it
        if lines and ids[lines[0]] != opened:  # a slow window may say the selection it was given, after the filters have changed
            go(current().go(row=ids[lines[0]]))

    st.session_state[key] = {"selection": {"rows": [ids.index(opened)] if opened in ids else [], "columns": [], "cells": []}}
    names = {"n_tokens": "tokens", "n_turns": "turns"}
    st.dataframe(
        lines,
        key=key,
        on_select=picked,
        selection_mode=["single-row", "single-cell"],
        hide_index=True,
        height=640,
        row_height=44,
        column_config={
            "preview": st.column_config.TextColumn("row", width=260),
            **{name: st.column_config.Column(names.get(name, name), width=70) for name in lines[0] if name != "preview"},
        },
    )


def _pages(page: Page, full: bool) -> None:
    here, last = page.state.page, None
    if listing.counts_itself(page.data, page.state):
        last = max(1, -(-listing.count(page.data, page.state, 120) // listing.PAGE))

    def turn(to: int) -> None:
        go(current().go(page=to, row=""))

    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="center"):
        st.button(
            "Previous page",
            icon=":material/chevron_left:",
            disabled=here == 1,
            on_click=turn,
            args=(here - 1,),
            key="browse.prev",
            type="tertiary",
        )
        st.html(f'<span class="cv-note">page {here:,}{f" of {last:,}" if last else ""}</span>', width="content")
        st.button(
            "Next page",
            icon=":material/chevron_right:",
            icon_position="right",
            disabled=here == last or not full,
            on_click=turn,
            args=(here + 1,),
            key="browse.next",
            type="tertiary",
        )
