"""Contamination: which source holds items of which benchmark, the worst items, the evidence on both sides, and what could not be seen."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from app import heat, lookup, render, shell, side, state
from app.evidence import shared_passages
from app.rowlist import row_list
from app.shell import Page
from columnar.ask import Result

COMMAND = "python -m decontam.scan {path} --benchmarks tulu3"
SOURCES = """
    WITH hit AS (SELECT DISTINCT id, benchmark FROM hits_decontam), here AS (SELECT id, source FROM text SEMI JOIN hit USING (id)),
      gone AS (SELECT DISTINCT ON (id) id, source FROM dropped SEMI JOIN hit USING (id))
    SELECT coalesce(here.source, gone.source, 'not kept') AS source, benchmark, count(*) AS n
    FROM hit LEFT JOIN here USING (id) LEFT JOIN gone USING (id) GROUP BY ALL ORDER BY n DESC LIMIT 2000
"""
WORST = """
    SELECT benchmark || '/' || item_id AS item, count(DISTINCT h.id) AS rows, round(max(coverage_item), 3) AS coverage,
      max(longest_run) AS longest_run
    FROM hits_decontam AS h {join} WHERE {where} GROUP BY benchmark, item_id ORDER BY rows DESC, coverage DESC, item
"""
EVIDENCE = """
    SELECT h.id, round(max(coverage_item), 3) AS coverage, max(longest_run) AS longest_run, any_value(rule) AS rule
    FROM hits_decontam AS h {join} WHERE benchmark = $benchmark AND item_id = $item AND {where}
    GROUP BY h.id ORDER BY coverage DESC, h.id LIMIT 500
