"""A row as a model will read it: the chat template of any tokenizer on this machine, with what is learned coloured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from app import lookup, render, shell, side, state
from app.chat_template import BUILT_IN, Rendered, read_template
from app.chat_template import render as render_chat
from app.rowlist import row_list
from app.shell import Page

LOSS = {"every answer": "", "only the last answer": "last"}
CACHE = Path("~/.cache/huggingface/hub").expanduser()
MOST = 50_000  # characters of the rendered text that are shown


def show(page: Page) -> None:
    """Draw the page."""
    st.title("Template")
    place = page.state
    chosen = place.choice("tokenizer", "chatml")
    known = [*BUILT_IN, *_cached()]
    st.session_state["template.tokenizer"] = chosen
    st.session_state["template.loss"] = next((name for name, key in LOSS.items() if key == place.choice("loss")), "every answer")
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.selectbox(
        "Tokenizer: a folder on this machine, or one of the two shapes that most use",
        list(dict.fromkeys([*known, chosen])),
        key="template.tokenizer",
        accept_new_options=True,
        on_change=lambda: shell.go(place.with_choice("tokenizer", st.session_state["template.tokenizer"] or "")),
    )
    right.segmented_control(
        "Learned",
        list(LOSS),
        key="template.loss",
        required=True,
        on_change=lambda: shell.go(place.with_choice("loss", LOSS[st.session_state["template.loss"]])),
    )
    with shell.guarded():
        template = read_template(chosen)
        where = state.condition(place, page.data.columns["rows"])
        total = int(page.data.one(f"SELECT count(*) FROM rows WHERE {where.sql}", where.params) or 0)
        columns = [name for name in ("id", "source", "n_tokens", "n_turns", "preview") if name in page.data.columns["rows"]]
        opened = row_list(page, f"SELECT {', '.join(columns)} FROM rows WHERE {where.sql}", where.params, total)
        if not opened:
            return
        row, _ = lookup.row_of(page.data, opened)
        if row is None:
            shell.problem(f"There is no row {opened} in this dataset.", "Choose one in the list.")
            return
        for title, messages in conversations(row):
            _rendered(title, render_chat(template, messages, row.get("tools"), place.choice("loss") == "last"))
        with st.expander("The template", icon=":material/code_blocks:"):
            st.code(template.source, language="jinja2", wrap_lines=True)


def _cached() -> list[str]:
    """The tokenizers with a chat template in the cache of the Hub's library."""
    found = [
        file.parent
        for pattern in ("tokenizer_config.json", "chat_template.jinja")
        for file in CACHE.glob(f"models--*/snapshots/*/{pattern}")
    ]
    return sorted({str(folder) for folder in found})[:100]


def conversations(row: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What a trainer makes of a row: one conversation, or one for each answer; each with a title."""
    if row.get("messages"):
        return [("", list(row["messages"]))]
    prompt = list(row.get("prompt") or ())
    answers = [(name, [*prompt, *row[name]]) for name in ("chosen", "rejected") if row.get(name)]
    for number, candidate in enumerate(row.get("candidates") or (), 1):
        said = {"role": "assistant", "content": candidate.get("content") or "", "thinking": candidate.get("thinking")}
        answers.append((f"candidate {number}", [*prompt, said]))
    return answers or [("prompt", prompt)]


def _rendered(title: str, shown: Rendered) -> None:
    learned = sum(end - start for start, end in shown.learned)
    told: dict[str, Any] = {"characters": len(shown.text), "learned": f"{learned:,} ({100 * learned / max(len(shown.text), 1):.0f} %)"}
    if shown.tokens is not None:
        told |= {"tokens": shown.tokens, "learned tokens": shown.learned_tokens}
    text = shown.text[:MOST]
    rest = f'<div class="cv-cut">… {len(shown.text) - MOST:,} more characters</div>' if len(shown.text) > MOST else ""
    body = f'<div class="cv-text cv-rendered" dir="auto">{render.mark(text, shown.learned, "learned")}</div>{rest}'
    note = f'<div class="cv-cut">Green is learned, known {render.escape(shown.how)}.</div>'
    st.html(f'<div class="cv-beside">{side.pane(title or "as the model reads it", body, under=side.facts(told) + note)}</div>')
