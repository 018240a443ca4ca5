"""What every page shares: the sidebar, links that carry the filters along, and what is said when there is nothing to show."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import streamlit as st

from app import db, render, state
from columnar.ask import Result
from columnar.errors import CaravanError

if TYPE_CHECKING:
    from streamlit.navigation.page import StreamlitPage


class View(NamedTuple):
    """A page of the browser: app/views/NAME.py."""

    name: str
    title: str
    icon: str
    needs_data: bool = True  # else its `show` is given the folders of the command line


@dataclass(frozen=True)
class Page:
    """What a view is given."""

    data: db.Data
    state: state.State
    paths: dict[str, Path]  # every dataset there is to choose, by the name the URL has for it
    view: View

    @property
    def name(self) -> str:
        """The URL's name of the open dataset."""
        return next(name for name, path in self.paths.items() if path.resolve() == self.data.path.resolve())


def begin(views: Sequence[View], pages: dict[str, StreamlitPage]) -> None:
    """The style sheet, and the views for `link`."""
    st.html(f"<style>{render.STYLE}</style>")
    st.session_state["_views"] = {view.name: view for view in views}
    st.session_state["_pages"] = pages


def current() -> state.State:
    """The place the URL names."""
    return state.parse({key: st.query_params.get_all(key) for key in st.query_params})


def go(place: state.State) -> None:
    """Write a place into the URL; widgets call it when they change."""
    st.query_params.from_dict(state.params(place))


def link(view: str, label: str, place: state.State, *, help: str | None = None, icon: str | None = None) -> None:
    """A link to a place in a view."""
    st.page_link(st.session_state["_pages"][view], label=label, query_params=state.params(place), help=help, icon=icon)


def href(view: str, place: state.State) -> str:
    """The address of a place in a view, for links inside HTML (which load the page anew; `link` does not)."""
    first = next(iter(st.session_state["_views"]))
    return f"{'.' if view == first else view}?{urlencode(state.params(place), doseq=True)}"


def place_of_row(place: state.State, row_id: str) -> state.State:
    """Another row of the same dataset, in or out, without filters."""
    return state.State(data=place.data, row=row_id)


def full_address(place: state.State) -> str:
    """A place in this view as an address to send to someone."""
    here = (st.context.url or "").partition("?")[0]
    return f"{here}?{urlencode(state.params(place), doseq=True)}"


def datasets(dirs: Sequence[str]) -> dict[str, Path]:
    """The datasets to choose from: those of the command line, else those below the current folder; by a name for the URL."""
    if dirs:
        paths = [Path(word) for word in dirs]
        names = [path.resolve().name for path in paths]
        return {name if names.count(name) == 1 else str(path): path for name, path in zip(names, paths, strict=True)}
    here = Path.cwd()
    return {str(path.relative_to(here)): path for path in db.find(here)}


def open_page(dirs: Sequence[str], view: View) -> Page | None:
    """The dataset of the URL, opened; or None, when the page already says why not and what to run."""
    paths = datasets(dirs)
    place = current()
    _sidebar(dirs, paths, place, view)
    if not paths:
        _nothing_here()
        return None
    if place.data and place.data not in paths:
        problem(f"There is no dataset {place.data!r} here.", f"Choose one of: {', '.join(paths)}.")
        return None
    if not place.data and not dirs and len(paths) > 1:
        _picker(paths)
        return None
    path = paths[place.data or next(iter(paths))]
    try:
        return Page(db.open_data(path), place, paths, view)
    except (CaravanError, OSError) as error:
        problem(str(error), getattr(error, "hint", None))
        return None


def without_data(dirs: Sequence[str], view: View) -> list[Path]:
    """For a view that needs no dataset: the sidebar, and the folders to look in."""
    _sidebar(dirs, datasets(dirs), current(), view)
    return [*(Path(word) for word in dirs), Path.cwd()]


def _sidebar(dirs: Sequence[str], paths: dict[str, Path], place: state.State, view: View) -> None:
    with st.sidebar:
        st.html('<div class="cv-brand"><i></i>Caravan</div>')
        if len(paths) > 1 and (place.data or dirs):
            names = list(paths)
            st.session_state["dataset"] = place.data if place.data in paths else names[0]
            st.selectbox(
                "Dataset",
                names,
                key="dataset",
                label_visibility="collapsed",
                on_change=lambda: go(state.State(data=st.session_state["dataset"])),
            )
        for other in st.session_state["_views"].values():
            link(other.name, other.title, place, icon=other.icon)


def _nothing_here() -> None:
    st.title("No dataset here")
    st.html(
        "<p>There is no dataset directory below this folder. One command makes one:</p>"
        + render.command("python -m columnar.load FILE.jsonl --out out/mine")
        + render.command("python -m curation.build_mix recipes/mixes/tiny.yaml --out out/tiny")
        + "<p>Then open it:</p>"
        + render.command("python -m app out/tiny")
    )


def _picker(paths: dict[str, Path]) -> None:
    st.title("Choose a dataset", anchor=False)
    for name, path in paths.items():
        whole = (path / "manifest.json").is_file()
        # a link to the page one is on would leave the address bar as it was
        st.button(
            render.label(name, 200),
            key=f"pick.{name}",
            type="tertiary",
            icon=":material/folder:" if whole else ":material/warning:",
            on_click=go,
            args=(state.State(data=name),),
        )


def problem(message: str, hint: str | None = None) -> None:
    """What is wrong with the input, and what to do."""
    st.html(render.problem(message, hint))


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Shows an error of the user's data or query in place of what the block would have drawn."""
    try:
        yield
    except CaravanError as error:
        problem(str(error), error.hint)


def missing(what: str, command: str, path: Path) -> None:
    """An empty state: what is not there, and the command that makes it."""
    st.html(render.note(f"No {what} yet. Run:") + render.command(command.format(path=shlex.quote(str(path)))))


def asked(sql: str, result: Result, params: Any = None) -> None:
    """The SQL behind a view, to copy and learn from."""
    with st.expander("SQL", icon=":material/code:"):
        st.code(sql, language="sql", wrap_lines=True)
        took = f"{result.table.num_rows:,} rows, {result.seconds * 1000:,.0f} ms"
        st.html(render.note(took + (f", parameters {params}" if params else "")))  # a caption would be Markdown, and could load an image
