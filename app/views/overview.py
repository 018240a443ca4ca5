"""The dataset at a glance, from its manifest alone: instant at any size. Every bar leads to its rows."""

from __future__ import annotations

import re
from typing import Any

import streamlit as st

from app import charts, markdown, render
from app.charts import Bar
from app.shell import Page, href
from app.state import State

DROPPED, KEPT, QUIET = "#b0413e", "#6a994e", "#8a8a8a"


def show(page: Page) -> None:
    """Draw the page."""
    identity = page.data.identity
    counts = identity.get("counts") or {}
    st.title(render.label(str(identity.get("name") or page.name)), anchor=False)
    description = (identity.get("config") or {}).get("description")
    if description:
        st.html(f'<p class="cv-lead">{render.escape(str(description))}</p>')
    st.html(charts.tiles(_figures(page, identity, counts)))
    if not page.data.dataset.rows:
        st.html(
            render.problem(
                "This dataset has no rows.", "The funnel below says what became of its input; change the mix, then build it again."
            )
        )
    left, right = st.columns(2, gap="large")
    with left:
        _funnel(page, counts)
        _shapes(counts)
    with right:
        _composition(page, counts)
        _licenses(page, identity, counts)
    _benchmarks(page, counts.get("decontam") or {})
    _inputs(identity)
    _card(page)


def _figures(page: Page, identity: dict[str, Any], counts: dict[str, Any]) -> list[tuple[str, str, str]]:
    made = page.data.dataset.manifest.get("circumstance") or {}
    figures = [("rows", f"{page.data.dataset.rows:,}", " · ".join(f"{n:,} {split}" for split, n in (counts.get("splits") or {}).items()))]
    if counts.get("tokens") is not None:
        figures.append(("tokens", f"{counts['tokens']:,}", str(counts.get("tokens_by") or "")))
    if counts.get("by_source"):
        figures.append(("sources", str(len(counts["by_source"])), ""))
    gone = sum((counts.get("by_reason") or {}).values())
    if gone:
        figures.append(("dropped", f"{gone:,}", f"{100 * gone / max(counts.get('in') or gone, 1):.1f} % of {counts.get('in') or gone:,}"))
    rejected = counts.get("rejected", counts.get("rejects"))
    if rejected:
        figures.append(("malformed", f"{rejected:,}", "kept in rejects.jsonl"))
    if counts.get("bad_files"):
        figures.append(("unreadable files", f"{counts['bad_files']:,}", "left out whole, named in rejects.jsonl"))
    if made.get("finished"):
        seconds = f"in {made['seconds']:,.0f} s" if made.get("seconds") is not None else ""
        figures.append(("made", str(made["finished"])[:10], f"{(identity.get('stage') or {}).get('name', '')} {seconds}".strip()))
    return figures


def _funnel(page: Page, counts: dict[str, Any]) -> None:
    """Everything that came in, and what became of it: in = malformed + dropped + kept."""
    if counts.get("in") is None:
        return
    st.header("What became of the rows", anchor=False)
    data = page.state.data
    lines = [Bar("came in", counts["in"], colour=QUIET)]
    rejected = counts.get("rejected", counts.get("rejects"))
    if rejected:
        lines.append(Bar("malformed", rejected, colour=DROPPED))
    for reason, n in sorted((counts.get("by_reason") or {}).items(), key=lambda item: -item[1]):
        there = State(data=data, part="dropped", values=(("reason", (reason,)),))
        lines.append(Bar(reason, n, href("browse", there), DROPPED))
    if counts.get("kept") is not None and counts.get("copies"):
        lines += [Bar("kept", counts["kept"], colour=KEPT), Bar("copies (repeat)", counts["copies"], colour=KEPT)]
    lines.append(Bar("in the dataset", page.data.dataset.rows, href("browse", State(data=data)), KEPT))
    st.html(charts.bars(lines, of=counts["in"] or None))