"""
SOURCE = "JOIN (SELECT id, source FROM text UNION SELECT id, source FROM dropped) AS r ON r.id = h.id"
BETWEEN = " → "
BEFORE = 1_000  # characters shown before the first run of a very long text


def show(page: Page) -> None:
    """Draw the page."""
    if not (page.data.path / "hits" / "decontam.parquet").is_file():
        st.title("Contamination")
        shell.missing("scan for benchmark items", COMMAND, page.data.path)
        return
    with shell.guarded():
        counted = page.data.run("SELECT count(DISTINCT id) AS rows, count(DISTINCT (benchmark, item_id)) AS items FROM hits_decontam").rows[
            0
        ]
        rows, items = counted["rows"], counted["items"]
        st.title(f"{rows:,} row{'s' * (rows != 1)} with the text of {items:,} benchmark item{'s' * (items != 1)}")
        report = read_report(page)
        asked = _matrix(page, report)
        _blind(report)
        if counted["rows"]:
            _items(page)
        shell.asked(SOURCES, asked)


def read_report(page: Page) -> dict[str, Any]:
    """The scan's report.json, or nothing where there is none."""
    try:
        found = json.loads((page.data.path / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("benchmarks"), list) else {}


def _matrix(page: Page, report: dict[str, Any]) -> Result:
    found = page.data.run(SOURCES, timeout=120)
    counts = {(str(line["source"]), str(line["benchmark"])): line["n"] for line in found.rows}
    if not counts:
        st.html('<p class="cv-note">The dataset was scanned, and no row holds an item of a benchmark.</p>')
        return found
    rows = sorted({source for source, _ in counts})
    columns = sorted({benchmark for _, benchmark in counts}, key=lambda b: -sum(n for (_, name), n in counts.items() if name == b))
    clean = [str(b.get("benchmark")) for b in report.get("benchmarks", ()) if not b.get("hit")]

    def href(source: str, benchmark: str) -> str:
        return shell.href("contamination", page.state.go(row="", page=1).with_choice("between", f"{source}{BETWEEN}{benchmark}"))

    def told(source: str, benchmark: str) -> str:
        return f"{counts[source, benchmark]:,} rows of {source} hold items of {benchmark}"

    st.caption("Rows that hold items, by source and benchmark, before anything was dropped. Choose a cell to see them.")
    st.html(heat.heat_map(rows, columns, counts, href, "source ↓ benchmark →", _between(page), told))
    if clean:
        st.html(render.note(f"Looked for and not found: {', '.join(clean)}"))
    return found


def _between(page: Page) -> tuple[str, str] | None:
    source, arrow, benchmark = page.state.choice("between").partition(BETWEEN)
    return (source, benchmark) if arrow else None


def _blind(report: dict[str, Any]) -> None:
    """What the scan could not see, benchmark by benchmark."""
    if not report:
        st.caption("There is no report.json beside the evidence: what could not be seen is not known.")
        return
    with st.expander("By benchmark, and what could not be seen", icon=":material/visibility_off:"):
        lines = [
            {
                "benchmark": b.get("benchmark"),
                "use": b.get("policy"),
                "items": b.get("items"),
                "found": b.get("hit"),
                "share": b.get("share"),
                "rows": b.get("rows"),
                "verdict": b.get("verdict"),
                "cannot be seen": (b.get("unseeable") or {}).get("items"),
                "too short": (b.get("unseeable") or {}).get("short"),
                "without text": (b.get("unseeable") or {}).get("empty"),
                "looked at": ", ".join(map(str, b.get("deciding") or ())),
            }
            for b in report["benchmarks"]
        ]
        st.dataframe(lines, hide_index=True, column_config={"share": st.column_config.NumberColumn(format="percent")})
        rule = report.get("rule") or {}
        paraphrase = report.get("paraphrase")
        told = paraphrase if isinstance(paraphrase, str) else json.dumps(paraphrase, ensure_ascii=False)
        scanned = ", ".join(map(str, (report.get("scanned") or {}).get("fields") or ()))
        st.html(side.facts({"rule": rule.get("preset"), "looks for": rule.get("source"), "scanned": scanned or None, "paraphrases": told}))


def _items(page: Page) -> None:
    chosen = _between(page)
    join, where, params = "", "true", {}
    if chosen:
        join, where = SOURCE, "r.source = $source AND benchmark = $benchmark"
        params = {"source": chosen[0], "benchmark": chosen[1]}
        st.button(
            "All sources and benchmarks",
            icon=":material/close:",
            on_click=lambda: shell.go(page.state.go(row="", page=1).with_choice("between", "")),
        )
    st.subheader("Worst items" if not chosen else "Items of this cell")
    sql = WORST.format(join=join, where=where)
    total = int(page.data.one(f"SELECT count(DISTINCT (benchmark, item_id)) FROM hits_decontam AS h {join} WHERE {where}", params) or 0)
    opened = row_list(page, sql, params, total, key="item", extend=lambda items: _beginnings(page, items))
    if opened:
        _evidence(page, *opened.partition("/")[::2])


def _beginnings(page: Page, items: list[str]) -> dict[str, str]:
    """How the items begin, when the scan kept their texts."""
    if not (page.data.path / "hits" / "decontam_items.parquet").is_file():
        return {}
    sql = """SELECT benchmark || '/' || item_id AS item, left(first(text ORDER BY length(text) DESC), 160) AS text
        FROM hits_decontam_items WHERE benchmark || '/' || item_id IN (SELECT unnest($items::VARCHAR[])) GROUP BY 1"""
    return {line["item"]: line["text"] or "" for line in page.data.run(sql, {"items": items}).rows}


def _evidence(page: Page, benchmark: str, item: str) -> None:
    """An item beside the rows that hold it."""
    chosen = _between(page)
    params = {"benchmark": benchmark, "item": item, **({"source": chosen[0]} if chosen else {})}
    sql = EVIDENCE.format(join=SOURCE if chosen else "", where="r.source = $source" if chosen else "true")
    found = page.data.run(sql, params).rows
    if not found:
        shell.problem(f"No row holds an item {item} of {benchmark}.", "Choose an item in the list.")
        return
    by_id = {line["id"]: line for line in found}
    row_id = page.state.choice("holder") if page.state.choice("holder") in by_id else found[0]["id"]
    if len(found) > 1:
        st.session_state["holder"] = row_id
        st.selectbox(
            f"{len(found):,} rows hold it",
            list(by_id),
            key="holder",
            format_func=lambda one: (
                f"{one} · {100 * by_id[one]['coverage']:.0f} % of the item · longest run {by_id[one]['longest_run']} words"
            ),
            on_change=lambda: shell.go(page.state.with_choice("holder", st.session_state["holder"])),
        )
    row, fate = lookup.row_of(page.data, row_id)
    hits = page.data.run(
        "SELECT * FROM hits_decontam WHERE id = $id AND benchmark = $b AND item_id = $i", {"id": row_id, "b": benchmark, "i": item}
    ).rows
    texts = _item_texts(page, benchmark, item)
    told = {"id": row_id, "source": row.get("source") if row else None, "fate": fate, "rule": by_id[row_id]["rule"]}
    left = side.pane("training row", _row_html(row, hits, texts), "bad", side.facts(told))
    right = side.pane(f"{benchmark} {item}", _item_html(row, hits, texts), "", side.facts(_figures(hits)))
    st.html(side.beside([left, right]))
    st.html(
        '<p class="cv-note">Dark: the longest run that the scan recorded. Light: other passages of five words or more that both share.</p>'
    )
    if row:
        shell.link(
            "browse", "Everything about this row", state.State(data=page.state.data, part="kept" if fate == "in" else "dropped", row=row_id)
        )


def _figures(hits: list[dict[str, Any]]) -> dict[str, Any]:
    best = max(hits, key=lambda hit: hit["coverage_item"] or 0)
    return {"covered": f"{100 * (best['coverage_item'] or 0):.0f} %", "longest run": f"{best['longest_run']} words"}


def _item_texts(page: Page, benchmark: str, item: str) -> dict[str, str]:
    """The item's fields, when the scan kept them."""
    if not (page.data.path / "hits" / "decontam_items.parquet").is_file():
        return {}
    sql = "SELECT item_field, text FROM hits_decontam_items WHERE benchmark = $b AND item_id = $i"
    return {line["item_field"]: line["text"] or "" for line in page.data.run(sql, {"b": benchmark, "i": item}).rows}


def _row_html(row: dict[str, Any] | None, hits: list[dict[str, Any]], texts: dict[str, str]) -> str:
    """The turns with hits, marked; the others folded."""
    if row is None or not lookup.has_text(row):
        return '<div class="cv-cut">The text of this row was not kept.</div>'
    out = []
    for field in lookup.TEXTS:
        for number, turn in enumerate(row.get(field) or ()):
            mine = [hit for hit in hits if hit["field"] == field and hit["turn"] == number]
            content = turn.get("content") or ""
            name = render.escape(f"{turn.get('role') or turn.get('model') or field}" + (f" ({field})" if field != "messages" else ""))
            if mine:
                passages = [span for text in texts.values() for span in shared_passages(content, text).a]
                out.append(_turn(name, _marked(content, passages, [(hit["start"], hit["end"]) for hit in mine])))
            else:
                out.append(f"<details><summary>{name}</summary>{side.text_html(content)}</details>")
    return "".join(out)


def _item_html(row: dict[str, Any] | None, hits: list[dict[str, Any]], texts: dict[str, str]) -> str:
    out = []
    for field, text in texts.items():
        mine = [hit for hit in hits if hit["item_field"] == field]
        turns = [turn for hit in mine for turn in ((row or {}).get(hit["field"]) or ())[hit["turn"] : hit["turn"] + 1]]
        passages = [span for turn in turns for span in shared_passages(turn.get("content") or "", text).b]
        out.append(_turn(render.escape(field), _marked(text, passages, [(hit["item_start"], hit["item_end"]) for hit in mine])))
    if out:
        return "".join(out)
    fields = ", ".join(sorted({str(hit["item_field"]) for hit in hits}))
    return (
        f'<div class="cv-cut">Its text (field {render.escape(fields)}) was not kept by this scan; a scan of this version keeps it. '
        "The marked passage on the left is what both share.</div>"
    )


def _turn(name: str, body: str) -> str:
    return f'<div class="cv-part"><div class="cv-role">{name}</div>{body}</div>'


def _marked(text: str, passages: list[tuple[int, int]], runs: list[tuple[int, int]]) -> str:
    """The text with both kinds of spans; of a very long one the part around the first run."""
    first = max(0, min((start for start, _ in runs), default=0) - BEFORE) if len(text) > side.MOST else 0
    shown = text[first : first + side.MOST]
    before = f'<div class="cv-cut">{first:,} characters before …</div>' if first else ""
    rest = len(text) - first - len(shown)
    after = f'<div class="cv-cut">… {rest:,} more characters</div>' if rest else ""
    layers = [([(s - first, e - first) for s, e in spans], kind) for spans, kind in ((passages, "shared"), (runs, "run"))]
    return f'{before}<div class="cv-text" dir="auto">{side.layered(shown, layers)}</div>{after}'
