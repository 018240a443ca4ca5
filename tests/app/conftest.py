"""The app as a user starts it, on small and hostile datasets, and a Chromium that fails a test when a page logs an error or asks out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]

# What a row may hold: each tries to run, load, steer or break something. {mark} stays readable text.
HOSTILE = [
    "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"><b>bold</b>",
    "<iframe src=http://203.0.113.1/></iframe><style>*{display:none}</style><svg onload=alert(1)>",
    "![leak](http://203.0.113.1/pixel.png) [click](javascript:alert(1)) <http://203.0.113.1/> $\\frac{a}{b}$ :red[colour] :material/face:",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 bell \x00 nul",
    "left \u202etfel ot thgir\u202c and \u2066isolated\u2069, zero\u200bwidth",
    "```html\n<script>document.title='pwned'</script>\n``` and `<img src=http://203.0.113.1/x>`",
    "</pre></div></section><h1>escaped the card</h1>",
    "x" * 3_000_000,
    "שלום עולם, זה טקסט מימין לשמאל. 你好，世界。 こんにちは",
]


def run(*words: str, cwd: Path = ROOT) -> None:
    """A command of ours that must succeed."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """Streamlit's AppTest puts its script in the place of `__main__`, from which later tests could start no processes."""
    ours = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = ours


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of datasets: the example mixes, one of hostile rows, one loaded file without any sidecar, one without rows."""
    folder = tmp_path_factory.mktemp("datasets")
    for name in ("tiny", "tiny_pairs"):
        run("curation.build_mix", f"recipes/mixes/{name}.yaml", "--out", str(folder / name))
    rows = [
        {"messages": [{"role": "user", "content": f"row {n}"}, {"role": "assistant", "content": text}]} for n, text in enumerate(HOSTILE)
    ]
    (folder / "hostile.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run("columnar.load", "hostile.jsonl", "--out", "hostile", cwd=folder)
    run("curation.signals", "hostile", cwd=folder)
    (folder / "plain.jsonl").write_text('{"instruction": "Say hello", "output": "Hello!"}\n' * 3, encoding="utf-8")
    run("columnar.load", "plain.jsonl", "--out", "plain", cwd=folder)
    return folder


@pytest.fixture
def tiny(datasets: Path, tmp_path: Path) -> Path:
    """The example mix, a copy of its own for tests that write."""
    return Path(shutil.copytree(datasets / "tiny", tmp_path / "tiny"))


@pytest.fixture(scope="session")
def address(datasets: Path) -> Iterator[str]:
    """Where the app serves all the datasets, found by itself in the current folder."""
    with serving(["python", "-m", "app"], datasets) as url:
        yield url


class serving:
    """The app under a command, in a folder, until the block ends."""

    def __init__(self, words: list[str], folder: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        streamlit = "streamlit" in words
        flags = ["--server.port", str(self.port), "--server.headless", "true"] if streamlit else ["--port", str(self.port), "--headless"]
        at = words.index("--") if "--" in words else len(words)
        command = [sys.executable, *words[1:at], *flags, *words[at:]]
        self.process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": "" if streamlit else str(ROOT)}, stdout=subprocess.DEVNULL
        )

    def __enter__(self) -> str:
        for _ in range(900):
            assert self.process.poll() is None, "the app ended"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_stcore/health", timeout=5) as answer:
                    if answer.status == 200:
                        return f"http://127.0.0.1:{self.port}"
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the app did not answer within 90 s")

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture(scope="module")  # not longer: playwright keeps an event loop running, in which other tests cannot start theirs
def chromium() -> Iterator[Browser]:
    """A real Chromium: the system's, or the one playwright installed."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=own, args=FLAGS)
        except api.Error as error:
            pytest.skip(f"no Chromium here (apt-get install chromium, or playwright install chromium): {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def window(chromium: Browser, address: str) -> Iterator[Page]:
    """A browser window that is watched: the test fails when the page logs an error or asks any other machine for anything."""
    page, seen = watched(chromium, address)
    yield page
    page.context.close()
    assert seen == []


def watched(chromium: Browser, address: str) -> tuple[Page, list[str]]:
    """A window of its own, and what it did wrong so far."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, base_url=address)
    page, seen = context.new_page(), []
    page.set_default_timeout(60_000)  # a busy machine draws slowly

    def logged(message: Any) -> None:
        # Streamlit asks below the page's own path first where its server is: two 404s that it expects
        if message.type == "error" and "/_stcore/" not in message.location.get("url", ""):
            seen.append(f"console: {message.text}")

    def asked(request: Any) -> None:
        if not request.url.startswith((address, address.replace("http", "ws"), "data:", "blob:")):
            seen.append(f"request: {request.url}")

    page.on("console", logged)
    page.on("request", asked)
    page.on("pageerror", lambda error: seen.append(f"script: {error}"))
    page.on("dialog", lambda dialog: seen.append(f"dialog: {dialog.message}"))
    return page, seen


def settled(window: Page) -> None:
    """Wait until the page has had nothing under way for most of a second: keys pressed before are lost."""
    quiet = 0
    for _ in range(600):
        state = window.locator("[data-testid=stApp]").get_attribute("data-test-script-state")
        quiet = quiet + 1 if state == "notRunning" else 0
        if quiet == 8:
            return
        window.wait_for_timeout(100)
    raise AssertionError("the page does not come to rest")


def press(window: Page, key: str, true: Callable[[], bool]) -> None:
    """Press a key until it has had its effect: on a busy machine the page may not listen yet."""
    for _ in range(12):
        window.keyboard.press(key)
        for _ in range(50):
            if true():
                settled(window)
                return
            window.wait_for_timeout(100)
    raise AssertionError(f"key {key} had no effect")
