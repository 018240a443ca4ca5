"""The app as a person meets it: started by its commands, driven in a real Chromium. An error or outside request of a page fails its test.

CARAVAN_SHOTS=FOLDER saves a picture of each view there.
"""

from __future__ import annotations

import os
import re
import threading
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from columnar.flags import read_flags
from tests.app.conftest import ROOT, insist, press, serving, settled, until, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(not __import__("importlib.util").util.find_spec("streamlit"), reason="the app's extra is not installed")
VIEWS = ("overview", "browse", "pairs", "duplicates", "contamination", "compare", "sql", "template", "runs")


def opened(window: Page, place: str) -> Page:
    """A place in the app, drawn to its end."""
    window.goto(place)
    settled(window)
    return window


def asked(window: Page) -> dict[str, list[str]]:
    """The query of the address bar."""
    return urllib.parse.parse_qs(urllib.parse.urlsplit(window.url).query)


def count(window: Page) -> str:
    return window.locator(".cv-lead b").first.inner_text()


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_opens_without_an_error(window: Page, view: str) -> None:
    for data in ("tiny", "tiny_pairs"):
        opened(window, f"/{view if view != 'overview' else ''}?data={data}")
        assert window.locator("[data-testid=stException]").count() == 0
        assert window.locator("[data-testid=stMain]").inner_text().strip()
        if os.environ.get("CARAVAN_SHOTS"):
            window.screenshot(path=Path(os.environ["CARAVAN_SHOTS"]) / f"{view}-{data}.png")


def test_a_filter_changes_the_counts_and_the_address(window: Page) -> None:
    opened(window, "/browse?data=tiny")
    assert count(window) == "186"
    window.get_by_role("button", name="alpaca 40").click()
    until(window, lambda: count(window) == "40")
    assert asked(window) == {"data": ["tiny"], "source": ["alpaca"]}
    window.get_by_placeholder("Search any turn").fill("the")
    window.keyboard.press("Enter")
    until(window, lambda: count(window) == "35")
    assert window.locator("mark.cv-found").count()
    window.reload()
    settled(window)
    assert count(window) == "35" and asked(window)["q"] == ["the"]
    window.get_by_role("button", name="source: alpaca").click()
    until(window, lambda: int(count(window)) > 35 and "source" not in asked(window))
    window.get_by_role("link", name="Overview").click()
    until(window, lambda: "What became of the rows" in window.locator("[data-testid=stMain]").inner_text())
    window.get_by_role("link", name="Browse").click()
    until(window, lambda: asked(window).get("q") == ["the"])


def test_keys_move_through_the_rows_and_flag_them(chromium: Browser, tiny: Path) -> None:
    with serving(["python", "-m", "app", str(tiny)], tiny.parent) as address, watched(chromium, address) as (page, seen):
        opened(page, "/browse")
        shown = page.locator(".cv-why code")
        first = shown.inner_text()
        press(page, "j", lambda: shown.inner_text() != first)
        assert asked(page)["row"] == [shown.inner_text()]
        press(page, "k", lambda: shown.inner_text() == first)
        press(page, "2", lambda: [(f["id"], f["flag"]) for f in read_flags(tiny)] == [(first, "broken")])
        press(page, "u", lambda: read_flags(tiny) == [])
        press(page, "m", lambda: page.locator(".cv-markdown").count() > 0)
    assert seen == []


def test_keys_cross_the_end_of_a_page(window: Page) -> None:
    opened(window, "/browse?data=tiny&page=2")
    first = window.locator(".cv-why code").inner_text()
    press(window, "k", lambda: asked(window).get("page") is None and window.locator(".cv-why code").inner_text() != first)
    press(window, "j", lambda: asked(window).get("page") == ["2"] and window.locator(".cv-why code").inner_text() == first)


def test_a_click_in_the_list_opens_the_row(window: Page) -> None:
    opened(window, "/browse?data=tiny")
    list_of_rows = window.locator("[data-testid=stDataFrame] canvas").first
    third = {"x": 150, "y": 36 + 44 * 3 + 20}
    insist(window, lambda: list_of_rows.click(position=third, force=True), lambda: asked(window).get("row") is not None)
    until(window, lambda: window.locator(".cv-why code").inner_text() == asked(window)["row"][0])


def test_a_link_opens_the_same_row_in_another_window(window: Page, chromium: Browser, address: str) -> None:
    opened(window, "/browse?data=tiny&part=dropped&reason=contaminated")
    press(window, "j", lambda: "row" in asked(window))
    row = asked(window)["row"][0]
    with watched(chromium, address) as (other, seen):
        opened(other, window.url)
        assert other.locator(".cv-why code").inner_text() == row
        assert "contaminated" in other.locator(".cv-why").inner_text() and other.locator("mark.cv-hit").count()
    assert seen == []


