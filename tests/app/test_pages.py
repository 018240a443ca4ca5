"""Each page of this part drawn by Streamlit's own test runner: deep links, empty states, broken datasets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from columnar.flags import read_flags
from columnar.load import SourceSpec, load_source

pytest.importorskip("streamlit", reason="the app's extra is not installed")

from streamlit.testing.v1 import AppTest

from tests.app.conftest import ROOT


def drawn(view: str, dirs: list[Path], **query: str | list[str]) -> AppTest:
    """A view of the app over these datasets, at a place in the URL."""

    def page(root: str, view: str, dirs: list[str]) -> None:
        import importlib
        import sys

        if root not in sys.path:
            sys.path.insert(0, root)
        import streamlit as st

        from app import shell
        from app.pages import VIEWS

        chosen = next(v for v in VIEWS if v.name == view)
        made = {v.name: st.Page(lambda: None, title=v.title, url_path=v.name, default=v == VIEWS[0]) for v in VIEWS}
        st.navigation(list(made.values()), position="hidden")
        shell.begin(VIEWS, made)
        opened = shell.open_page(dirs, chosen)
        if opened is not None:
            importlib.import_module(f"app.views.{view}").show(opened)

    at = AppTest.from_function(page, args=(str(ROOT), view, [str(path) for path in dirs]), default_timeout=300)
    for name, value in query.items():
        at.query_params[name] = value
    return at.run()


def html_of(at: AppTest) -> str:
    assert not at.exception, at.exception
    return " ".join(str(element.proto.body) for element in at.get("html"))


def test_browse_shows_rows_and_the_first_one(tiny: Path) -> None:
    html = html_of(drawn("browse", [tiny]))
    assert "<b>186</b> rows" in html and 'class="cv-turn' in html and "in the train split" in html


def test_a_deep_link_restores_filters_and_row(tiny: Path) -> None:
    at = drawn("browse", [tiny], source=["alpaca", "chats"], **{"min.n_tokens": "100"}, q="the")
    html = html_of(at)
    assert " of 186 rows" in html and 'mark class="cv-found"' in html
    assert [button.label for button in at.button if str(button.key).startswith("pill.")] == [
        r"source\: alpaca or chats",
        "n\\_tokens\\: 100 to …",
        r"text\: the",
        "Clear all",
    ]


def test_flags_are_written_and_undone(tiny: Path) -> None:
    at = drawn("browse", [tiny])
    at.button(key="flag.broken").click().run()
    assert [flag["flag"] for flag in read_flags(tiny)] == ["broken"]
    assert "cv-flag" in html_of(at)
    at.button(key="flag.undo").click().run()
    assert read_flags(tiny) == []
    assert len((tiny / "flags.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_a_dropped_row_says_why(tiny: Path) -> None:
    html = html_of(drawn("browse", [tiny], part="dropped", reason="contaminated"))
    assert "cv-out" in html and "contaminated" in html and "hit decontam" in html


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"row": "ffffffffffffffff"}, "no row of"),
        ({"where": "nosuch > 1"}, "no column nosuch"),
        ({"where": "1=1) UNION (SELECT 1"}, "cv-problem"),
        ({"nosuch": "x"}, "no usable column nosuch"),
        ({"q": "zzzzqqqq"}, "No row fits"),
        ({"page": "9999"}, "no such page"),
        ({"q": "(", "regex": "1"}, "cv-problem"),
        ({"data": "other"}, "There is no dataset"),
        ({"sort": "-nosuch"}, "186"),
    ],
)
def test_links_that_lead_nowhere_say_so(tiny: Path, query: dict[str, str], words: str) -> None:
    assert words in html_of(drawn("browse", [tiny], **query))


def test_overview_tells_the_manifest(tiny: Path) -> None:
    html = html_of(drawn("overview", [tiny]))
    for part in ("near_duplicate", "alpaca", "arithmetic", "Rule caravan", "cv-hist", "12,852"):
        assert part in html, part


def test_overview_tells_of_files_that_could_not_be_read(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "whole.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}\n')
    (raw / "cut.parquet").write_bytes(b"PAR1")
    load_source(SourceSpec(name="raw", path=str(raw), on_bad_file="skip"), tmp_path / "out")
    html = html_of(drawn("overview", [tmp_path / "out"]))
    assert "unreadable files" in html and "left out whole" in html


def test_a_loaded_file_without_any_stage_is_shown_too(datasets: Path) -> None:
    assert "<b>3</b>" in html_of(drawn("overview", [datasets / "plain"]))
    assert "Hello!" in html_of(drawn("browse", [datasets / "plain"]))


def broken(tiny: Path, how: str) -> None:
    """Break a dataset as disks, crashes and other versions do."""
    manifest = tiny / "manifest.json"
    match how:
        case "no manifest":
            manifest.unlink()
        case "half written":
            manifest.write_text(manifest.read_text(encoding="utf-8")[:100], encoding="utf-8")
        case "older schema":
            manifest.write_text(json.dumps(json.loads(manifest.read_text(encoding="utf-8")) | {"schema": 0}), encoding="utf-8")
        case "sidecar cut off":
            file = tiny / "cols" / "signals.parquet"
            file.write_bytes(file.read_bytes()[:500])
        case "rows gone":
            shutil.rmtree(tiny / "rows")
        case "fewer rows":
            (tiny / "rows" / "validation-00000.parquet").unlink()
        case "flags damaged":
            (tiny / "flags.jsonl").write_text("not json\n", encoding="utf-8")


@pytest.mark.parametrize("view", ["overview", "browse"])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no manifest", "incomplete"),
        ("half written", "damaged"),
        ("older schema", "schema 0"),
        ("sidecar cut off", "signals.parquet"),
        ("rows gone", "rows"),
        ("fewer rows", "rows/ holds"),
    ],
)
def test_a_broken_dataset_says_what_is_wrong_and_what_to_run(tiny: Path, view: str, how: str, words: str) -> None:
    broken(tiny, how)
    html = html_of(drawn(view, [tiny]))
    assert "cv-problem" in html and words in html
    assert "again" in html, "what to run"


@pytest.mark.parametrize("view", ["overview", "browse"])
def test_a_dataset_without_rows_says_so(datasets: Path, tmp_path: Path, view: str) -> None:
    import pyarrow.parquet as pq

    empty = Path(shutil.copytree(datasets / "plain", tmp_path / "empty"))
    shutil.rmtree(empty / "cols", ignore_errors=True)
    for file in (empty / "rows").glob("*.parquet"):
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    manifest = json.loads((empty / "manifest.json").read_text(encoding="utf-8"))
    manifest["identity"]["rows"] = 0
    (empty / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert "This dataset has no rows" in html_of(drawn(view, [empty]))


def test_a_damaged_line_of_flags_spoils_no_page(tiny: Path) -> None:
    broken(tiny, "flags damaged")
    assert "<b>186</b> rows" in html_of(drawn("browse", [tiny]))


def test_a_missing_sidecar_takes_its_filters_away_and_nothing_else(tiny: Path) -> None:
    for file in (tiny / "cols").glob("*.parquet"):
        file.unlink()
    html = html_of(drawn("browse", [tiny]))
    assert "<b>186</b> rows" in html and 'class="cv-turn' in html


def test_without_datasets_the_page_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    html = html_of(drawn("overview", []))
    assert "python -m curation.build_mix" in html and "python -m app out/tiny" in html


def test_several_datasets_are_offered(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(datasets)
    at = drawn("overview", [])
    assert not at.exception and at.title[0].value == "Choose a dataset"
    assert "<b>186</b>" in html_of(drawn("browse", [], data="tiny"))
