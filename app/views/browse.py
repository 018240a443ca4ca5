"""Rows under filters: a list of 25 and the one that is open."""

from __future__ import annotations

import streamlit as st

from app import shell, state
from app.shell import Page

PAGE = 25


def show(page: Page) -> None:
    """Draw the page."""
    where = state.condition(page.state, page.data.columns["rows"])
    sql = f"SELECT id, source FROM rows WHERE {where.sql} LIMIT {PAGE} OFFSET {(page.state.page - 1) * PAGE}"
    with shell.guarded():
        found = page.data.run(sql, where.params)
        st.dataframe(found.rows)
        shell.asked(sql, found, where.params)