def test_two_windows_flag_at_once_and_lose_nothing(chromium: Browser, tiny: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from app import marks

    with (
        serving(["python", "-m", "app", str(tiny)], tiny.parent) as address,
        watched(chromium, address) as (first, seen),
        watched(chromium, address) as (second, also),
    ):
        opened(first, "/browse")
        opened(second, "/browse?source=faq")
        ids = (first.locator(".cv-why code").inner_text(), second.locator(".cv-why code").inner_text())
        stop = threading.Event()

        def held() -> set[tuple[str, str]]:
            return {(flag["id"], flag["flag"]) for flag in read_flags(tiny)}

        with ThreadPoolExecutor(1) as others:  # and a third who writes all the time
            writer = others.submit(lambda: sum(bool(marks.set_flag(tiny, [f"x{n}"], "check")) for n in range(200) if not stop.is_set()))
            press(first, "1", lambda: (ids[0], "bad") in held())
            press(second, "7", lambda: (ids[1], "good") in held())
            press(first, "3", lambda: held() >= {(ids[0], "bad"), (ids[0], "wrong"), (ids[1], "good")})
            stop.set()
            written = writer.result()
        assert sum(f["flag"] == "check" for f in read_flags(tiny)) == written
    assert seen == also == []


def test_hostile_rows_are_shown_and_do_nothing(window: Page) -> None:
    opened(window, "/browse?data=hostile")
    title = window.title()
    rows = window.locator(".cv-why code")
    texts = [window.locator("[data-testid=stMain]").inner_text()]
    for _ in range(8):
        before = rows.inner_text()
        press(window, "j", lambda before=before: rows.inner_text() != before)
        texts.append(window.locator("[data-testid=stMain]").inner_text())
        press(window, "m", lambda: window.locator(".cv-markdown").count() > 0)
        press(window, "m", lambda: window.locator(".cv-markdown").count() == 0)
    shown = "\n".join(texts)
    for part in ("<script>", "![leak]", "U+001B", "U+202E", "more characters", "שלום"):
        assert part in shown, part
    assert window.title() == title and "pwned" not in window.title()
    assert window.locator(".cv-turn script, .cv-turn img, .cv-turn iframe, .cv-turn h1, .cv-turn style, .cv-turn svg").count() == 0


def test_hostile_names_do_nothing_in_links_and_filters(window: Page) -> None:
    hostile = urllib.parse.quote("<img src=x onerror=alert(1)>![a](http://203.0.113.1/p.png):red[x]$y$")
    opened(window, f"/browse?data=tiny&source={hostile}&q={hostile}&flag={hostile}&sort={hostile}&row={hostile}")
    assert "No row fits" in window.locator("[data-testid=stMain]").inner_text()
    opened(window, f"/browse?data={hostile}")
    assert "There is no dataset" in window.locator("[data-testid=stMain]").inner_text()
    opened(window, f"/browse?data=tiny&where={hostile}")
    assert window.locator(".cv-problem").count()


def test_right_to_left_text_runs_from_the_right(window: Page) -> None:
    opened(window, "/browse?data=tiny&lang=he")
    direction = window.locator(".cv-text").first.evaluate("e => getComputedStyle(e).direction")
    assert direction == "rtl"


def test_plain_streamlit_from_another_folder_serves_this_machine_only(chromium: Browser, tiny: Path, tmp_path: Path) -> None:
    words = ["python", "-m", "streamlit", "run", str(ROOT / "app" / "main.py"), "--", str(tiny)]
    with serving(words, tmp_path) as address, watched(chromium, address) as (page, seen):
        opened(page, "/browse")
        assert count(page) == "186"
        port = int(address.rpartition(":")[2])
        listening = [
            line.split()[1] for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:] if line.split()[3] == "0A"
        ]
        assert [place for place in listening if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
    assert seen == []


def test_the_picker_leads_to_a_dataset(window: Page) -> None:
    opened(window, "/")
    assert "Choose a dataset" in window.locator("[data-testid=stMain]").inner_text()
    window.locator("[data-testid=stMain]").get_by_role("button").filter(has_text=re.compile(r"tiny$")).first.click()
    until(window, lambda: asked(window).get("data") == ["tiny"])
    until(window, lambda: "What became of the rows" in window.locator("[data-testid=stMain]").inner_text())
