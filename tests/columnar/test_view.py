"""Views over dataset directories: right joins, clear names, nothing lost when a part is missing, an error when one is out of step."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import chat, mix, sidecar, write_rows, write_signals

from columnar.errors import StoreError
from columnar.layout import AMBIGUOUS, exposed_names
from columnar.store import open_dataset, write_table
from columnar.view import connect, data_files, schema_names, stamp


def ask(dirs: object, sql: str, names: list[str] | None = None) -> list[tuple]:
    connection = connect(dirs, names)  # type: ignore[arg-type]
    try:
        return connection.sql(sql).fetchall()
    finally:
        connection.close()


def test_rows_carry_the_columns_of_every_sidecar(tmp_path: Path) -> None:
    path, rows = mix(tmp_path / "d")
    found = ask(path, "SELECT id, split, n_chars, contaminated, decontam_reason, messages[1].content FROM rows")
    assert [line[0] for line in found] == [row["id"] for row in rows]  # the order on disk
    assert [line[1] for line in found] == [row["split"] for row in rows]
    assert [line[2] for line in found] == [sum(len(m["content"]) for m in row["messages"]) for row in rows]
    assert {line[3:5] for line in found} == {(False, None)}
    assert [line[5] for line in found] == [row["messages"][0]["content"] for row in rows]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.sets(st.integers(0, 59)))
def test_filters_hit_the_right_row_whatever_the_shards(tmp_path_factory: pytest.TempPathFactory, count: int, chosen: set[int]) -> None:
    """A positional join that drifts by one row would show here: values, filters and limits agree with the row they were made for."""
    path = tmp_path_factory.mktemp("d")
    rows = [chat("s", n, split="train" if n % 3 else "validation") for n in range(count)]
    rows.sort(key=lambda row: row["split"])
    write_rows(path, rows)
    write_signals(path, rows)
    sidecar(path, "mark", [r["id"] for r in rows], {"n": [r["origin"]["row"] for r in rows]})
    wanted = sorted(n for n in chosen if n < count)
    found = ask(
        path,
        f"SELECT n, origin.row, preview, messages[1].content FROM rows WHERE n IN ({', '.join(map(str, wanted)) or 'NULL'}) ORDER BY n",
    )
    assert [(n, n, f"What is {n} + {n}?", f"What is {n} + {n}?") for n in wanted] == found


def test_ambiguous_and_clashing_columns_get_their_stage_in_front(tmp_path: Path) -> None:
    rows = [chat("s", n) for n in range(3)]
    path = write_rows(tmp_path / "d", rows)
    ids = [row["id"] for row in rows]
    sidecar(
        path,
        "judge",
        ids,
        {"score": [1.0, 2.0, 3.0], "reason": ["a", "b", "c"], "shared": [1, 2, 3], "source": ["x", "y", "z"], "own": [7, 8, 9]},
    )
    sidecar(path, "other", ids, {"Shared": [4, 5, 6], "key": ["k", "k", "k"], "we\"ird col'umn": [0, 0, 1]})
    connection = connect(path)
    columns = connection.sql("SELECT * FROM rows LIMIT 0").columns
    assert {"judge_score", "judge_reason", "judge_shared", "judge_source", "own", "other_Shared", "other_key", "we\"ird col'umn"} <= set(
        columns
    )
    assert len({c.casefold() for c in columns}) == len(columns)
    assert connection.sql("SELECT source, judge_source, judge_score, own FROM rows").fetchall()[1] == ("s", "y", 2.0, 8)
    connection.close()


@given(
    st.lists(st.sampled_from(["id", "hash", "source", "a_x", "A_X"]), max_size=4, unique_by=str.casefold),
    st.dictionaries(
        st.sampled_from(["a", "b", "a_x"]),
        st.lists(st.sampled_from(["x", "X", "reason", "key", "source", "a_x", "a_reason", "n"]), max_size=6, unique_by=str.casefold),
    ),
)
def test_exposed_names_are_unique_and_never_hide_a_row_column(rows: list[str], sidecars: dict[str, list[str]]) -> None:
    names = exposed_names(rows, sidecars)
    assert len(names) == sum(map(len, sidecars.values()))
    everything = [*rows, *names.values()]
    assert len({name.casefold() for name in everything}) == len(everything)
    assert not {name.casefold() for name in names.values()} & AMBIGUOUS


def test_a_sidecar_without_our_hash_is_joined_by_id(tmp_path: Path) -> None:
    rows = [chat("s", n) for n in range(6)]
    path = write_rows(tmp_path / "d", rows)
    ids = [row["id"] for row in rows]
    sidecar(path, "mine", ids, {"n": list(range(6))})
    sidecar(path, "theirs", [ids[4], ids[1], "f" * 16], {"stars": [4, 1, 9]}, tie=None)
    assert ask(path, "SELECT n, stars FROM rows ORDER BY n") == [(0, None), (1, 1), (2, None), (3, None), (4, 4), (5, None)]
    write_table(path / "cols" / "numbers.parquet", pa.table({"id": [1, 2], "other": [1, 2]}))  # ids of another type match nothing
    assert ask(path, "SELECT count(*), count(other) FROM rows") == [(6, 0)]
    sidecar(path, "theirs", [ids[4], ids[4]], {"stars": [4, 1]}, tie=None)  # would double the row
    with pytest.raises(StoreError, match="ids that occur twice"):
        connect(path)


def test_a_sidecar_out_of_step_is_refused_and_named(tmp_path: Path) -> None:
    rows = [chat("s", n) for n in range(4)]
    path = write_rows(tmp_path / "d", rows)
    ids = [row["id"] for row in rows]
    sidecar(path, "decontam", ids, {"contaminated": [False] * 4}, tie="0" * 64)
    with pytest.raises(StoreError, match="stage 'decontam' were made for other rows") as caught:
        connect(path)
    assert "decontam.scan" in str(caught.value.hint)
    sidecar(path, "decontam", ids[:3], {"contaminated": [False] * 3})
    with pytest.raises(StoreError, match="3 lines for 4 rows"):
        connect(path)
    (path / "cols" / "decontam.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(StoreError, match="not a whole Parquet file"):
        connect(path)


def test_row_files_that_disagree_with_the_manifest_are_refused(tmp_path: Path) -> None:
    path, _ = mix(tmp_path / "d")
    (path / "rows" / "train-00000.parquet").unlink()
    with pytest.raises(StoreError, match=r"rows/ holds 6 rows, manifest\.json says 10"):
        connect(path)


def test_a_dataset_with_nothing_but_rows_has_every_view(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "d", [chat("s", 1)])
    connection = connect(path)
    for view in ("dropped", "hits_decontam", "hits_duplicates", "flags", "flags_log", "rejects", "manifest_inputs"):
        assert connection.sql(f"SELECT * FROM {view}").fetchall() == []
    assert connection.sql("SELECT name, stage, rows FROM manifest").fetchall() == [("small", "load", 1)]
    assert connection.sql("SELECT step, rows FROM funnel").fetchall() == [("in", 2), ("rejected", 1), ("out", 1)]
    assert connection.sql("SELECT split FROM rows").fetchall() == [("train",)]  # part-00000 is training data
    assert connection.sql("SELECT benchmark, coverage_item FROM hits_decontam").columns == ["benchmark", "coverage_item"]
    connection.close()


@pytest.mark.parametrize("kind", ["sft", "pair", "candidates", "prompt"])
def test_an_empty_dataset_opens(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path / "d", [], kind=kind)
    write_signals(path, [])
    assert ask(path, "SELECT count(*) FROM rows") == [(0,)]
    assert ask(path, "SELECT count(*), max(split) FROM rows WHERE source = 'x'") == [(0, None)]


def test_flags_fold_and_an_unreadable_line_spoils_no_other(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "d", [chat("s", n) for n in range(3)])
    connection = connect(path)
    assert connection.sql("SELECT * FROM flags").fetchall() == []
    lines = [
        {"id": "a", "flag": "bad", "note": "first", "who": "ann", "at": "1"},
        {"id": "a", "flag": "good"},
        {"id": "a", "flag": "bad", "note": "second\n$x$ 'quoted'", "who": "bob", "at": "2"},
        {"id": "a", "flag": "good", "undo": True},
        {"id": "b", "flag": "bad", "note": None},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "flags.jsonl").write_text(text + '[1]\n"x"\n{"id": "b"}\n\n{"id": "b", "fl', encoding="utf-8")
    # the file came after the connection, and is seen
    assert connection.sql('SELECT id, flag, note, who, "at" FROM flags').fetchall() == [
        ("a", "bad", "second\n$x$ 'quoted'", "bob", "2"),
        ("b", "bad", None, None, None),
    ]
    log = connection.sql("SELECT line, problem IS NULL FROM flags_log ORDER BY line").fetchall()
    assert [line for line, fine in log if fine] == [1, 2, 3, 4, 5]
    assert [line for line, fine in log if not fine] == [6, 7, 8, 10]
    connection.close()


def test_flags_agree_with_the_python_reader(tmp_path: Path) -> None:
    from columnar.flags import add_flags, read_flags

    path, rows = mix(tmp_path / "d")
    add_flags(path, [{"id": rows[3]["id"], "flag": "täg", "note": "n"}, {"id": rows[0]["id"], "flag": "bad", "undo": True}])
    assert ask(path, "SELECT id, flag, note FROM flags") == [(f["id"], f["flag"], f.get("note")) for f in read_flags(path)]


def test_dropped_rows_have_the_usual_columns_whatever_the_files_hold(tmp_path: Path) -> None:
    path, _ = mix(tmp_path / "d")
    found = ask(path, "SELECT reason, messages IS NULL, chosen IS NULL, verifier, n_tokens > 0 FROM dropped ORDER BY reason")
    assert found == [
        ("contaminated", False, True, None, True),
        ("near_duplicate", False, True, None, True),
        ("sampled_out", True, True, None, True),
    ]


def test_the_funnel_adds_up(tmp_path: Path) -> None:
    path, rows = mix(tmp_path / "d")
    steps: dict[str, dict[str, int]] = {}
    for source, step, count in ask(path, "SELECT * FROM funnel"):
        steps.setdefault(source, {})[step] = count
    assert set(steps) == {"north", "süd 'quoted\""}
    for found in steps.values():
        assert found["in"] == sum(n for step, n in found.items() if step not in ("in", "copies"))
    assert sum(found["out"] for found in steps.values()) == len(rows)


def test_two_datasets_go_by_name_by_letter_and_the_first_by_nothing(tmp_path: Path) -> None:
    first, _ = mix(tmp_path / "one", name='my "best" mix', count=10)
    second, _ = mix(tmp_path / "two", name="ünïcode; DROP", count=7)
    connection = connect([first, second])
    count = lambda view: connection.sql(f"SELECT count(*) FROM {view}").fetchall()[0][0]  # noqa: E731
    assert [count(v) for v in ("rows", "a.rows", '"my ""best"" mix".rows')] == [10, 10, 10]
    assert [count(v) for v in ("b.rows", '"ünïcode; DROP".rows')] == [7, 7]
    assert connection.sql("SELECT count(*) FROM a.rows JOIN b.rows USING (id)").fetchall() == [(7,)]
    assert connection.cursor().sql("SELECT name FROM manifest").fetchall() == [('my "best" mix',)]  # cursors see the same
    connection.close()


def test_names_of_datasets_are_unique_and_take_no_letter_from_another(tmp_path: Path) -> None:
    def named(name: str, folder: str) -> object:
        return open_dataset(write_rows(tmp_path / folder, [chat("s", 1)], name=name))

    same = [named("mix", "x"), named("MIX", "y")]
    assert schema_names(same) == ["x", "y"]  # type: ignore[arg-type]
    assert schema_names(same, ["n", "N"]) == ["n", "N_2"]  # type: ignore[arg-type]
    assert schema_names([named("b", "b1"), named("main", "m")]) == ["b_2", "main_2"]  # type: ignore[list-item]
    assert schema_names([named("a", "a1"), named("b", "b2")]) == ["a", "b"]  # type: ignore[list-item]
    assert ask([tmp_path / "b1", tmp_path / "m"], "SELECT (SELECT name FROM a.manifest), (SELECT name FROM b.manifest)") == [("b", "main")]
    assert ask([tmp_path / "a1", tmp_path / "b2"], "SELECT (SELECT name FROM a.manifest), (SELECT name FROM b.manifest)") == [("a", "b")]


@pytest.mark.parametrize("folder", ["it's [1] *?", 'say "hi"', "ünï çödé", "semi;colon -- comment", "a{b,c}"])
def test_hostile_directory_names(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = mix(tmp_path / folder)
    assert ask(path, "SELECT count(*), count(DISTINCT split) FROM rows") == [(10, 2)]
    assert ask(path, "SELECT count(*) FROM dropped") == [(3,)]
    assert ask(path, "SELECT name FROM manifest") == [("small",)]
    monkeypatch.chdir(tmp_path)
    assert ask(folder, "SELECT count(*) FROM rows") == [(10,)]  # relative paths too


def test_parts_behind_links(tmp_path: Path) -> None:
    path, rows = mix(tmp_path / "d")
    (path / "rows").rename(tmp_path / "elsewhere")
    (path / "rows").symlink_to(tmp_path / "elsewhere")
    (path / "cols" / "signals.parquet").rename(tmp_path / "s.parquet")
    (path / "cols" / "signals.parquet").symlink_to(tmp_path / "s.parquet")
    (tmp_path / "link").symlink_to(path)
    assert ask(tmp_path / "link", "SELECT count(*), count(n_chars) FROM rows") == [(len(rows), len(rows))]


def test_only_the_files_of_the_dataset_can_be_read(tmp_path: Path) -> None:
    path, _ = mix(tmp_path / "d")
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), other)
    connection = connect(path)
    with pytest.raises(duckdb.PermissionException):
        connection.sql(f"SELECT * FROM '{other}'").fetchall()
    with pytest.raises(duckdb.Error, match="configuration has been locked"):
        connection.execute("SET enable_external_access = true")
    connection.close()


def test_connecting_writes_nothing(tmp_path: Path) -> None:
    path, _ = mix(tmp_path / "d")
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    ask(path, "SELECT count(*) FROM rows JOIN dropped USING (source)")
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_the_stamp_changes_with_any_file(tmp_path: Path) -> None:
    path, rows = mix(tmp_path / "d")
    first = stamp([path])
    assert stamp([path]) == first
    assert {file for file, _, _ in first} == {str(file) for file in data_files(open_dataset(path))}
    sidecar(path, "signals", [row["id"] for row in rows], {"n_chars": [1] * len(rows)})
    second = stamp([path])
    (path / "flags.jsonl").unlink()
    assert len({first, second, stamp([path])}) == 3


def test_a_directory_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such directory"):
        connect(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="not a dataset directory"):
        connect(tmp_path)


def test_hits_of_any_stage_are_a_view(tmp_path: Path) -> None:
    path, rows = mix(tmp_path / "d")
    write_table(path / "hits" / "judge calls.parquet", pa.table({"id": [rows[0]["id"]], "reply": ["ok"]}))
    assert ask(path, 'SELECT reply FROM "hits_judge calls"') == [("ok",)]
    assert re.match(r"0\.91", str(ask(path, "SELECT jaccard FROM hits_duplicates")[0][0]))
