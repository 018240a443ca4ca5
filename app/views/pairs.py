"""Preference data: the prompt pinned, the answers beside each other, what differs marked; and what is suspicious about the whole set."""

from __future__ import annotations

import streamlit as st

from app import lints, shell, side, state
from app.rowlist import row_list, unless
from app.shell import Page
from app.views import candidates
from columnar.ask import plain

DEEP = 200_000  # rows up to which the lints that read the texts are counted without being asked
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
        found, total = _lints(page, where)
        _shapes(page, where, found)
        chosen = next((one for one in found if one.lint.key == page.state.choice("lint")), None)
        if chosen:
            _told(chosen)
        opened = _list(page, where, chosen, total)
        if opened:
            detail(page, opened)


def _lints(page: Page, where: state.Condition) -> tuple[list[lints.Finding], int]:
    """The lints with their counts, as choices; the chosen one filters the list."""
    rows = page.data.dataset.rows
    tokens = int(page.state.choice("tokens", "512")) if page.state.choice("tokens", "512").isdigit() else 512
    asked = lints.lints_for(page.data.columns["rows"], tokens)
    deep = rows <= DEEP or page.state.choice("deep") == "1"
    counted = [lint for lint in asked if deep or not lint.reads_text]
    sql = lints.counts_sql(counted, "rows", where.sql)
    answer = page.data.run(sql, where.params, timeout=120)
    found = lints.findings(counted, answer.rows[0])
    total = int(answer.rows[0]["pairs"])
    st.title(f"{total:,} pairs" + (" under the filter" if page.state.filtered else ""))
    shown = {one.lint.key: _label(one) for one in found}
    if page.state.choice("lint") in [lint.key for lint in asked] and page.state.choice("lint") not in shown:
        shown[page.state.choice("lint")] = next(lint.title for lint in asked if lint.key == page.state.choice("lint"))
    st.session_state["lint"] = page.state.choice("lint") if page.state.choice("lint") in shown else None
    st.pills(
        "What is suspicious, and in how many pairs (choose one to see them)",
        list(shown),
        key="lint",
        format_func=shown.__getitem__,
        on_change=lambda: shell.go(page.state.go(row="", page=1).with_choice("lint", st.session_state["lint"] or "")),
    )
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    if not deep:
        left.button(
            f"Also look into the texts of {rows:,} rows (takes seconds)",
            on_click=lambda: shell.go(page.state.with_choice("deep", "1")),
        )
    st.session_state["tokens"] = tokens
    right.selectbox(
        "A trainer cuts at (tokens)",
        sorted({*LENGTHS, tokens}),
        key="tokens",
        on_change=lambda: shell.go(page.state.with_choice("tokens", str(st.session_state["tokens"]))),
    )
    shell.asked(sql, answer, where.params)
    return found, total


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


def _shapes(page: Page, where: state.Condition, found: list[lints.Finding]) -> None:
    """Margins and lengths as histograms."""
    columns = page.data.columns["rows"]
    with st.expander("Margins and lengths", icon=":material/bar_chart:"):
        effect = page.data.run(lints.length_effect_sql(columns, "rows", where.sql), where.params, timeout=120).rows[0]
        if effect["ratio"] is not None:
            d = effect["cohens_d"]
            st.caption(
                f"Chosen answers are typically {effect['ratio']:.2f} times as long as rejected ones"
                + (f"; Cohen's d of the difference: {d:.2f} (0.2 small, 0.8 large)." if d is not None else ".")
            )
        chosen, rejected = lints.lengths(columns)
        left, right = st.columns(2)
        with left:
            st.caption("Chosen longer by a factor of (logarithmic)")
            ratio = f"round(2 * log2(({chosen} + 1) / ({rejected} + 1.0))) / 2"
            _bars(page, f"greatest(-4, least(4, {ratio}))", where, "factor 2^x")
        with right:
            st.caption("Margin of the scores")
            if "chosen_score" in columns:
                _bars(page, "round(4 * (chosen_score - rejected_score)) / 4", where, "margin")


def _bars(page: Page, value: str, where: state.Condition, name: str) -> None:
    sql = f"SELECT {value} AS value, count(*) AS pairs FROM rows WHERE kind = 'pair' AND ({where.sql}) GROUP BY 1 ORDER BY 1 LIMIT 60"
    answer = page.data.run(sql, where.params, timeout=120)
    bars = [line for line in answer.rows if line["value"] is not None]
    without = sum(line["pairs"] for line in answer.rows if line["value"] is None)
    if bars:
        st.bar_chart({name: [b["value"] for b in bars], "pairs": [b["pairs"] for b in bars]}, x=name, y="pairs", height=180)
    if without:
        st.caption(f"{without:,} pairs without a value")


def _list(page: Page, where: state.Condition, chosen: lints.Finding | None, total: int) -> str:
    columns = page.data.columns["rows"]
    a, b = lints.lengths(columns)
    margin = "chosen_score - rejected_score" if "chosen_score" in columns else "NULL::DOUBLE"
    preview = "preview" if "preview" in columns else "left(prompt[-1].content, 160)"
    narrow = f"id, source, {margin} AS margin, {a} AS chosen_chars, {b} AS rejected_chars, {preview} AS prompt"
    order = ORDERS.get(page.state.choice("order"), "")
    lint = f" AND ({chosen.lint.of}) AND ({chosen.lint.where})" if chosen else ""
    st.session_state["order"] = page.state.choice("order") if page.state.choice("order") in ORDERS else "as stored"
    st.segmented_control(
        "Order",
        list(ORDERS),
        key="order",
        required=True,
        label_visibility="collapsed",
        on_change=lambda: shell.go(page.state.go(row="", page=1).with_choice("order", unless(st.session_state["order"], "as stored"))),
    )
    sql = f"SELECT {narrow} FROM rows WHERE kind = 'pair' AND ({where.sql}){lint}" + (f" ORDER BY {order}" if order else "")
    return row_list(page, sql, where.params, chosen.count if chosen else total, {"margin": "%.3g"})


def detail(page: Page, row_id: str) -> None:
    """One pair, prompt pinned, answers beside each other."""
    found = page.data.run("SELECT * FROM text WHERE id = $id", {"id": row_id}, 1).rows
    if not found:
        shell.problem(f"There is no row {row_id} in this dataset.", "It may have been dropped: look for it in Browse.")
        return
    row = found[0]
    whole, differing = _switches(page)
    most = None if whole else side.MOST
    in_chosen, in_rejected, last = side.differing(row["chosen"], row["rejected"])
    if not differing:
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
    if last.cut:
        st.caption("Only the first 200,000 characters of each answer are compared.")
    shell.link("browse", "Everything about this row", state.State(data=page.state.data, row=row_id), icon=":material/article:")
    candidates.of_parents(page, plain(row.get("parents")) or [])


def _switches(page: Page) -> tuple[bool, bool]:
    """Whether whole texts and differences are shown; both live in the URL."""
    left, right, _ = st.columns([1, 1, 3])
    whole, differing = page.state.choice("whole") == "1", page.state.choice("diff") != "0"
    left.button(
        "Hide differences" if differing else "Show differences",
        shortcut="D",
        key="diff",
        on_click=lambda: shell.go(page.state.with_choice("diff", "0" if differing else "")),
    )
    right.button(
        "Cut long texts" if whole else "Show whole texts",
        key="whole",
        on_click=lambda: shell.go(page.state.with_choice("whole", "" if whole else "1")),
    )
    return whole, differing
