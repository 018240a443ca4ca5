"""The dataset at a glance, from its manifest alone: instant at any size."""

from __future__ import annotations

import streamlit as st

from app.shell import Page


def show(page: Page) -> None:
    """Draw the page."""
    st.title(page.name)
