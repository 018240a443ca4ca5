"""Every view, run without a browser: what it shows, what a link restores, what a choice changes, what it says when a part is missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.heat import heat_map
from app.side import beside, differing, facts, layered, messages_html, pane
from tests.app.made import EVIL, ITEM, write_candidates, write_leaky, write_pairs
from tests.columnar.small import chat, mix, write_rows, write_signals


def opened(view: str, *dirs: Path, **query: str) -> AppTest:
    """A view of these datasets, with `__` in a name for the dot."""
    script = f"""
from app import pages
pages.VIEWS = tuple(sorted(pages.VIEWS, key=lambda one: one.name != {view!r}))
pages.draw({[str(path) for path in dirs]!r})
"""
    app = AppTest.from_string(script, default_timeout=300)
    for name, value in query.items():
        app.query_params[name.replace("__", ".")] = value
    return checked(app.run())


def checked(app: AppTest) -> AppTest:
    assert [error.message for error in app.exception] == []
    return app


def answered(app: AppTest) -> AppTest:
    """Drawn again, as the page does by itself, until the answer is there."""
    for _ in range(300):
        if not any(button.key == "sql.stop" for button in app.button):
            return app
        app = checked(app.run())
    raise AssertionError("no answer came")


def page(app: AppTest) -> str:
    """Everything the page says, as HTML and text."""
    parts = [*(one.proto.body for one in app.get("html")), *(one.value for one in [*app.title, *app.caption, *app.subheader])]
    return "\n".join(str(part) for part in parts if not str(part).startswith("<style"))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "pairs")
    return tmp_path / "pairs"


def test_pairs_shows_the_prompt_both_answers_and_what_differs(pairs: Path) -> None:
    text = page(opened("pairs", pairs))
    assert "14 pairs" in text
    assert text.index("Question 0?") < text.index("fine answer") < text.index("poor reply")
    assert '<mark class="cv-only-a">' in text and '<mark class="cv-only-b">' in text
    assert '<mark class="cv-only' not in page(opened("pairs", pairs, view__diff="0"))
    planted = {name: row["id"] for name, row in write_pairs(pairs.parent / "again").items()}
    unlike = page(opened("pairs", pairs, row=planted["half"]))
    assert "hardly a word in common" in unlike and '<mark class="cv-only' not in unlike


def test_a_lint_in_the_link_shows_its_rows_and_its_share(pairs: Path) -> None:
    planted = {name: row["id"] for name, row in write_pairs(pairs.parent / "again").items()}
    text = page(opened("pairs", pairs, view__lint="inverted"))
    assert planted["inverted"] in text and "1 of 13 pairs" in text and "1 of 1" in text
    app = opened("pairs", pairs)
    app.session_state["pairs.lint"] = "tie"
    assert "No rows here" not in page(checked(app.run()))


def test_the_keys_go_to_the_next_pair_and_back(pairs: Path) -> None:
    rows = [row["id"] for row in write_pairs(pairs.parent / "again").values()]
    app = checked(opened("pairs", pairs).button(key="next").click().run())
    assert rows[1] in page(app)
    assert app.query_params["row"] == rows[1]
    app = checked(app.button(key="before").click().run())
    assert app.query_params["row"] == rows[0]
    assert app.button(key="before").disabled


def test_a_row_that_is_not_there_is_said(pairs: Path) -> None:
    assert "There is no row feedface" in page(opened("pairs", pairs, row="feedface"))


def test_a_dataset_without_pairs_says_what_to_run(tmp_path: Path) -> None:
    assert "generation.pairs" in page(opened("pairs", mix(tmp_path / "d")[0]))


def test_candidates_show_ratings_rationales_and_judgements(tmp_path: Path) -> None:
    rows = write_candidates(tmp_path / "d")
    text = page(opened("pairs", tmp_path / "d"))
    assert "3 prompts with candidates" in text
    for wanted in ("helpfulness", "because", "2 judgements, word for word", "sample 1, shown in place 2", "shared"):
        assert wanted in text
    assert rows[2]["id"] in page(opened("pairs", tmp_path / "d", row=rows[2]["id"]))


def test_the_candidates_of_a_pair_are_found_in_its_folder(tmp_path: Path) -> None:
    (asked, *_) = write_candidates(tmp_path / "d" / "candidates")
    row = {**next(iter(write_pairs(tmp_path / "x").values())), "parents": [asked["id"]]}
    write_rows(tmp_path / "d", [row], "made", "pair")
    assert "model-3" in page(opened("pairs", tmp_path / "d"))


def test_duplicates_show_clusters_and_the_kept_row_beside_the_removed_one(tmp_path: Path) -> None:
    directory, rows = mix(tmp_path / "d")
    text = page(opened("duplicates", directory))
    assert "1 duplicate\n" in text and "I think, 1802" in text and "Jaccard 0.910" in text
    assert rows[0]["id"] in text
    assert "No rows here" in page(opened("duplicates", directory, view__between="nobody → north"))
    (directory / "hits" / "duplicates.parquet").unlink()
    assert "curation.dedup" in page(opened("duplicates", directory))


def test_contamination_shows_the_evidence_on_both_sides(tmp_path: Path) -> None:
    kept, gone = write_leaky(tmp_path / "d")
    text = page(opened("contamination", tmp_path / "d"))
    assert "2 rows with the text of 1 benchmark item\n" in text
    assert f'<mark class="cv-run">{ITEM[:-1]}</mark>' in text
    assert text.count('class="cv-run"') == 2
    assert "not found: mmlu" in text
    other = page(opened("contamination", tmp_path / "d", row="gsm8k/test/7", view__holder=gone["id"]))
    assert f'<mark class="cv-run">{ITEM[:-1].upper()}</mark>' in other and "dropped: contaminated" in other
    assert kept["id"] in page(opened("contamination", tmp_path / "d", view__between="north → gsm8k"))


def test_contamination_without_kept_items_or_without_a_scan(tmp_path: Path) -> None:
    write_leaky(tmp_path / "d", items=False)
    (tmp_path / "d" / "report.json").write_text("{")
    text = page(opened("contamination", tmp_path / "d"))
    assert "was not kept by this scan" in text and "no report.json" in text
    assert "decontam.scan" in page(opened("contamination", mix(tmp_path / "e")[0]))


def test_compare_counts_and_leads_to_the_rows(tmp_path: Path) -> None:
    rows = [chat("north", n) for n in range(6)]
    other = [*rows[:3], chat("north", 3, answer="It is seven."), chat("south", 9, f"new {EVIL}")]
    for name, some in (("before", rows), ("after", other)):
        write_rows(tmp_path / name, some, name)
        write_signals(tmp_path / name, some)
    a, b = tmp_path / "before", tmp_path / "after"
    text = page(opened("compare", a, b, view__cell="changed"))
    assert '<mark class="cv-only-a">6</mark>' in text and '<mark class="cv-only-b">seven</mark>' in text
    added = page(opened("compare", a, b, view__cell="added"))
    assert "pwned" in added and "<script>" not in added
    assert "not in this dataset" in page(opened("compare", a, b, view__cell="removed"))
    assert "Open two" in page(opened("compare", a))
    assert "the same rows" in page(opened("compare", a, Path(shutil.copytree(a, tmp_path / "copy"))))


def test_sql_answers_refuses_and_restores_from_the_link(tmp_path: Path) -> None:
    directory = mix(tmp_path / "d")[0]
    app = answered(opened("sql", directory, view__query="funnel"))
    assert "<b>2</b> rows" in page(app)
    assert app.text_area(key="sql.text").value.startswith("-- How many rows went in")
    assert "expected one that reads" in page(answered(opened("sql", directory, view__sql="DROP VIEW rows")))
    app = opened("sql", directory)
    app.text_area(key="sql.text").set_value("SELECT 1 AS one FROM range(2000)").run()
    (run,) = [button for button in app.button if button.label == "Run"]
    text = page(answered(checked(run.click().run())))
    assert "<b>1,000</b> rows" in text and "cut after 1,000 rows" in text
    assert app.query_params["view.sql"] == "SELECT 1 AS one FROM range(2000)"


def test_small_answers_are_downloads_from_the_start_and_large_ones_when_asked_for(tmp_path: Path) -> None:
    directory = mix(tmp_path / "d")[0]
    for letters, deferred in ((5, False), (5000, True)):
        app = answered(opened("sql", directory, view__sql=f"SELECT repeat('x', {letters}) FROM range(1000)"))
        assert [bool(button.proto.deferred_file_id) for button in app.get("download_button")] == [deferred] * 2


def test_a_query_under_way_can_be_stopped(tmp_path: Path) -> None:
    directory = mix(tmp_path / "d")[0]
    slow = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range % 7 = 3"
    app = opened("sql", directory, view__sql=slow)
    assert "stopped after 30 s" in page(app)
    app.button(key="sql.stop").click().run()
    assert ">stopped</b>" in page(answered(checked(app.run())))


def test_template_marks_what_is_learned(tmp_path: Path) -> None:
    directory, rows = mix(tmp_path / "d")
    text = page(opened("template", directory, row=rows[3]["id"]))
    answer = rows[3]["messages"][1]["content"]
    assert f'<mark class="cv-learned">{answer}&lt;|im_end|&gt;' in text
    assert "no such folder" in page(opened("template", directory, view__tokenizer="/nowhere/at/all"))
    write_pairs(tmp_path / "p")
    assert page(opened("template", tmp_path / "p")).count('class="cv-learned"') == 2


def test_runs_needs_no_dataset_and_draws_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "No run below" in page(opened("runs"))
    log = tmp_path / "runs" / "sft" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f'{{"step": {n}, "loss": {1 / n}}}\n' for n in range(1, 9)))
    text = page(opened("runs"))
    assert "loss 0.125" in text and "cv-curve" in text


@pytest.mark.parametrize("view", ["pairs", "contamination", "template", "duplicates", "compare", "sql"])
def test_hostile_rows_stay_text(view: str, tmp_path: Path) -> None:
    planted = write_pairs(tmp_path / "pairs")
    write_leaky(tmp_path / "leaky")
    write_candidates(tmp_path / "judged")
    query: dict[str, Any] = {"row": planted["evil"]["id"]} if view in ("pairs", "template") else {}
    dirs = {"contamination": ["leaky"], "compare": ["leaky", "judged"]}.get(view, ["pairs"])
    for each in (dirs, ["judged"]) if view == "pairs" else (dirs,):
        text = page(answered(opened(view, *(tmp_path / name for name in each), **(query if each == dirs else {}))))
        assert "<script>" not in text and "<img src=x" not in text and "\x1b" not in text and "\u202e" not in text


def test_pieces_of_html_escape_everything() -> None:
    drawn = [
        facts({EVIL: EVIL}),
        pane(EVIL, messages_html([{"role": EVIL, "content": EVIL, "thinking": EVIL, "tool_calls": EVIL}], {0: [(0, 5)]})),
        beside([], messages_html(None), EVIL),
        layered(EVIL, [([(0, 20)], "a"), ([(5, 9)], "b")]),
        heat_map([EVIL], [EVIL], {(EVIL, EVIL): 3}, lambda a, b: f"x?a={a}", EVIL, None, lambda a, b: EVIL),
    ]
    for one in drawn:
        assert "<script" not in one and "<img" not in one and '="document' not in one


def test_a_missing_side_is_not_marked_as_different() -> None:
    some = [{"role": "user", "content": "hello"}]
    assert differing(some, [])[0] == {}
    assert differing(some, [{"role": "user", "content": "bye"}])[0] == {0: [(0, 5)]}
