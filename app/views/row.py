"""The open row: keys and flags, the conversation, and why it is in or out."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from app import listing, marks, provenance, render, shell
from app.chat import chat
from app.db import Data
from app.shell import Page, current, go
from columnar.errors import CaravanError
from columnar.explain import explain

FIELDS = ("messages", "prompt", "chosen", "rejected")


def show(page: Page, row_id: str) -> None:
    """Draw the row."""
    _keys(page, row_id)
    try:
        story = told(page.data, row_id)
    except CaravanError as error:
        shell.problem(str(error), error.hint)
        return
    flags = [flag["flag"] for flag in story["flags"]]
    _flags(page, story["id"], flags)
    st.html(provenance.headline(story))
    _text(page, story)
    with st.expander("Provenance", icon=":material/account_tree:"):
        st.html(provenance.panel(story, lambda other: shell.href("browse", shell.place_of_row(page.state, other))))
    with st.expander("The row as JSON", icon=":material/data_object:"):
        shown = json.dumps(story["row"], ensure_ascii=False, indent=2, default=str)
        st.html(f'<pre class="cv-command">{render.escape(shown[: 4 * render.MOST])}</pre>')


def told(data: Data, row_id: str) -> dict[str, Any]:
    """The row's story as columnar.explain tells it."""
    return explain(data.path, row_id, data.connection)


def flags_of(page: Page, ids: list[str]) -> dict[str, list[str]]:
    """The flags of the rows of a page."""
    return marks.flags_of(page.data, ids)


def _step(by: int) -> None:
    """To the next or previous row, across the ends of a page."""
    place, ids = current(), st.session_state.get("browse.ids") or []
    opened = st.session_state.get("browse.opened")
    at = ids.index(opened) + by if opened in ids else 0
    if 0 <= at < len(ids):
        go(place.go(row=ids[at]))
    elif at >= len(ids) == listing.PAGE:
        go(place.go(page=place.page + 1, row=""))
    elif at < 0 and place.page > 1:
        st.session_state["browse.last"] = True
        go(place.go(page=place.page - 1, row=""))


def _toggle_markdown() -> None:
    st.session_state["row.markdown"] = not st.session_state.get("row.markdown", False)


def _keys(page: Page, row_id: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="keybar"):
        st.button("Previous", shortcut="K", on_click=_step, args=(-1,), key="row.prev", type="tertiary", icon=":material/arrow_upward:")
        st.button("Next", shortcut="J", on_click=_step, args=(1,), key="row.next", type="tertiary", icon=":material/arrow_downward:")
        as_markdown = st.session_state.get("row.markdown", False)
        st.button(
            "Raw text" if as_markdown else "Markdown",
            shortcut="M",
            on_click=_toggle_markdown,
            key="row.mode",
            type="tertiary",
            icon=":material/markdown:",
        )
        with st.popover("Link", icon=":material/link:", type="tertiary"):
            st.caption("This row under these filters; the address bar shows the same.")
            st.code(shell.full_address(current().go(row=row_id)), language=None, wrap_lines=True)


def _flags(page: Page, row_id: str, flags: list[str]) -> None:
    """A button and a key for each flag; the same again takes it away."""

    def done(act: marks.Done) -> None:
        st.session_state.setdefault("acts", []).append(act)

    def press(flag: str) -> None:
        note = str(st.session_state.get("flag.note") or "")
        done(marks.set_flag(page.data.path, [row_id], flag, note, undo=flag in flags))
        st.session_state["flag.note"] = ""

    def undo() -> None:
        acts = st.session_state.get("acts") or []
        if acts:
            marks.take_back(page.data.path, acts.pop())

    with st.container(horizontal=True, gap="xsmall", key="flagbar"):
        for number, flag in enumerate(marks.LABELS, 1):
            held = flag in flags
            st.button(flag, shortcut=str(number), key=f"flag.{flag}", type="primary" if held else "secondary", on_click=press, args=(flag,))
        for flag in flags:
            if flag not in marks.LABELS:
                st.button(
                    render.label(flag), key=f"flag.own.{flag}", type="primary", on_click=press, args=(flag,), help="Take this flag away"
                )
        st.button("Undo", shortcut="U", key="flag.undo", on_click=undo, disabled=not st.session_state.get("acts"), type="tertiary")
        with st.popover("Note, all rows", icon=":material/edit_note:", type="tertiary"):
            st.text_input("Note for the next flag", key="flag.note", placeholder="What is wrong with it")
            _bulk(page)


