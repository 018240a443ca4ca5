"""Duplicates: which source repeats which, clusters by size, and each removed row beside the one that stands for it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import heat, lookup, render, shell, side, state
from app.rowlist import row_list
from app.shell import Page

MATRIX = "SELECT source, kept_source, count(*) AS n, avg(jaccard) AS jaccard FROM hits_duplicates GROUP BY ALL ORDER BY n DESC LIMIT 2000"
KINDS = "SELECT coalesce(kind, 'unknown') AS kind, count(*) AS n FROM hits_duplicates GROUP BY 1 ORDER BY n DESC"
BETWEEN = " → "


def show(page: Page) -> None:
    """Draw the page."""
    if not (page.data.path / "hits" / "duplicates.parquet").is_file():
        st.title("Duplicates")
        shell.missing("search for duplicates in this dataset", "python -m curation.dedup {path}", page.data.path)
        return
    with shell.guarded():
        kinds = page.data.run(KINDS).rows
        total = sum(line["n"] for line in kinds)
        st.title(f"{total:,} duplicate{'s' * (total != 1)}")
        if not total:
            st.html('<p class="cv-note">The dataset was searched, and no row repeats another.</p>')
            return
        told = ", ".join(f"{line['n']:,} {line['kind']}" for line in kinds)
        st.html(render.note(f"{told}; the dataset holds {page.data.dataset.rows:,} rows"))
        _matrix(page)
        _clusters(page)


def _matrix(page: Page) -> None:
    found = page.data.run(MATRIX).rows
    counts = {(str(line["source"]), str(line["kept_source"])): line["n"] for line in found}
    near = {(str(line["source"]), str(line["kept_source"])): line["jaccard"] for line in found}
    rows, columns = (sorted({key[side_] for key in counts}) for side_ in (0, 1))
    chosen = _between(page)

    def told(row: str, column: str) -> str:
        likeness = near[row, column]
        return f"{counts[row, column]:,} rows of {row} repeat {column}" + (f", mean Jaccard {likeness:.2f}" if likeness is not None else "")

    def href(row: str, column: str) -> str:
        place = page.state.go(row="", page=1).with_choice("between", f"{row}{BETWEEN}{column}")
        return shell.href("duplicates", place)

    with st.expander("Which source repeats which (choose a cell)", expanded=len(counts) > 1, icon=":material/grid_on:"):
        st.html(heat.heat_map(rows, columns, counts, href, "removed ↓ kept →", chosen, told))


def _between(page: Page) -> tuple[str, str] | None:
    first, arrow, second = page.state.choice("between").partition(BETWEEN)
    return (first, second) if arrow else None


def _clusters(page: Page) -> None:
    chosen = _between(page)
    condition = "source = $a AND kept_source = $b" if chosen else "true"
    params: dict[str, Any] = {"a": chosen[0], "b": chosen[1]} if chosen else {}
    if chosen:
        st.html(f'<p class="cv-lead">Only what <b>{render.escape(chosen[0])}</b> repeats of <b>{render.escape(chosen[1])}</b></p>')
        st.button(
            "All sources", icon=":material/close:", on_click=lambda: shell.go(page.state.go(row="", page=1).with_choice("between", ""))
        )
    sql = f"""SELECT kept_id, any_value(kept_source) AS source, count(*) AS duplicates, count(DISTINCT source) AS sources,
        round(min(jaccard), 3) AS least_jaccard FROM hits_duplicates WHERE {condition} GROUP BY kept_id ORDER BY duplicates DESC, kept_id"""
    total = int(page.data.one(f"SELECT count(DISTINCT kept_id) FROM hits_duplicates WHERE {condition}", params) or 0)
    opened = row_list(page, sql, params, total, key="kept_id", extend=lambda ids: lookup.previews(page.data, ids))
    if opened:
        _cluster(page, opened)


def _cluster(page: Page, kept_id: str) -> None:
    members = page.data.run(
        "SELECT id, source, kind, jaccard, estimate FROM hits_duplicates WHERE kept_id = $id ORDER BY jaccard NULLS LAST, id LIMIT 500",
        {"id": kept_id},
    ).rows
    if not members:
        shell.problem(f"Row {kept_id} stands for no duplicate.", "Choose a cluster in the list.")
        return
    by_id = {line["id"]: line for line in members}
    member = page.state.choice("member") if page.state.choice("member") in by_id else members[0]["id"]
    if len(members) > 1:
        st.session_state["member"] = member
        st.selectbox(
            f"{len(members):,} removed rows, the least alike first",
            list(by_id),
            key="member",
            format_func=lambda one: f"{one} · {_likeness(by_id[one])}",
            on_change=lambda: shell.go(page.state.with_choice("member", st.session_state["member"])),
        )
    kept, kept_fate = lookup.row_of(page.data, kept_id)
    gone, gone_fate = lookup.row_of(page.data, member)
    a, b = (side.turns_of(row) if row else [] for row in (kept, gone))
    in_a, in_b, _ = side.differing(a, b)
    panes = [
        _pane("kept", kept_id, kept, kept_fate, side.messages_html(a, in_a, "only-a"), "good", {}),
        _pane("removed", member, gone, gone_fate, side.messages_html(b, in_b, "only-b"), "bad", {"likeness": _likeness(by_id[member])}),
    ]
    st.html(side.beside(panes))
    left, right = st.columns(2)
    for column, one, row, fate in ((left, kept_id, kept, kept_fate), (right, member, gone, gone_fate)):
        if row:
            with column:
                part = "kept" if fate == "in" else "dropped"
                shell.link("browse", "Everything about this row", state.State(data=page.state.data, part=part, row=one))


def _likeness(line: dict[str, Any]) -> str:
    kind = line["kind"] or "duplicate"
    if kind == "semantic":
        return f"semantic, cosine {line['estimate']:.3f}" if line["estimate"] is not None else "semantic"
    return f"{kind}, Jaccard {line['jaccard']:.3f}" if line["jaccard"] is not None else kind


def _pane(title: str, row_id: str, row: dict[str, Any] | None, fate: str, body: str, tone: str, more: dict[str, Any]) -> str:
    if row is None:
        body = '<div class="cv-cut">Its text is in another dataset: the one that duplicates were sought against.</div>'
    elif not lookup.has_text(row):
        body = (
            '<div class="cv-cut">Its text was not kept: it says what the kept row says, or it is in the file that its origin names.</div>'
        )
    told = {"id": row_id, "source": row.get("source") if row else None, "fate": fate, **more}
    return side.pane(title, body, tone, side.facts(told))
