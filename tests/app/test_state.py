"""The URL and the place it names are the same thing; filters become SQL that cannot be broken out of."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.state import NULL, State, condition, params, parse

NAMES = st.text(min_size=1, max_size=8)
VALUES = st.lists(st.text(max_size=8), min_size=1, max_size=3, unique=True).map(tuple)
NUMBERS = st.one_of(st.none(), st.integers(-(10**9), 10**9).map(float))
STATES = st.builds(
    State,
    data=st.text(max_size=8),
    part=st.sampled_from(["kept", "dropped"]),
    values=st.dictionaries(NAMES, VALUES, max_size=3).map(lambda d: tuple(sorted(d.items()))),
    ranges=st.dictionaries(NAMES, st.tuples(NUMBERS, NUMBERS).filter(any), max_size=2).map(
        lambda d: tuple(sorted(((name, *bounds) for name, bounds in d.items()), key=str))
    ),
    q=st.text(max_size=8),
    within=st.sampled_from(["", "text", "preview"]),
    role=st.sampled_from(["", "user", "tool"]),
    regex=st.booleans(),
    flag=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    hit=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    dup=st.booleans(),
    where=st.text(max_size=8),
    sort=st.text(max_size=8),
    seed=st.one_of(st.none(), st.integers(0, 10**6)),
    page=st.integers(1, 10**6),
    row=st.text(max_size=8),
    other=st.text(max_size=8),
    choices=st.dictionaries(NAMES, st.text(min_size=1, max_size=5), max_size=2).map(lambda d: tuple(sorted(d.items()))),
)


@given(STATES)
def test_a_place_survives_the_url(place: State) -> None:
    assert parse(params(place)) == place


def test_defaults_leave_the_url_empty() -> None:
    assert params(State()) == {}


def test_columns_with_reserved_names_can_be_filtered() -> None:
    place = State().with_values("page", ["3"]).with_values("min.x", ["a"])
    assert params(place) == {"col.min.x": ["a"], "col.page": ["3"]}
    assert parse(params(place)).chosen("page") == ("3",)


@pytest.mark.parametrize(
    "query", [{"page": ["-1"]}, {"page": ["x"]}, {"seed": ["٣"]}, {"min.n": ["nan"]}, {"min.n": ["inf"]}, {"part": ["?"]}]
)
def test_nonsense_in_the_url_counts_as_not_said(query: dict[str, list[str]]) -> None:
    assert parse(query) == State()


def test_any_change_of_the_list_leads_to_its_first_page() -> None:
    place = State(page=7, row="x")
    assert place.go(q="a").page == 1
    assert place.go(row="y").page == 7
    assert place.go(page=9).page == 9


COLUMNS = {
    "id": "VARCHAR",
    "source": "VARCHAR",
    "n": "BIGINT",
    "ok": "BOOLEAN",
    "messages": "STRUCT(role VARCHAR, content VARCHAR, thinking VARCHAR, tool_calls VARCHAR)[]",
}


@pytest.fixture(scope="module")
def rows() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("""
        CREATE TABLE rows (id VARCHAR, source VARCHAR, n BIGINT, ok BOOLEAN,
          messages STRUCT(role VARCHAR, content VARCHAR, thinking VARCHAR, tool_calls VARCHAR)[]);
        INSERT INTO rows VALUES
          ('a', 'x', 1, true, [{'role': 'user', 'content': 'Hello 100%', 'thinking': NULL, 'tool_calls': NULL},
                               {'role': 'assistant', 'content': 'World', 'thinking': 'hidden', 'tool_calls': NULL}]),
          ('b', NULL, 5, false, [{'role': 'user', 'content': 'a.b', 'thinking': NULL, 'tool_calls': '[{"f": "hello"}]'}]),
          ('c', 'it''s', NULL, NULL, NULL);
        CREATE TABLE flags (id VARCHAR, flag VARCHAR); INSERT INTO flags VALUES ('a', 'bad');
        CREATE TABLE hits_decontam (id VARCHAR, benchmark VARCHAR); INSERT INTO hits_decontam VALUES ('b', 'gsm8k');
        CREATE TABLE hits_duplicates (id VARCHAR, kept_id VARCHAR); INSERT INTO hits_duplicates VALUES ('z', 'c');
    """)
    return connection


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({}, "abc"),
        ({"source": ["x"]}, "a"),
        ({"source": ["x", NULL]}, "ab"),
        ({"source": ["it's"]}, "c"),
        ({"source": ["' OR true OR '"]}, ""),
        ({"n": ["5"]}, "b"),
        ({"ok": ["true"]}, "a"),
        ({"min.n": ["2"]}, "b"),
        ({"min.n": ["1"], "max.n": ["4"]}, "a"),
        ({"q": ["hello"]}, "ab"),
        ({"q": ["HELLO"], "role": ["assistant"]}, ""),
        ({"q": ["hidden"]}, "a"),
        ({"q": ["100%"]}, "a"),
        ({"q": ["a.b"]}, "b"),
        ({"q": ["w.r"], "regex": ["1"]}, "a"),
        ({"flag": ["bad"]}, "a"),
        ({"flag": [NULL]}, "bc"),
        ({"flag": ["bad", NULL]}, "abc"),
        ({"hit": ["gsm8k"]}, "b"),
        ({"dup": ["1"]}, "c"),
        ({"where": ["n > 1 -- a comment"]}, "b"),
        ({"where": ["n = 1 OR n = 5"], "source": ["x"]}, "a"),
    ],
)
def test_filters_find_their_rows(rows: duckdb.DuckDBPyConnection, query: dict[str, list[str]], ids: str) -> None:
    found = condition(parse(query), COLUMNS)
    got = rows.cursor().execute(f"SELECT id FROM rows WHERE {found.sql} ORDER BY id", found.params or None).fetchall()
    assert "".join(row[0] for row in got) == ids


def test_what_does_not_apply_is_said() -> None:
    found = condition(parse({"nosuch": ["1"], "min.source": ["3"]}), COLUMNS)
    assert set(found.ignored) == {"nosuch", "source"}
    assert found.sql == "true"


def test_the_counts_beside_a_choice_leave_its_own_filter_out() -> None:
    place = parse({"source": ["x"], "min.n": ["2"]})
    assert "source" not in condition(place, COLUMNS, without="source").sql
    assert '"n"' in condition(place, COLUMNS, without="source").sql
