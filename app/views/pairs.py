"""Preference data: the prompt pinned, the answers beside each other, what differs marked; and what is suspicious about the whole set."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import charts, lints, shell, side, state
from app.rowlist import row_list, unless
from app.shell import Page
from app.views import candidates
from columnar.ask import Result, plain

DEEP = 200_000  # rows up to which the lints that read the texts are counted without being asked
UNLIKE = 0.1  # answers that share fewer of their words are all difference: marks would only be paint
LENGTHS = (256, 512, 1024, 2048, 4096)
ORDERS = {
    "as stored": "",
    "largest margin": "margin DESC NULLS LAST, id",
    "smallest margin": "margin NULLS LAST, id",
    "most unlike lengths": "abs(ln(chosen_chars + 1) - ln(rejected_chars + 1)) DESC, id",
    "longest": "chosen_chars + rejected_chars DESC, id",
}


def show(page: Page) -> None:
    """Draw the page."""
    columns = page.data.columns["rows"]
    if "candidates" in columns:
        candidates.show(page)
        return
    if not {"chosen", "rejected"} <= set(columns):
        st.title("Pairs")
        shell.missing("preference pairs in this dataset", "python -m generation.pairs CONFIG.yaml --out out/pairs", page.data.path)
        return
    with shell.guarded():
        where = state.condition(page.state, columns)
        found, total, asked = _lints(page, where)
        chosen = next((one for one in found if one.lint.key == page.state.choice("lint")), None)
        if chosen:
            _told(chosen)
        _settings(page)
        opened = _list(page, where, chosen, total)
        if opened:
            detail(page, opened)
        _shapes(page, where)
        shell.asked(*asked)


def _lints(page: Page, where: state.Condition) -> tuple[list[lints.Finding], int, tuple[str, Result, dict[str, Any]]]:
    """The lints with their counts, as choices; the chosen one filters the list."""
    rows = page.data.dataset.rows
    asked = lints.lints_for(page.data.columns["rows"], _tokens(page))
    deep = rows <= DEEP or page.state.choice("deep") == "1"
    counted = [lint for lint in asked if deep or not lint.reads_text or lint.key == page.state.choice("lint")]
    sql = lints.counts_sql(counted, "rows", where.sql)
    answer = page.data.run(sql, where.params, timeout=120)
    found = lints.findings(counted, answer.rows[0])
    total = int(answer.rows[0]["pairs"])
    st.title(f"{total:,} pair{'s' * (total != 1)}" + (" under the filter" if page.state.filtered else ""))
    shown = {one.lint.key: _label(one) for one in found if one.of}
    st.session_state["pairs.lint"] = page.state.choice("lint") if page.state.choice("lint") in shown else None
    st.pills(
        "What is suspicious, and in how many pairs: choose one to see them",
        list(shown),
        key="pairs.lint",
        format_func=shown.__getitem__,
        on_change=lambda: shell.go(page.state.go(row="", page=1).with_choice("lint", st.session_state["pairs.lint"] or "")),
    )
    if not deep:
        st.button(
            f"Count those too that read the texts of {rows:,} rows (takes seconds)",
            on_click=lambda: shell.go(page.state.with_choice("deep", "1")),
        )
    return found, total, (sql, answer, where.params)


def _tokens(page: Page) -> int:
    said = page.state.choice("tokens")
    return int(said) if said.isascii() and said.isdigit() and 0 < len(said) < 7 else 512


def _settings(page: Page) -> None:
    """The order of the list, the trainer's length, and how the pair is shown: one line."""
    place, tokens = page.state, _tokens(page)
    st.session_state["pairs.order"] = place.choice("order") if place.choice("order") in ORDERS else "as stored"
    st.session_state["pairs.tokens"] = tokens
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Order",
            list(ORDERS),
            key="pairs.order",
            width=210,
            on_change=lambda: shell.go(place.go(row="", page=1).with_choice("order", unless(st.session_state["pairs.order"], "as stored"))),
        )
        st.selectbox(
            "A trainer cuts at (tokens)",
            sorted({*LENGTHS, tokens}),
            key="pairs.tokens",
            width=170,
            on_change=lambda: shell.go(place.with_choice("tokens", unless(str(st.session_state["pairs.tokens"]), "512"))),
        )
        whole, differing = place.choice("whole") == "1", place.choice("diff") != "0"
        st.button(
            "Hide differences" if differing else "Show differences",
            shortcut="D",
            key="pairs.diff",
            on_click=lambda: shell.go(place.with_choice("diff", "0" if differing else "")),
        )
        st.button(
            "Cut long texts" if whole else "Show whole texts",
            key="pairs.whole",
            on_click=lambda: shell.go(place.with_choice("whole", "" if whole else "1")),
        )


def _label(one: lints.Finding) -> str:
    """Our own words and numbers only: labels are Markdown."""
    share = one.share
    said = "–" if share is None else f"{100 * share:.0f} %" if one.lint.bias else f"{one.count:,}"
    return f":{'red' if one.wrong else 'gray'}[**{said}**] {one.lint.title}"