def _bulk(page: Page) -> None:
    """One flag on every row that the filters leave."""
    left = st.session_state.get("browse.left")
    if left is None:
        st.caption("Count the rows first, to flag all of them.")
        return
    flag = st.selectbox("Flag", marks.LABELS, key="bulk.flag", accept_new_options=True)

    def all_rows(undo: bool) -> None:
        try:
            where = listing.limits(page.data, current())
            ids = marks.ids_of(page.data, listing.view(current()), where)
            act = marks.set_flag(page.data.path, ids, str(flag or ""), str(st.session_state.get("flag.note") or ""), undo)
            st.session_state.setdefault("acts", []).append(act)
            st.session_state["bulk.said"] = f"{len(ids):,} rows {'lost' if undo else 'got'} the flag {flag}"
        except CaravanError as error:
            st.session_state["bulk.said"] = str(error)

    with st.container(horizontal=True):
        st.button(f"Flag all {left:,} rows", key="bulk.set", on_click=all_rows, args=(False,), disabled=not left)
        st.button("Take it from all", key="bulk.unset", on_click=all_rows, args=(True,), disabled=not left, type="tertiary")
    said = st.session_state.pop("bulk.said", None)
    if said:
        st.html(render.note(said))


def _text(page: Page, story: dict[str, Any]) -> None:
    """The row's text: a conversation, or a prompt with its answers."""
    row, place = story["row"], current()
    words = _words(page, story, place)
    most = st.session_state.get(f"row.most.{story['id']}", render.MOST)
    as_markdown = st.session_state.get("row.markdown", False)
    longest, shown = 0, False
    if row.get("tools"):
        with st.expander("Tools the model may call", icon=":material/build:"):
            st.html(f'<pre class="cv-command">{render.escape(provenance.laid_out(row["tools"])[:most])}</pre>')
    for field in FIELDS:
        turns = row.get(field) or []
        if turns:
            first = 1 if field in ("messages", "prompt") else len(row.get("prompt") or []) + 1
            spans = provenance.spans(story, field)
            named = field if field in ("chosen", "rejected") else ""
            st.html(chat(turns, words, spans, as_markdown, most, first, named))
            longest, shown = max(longest, *(len(turn.get("content") or "") for turn in turns)), True
    for number, answer in enumerate(row.get("candidates") or [], 1):
        said = f"candidate {number} · {answer.get('model') or 'unknown model'}" + (
            f" · score {answer['score']:g}" if answer.get("score") is not None else ""
        )
        st.html(chat([{"role": "assistant", **answer}], words, None, as_markdown, most, len(row.get("prompt") or []) + 1, said))
        longest, shown = max(longest, len(answer.get("content") or "")), True
    if row.get("ground_truth"):
        st.html(render.facts([("verifier", str(row.get("verifier") or "")), ("ground truth", str(row["ground_truth"]))]))
    if not shown:
        st.html(render.note("The text of rows dropped for this reason is not kept; it is in the file that the provenance names."))
    if longest > most:
        more = min(longest, most * 10)
        st.button(f"Show {more:,} characters", key="row.more", on_click=lambda: st.session_state.update({f"row.most.{story['id']}": more}))


def _words(page: Page, story: dict[str, Any], place: Any) -> list[str]:
    """What to mark: the words searched for, or what the regular expression finds in this row (DuckDB's kind, which always ends soon)."""
    if not place.q:
        return []
    if not place.regex:
        return [place.q]
    texts = [str(turn.get("content") or "") for field in FIELDS for turn in story["row"].get(field) or ()]
    sql = "SELECT DISTINCT unnest(list_distinct(regexp_extract_all($t, $q, 0, 'i'))) AS word"
    try:
        found = page.data.run(sql, {"t": "\n".join(texts)[: 10 * render.MOST], "q": place.q}, 100, 5).rows
    except CaravanError:
        return []
    return [row["word"] for row in found if row["word"]]
