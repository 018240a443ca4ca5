"""Any question in SQL: only reading, limited in rows and time, stopped at will; saved queries; the answer to take away."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from typing import Any

import pyarrow as pa
import streamlit as st

from app import db, render, shell, state
from app.running import Running
from app.shell import Page
from columnar.ask import plain
from columnar.query import Saved, saved_queries

ROWS = (1_000, 10_000, 100_000)
SECONDS = (10, 30, 120, 600)
SHOWN = 1_000  # rows in the table on the page
CELL = 2_000  # characters of a cell that are shown
SMALL = 2 << 20  # bytes of an answer whose files are made with the page
PATIENCE = 0.4  # seconds waited for an answer before the page shows that it is on its way
FIRST = "SELECT source, count(*) AS rows\nFROM rows\nGROUP BY ALL\nORDER BY rows DESC"


def show(page: Page) -> None:
    """Draw the page."""
    st.title("SQL")
    saved = {query.name: query for query in saved_queries()}
    with shell.guarded():
        data = _data(page)
        sql = _ask(page, saved)
        if sql:
            _answer(page, data, sql)
        _views(data)


def _data(page: Page) -> db.Data:
    """The dataset, and a second one beside it where one is chosen."""
    others = [name for name in page.paths if name != page.name]
    if page.state.other in others:
        return db.open_data(page.data.path, page.paths[page.state.other])
    return page.data


def _ask(page: Page, saved: dict[str, Saved]) -> str:
    """The form; returns what the URL asks, which is what runs."""
    place = page.state
    name = place.choice("query") if place.choice("query") in saved else ""
    text = place.choice("sql") or (saved[name].sql if name else "")
    rows, seconds = _limit(place, "rows", ROWS, 1_000), _limit(place, "seconds", SECONDS, 30)
    others = ["", *(other for other in page.paths if other != page.name)]
    known = {"query": name, "rows": rows, "seconds": seconds, "other": place.other if place.other in others else ""}
    for key, value in known.items():
        st.session_state[f"sql.{key}"] = value
    if st.session_state.get("sql.seen") != text or "sql.text" not in st.session_state:  # else a draft would be lost
        st.session_state["sql.seen"], st.session_state["sql.text"] = text, text or FIRST

    def changed(**choices: str) -> None:
        now = shell.current()
        for key, value in choices.items():
            now = now.with_choice(key, value)
        shell.go(now)

    def run() -> None:
        st.session_state.pop("sql.running", None)  # asked anew even when the question is the same
        changed(query="", sql=st.session_state["sql.text"])

    one, two, three, four = st.columns([4, 3, 1.4, 1.4], vertical_alignment="bottom")
    one.selectbox(
        "Saved queries",
        ["", *saved],
        key="sql.query",
        format_func=lambda key: f"{key}: {saved[key].headline}" if key else "choose one of queries/",
        on_change=lambda: changed(query=st.session_state["sql.query"] or "", sql=""),
    )
    if len(others) > 1:
        two.selectbox(
            "Second dataset (schema b)",
            others,
            key="sql.other",
            format_func=lambda key: key or "none",
            on_change=lambda: shell.go(shell.current().go(other=st.session_state["sql.other"])),
        )
    three.selectbox("Rows at most", ROWS, key="sql.rows", format_func="{:,}".format, on_change=lambda: changed(rows=_said("rows", 1_000)))
    four.selectbox("Seconds at most", SECONDS, key="sql.seconds", on_change=lambda: changed(seconds=_said("seconds", 30)))
    st.text_area("Query", key="sql.text", height=190, label_visibility="collapsed")
    st.button(
        "Run",
        type="primary",
        shortcut="Ctrl+Enter",
        icon=":material/play_arrow:",
        on_click=run,
    )
    return text


def _said(name: str, default: int) -> str:
    value = int(st.session_state[f"sql.{name}"])
    return "" if value == default else str(value)


def _limit(place: state.State, name: str, known: tuple[int, ...], default: int) -> int:
    return next((value for value in known if str(value) == place.choice(name)), default)


def _answer(page: Page, data: db.Data, sql: str) -> None:
    rows, seconds = _limit(page.state, "rows", ROWS, 1_000), _limit(page.state, "seconds", SECONDS, 30)
    asked = (sql, rows, seconds, data.stamp, data.schemas)
    kept = st.session_state.get("sql.running")
    if kept is None or kept[0] != asked:
        if kept is not None:
            kept[1].stop()
        kept = (asked, Running(data, sql, rows, seconds))
        st.session_state["sql.running"] = kept
    running: Running = kept[1]
    if not running.wait(PATIENCE):
        _under_way(running)
        return
    if running.error is not None:
        shell.problem(str(running.error), running.error.hint)
        return
    assert running.table is not None
    _table(page, running, running.table)


@st.fragment(run_every=0.5)
def _under_way(running: Running) -> None:
    if running.done:
        st.rerun()
    left, right = st.columns([1, 5], vertical_alignment="center")
    left.button("Stop", icon=":material/stop:", key="sql.stop", on_click=running.stop)
    right.caption(f"running for {running.elapsed:.1f} s, stopped after {running.timeout:g} s")


def _table(page: Page, running: Running, table: pa.Table) -> None:
    cut = f" · {running.truncated}" if running.truncated else ""
    more = f" · the first {SHOWN:,} are shown" if table.num_rows > SHOWN else ""
    st.html(f'<p class="cv-lead"><b>{table.num_rows:,}</b> rows in {running.seconds:.2f} s{cut}{more}</p>')
    lines = [{name: _cell(value) for name, value in line.items()} for line in map(plain, table.slice(0, SHOWN).to_pylist())]
    if lines and "id" in lines[0]:
        st.dataframe(lines, hide_index=True, key="sql.table", on_select="rerun", selection_mode="single-row")
        chosen = st.session_state["sql.table"]["selection"]["rows"]
        if chosen and chosen[0] < len(lines):
            row_id = str(lines[chosen[0]]["id"])
            shell.link("browse", "Open this row", state.State(data=page.state.data, row=row_id), icon=":material/article:")
    else:
        st.dataframe(lines or {name: [] for name in table.schema.names}, hide_index=True)
    part = "first-" if running.truncated else ""
    name = f"{page.name.replace('/', '-')}-{part}{table.num_rows}-rows"
    label = f"{'The first ' if running.truncated else 'All '}{table.num_rows:,} rows"
    left, right, _ = st.columns([1, 1, 2])
    # a file that is only made when asked for is lost to a click while the page is drawn again
    to_csv, to_parquet = (make(table) if table.nbytes <= SMALL else partial(make, table) for make in (as_csv, as_parquet))
    left.download_button(f"{label} as CSV", to_csv, f"{name}.csv", "text/csv", key="sql.csv", on_click="ignore")
    right.download_button(f"{label} as Parquet", to_parquet, f"{name}.parquet", key="sql.parquet", on_click="ignore")
    if running.truncated:
        whole = "python -m columnar.query DIR -f FILE.sql --out answer.parquet"
        st.caption(f"The answer was {running.truncated}. All of it: {whole}")


def _cell(value: Any) -> Any:
    """A value as a table shows it: lists and structs as JSON, long texts cut."""
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    return value[:CELL] + " …" if isinstance(value, str) and len(value) > CELL else value


def as_csv(table: pa.Table) -> bytes:
    """The answer as CSV, lists and structs as JSON."""
    out = io.StringIO(newline="")
    sheet = csv.writer(out, lineterminator="\n")
    sheet.writerow(table.schema.names)
    for batch in table.to_batches():
        for row in batch.to_pylist():
            sheet.writerow(json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for v in plain(row).values())
    return out.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(table: pa.Table) -> bytes:
    """The answer as a Parquet file."""
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def _views(data: db.Data) -> None:
    """What can be asked: the views and their columns."""
    with st.expander("Views and columns", icon=":material/schema:"):
        sql = """SELECT table_name AS view, string_agg(column_name, ', ' ORDER BY column_index) AS columns
            FROM duckdb_columns() WHERE schema_name = 'main' AND NOT internal GROUP BY 1 ORDER BY 1"""
        st.dataframe(data.run(sql).rows, hide_index=True)
        if len(data.schemas) > 1:
            st.html(render.note(f"Those of both datasets: a.rows ({data.schemas[0]}), b.rows ({data.schemas[1]}), and so on."))