def _told(one: lints.Finding) -> None:
    low, high = one.interval or (0.0, 0.0)
    share = f"{one.count:,} of {one.of:,} pairs that it can be asked of: {100 * (one.share or 0):.1f} %"
    share += f" (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    st.html(f"<p><b>{one.lint.title}.</b> {one.lint.says}<br>{share}</p>")


def _shapes(page: Page, where: state.Condition) -> None:
    """Margins and lengths as histograms."""
    columns = page.data.columns["rows"]
    with st.expander("Margins and lengths of the whole set", icon=":material/bar_chart:"):
        effect = page.data.run(lints.length_effect_sql(columns, "rows", where.sql), where.params, timeout=120).rows[0]
        if effect["ratio"] is not None:
            d = effect["cohens_d"]
            said = f"Chosen answers are typically {effect['ratio']:.2f} times as long as rejected ones"
            st.caption(said + (f"; Cohen's d of the difference: {d:.2f} (0.2 is small, 0.8 large)." if d is not None else "."))
        chosen, rejected = lints.lengths(columns)
        left, right = st.columns(2)
        ratio = f"greatest(-8, least(8, round(2 * log2(({chosen} + 1) / ({rejected} + 1.0)))))"
        with left:
            st.caption("How much longer the chosen answer is: left of the middle shorter, right longer, two bars a doubling")
            _bars(page, ratio, where, "half doublings")
        with right:
            st.caption("Margin of the scores")
            if "chosen_score" in columns:
                _bars(page, "round(2 * (chosen_score - rejected_score)) / 2", where, "margin")


def _bars(page: Page, value: str, where: state.Condition, name: str) -> None:
    sql = f"SELECT {value} AS value, count(*) AS pairs FROM rows WHERE kind = 'pair' AND ({where.sql}) GROUP BY 1 ORDER BY 1 LIMIT 60"
    lines = page.data.run(sql, where.params, timeout=120).rows
    known = [line for line in lines if line["value"] is not None]
    missing = sum(line["pairs"] for line in lines if line["value"] is None)
    st.html(charts.bars([charts.Bar(f"{line['value']:+g}", line["pairs"]) for line in known]))
    if missing:
        st.caption(f"{missing:,} pairs without a {name}")


def _list(page: Page, where: state.Condition, chosen: lints.Finding | None, total: int) -> str:
    columns = page.data.columns["rows"]
    a, b = lints.lengths(columns)
    margin = "chosen_score - rejected_score" if "chosen_score" in columns else "NULL::DOUBLE"
    preview = "preview" if "preview" in columns else "left(prompt[-1].content, 160)"
    narrow = f"id, source, {margin} AS margin, {a} AS chosen_chars, {b} AS rejected_chars, {preview} AS prompt"
    order = ORDERS[st.session_state["pairs.order"]]
    lint = f" AND ({chosen.lint.of}) AND ({chosen.lint.where})" if chosen else ""
    sql = f"SELECT {narrow} FROM rows WHERE kind = 'pair' AND ({where.sql}){lint}" + (f" ORDER BY {order}" if order else "")
    return row_list(page, sql, where.params, chosen.count if chosen else total, {"margin": "%.3g"})


def detail(page: Page, row_id: str) -> None:
    """One pair, prompt pinned, answers beside each other."""
    found = page.data.run("SELECT * FROM text WHERE id = $id", {"id": row_id}, 1).rows
    if not found:
        shell.problem(f"There is no row {row_id} in this dataset.", "It may have been dropped: look for it in Browse.")
        return
    row = found[0]
    differing = page.state.choice("diff") != "0"
    most = None if page.state.choice("whole") == "1" else side.MOST
    in_chosen, in_rejected, last = side.differing(row["chosen"], row["rejected"])
    unlike = last.same < UNLIKE
    if unlike or not differing:
        in_chosen, in_rejected = {}, {}
    high, low = row.get("chosen_score"), row.get("rejected_score")
    margin = high - low if high is not None and low is not None else None
    same = {"margin": margin, "the same": f"{100 * last.same:.0f} % of words", "identical for": f"{last.head:,} words"}
    st.html(side.facts({"source": row["source"], "id": row_id, **same}))
    panes = [
        side.pane(
            name,
            side.messages_html(row[name], spans, kind, most),
            tone,
            side.facts(
                {
                    "model": row.get(f"{name}_model"),
                    "score": row.get(f"{name}_score"),
                    "characters": sum(len(m.get("content") or "") for m in row[name] or ()),
                    **candidates.ratings_in_meta(row.get("meta"), name),
                }
            ),
        )
        for name, spans, kind, tone in (("chosen", in_chosen, "only-a", "good"), ("rejected", in_rejected, "only-b", "bad"))
    ]
    st.html(side.beside(panes, side.messages_html(row["prompt"], most=most)))
    if unlike and differing:
        st.caption("The answers have hardly a word in common: differences are not marked.")
    if last.cut:
        st.caption("Only the first 200,000 characters of each answer are compared.")
    shell.link("browse", "Everything about this row", state.State(data=page.state.data, row=row_id), icon=":material/article:")
    candidates.of_parents(page, plain(row.get("parents")) or [])
