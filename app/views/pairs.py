"""Preference pairs: being built."""

from __future__ import annotations

import streamlit as st

from app.shell import Page


def show(page: Page) -> None:
    """Draw the page."""
    st.title(page.view.title)
