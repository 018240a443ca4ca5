"""A list of 25 rows and which of them is open: what the views below Browse share. J and K go to the next and the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app import shell
from app.db import Data
from app.shell import Page

PER_PAGE = 25


def row_list(
    page: Page,
    sql: str,
    params: dict[str, Any],
    total: int,
    formats: dict[str, str] | None = None,
    key: str = "id",
    extend: Callable[[list[str]], dict[str, str]] | None = None,
    data: Data | None = None,
) -> str:
    """Draw one page of a query's rows and return the value of `key` in the open one: the URL's `row`, else the first; "" without rows.

    Args:
        sql: without LIMIT; its order must be stable.
        total: how many rows it has in all.
        formats: of columns, as printf writes them.
        extend: the previews of rows, fetched for those on the page only.
        data: where to ask, when it is not the page's dataset.
    """
    if not total:
        st.html('<p class="cv-note">No rows here.</p>')
        return ""
    pages = -(-total // PER_PAGE)
    number = min(page.state.page, pages)
    first = (number - 1) * PER_PAGE
    before = min(first, 1)  # the row before this page, for K on its first row
    answer = (data or page.data).run(f"{sql} LIMIT {PER_PAGE + 1 + before} OFFSET {first - before}", params, timeout=120)
    around = answer.rows
    here = around[before : before + PER_PAGE]
    if not here:
        return page.state.row
    keys = [str(line[key]) for line in around]
    opened = page.state.row or keys[before]
    place = keys.index(opened) if opened in keys else -1
    _moves(page, number, keys, place, before, total)
    if extend:
        known = extend([str(line[key]) for line in here])
        here = [{**line, "text": known.get(str(line[key]), "")} for line in here]
    _table(page, here, [str(line[key]) for line in here], opened, formats or {})
    return opened


def _moves(page: Page, number: int, keys: list[str], place: int, before: int, total: int) -> None:
    def to(at: int) -> None:
        shell.go(page.state.go(row=keys[at], page=number + (-1 if at < before else 1 if at >= before + PER_PAGE else 0)))

    back, on, where, turn = st.columns([1, 1, 3, 4], vertical_alignment="center")
    back.button("Before", shortcut="K", key="before", disabled=place < 1, on_click=to, args=(place - 1,), width="stretch")
    on.button("Next", shortcut="J", key="next", disabled=not -1 < place < len(keys) - 1, on_click=to, args=(place + 1,), width="stretch")
    at = (number - 1) * PER_PAGE + place - before + 1
    where.caption(f"{at:,} of {total:,}" if place >= 0 else f"{total:,} rows; the open one is not on this page")
    with turn:
        pages = -(-total // PER_PAGE)
        if pages > 1:
            key = f"page {number}"  # a page reached by J or by a link is a widget of its own, which begins there
            st.pagination(pages, default=number, key=key, on_change=lambda: shell.go(page.state.go(row="", page=st.session_state[key])))


def _table(page: Page, lines: list[dict[str, Any]], keys: list[str], opened: str, formats: dict[str, str]) -> None:
    def chosen() -> None:
        rows = st.session_state["list"]["selection"]["rows"]
        if rows and rows[0] < len(keys) and keys[rows[0]] != opened:  # not the selection that the window was given, said back late
            shell.go(page.state.go(row=keys[rows[0]]))

    st.session_state["list"] = {"selection": {"rows": [keys.index(opened)] if opened in keys else [], "columns": [], "cells": []}}
    st.dataframe(
        lines,
        key="list",
        height=min(215, 37 + 35 * len(lines)),
        hide_index=True,
        on_select=chosen,
        selection_mode="single-row",
        column_config={name: st.column_config.NumberColumn(format=form) for name, form in formats.items()},
    )


def unless(value: str | None, default: str) -> str:
    """A choice as the URL has it: nothing where it is the default."""
    return "" if value in (None, default) else str(value)
