"""The browser over ten million rows: what each click costs, in the process that answers it and in a real Chromium.

    python -m bench.browser --rows 10000000 --work /tmp/bench-browser [--json FILE]

The dataset is the one of bench/query.py (made when it is not there; files in the page cache). A fresh process asks what Browse asks of
`app.listing`, each question several times with nothing kept from before, and says its peak memory. Then the app is started as a user
starts it and opened in Chromium, when there is one: from the command to the first row on the screen, and clicks from there. Targets are
those of the product; what misses one is named.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.query import make
from columnar.cli import table
from columnar.store import peak_rss_mb

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
MEMORY_MB = 400


def questions(directory: Path, times: int) -> dict[str, Any]:
    """Median milliseconds of each question; run in a process of its own (`--part`)."""
    started = time.perf_counter()
    from app import db, listing
    from app.state import State
    from columnar.explain import explain

    data = db.open_data(directory)
    first = listing.page(data, State()).rows
    explain(directory, first[0]["id"], data.connection)
    figures: list[dict[str, Any]] = [{"question": "cold first page and row, imports included", "ms": _ms(started), "target": 1000}]
    rows = data.dataset.rows
    some = State(values=(("source", ("tulu",)),), ranges=(("n_tokens", 1000.0, None),))
    pages = rows // listing.PAGE
    middle = data.one(f"SELECT id FROM text LIMIT 1 OFFSET {rows // 2}")
    asked: dict[str, tuple[Callable[[], Any], int | None]] = {
        "first page": (lambda: listing.page(data, State()), 100),
        "page in the middle": (lambda: listing.page(data, State(page=pages // 2)), 100),
        "last page": (lambda: listing.page(data, State(page=pages)), 100),
        "page 2 of a filter": (lambda: listing.page(data, some.go(page=2)), 100),
        "page 400 of a filter": (lambda: listing.page(data, some.go(page=400)), 100),
        "count under a filter": (lambda: listing.count(data, some), 300),
        "facet: sources": (lambda: listing.facet(data, State(), "source"), 300),
        "facet: languages under a filter": (lambda: listing.facet(data, some, "lang"), 300),
        "all yes-or-no signals": (lambda: listing.signs(data, State()), 300),
        "histogram: tokens": (lambda: listing.histogram(data, State(), "n_tokens"), 300),
        "histogram: repetition under a filter": (lambda: listing.histogram(data, some, "repetition"), 300),
        "row detail (the whole story)": (lambda: explain(directory, middle, data.connection), 150),
        "random sample of all": (lambda: listing.page(data, State(seed=7)), None),
        "random sample of a filter": (lambda: listing.page(data, some.go(seed=7)), None),
        "the longest 25": (lambda: listing.page(data, State(sort="-n_tokens")), None),
        "a frequent word in any turn, first page": (lambda: listing.page(data, State(q="w12 ", within="text")), None),
        "two words in the previews, first page": (lambda: listing.page(data, State(q="w12 w13")), None),
    }
    for name, (ask, target) in asked.items():
        spent = []
        for _ in range(times):
            data.forget()
            before = time.perf_counter()
            ask()
            spent.append(_ms(before))
        figures.append({"question": name, "ms": sorted(spent)[len(spent) // 2], "target": target})
    return {"figures": figures, "peak_rss_mb": peak_rss_mb()}


def in_chromium(directory: Path, chromium: str) -> dict[str, Any]:
    """Milliseconds as a person sees them: from the command to the first row, and from a click to its answer; memory of the server."""
    from playwright.sync_api import Error, sync_playwright

    port = _free_port()
    figures: list[dict[str, Any]] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        started = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "app", str(directory), "--headless", "--port", str(port)], stdout=subprocess.DEVNULL
        )
        try:
            while True:
                try:
                    page.goto(f"http://127.0.0.1:{port}/browse")
                    break
                except Error:
                    if time.perf_counter() - started > 60:
                        raise
                    time.sleep(0.05)
            page.locator(".cv-turn").first.wait_for(timeout=60_000)
            figures.append({"question": "from the command to the first row on the screen", "ms": _ms(started), "target": 5000})
            page.locator(".cv-hist").last.wait_for(timeout=60_000)
            figures.append({"question": "from the command to all filters with counts", "ms": _ms(started), "target": None})
            page.wait_for_timeout(1500)
            for key in ("j", "j", "j"):
                before, shown = time.perf_counter(), page.locator(".cv-why code").inner_text()
                page.keyboard.press(key)
                page.wait_for_function("old => document.querySelector('.cv-why code')?.innerText !== old", arg=shown)
                figures.append({"question": "key J to the next row on the screen", "ms": _ms(before), "target": None})
            before = time.perf_counter()
            page.get_by_role("button", name="tulu").first.click()
            page.locator(".cv-lead", has_text=" of ").wait_for(timeout=60_000)
            figures.append({"question": "click on a source to the new count on the screen", "ms": _ms(before), "target": None})
            page.wait_for_timeout(1500)
            status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
            memory = next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)
            browser.close()
    return {"figures": figures, "peak_rss_mb": memory}


def _ms(since: float) -> float:
    return round((time.perf_counter() - since) * 1000)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=int, default=10_000_000)
    made.add_argument("--work", type=Path, default=Path("/tmp/bench-browser"))
    made.add_argument("--times", type=int, default=5)
    made.add_argument("--json", type=Path)
    made.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    args = made.parse_args()
    directory = args.work / f"rows-{args.rows}"
    if args.part:
        print(json.dumps(questions(directory, args.times)))
        return
    make(directory, args.rows)
    command = [sys.executable, "-m", "bench.browser", "--part", *(f"--{n}={getattr(args, n)}" for n in ("rows", "work", "times"))]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=dict(os.environ)).stdout)
    figures, memory = found["figures"], {"questions": found["peak_rss_mb"]}
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium:
        seen = in_chromium(directory, chromium)
        figures, memory = figures + seen["figures"], memory | {"server": seen["peak_rss_mb"]}
    else:
        print("no Chromium on this machine: what a person sees is not measured")
    print(f"{args.rows:,} rows; milliseconds, median of {args.times}")
    print(table(figures, ["question", "ms", "target"]))
    print("peak memory: " + ", ".join(f"{name} {mb:,} MB" for name, mb in memory.items()) + f" (target {MEMORY_MB} MB)")
    missed = [f"{f['question']} ({f['ms']:,} ms for {f['target']:,})" for f in figures if f["target"] and f["ms"] >= f["target"]]
    missed += [f"memory of the {name} ({mb:,} MB)" for name, mb in memory.items() if mb >= MEMORY_MB]
    print("every target met" if not missed else "missed: " + "; ".join(missed))
    if args.json:
        args.json.write_text(json.dumps({"rows": args.rows, "peak_rss_mb": memory, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
