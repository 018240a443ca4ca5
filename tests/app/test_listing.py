"""What Browse asks: pages, counts, facets, histograms and searches, each checked against plain Python over the same rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from app import db, listing
from app.state import NULL, State, parse
from columnar.errors import QueryError, StoreError
from columnar.flags import add_flags


@pytest.fixture
def data(tiny: Path) -> db.Data:
    return db.open_data(tiny)


@pytest.fixture
def everything(data: db.Data) -> list[dict[str, Any]]:
    return data.run("SELECT * FROM rows", max_rows=None).rows


def ids(found: listing.Found) -> list[str]:
    return [row["id"] for row in found.rows]


def test_the_pages_hold_every_row_once_in_order(data: db.Data, everything: list[dict[str, Any]]) -> None:
    last = -(-len(everything) // listing.PAGE)
    seen = [row_id for n in range(1, last + 1) for row_id in ids(listing.page(data, State(page=n)))]
    assert seen == [row["id"] for row in everything]
    assert ids(listing.page(data, State(page=last + 1))) == []


def test_a_page_by_place_is_the_page_that_its_sql_gives(data: db.Data) -> None:
    found = listing.page(data, State(page=3))
    assert data.run(found.sql, found.condition.params).rows == found.rows


def test_filters_compose(data: db.Data, everything: list[dict[str, Any]]) -> None:
    place = parse({"source": ["alpaca", "chats"], "min.n_tokens": ["50"], "split": ["train"]})
    wanted = {r["id"] for r in everything if r["source"] in ("alpaca", "chats") and r["n_tokens"] >= 50 and r["split"] == "train"}
    assert 0 < len(wanted) < len(everything)
    assert listing.count(data, place) == len(wanted)
    found = [row_id for n in range(1, 9) for row_id in ids(listing.page(data, place.go(page=n)))]
    assert set(found) == wanted and len(found) == len(wanted)


def test_a_facet_counts_under_the_other_filters_only(data: db.Data, everything: list[dict[str, Any]]) -> None:
    place = parse({"source": ["alpaca"], "max.n_tokens": ["60"]})
    found, more = listing.facet(data, place, "source")
    assert dict(found) == Counter(r["source"] for r in everything if r["n_tokens"] <= 60) and not more
    found, more = listing.facet(data, place, "lang", most=1)
    assert found == [("en", sum(r["source"] == "alpaca" and r["n_tokens"] <= 60 and r["lang"] == "en" for r in everything))] and more


def test_rows_without_a_value_have_their_own_bucket(data: db.Data) -> None:
    found, _ = listing.facet(data, State(), "benchmark")
    assert found == [(NULL, data.dataset.rows)]
    assert listing.count(data, State().with_values("benchmark", [NULL])) == data.dataset.rows


def test_a_histogram_counts_every_row_once(data: db.Data, everything: list[dict[str, Any]]) -> None:
    for column in ("n_tokens", "n_turns", "lang_score"):
        found = listing.histogram(data, State(), column)
        assert found is not None
        assert sum(found.counts) + found.missing == len(everything)
        for low, high, count in zip(found.edges, found.edges[1:], found.counts, strict=False):
            last = high == found.edges[-1]
            assert count == sum(r[column] is not None and low <= r[column] and (r[column] < high or last) for r in everything), (
                column,
                low,
            )


@pytest.mark.parametrize(
    ("low", "high", "whole"), [(0, 3, True), (1, 100_000, True), (0.0, 1.0, False), (-5.5, 7.25, False), (0.5, 0.5, False)]
)
def test_edges_cover_the_values_and_rise(low: float, high: float, whole: bool) -> None:
    edges = listing.nice_edges(low, high, whole)
    assert edges[0] <= low and edges[-1] >= high and edges == sorted(set(edges)) and 2 <= len(edges) < 60


def test_signals_are_counted_and_filtered(data: db.Data, everything: list[dict[str, Any]]) -> None:
    signs = dict(listing.signs(data, State()))
    assert signs["has_code"] == sum(r["has_code"] for r in everything) > 0
    assert listing.count(data, parse({"has_code": ["true"]})) == signs["has_code"]


def test_a_search_finds_what_python_finds(data: db.Data, everything: list[dict[str, Any]]) -> None:
    wanted = [r["id"] for r in everything if any("water" in (m["content"] or "").lower() for m in r["messages"])]
    place = State(q="Water")
    assert wanted and ids(listing.page(data, place)) == wanted[: listing.PAGE]
    assert listing.count(data, place) == len(wanted)
    assert all("water" in row["preview"].lower() for row in listing.page(data, place).rows)
    asked = [r["id"] for r in everything if any(m["role"] == "user" and "water" in m["content"].lower() for m in r["messages"])]
    assert listing.count(data, State(q="water", role="user")) == len(asked) < len(wanted)


def test_a_sample_is_random_and_repeats_with_its_seed(data: db.Data) -> None:
    first, again, other = (ids(listing.page(data, State(seed=seed))) for seed in (1, 1, 2))
    assert first == again != other
    assert first != ids(listing.page(data, State()))


def test_a_sample_of_many_rows_looks_at_few_but_at_enough(data: db.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "DRAWN", 5)
    found = listing.page(data, State(seed=3))
    assert "ends_with" in found.sql and found.rows
    assert ids(found) == ids(listing.page(data, State(seed=3)))


def test_an_order_puts_missing_values_last(data: db.Data, everything: list[dict[str, Any]]) -> None:
    found = listing.page(data, State(sort="-n_tokens"))
    assert [row["n_tokens"] for row in found.rows] == sorted((r["n_tokens"] for r in everything), reverse=True)[: listing.PAGE]


def test_dropped_rows_are_filtered_by_reason(data: db.Data) -> None:
    counts = data.identity["counts"]["by_reason"]
    found, _ = listing.facet(data, State(part="dropped"), "reason")
    assert dict(found) == counts
    assert listing.count(data, parse({"part": ["dropped"], "reason": ["contaminated"]})) == counts["contaminated"]


def test_a_condition_in_sql_narrows_and_never_writes(data: db.Data) -> None:
    assert listing.count(data, State(where="n_tokens > 10 * n_turns")) < data.dataset.rows
    for attack in (
        "1=1); DROP VIEW rows; --",
        "true) UNION SELECT content FROM read_text('/etc/passwd'",
        "id IN (SELECT content FROM read_text('/etc/passwd'))",
        "(WITH x AS (INSERT INTO t VALUES (1)) SELECT true)",
    ):
        with pytest.raises(QueryError):
            listing.page(data, State(where=attack))
    assert listing.count(data, State(where="true")) == data.dataset.rows


def test_answers_are_kept_until_the_files_change(tiny: Path, data: db.Data) -> None:
    sql = "SELECT flag, count(*) AS n FROM flags GROUP BY 1"
    assert data.run(sql).rows == []
    assert data.run(sql) is data.run(sql)
    add_flags(tiny, [{"id": "x", "flag": "bad"}])
    assert data.run(sql).rows == [{"flag": "bad", "n": 1}]
    assert db.open_data(tiny) is data  # flags need no new connection
    side = tiny / "cols" / "mine.parquet"
    first = data.run("SELECT id FROM text", max_rows=None).table
    pq.write_table(first.append_column("score", [list(range(first.num_rows))]), side)
    assert db.open_data(tiny) is not data
    assert listing.histogram(db.open_data(tiny), State(), "mine_score") is not None


def test_a_sidecar_in_another_order_is_joined_by_id(tiny: Path) -> None:
    rows = db.open_data(tiny).run("SELECT id, n_tokens FROM rows", max_rows=None).table
    mine = rows.rename_columns(["id", "mine"]).sort_by([("mine", "descending")])
    pq.write_table(mine, tiny / "cols" / "mine.parquet")
    data = db.open_data(tiny)
    assert listing.count(data, State(where="mine IS DISTINCT FROM n_tokens")) == 0
    found = listing.page(data, State(sort="mine", page=2)).rows
    assert found and all(row["mine"] == row["n_tokens"] for row in found)


def test_a_question_that_runs_away_is_stopped(data: db.Data) -> None:
    with pytest.raises(QueryError, match="stopped after"):
        data.run("SELECT count(*) FROM range(1000000000) a, range(1000000000) b", timeout=0.5)


def test_datasets_out_of_step_are_refused_with_what_to_run(tiny: Path) -> None:
    (tiny / "cols" / "signals.parquet").write_bytes(b"PAR1 not whole")
    with pytest.raises(StoreError) as caught:
        db.open_data(tiny)
    assert "signals" in str(caught.value) and caught.value.hint


def test_datasets_below_a_folder_are_found(datasets: Path, tmp_path: Path) -> None:
    names = {path.name for path in db.find(datasets)}
    assert {"tiny", "tiny_pairs", "hostile", "plain"} <= names
    assert db.find(tmp_path / "nothing") == []


def test_a_dataset_without_sidecars_has_previews_and_pages(datasets: Path) -> None:
    data = db.open_data(datasets / "plain")
    assert [row["preview"] for row in listing.page(data, State()).rows] == ["Say hello"] * 3
    assert listing.facet(data, State(), "source") == ([("plain", 3)], False)
    assert listing.count(data, State(q="hello")) == 3, "turns of this dataset have neither thinking nor tool calls"
