"""Several answers to one prompt, with what judges said of each: ratings by aspect, rationales, places shown, ties and disagreement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import streamlit as st

from app import db, render, shell, side, state
from app.rowlist import row_list, unless
from app.shell import Page
from columnar.errors import CaravanError

ORDERS = {
    "as stored": "",
    "widest spread": "spread DESC NULLS LAST, id",
    "shared first place": "shared DESC, best DESC NULLS LAST, id",
    "best score": "best DESC NULLS LAST, id",
    "worst best": "best NULLS LAST, id",
}
JUDGED = "SELECT * EXCLUDE (id) FROM hits_judgements WHERE id = $id ORDER BY judge, aspect, sample, position"
POSITIONS = """
    SELECT judge, aspect, position, count(*) AS ratings, round(avg(rating), 3) AS mean_rating
    FROM hits_judgements WHERE rating IS NOT NULL AND mode NOT IN ('reward', 'verifier', 'additive') GROUP BY ALL ORDER BY ALL LIMIT 200
"""
DISAGREE = """
    SELECT id, aspect, candidate, max(rating) - min(rating) AS apart, count(*) AS ratings, min(rating) AS lowest, max(rating) AS highest
    FROM hits_judgements WHERE rating IS NOT NULL GROUP BY id, aspect, candidate HAVING count(*) > 1 AND max(rating) > min(rating)
    ORDER BY apart DESC, id, aspect, candidate LIMIT 100
"""


def show(page: Page) -> None:
    """Draw the page for a dataset of candidates."""
    where = state.condition(page.state, page.data.columns["rows"])
    with shell.guarded():
        total = int(page.data.one(f"SELECT count(*) FROM rows WHERE {where.sql}", where.params) or 0)
        st.title(f"{total:,} prompts with candidates")
        if judged(page.data):
            _judges(page)
        st.session_state["order"] = page.state.choice("order") if page.state.choice("order") in ORDERS else "as stored"
        st.segmented_control(
            "Order",
            list(ORDERS),
            key="order",
            required=True,
            label_visibility="collapsed",
            on_change=lambda: shell.go(page.state.go(row="", page=1).with_choice("order", unless(st.session_state["order"], "as stored"))),
        )
        preview = "preview" if "preview" in page.data.columns["rows"] else "left(prompt[-1].content, 160)"
        order = ORDERS[st.session_state["order"]]
        sql = f"""SELECT id, source, len(scores) AS scored, list_max(scores) AS best, list_max(scores) - list_min(scores) AS spread,
              len(list_filter(scores, lambda s: s = list_max(scores))) AS shared, prompt
            FROM (SELECT id, source, {preview} AS prompt,
                    list_filter(list_transform(candidates, lambda c: c.score), lambda s: s IS NOT NULL) AS scores
                  FROM rows WHERE {where.sql})""" + (f" ORDER BY {order}" if order else "")
        opened = row_list(page, sql, where.params, total, {"best": "%.3g", "spread": "%.3g"})
        if opened:
            detail(page.data, opened, page)


def judged(data: db.Data) -> bool:
    """Whether the judges' words were kept."""
    return (data.path / "hits" / "judgements.parquet").is_file()


def _judges(page: Page) -> None:
    with st.expander("Do the judges agree, and does the place decide?", icon=":material/gavel:"):
        left, right = st.columns(2)
        left.caption("Mean rating by the place in which an answer was shown: should not depend on it")
        left.dataframe(page.data.run(POSITIONS, timeout=120).rows, hide_index=True, height=250)
        apart = page.data.run(DISAGREE, timeout=120).rows
        right.caption("Answers that were rated several times and differently (by another judge, sample or order)")
        if apart:
            right.dataframe(apart, hide_index=True, height=250)
        else:
            right.caption("none")


