"""The pages of the browser and which of them is shown."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from app import shell

ICON = Path(__file__).with_name("icon.png")  # a name of an icon or an emoji would be fetched from elsewhere
VIEWS = (
    shell.View("overview", "Overview", ":material/insights:"),
    shell.View("browse", "Browse", ":material/article:"),
    shell.View("pairs", "Pairs", ":material/compare_arrows:"),
    shell.View("duplicates", "Duplicates", ":material/content_copy:"),
    shell.View("contamination", "Contamination", ":material/coronavirus:"),
    shell.View("compare", "Compare", ":material/difference:"),
    shell.View("sql", "SQL", ":material/database:"),
    shell.View("template", "Template", ":material/format_shapes:"),
    shell.View("runs", "Runs", ":material/monitoring:", needs_data=False),
)


def draw(dirs: list[str]) -> None:
    """One run of the page: navigation, the dataset, the view."""
    st.set_page_config(page_title="Caravan", page_icon=str(ICON), layout="wide", initial_sidebar_state="expanded")

    def opened(view: shell.View) -> Callable[[], None]:
        def run() -> None:
            page = shell.open_page(dirs, view) if view.needs_data else shell.without_data(dirs, view)
            if page is not None:
                importlib.import_module(f"app.views.{view.name}").show(page)

        return run

    pages = {view.name: st.Page(opened(view), title=view.title, url_path=view.name, default=view is VIEWS[0]) for view in VIEWS}
    chosen = st.navigation(list(pages.values()), position="hidden")
    shell.begin(VIEWS, pages)
    chosen.run()
