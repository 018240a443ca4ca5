"""The views as people use them, in a real Chromium: links restore, clicks and keys work, nothing of a row runs, nothing is asked outside.

CARAVAN_SHOTS=DIR keeps a picture of every view.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.app.conftest import press, settled, until
from tests.app.made import pairs, write_candidates, write_leaky, write_pairs

if TYPE_CHECKING:
    from playwright.sync_api import Page

MAIN = "[data-testid=stMain]"


@pytest.fixture(scope="module")
def more(datasets: Path) -> Path:
    """Datasets of hostile rows beside the others, and the log of a training run."""
    folder = datasets / "more"
    if not folder.is_dir():
        write_pairs(folder / "hostile_pairs")
        write_leaky(folder / "hostile_leaky")
        write_candidates(folder / "hostile_candidates")
        (folder / "run").mkdir()
        (folder / "run" / "metrics.jsonl").write_text("".join(f'{{"step": {n}, "loss": {1 / n}}}\n' for n in range(1, 30)))
    return folder


def opened(window: Page, address: str) -> str:
    window.goto(f"/{address}")
    return at_rest(window)


def at_rest(window: Page) -> str:
    """What the page says when it stands still, which is no exception."""
    until(window, lambda: window.locator(f"{MAIN} h1").count() > 0)
    assert window.query_selector_all("[data-testid=stException]") == []
    return window.inner_text(MAIN)


def query(window: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(window.url).query)


VIEWS = {
    "pairs": ("pairs?data=tiny_pairs&view.lint=twice", "chosen at least twice as long."),
    "candidates": ("pairs?data=more%2Fhostile_candidates", "2 judgements, word for word"),
    "duplicates": ("duplicates?data=tiny", "kept"),
    "contamination": ("contamination?data=tiny&row=trivia%2Ftrivia-03", "trivia-03"),
    "compare": ("compare?data=tiny&other=plain", "only in b"),
    "sql": ("sql?data=tiny&view.query=sources", "6 rows in"),
    "template": ("template?data=tiny&view.loss=last", "as the model reads it"),
    "runs": ("runs", "loss 0.03448"),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_opens_from_a_link(window: Page, more: Path, name: str) -> None:
    address, wanted = VIEWS[name]
    opened(window, address)
    until(window, lambda: wanted in at_rest(window).lower())  # an answer may come a moment after the page
    if folder := os.environ.get("CARAVAN_SHOTS"):
        window.screenshot(path=str(Path(folder) / f"{name}.png"))


@pytest.mark.parametrize(
    "place",
    [
        "pairs?data=more%2Fhostile_pairs&row={evil}",
        "pairs?data=more%2Fhostile_candidates",
        "contamination?data=more%2Fhostile_leaky",
        "compare?data=more%2Fhostile_leaky&other=more%2Fhostile_pairs",
        "sql?data=more%2Fhostile_pairs&view.sql=SELECT+*+FROM+rows",
        "template?data=more%2Fhostile_pairs&row={evil}",
        "template?data=hostile",
        "pairs?data=tiny_pairs&source=pairs&source=%21%5Bx%5D%28http%3A%2F%2F203.0.113.1%2Fx.png%29&q=%21%5Bx%5D%28http%3A%2F%2F203.0.113.1%2F%29",
        "pairs?data=more%2Fhostile_pairs&view.lint=%3Cscript%3E&view.order=%3Cimg%20src%3Dx%3E&view.tokens=%F0%9F%98%80&page=99999",
    ],
)
def test_nothing_of_a_hostile_row_or_link_runs(window: Page, more: Path, place: str) -> None:
    opened(window, place.format(evil=pairs()["evil"]["id"]))
    for fold in window.query_selector_all(f"{MAIN} .cv-pane summary"):
        fold.click()
    assert window.title() != "pwned"
    assert window.query_selector_all(f"{MAIN} script, {MAIN} img[onerror], iframe") == []


def test_a_click_on_a_lint_filters_and_the_link_keeps_it(window: Page, more: Path) -> None:
    opened(window, "pairs?data=more%2Fhostile_pairs")
    window.get_by_text("chosen scored below rejected").first.click()
    window.wait_for_url("**view.lint=inverted**")
    assert "1 of 1" in at_rest(window)
    window.reload()
    assert "the label or the score is wrong" in at_rest(window)


def test_keys_go_through_the_pairs_and_hide_the_differences(window: Page, more: Path) -> None:
    opened(window, "pairs?data=tiny_pairs")
    first = window.inner_text(".cv-pinned")
    press(window, "j", lambda: "row" in query(window))
    assert window.inner_text(".cv-pinned") != first
    (row,) = query(window)["row"]
    press(window, "j", lambda: query(window)["row"] != [row])
    press(window, "k", lambda: query(window)["row"] == [row])
    opened(window, f"pairs?data=more%2Fhostile_pairs&row={pairs()['good']['id']}")
    assert window.query_selector_all("mark")
    press(window, "d", lambda: query(window).get("view.diff") == ["0"])
    assert window.query_selector_all("mark") == []


def test_the_prompt_stays_in_sight_while_one_scrolls(window: Page, more: Path) -> None:
    window.set_viewport_size({"width": 1200, "height": 500})
    opened(window, f"pairs?data=more%2Fhostile_pairs&row={pairs()['same_head']['id']}")
    window.locator(".cv-panes").evaluate("e => e.scrollIntoView({block: 'end'})")
    settled(window)
    box = window.locator(".cv-pinned").bounding_box()
    assert box is not None and 0 <= box["y"] < 250


def test_a_cell_of_the_map_leads_to_its_rows(window: Page, more: Path) -> None:
    opened(window, "contamination?data=tiny")
    window.locator(".cv-heat td a").first.click()
    window.wait_for_url("**view.between=**")
    assert "Items of this cell" in at_rest(window)
    assert window.locator(".cv-heat .cv-here").count() == 1
    marks = [mark.inner_text() for mark in window.query_selector_all("mark.cv-run")]
    assert len(marks) == 2 and marks[0].lower()[:20] == marks[1].lower()[:20]


def test_sql_runs_by_key_is_stopped_by_hand_and_is_taken_away(window: Page, more: Path, tmp_path: Path) -> None:
    opened(window, "sql?data=tiny")
    box = window.locator("textarea")
    box.fill("SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range % 7 = 3")
    box.press("Control+Enter")
    window.locator(".st-key-sql-stop button").click()
    window.wait_for_selector(".cv-problem")
    assert "stopped" in window.inner_text(".cv-problem")
    settled(window)
    box.fill("SELECT range AS n FROM range(5000)")
    window.get_by_role("button", name="Run").click()
    until(window, lambda: "cut after 1,000 rows" in at_rest(window))
    with window.expect_download() as download:
        window.get_by_role("button", name="The first 1,000 rows as CSV").click()
    assert download.value.suggested_filename == "tiny-first-1000-rows.csv"
    download.value.save_as(tmp_path / "got.csv")
    assert (tmp_path / "got.csv").read_text().splitlines() == ["n", *map(str, range(1000))]


def test_a_second_dataset_is_compared_from_the_list(window: Page, more: Path) -> None:
    opened(window, "compare?data=tiny_pairs&other=tiny")
    window.locator(".cv-table a").first.click()
    window.wait_for_url("**view.cell=**")
    assert "not in this dataset" in at_rest(window)
