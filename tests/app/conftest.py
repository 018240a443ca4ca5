"""The app as a user starts it, on small and hostile datasets, and a Chromium that fails a test when a page logs an error or asks out."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests in a real Chromium have a second try, when they end with a time-out of playwright's and only then.

    Three programs share a machine that may stand still for a minute, and nothing a test waits for comes while it does.
    """
    if config.pluginmanager.hasplugin("rerunfailures"):
        for item in items:
            if "chromium" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=[r"^TimeoutError: (\w+\.\w+: )?Timeout \d+ms exceeded"]))


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


@contextlib.contextmanager
def serving(words: list[str], folder: Path) -> Iterator[str]:
    """The app under a command, in a folder, until the block ends."""
    port, streamlit = free_port(), "streamlit" in words
    flags = ["--server.port", str(port), "--server.headless", "true"] if streamlit else ["--port", str(port), "--headless"]
    at = words.index("--") if "--" in words else len(words)
    command = [sys.executable, *words[1:at], *flags, *words[at:]]
    environment = {**os.environ, "PYTHONPATH": "" if streamlit else str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while not answers(port):
                assert process.poll() is None, "the app ended"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
            process.terminate()
            process.wait(120)
        finally:
            process.kill()


def free_port() -> int:
    """A port below those that the system hands out by itself, so that nobody is given it before the app asks for it."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Whether the app is up."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


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
    with watched(chromium, address) as (page, seen):
        yield page
    assert seen == []


@contextlib.contextmanager
def watched(chromium: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
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
    try:
        yield page, seen
    finally:
        context.close()  # a page left open would go on asking a server that has ended


# Eight looks in a row at which the page is drawn (nothing stands for parts still to be loaded) and has nothing under way. Looks are
# counted, not time: a page too busy to be looked at is not at rest.
AT_REST = """call => {
    const app = document.querySelector("[data-testid=stApp]")?.dataset ?? {};
    const drawn = document.querySelector(".cv-brand") && !document.querySelector("[data-testid=stSkeleton]");
    const idle = app.testConnectionState === "CONNECTED" && app.testScriptState === "notRunning";
    const looks = window.looks?.call === call ? window.looks.quiet : 0;
    window.looks = {call, quiet: drawn && idle ? looks + 1 : 0};
    return window.looks.quiet >= 8;
}"""


def settled(window: Page) -> None:
    """Wait until the page is drawn and has had nothing under way for most of a second: keys pressed before are lost."""
    window.wait_for_function(AT_REST, arg=time.monotonic_ns(), polling=100, timeout=120_000)


def comes(window: Page, true: Callable[[], bool], rests: int = 60) -> bool:
    """Whether something comes to hold of the page at rest."""
    for _ in range(rests):
        settled(window)
        if true():
            return True
    return False


def until(window: Page, true: Callable[[], bool]) -> None:
    """Wait until something holds of the page at rest."""
    assert comes(window, true)


def insist(window: Page, act: Callable[[], None], true: Callable[[], bool]) -> None:
    """Do something until it has had its effect: on a busy machine the page may not listen yet. A page at work is left alone."""
    for _ in range(6):
        act()
        if comes(window, true, rests=12):
            return
    raise AssertionError("it had no effect")


def press(window: Page, key: str, true: Callable[[], bool]) -> None:
    """Press a key until it has had its effect."""
    insist(window, lambda: window.keyboard.press(key), true)
