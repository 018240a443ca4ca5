"""Two datasets: what only one of them has, what changed, why, and how their distributions differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import streamlit as st

from app import charts, comparing, db, lookup, render, shell, side, state
from app.rowlist import row_list
from app.shell import Page

ASK_FIRST = 3_000_000  # rows of both together above which a comparison waits for a click
COLUMNS = ("a", "b", "shared", "changed", "moved_from", "moved_to", "removed", "added")
HEADS = ("source", "A", "B", "shared", "changed", "moved away", "moved here", "only in A", "only in B")
CELL_OF = {"changed": "changed", "moved_from": "moved", "removed": "removed", "added": "added"}


def show(page: Page) -> None:
    """Draw the page."""
    others = [name for name in page.paths if name != page.name]
    if not others:
        st.title("Compare")
        st.html(render.note("Only one dataset is open. Open two:") + render.command(f"python -m app {page.data.path} OTHER"))
        return
    other = page.state.other if page.state.other in others else others[0]
    st.title("Compare")
    st.session_state["other"] = other
    left, right = st.columns(2)
    left.text_input("A (the dataset of the sidebar)", page.name, disabled=True, key=f"compare a {page.name}")
    right.selectbox("B", others, key="other", on_change=lambda: shell.go(page.state.go(row="", page=1, other=st.session_state["other"])))
    with shell.guarded():
        data = db.open_data(page.data.path, page.paths[other])
        rows = sum(one.rows for one in data.datasets)
        if rows > ASK_FIRST and page.state.choice("go") != "1":
            st.button(f"Compare {rows:,} rows (takes a while)", on_click=lambda: shell.go(page.state.with_choice("go", "1")))
            return
        with st.spinner("Comparing"):
            found = comparing.compared(page.data.path, page.paths[other])
        _counts(page, found)
        _why(found)
        _distributions(page, data, (page.name, other))
        _rows(page, data, found, page.paths[other])


def _counts(page: Page, found: dict[str, Any]) -> None:
    total = found["total"]
    same = total["shared"] == total["a"] == total["b"]
    tiles = [("rows of A", f"{total['a']:,}", ""), ("rows of B", f"{total['b']:,}", "")]
    tiles += [(label, f"{total[cell if cell != 'moved' else 'moved_from']:,}", "") for cell, label in comparing.CELLS.items()]
    st.html(charts.tiles([*tiles, ("shared", f"{total['shared']:,}", "the same text in both")]))
    if same:
        st.html(render.note("Both hold the same rows with the same texts."))
    lines = [*found["by_source"], {"source": "all", **total}]
    links = {}
    for i, line in enumerate(lines):
        for j, name in enumerate(COLUMNS, 1):
            if name in CELL_OF and line[name]:
                place = page.state.go(row="", page=1).with_choice("cell", CELL_OF[name])
                links[i, j] = shell.href("compare", place.with_choice("from", line["source"] if line is not lines[-1] else ""))
    st.html(charts.table(HEADS, [[line["source"], *(line[name] for name in COLUMNS)] for line in lines], links))


def _why(found: dict[str, Any]) -> None:
    for field, title in (("why_removed", "Why B does not have them"), ("why_added", "Why A did not have them")):
        if found[field]:
            with st.expander(title, icon=":material/help:"):
                lines = [[line["source"], line["stage"], line["reason"], line["rows"]] for line in found[field]]
                st.html(charts.table(("source", "stage", "reason", "rows"), lines))
    if found["settings"]:
        with st.expander(f"{len(found['settings'])} settings differ", icon=":material/tune:"):
            lines = [[line["setting"], _short(line["a"]), _short(line["b"])] for line in found["settings"]]
            st.html(charts.table(("setting", "A", "B"), lines))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 120 else text[:119] + "…"


def _distributions(page: Page, data: db.Data, names: tuple[str, str]) -> None:
    columns = comparing.shared_numbers(data)
    if not columns:
        return
    chosen = page.state.choice("column")
    if chosen not in columns:
        chosen = "n_tokens" if "n_tokens" in columns else columns[0]
    st.session_state["column"] = chosen
    st.selectbox(
        "Distribution of", columns, key="column", on_change=lambda: shell.go(page.state.with_choice("column", st.session_state["column"]))
    )
    found = comparing.overlay(data, chosen)
    if found is None:
        st.caption("Neither has a value.")
        return
    st.html(comparing.overlaid(found, names, render.escape))
    if any(found.without):
        st.caption(f"Without a value: {found.without[0]:,} rows of A, {found.without[1]:,} of B. The bars are shares of the others.")


def _rows(page: Page, data: db.Data, found: dict[str, Any], other: Path) -> None:
    counts = {"moved": found["total"]["moved_from"], **{cell: found["total"][cell] for cell in ("removed", "added", "changed")}}
    cells = [cell for cell in comparing.CELLS if counts[cell]]
    if not cells:
        return
    cell = page.state.choice("cell") if page.state.choice("cell") in cells else cells[0]
    source = page.state.choice("from") or None
    st.session_state["cell"] = cell
    st.segmented_control(
        "Rows",
        cells,
        key="cell",
        required=True,
        format_func=lambda one: f"{comparing.CELLS[one]} ({counts[one]:,})",
        on_change=lambda: shell.go(page.state.go(row="", page=1).with_choice("cell", st.session_state["cell"]).with_choice("from", "")),
    )
    total = counts[cell]
    if source is not None:
        field = "moved_from" if cell == "moved" else cell
        total = sum(line[field] for line in found["by_source"] if line["source"] == source)
        st.html(render.note(f"Only of {source}"))
    params = {"source": source} if source is not None else {}
    schema = "b" if cell == "added" else "a"
    one = db.open_data(other) if cell == "added" else page.data
    opened = row_list(page, comparing.rows_sql(cell, source), params, total, data=data, extend=lambda ids: lookup.previews(one, ids))
    if opened:
        _detail(page, data, cell, opened, schema)


def _detail(page: Page, data: db.Data, cell: str, row_id: str, schema: str) -> None:
    """The row on both sides, as far as each has it."""
    ids = {"a": row_id, "b": row_id}
    if cell == "moved":
        moved = data.run(f"SELECT now FROM ({comparing.LISTS['moved']}) WHERE id = $id", {"id": row_id}).rows
        ids["b"] = moved[0]["now"] if moved else row_id
    found = {side_: lookup.row_of(data, ids[side_], side_) for side_ in "ab"}
    a, b = (side.turns_of(found[side_][0] or {}) for side_ in "ab")
    in_a, in_b, _ = side.differing(a, b) if a and b else ({}, {}, None)
    panes = []
    for name, turns, spans, kind in (("a", a, in_a, "only-a"), ("b", b, in_b, "only-b")):
        row, fate = found[name]
        body = side.messages_html(turns, spans, kind) if turns else '<div class="cv-cut">no text of this row here</div>'
        told = {"id": ids[name], "source": row.get("source") if row else None, "fate": fate}
        panes.append(side.pane(name, body, "good" if name == schema else "", side.facts(told)))
    st.html(side.beside(panes))
    if found["a"][0]:
        part = "kept" if found["a"][1] == "in" else "dropped"
        shell.link(
            "browse", "Everything about it in A", state.State(data=page.state.data, part=part, row=row_id), icon=":material/article:"
        )