def detail(data: db.Data, row_id: str, page: Page) -> None:
    """One prompt, its answers from the best to the worst, and what was said of each."""
    found = data.run("SELECT * FROM text WHERE id = $id", {"id": row_id}, 1).rows
    if not found:
        shell.problem(f"There is no row {row_id} in this dataset.", "It may have been dropped: look for it in Browse.")
        return
    row = found[0]
    said = data.run(JUDGED, {"id": row_id}).rows if judged(data) else []
    candidates = list(enumerate(row["candidates"] or ()))
    candidates.sort(key=lambda item: -(item[1].get("score") if item[1].get("score") is not None else float("-inf")))
    scores: list[float] = [c["score"] for _, c in candidates if c.get("score") is not None]
    st.html(side.facts({"source": row["source"], "id": row_id, "answers": len(candidates), "scored": len(scores)}))
    panes = [_pane(place, one, scores, [line for line in said if line["candidate"] == place]) for place, one in candidates]
    st.html(side.beside(panes, side.messages_html(row["prompt"])))
    if page.data is data:
        shell.link("browse", "Everything about this row", state.State(data=page.state.data, row=row_id), icon=":material/article:")


def _pane(place: int, candidate: dict[str, Any], scores: list[float], said: list[dict[str, Any]]) -> str:
    score = candidate.get("score")
    first = score is not None and score == max(scores)
    shared = first and scores.count(score or 0.0) > 1
    tone = ("good" if first else "bad" if score == min(scores) else "") if score is not None and max(scores) > min(scores) else ""
    content = candidate.get("content") or ""
    params = _params(candidate.get("params"))
    told = {
        "score": score,
        "first place": "shared" if shared else None,
        "characters": len(content),
        "outcome": params.get("outcome") if params.get("outcome") != "ok" else None,
        "finish": candidate.get("finish_reason") if candidate.get("finish_reason") != "stop" else None,
    }
    rated = "".join(_rating(r) for r in candidate.get("ratings") or ())
    kept = "".join(_said(line) for line in said)
    under = side.facts(told) + (f'<div class="cv-ratings">{rated}</div>' if rated else "")
    if kept:
        under += f"<details><summary>{len(said)} judgements, word for word</summary>{kept}</details>"
    thinking = f"<details><summary>thinking</summary>{side.text_html(candidate['thinking'])}</details>" if candidate.get("thinking") else ""
    return side.pane(f"{place + 1}. {candidate.get('model') or 'unknown model'}", thinking + side.text_html(content), tone, under)


def _rating(rating: dict[str, Any]) -> str:
    value = "none" if rating.get("rating") is None else side.figure(rating["rating"])
    head = f"<b>{render.escape(str(rating.get('aspect')))}</b> {value}"
    why = rating.get("rationale")
    return f"<details><summary>{head}</summary>{side.text_html(why)}</details>" if why else f"<div>{head}</div>"


def _said(line: dict[str, Any]) -> str:
    heading = f"{line['judge']} · {line['aspect']}, sample {line['sample']}, shown in place {line['position']}"
    against = f" against {line['other'] + 1}" if line["other"] is not None else ""
    word = line["verdict"] or ("no rating" if line["rating"] is None else side.figure(line["rating"]))
    trouble = f" ({line['outcome']}: {line['problem']})" if line["outcome"] != "ok" else ""
    head = render.escape(f"{heading}{against}: {word}{trouble}")
    return f'<div class="cv-role">{head}</div>' + side.text_html(line["rationale"] or line["raw"] or "")


def _params(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def ratings_in_meta(meta: str | None, name: str) -> dict[str, Any]:
    """The ratings by aspect of a pair's side, as generation.pairs keeps them in `meta`."""
    ratings = _params(meta).get(f"{name}_ratings")
    return {str(k): v for k, v in ratings.items() if isinstance(v, int | float)} if isinstance(ratings, dict) else {}


def of_parents(page: Page, parents: list[str]) -> None:
    """All candidates that a pair was made of, when their dataset is open beside this one or lies in its folder `candidates`."""
    if not parents:
        return
    for path in [page.data.path / "candidates", *(path for path in page.paths.values() if path.resolve() != page.data.path.resolve())]:
        found = _candidates_in(path, parents[0])
        if found is not None:
            with st.expander("All candidates of this prompt", icon=":material/groups:", expanded=False):
                detail(found, parents[0], page)
            return


def _candidates_in(path: Path, row_id: str) -> db.Data | None:
    if not (path / "manifest.json").is_file():
        return None
    try:
        data = db.open_data(path)
        if "candidates" in data.columns["rows"] and data.one("SELECT count(*) FROM text WHERE id = $id", {"id": row_id}):
            return data
    except CaravanError:
        return None
    return None
