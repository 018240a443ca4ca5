"""Rows become HTML that shows them and does nothing else, whatever they hold."""

from __future__ import annotations

import json
import time
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import charts
from app.chat import chat
from app.markdown import markdown
from app.render import escape, find, label, mark
from tests.app.conftest import HOSTILE

OURS = set("section header span div p pre code details summary mark b i small a table thead tbody tr th td".split())  # noqa: SIM905
OURS |= set("ul ol li hr br strong em s blockquote dl dt dd".split())  # noqa: SIM905
TEXTS = st.text(alphabet=st.sampled_from([*list("ab *_`~#>-+|[](){}!<>&\"'\n\t1.$:\\/"), "\x1b", "\u202e", "é", "界", "😀"]), max_size=80)


class Reader(HTMLParser):
    """What a browser would see: the tags, their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(html: str) -> Reader:
    found = Reader(html)
    assert not found.open, "every tag is closed"
    assert found.tags <= OURS
    assert found.attributes <= {"class", "dir", "title", "start"}
    return found


@pytest.mark.parametrize("text", [text for text in HOSTILE if len(text) < 10_000])
@pytest.mark.parametrize("as_markdown", [False, True])
def test_hostile_text_stays_text(text: str, as_markdown: bool) -> None:
    turn = {"role": "user", "content": text, "thinking": text, "tool_calls": text, "name": text, "tool_call_id": text}
    seen(chat([turn], words=["a"], as_markdown=as_markdown))
    seen(chat([{"role": text, "content": text}], as_markdown=as_markdown, field=text))


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_any_markdown_is_balanced_and_ours(text: str) -> None:
    found = seen(markdown(text, escape))
    for character in "ab1é界😀":
        assert found.text.count(character) >= text.count(character) or character in "1ab", "no text gets lost"


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.lists(st.tuples(st.integers(-3, 90), st.integers(-3, 90)), max_size=4))
def test_marks_change_no_character(text: str, spans: list[tuple[int, int]]) -> None:
    plain = Reader(escape(text)).text
    assert Reader(mark(text, spans)).text == plain


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_the_plain_mode_shows_every_character_but_fences(text: str) -> None:
    shown = seen(chat([{"role": "user", "content": text}])).text
    for line in text.split("\n"):
        if not line.lstrip().startswith(("`", "~")):
            assert Reader(escape(line)).text.strip("\n") in shown


def test_what_cannot_be_seen_is_written_out() -> None:
    assert "U+202E" in escape("a\u202eb") and "\u202e" not in escape("a\u202eb")
    assert "U+001B" in escape("\x1b[31m") and "\x1b" not in escape("\x1b[31m")
    assert escape("tab\tand\nline\r\n") == "tab\tand\nline\n"
    assert escape("می‌خواهم 👩‍👩‍👧") == "می‌خواهم 👩‍👩‍👧", "joiners that words and emoji are made of stay"


def test_labels_are_no_markup() -> None:
    assert label("**a** :red[b] $x$ [c](http://d) ![e](f)") == (r"\*\*a\*\* \:red\[b\] \$x\$ \[c\]\(http\:\/\/d\) \!\[e\]\(f\)")
    assert label("one\ntwo") == "one two"
    assert len(label("x" * 1000)) == 80


def test_a_conversation_has_its_parts() -> None:
    calls = json.dumps([{"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}])
    html = chat(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Use this:\n```python\nprint('<hi>')\n```\nthanks"},
            {"role": "assistant", "content": "", "thinking": "hmm", "tool_calls": calls},
            {"role": "tool", "content": "2", "tool_call_id": "1"},
            {"role": "assistant", "content": None},
        ],
        words=["PRINT"],
    )
    found = seen(html)
    assert html.count('class="cv-turn') == 5 and "<details><summary>thinking" in html
    assert '<span class="cv-lang">python</span>' in html and '<mark class="cv-found">print</mark>' in html
    assert "calls add" in found.text and '"a": 1' in found.text and "```" not in found.text
    assert "(empty)" in found.text and "turn 5" in found.text


def test_evidence_is_marked_where_it_is_also_inside_code() -> None:
    text = "before\n```\ncode here\n```\nafter"
    start = text.index("code")
    html = chat([{"role": "user", "content": text}], spans={0: [(start, start + 4), (text.index("after"), len(text))]})
    assert '<mark class="cv-hit">code</mark>' in html and '<mark class="cv-hit">after</mark>' in html


def test_markdown_has_its_usual_shapes() -> None:
    html = markdown(
        "# Title\n\n- one\n- two **bold**\n  - deeper\n\n3. three\n\n| a | b |\n|---|---|\n| 1 | `x|y` |\n\n> said\n\n---", escape
    )
    for part in ('<p class="cv-h cv-h1"', "<li", "<strong>bold</strong>", '<ol start="3">', "<table", "<blockquote>", "<hr>"):
        assert part in html, part
    assert html.count("<ul>") == 2


def test_links_and_images_load_nothing() -> None:
    html = markdown("![alt](http://203.0.113.1/p.png) and [text](http://203.0.113.1/)", escape)
    found = seen(html)
    assert "image: http://203.0.113.1/p.png" in found.text and "href" not in html and "src" not in html


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        "*" * 50_000,
        "`" * 50_001,
        "_a" * 30_000,
        "> " * 20_000,
        "- " * 20_000,
        "\n".join("  " * n + "- x" for n in range(300)),
        "|" * 50_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    seen(markdown(text, escape))
    chat([{"role": "user", "content": text}], words=["x"])
    assert time.process_time() - started < 20, "quadratic patterns would take minutes"


def test_long_messages_are_cut_and_say_so() -> None:
    html = chat([{"role": "user", "content": "x" * 10_000_000}], words=["x" * 5], most=20_000)
    assert len(html) < 400_000 and "9,980,000 more characters" in html


def test_words_are_found_whatever_their_case() -> None:
    assert find("Ab aB", "ab") == [(0, 2), (3, 5)]
    assert find("a.c abc", "a.c") == [(0, 3)]
    assert find("abc", "") == []


def test_charts_escape_and_add_up() -> None:
    html = charts.bars([charts.Bar("<b>x</b>", 5, "browse?a=1"), charts.Bar("y", 0)], of=10)
    assert "&lt;b&gt;x" in html and "50.0 %" in html and 'href="browse?a=1"' in html
    assert charts.histogram([1, 0, 3], [0, 10, 20, 30]).count("<i ") == 3
    assert "no value: 7" in charts.histogram([1], [0, 1], missing=7)
    assert "<script>" not in charts.table(["<script>"], [["<script>", 1]])
    assert "<0.1 %" not in charts.bars([charts.Bar("x", 1)], of=1e6) and "&lt;0.1 %" in charts.bars([charts.Bar("x", 1)], of=1e6)