def _composition(page: Page, counts: dict[str, Any]) -> None:
    sources = counts.get("by_source") or {}
    if not sources:
        return
    st.header("Composition", anchor=False)
    ordered = sorted(sources.items(), key=lambda item: -(item[1].get("tokens") or item[1].get("out") or 0))
    for unit, field in (("tokens", "tokens"), ("rows", "out")):
        parts = [Bar(name, one.get(field) or 0, colour=charts.COLOURS[n % len(charts.COLOURS)]) for n, (name, one) in enumerate(ordered)]
        if any(part.value for part in parts):
            st.html(f'<p class="cv-note">by {unit}</p>{charts.stacked(parts)}')
    lines, links = [], {}
    for n, (name, one) in enumerate(ordered):
        came = one.get("in") or 0
        lines.append([name, came, sum((one.get("dropped") or {}).values()), one.get("out") or 0, one.get("tokens"), _average(one)])
        links[n, 0] = href("browse", State(data=page.state.data, values=(("source", (name,)),)))
    st.html(charts.table(["source", "in", "dropped", "out", "tokens", "tokens a row"], lines, links))


def _average(one: dict[str, Any]) -> float | None:
    return round(one["tokens"] / one["out"]) if one.get("tokens") is not None and one.get("out") else None


def _shapes(counts: dict[str, Any]) -> None:
    """Histograms of length and turns, summed over the sources."""
    bins = counts.get("bins") or {}
    sources = (counts.get("by_source") or {}).values()
    for field, title in (("tokens_per_row", "Tokens a row"), ("turns_per_row", "Turns a row")):
        edges = bins.get(field)
        if not edges:
            continue
        summed = [sum(column) for column in zip(*(one[field] for one in sources if one.get(field)), strict=False)]
        used = [i for i, n in enumerate(summed) if n]
        if not used:
            continue
        st.header(title, anchor=False)
        said = counts.get(field)
        if isinstance(said, dict):
            st.html(f'<p class="cv-note">{" · ".join(f"{render.escape(k)} {v:,}" for k, v in sorted(said.items()) if v is not None)}</p>')
        first, last = used[0], used[-1]
        st.html(charts.histogram(summed[first : last + 1], edges[first : last + 2]))


def _licenses(page: Page, identity: dict[str, Any], counts: dict[str, Any]) -> None:
    """Rows by licence, from what the sources state."""
    sources = counts.get("by_source") or {}
    found: dict[str, float] = {}
    for one in identity.get("inputs") or []:
        if "license" in one:
            rows = (sources.get(one.get("source")) or {}).get("out", one.get("rows")) or 0
            name = str(one["license"] or "not stated")
            found[name] = found.get(name, 0) + rows
    if found:
        st.header("Licences", anchor=False)
        total = sum(found.values())
        st.html(
            charts.bars([Bar(name, n, colour=charts.COLOURS[1]) for name, n in sorted(found.items(), key=lambda item: -item[1])], of=total)
        )


def _benchmarks(page: Page, decontam: dict[str, Any]) -> None:
    """What the decontamination found, and what it could not see."""
    lines: list[list[Any]] = []
    links = {}
    for one in sorted(decontam.get("benchmarks") or [], key=lambda one: -(one.get("items_hit") or 0)):
        name = str(one.get("benchmark"))
        links[len(lines), 0] = href("contamination", State(data=page.state.data))
        fields = ("items", "items_hit", "rows_hit", "unseeable", "policy", "verdict")
        lines.append([name, *(one.get(field) for field in fields)])
    if not lines:
        return
    st.header("Benchmarks", anchor=False)
    rule = decontam.get("rule") or {}
    said = f"Rule {decontam.get('preset') or ''}: {rule.get('source') or ''}. Paraphrases: {decontam.get('paraphrase')}."
    columns = ["benchmark", "items", "items found", "rows", "items that cannot be seen", "kind", "verdict"]
    st.html(render.note(said) + charts.table(columns, lines, links))


def _inputs(identity: dict[str, Any]) -> None:
    inputs = identity.get("inputs") or []
    if not inputs:
        return
    with st.expander("Where it came from", icon=":material/input:"):
        columns = [
            c
            for c in ("source", "uri", "revision", "format", "amount", "rows", "license", "bytes")
            if any(one.get(c) is not None for one in inputs)
        ]
        st.html(charts.table(columns, [[one.get(column) for column in columns] for one in inputs]))


def _card(page: Page) -> None:
    card = page.data.path / "README.md"
    if not card.is_file():
        return
    with st.expander("The dataset card (README.md)", icon=":material/description:"):
        text = re.sub(r"\A---\n.*?\n---\n", "", card.read_text(encoding="utf-8", errors="replace")[:200_000], flags=re.DOTALL)
        st.html(f'<div class="cv-markdown">{markdown.markdown(text, render.escape)}</div>')
