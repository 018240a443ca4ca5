"""SQL that only reads: attacks are refused, limits hold, answers come out whole in every format, mistakes get help."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small import chat, mix, sidecar, write_rows, write_signals

from columnar import ask, cli
from columnar.ask import guard, plain, run, stream
from columnar.errors import QueryError
from columnar.query import SAVED, main, parser, saved_queries
from columnar.view import connect

ATTACKS = [
    "COPY rows TO '{out}'",
    "COPY (SELECT 1) TO '{out}' (FORMAT parquet)",
    "WITH x AS (COPY (SELECT 1) TO '{out}') SELECT * FROM x",
    "WITH x AS (SELECT 1), y AS (COPY x TO '{temp}/x.csv') FROM y",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) FROM x",
    "WITH x AS (DELETE FROM t RETURNING *) FROM x",
    "WITH x AS (UPDATE t SET n = 1 RETURNING *) FROM x",
    "SELECT * FROM query('COPY rows TO ''{out}''')",
    "INSERT INTO t VALUES (1)",
    "CREATE TABLE u AS SELECT 1",
    "CREATE OR REPLACE VIEW rows AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "DROP VIEW rows",
    "ALTER VIEW rows RENAME TO r",
    "ATTACH '{out}' AS x",
    "DETACH memory",
    "EXPORT DATABASE '{out}'",
    "IMPORT DATABASE '{out}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET memory_limit = '1TB'",
    "RESET memory_limit",
    "SET VARIABLE x = 1",
    "USE memory",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN ANALYZE COPY rows TO '{out}'",
    "SELECT 1; COPY rows TO '{out}'",
    "SELECT 1; SELECT 2",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_parquet('{secret}')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM read_parquet('{data}/rows/../../secret.parquet')",
    "SELECT * FROM parquet_metadata('{secret}')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM glob('{data}/*')",
    "SELECT * FROM read_duckdb('{out}')",
    "SELECT * FROM read_csv('https://example.com/x.csv')",
    "SELECT * FROM read_parquet('hf://datasets/a/b/c.parquet')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
    "SELECT * FROM a_python_table",
    "SELECT nextval('s')",
    "",
    ";",
    "-- nothing",
    "\x00",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mix(tmp_path_factory.mktemp("query") / "d")[0]


@pytest.fixture(scope="module")
def connection(data: Path) -> Any:
    made = connect(data)
    yield made
    made.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_does_not_only_read_is_refused(connection: duckdb.DuckDBPyConnection, data: Path, attack: str, tmp_path: Path) -> None:
    a_python_table = pa.table({"x": [1]})
    secret = data.parent / "secret.parquet"
    pq.write_table(a_python_table, secret)
    out = tmp_path / "out"
    spill = connection.sql("SELECT current_setting('temp_directory')").fetchall()[0][0]  # the one folder DuckDB itself may write to
    sql = attack.format(out=out, secret=secret, data=data, temp=spill)
    with pytest.raises(QueryError):
        run(connection, sql)
    assert not out.exists()
    assert not Path(spill).exists()
    assert run(connection, "SELECT count(*) AS n FROM rows").rows == [{"n": 10}]  # and the connection still serves


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS n",
        "FROM rows",
        "select count(*) from rows; -- done;",
        "WITH x AS (SELECT 1) SELECT * FROM x UNION ALL SELECT 2",
        "WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x WHERE n < 5) FROM x",
        "VALUES (1), (2)",
        "DESCRIBE rows",
        "SUMMARIZE rows",
        "SHOW TABLES",
        "SELECT source FROM rows WHERE id IN (SELECT id FROM flags)",
        "PIVOT rows ON split IN ('train', 'validation') USING count(*) GROUP BY source",
        "SELECT 'DROP VIEW rows; COPY x TO y' AS text, 'INSERT_QUERY_NODE' AS type",
        "SELECT list_transform(messages, lambda m: m.role) FROM rows",
    ],
)
def test_what_only_reads_runs(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    assert run(connection, sql).table.num_rows > 0
    assert guard(sql) == guard(sql, connection)


def test_limits_on_rows_and_time_are_told(connection: duckdb.DuckDBPyConnection) -> None:
    whole = run(connection, "SELECT id FROM rows ORDER BY id")
    cut = run(connection, "SELECT id FROM rows ORDER BY id", max_rows=4)
    assert (cut.truncated, whole.truncated) == (True, False)
    assert cut.rows == whole.rows[:4]
    assert run(connection, "SELECT id FROM rows", max_rows=10).truncated is False
    assert run(connection, "SELECT id FROM rows", max_rows=0).table.num_rows == 0
    endless = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = 7"
    for seconds in (0.3, 0.000001):  # also when the time is up before DuckDB has begun
        with pytest.raises(QueryError, match=f"stopped after {seconds:g} s"):
            run(connection, endless, timeout=seconds)
    assert run(connection, "SELECT * FROM range(1000000000000)", max_rows=5).truncated  # not computed to the end


def test_a_stream_left_early_or_failing_midway_frees_the_connection(connection: duckdb.DuckDBPyConnection) -> None:
    _, batches = stream(connection, "SELECT * FROM range(10000000000)")
    assert next(batches).num_rows > 0
    batches.close()
    with pytest.raises(QueryError, match="Could not convert"):
        run(connection, "SELECT CASE WHEN range = 300000 THEN 'x' ELSE '1' END::INT FROM range(400000)")
    assert run(connection, "SELECT 1 AS n").rows == [{"n": 1}]


def test_parameters_are_values_never_sql(connection: duckdb.DuckDBPyConnection) -> None:
    hostile = "x' OR 1 = 1; DROP VIEW rows --"
    assert run(connection, "SELECT count(*) AS n FROM rows WHERE source = $s", {"s": hostile}).rows == [{"n": 0}]
    assert run(connection, "SELECT ? AS echo", [hostile]).rows == [{"echo": hostile}]


def test_values_come_out_as_json_can_hold_them(connection: duckdb.DuckDBPyConnection) -> None:
    sql = """SELECT sum(n_chars)::HUGEINT AS big, 1.50::DECIMAL(10, 2) AS money, 'nan'::DOUBLE AS nan, DATE '2026-11-20' AS day,
             [1.5::DECIMAL(4, 1)] AS list, {'a': NULL, 'b': 2::HUGEINT} AS struct, 'b'::BLOB AS blob, count(*) AS n FROM rows"""
    row = run(connection, sql).rows[0]
    assert json.loads(json.dumps(row)) == row
    assert isinstance(row["big"], int)
    assert (row["money"], row["nan"], row["day"], row["list"], row["struct"]) == (1.5, None, "2026-11-20", [1.5], {"a": None, "b": 2})
    assert plain(float("inf")) is None


@pytest.mark.parametrize(
    ("sql", "message", "hint"),
    [
        ("SELECT sorce FROM rows", "no column sorce; did you mean source", "DESCRIBE rows"),
        ("SELECT count(*) FROM rowz", "no view named rowz; did you mean rows", "views: dropped, flags"),
        ("SELECT jaccard FROM rows", "no column jaccard", "made by the stage dedup"),
        ("SELECT chosen FROM rows", "no column chosen", "rows of kind pair"),
        ("SELECT * FROM a.rows", "no view named", "two datasets"),
        ("SELECT at FROM flags", "syntax error", 'write "at"'),
        ("SELECT end FROM hits_decontam", "syntax error", 'write "end"'),
        ("SELECT r.sorce FROM rows AS r", "no column sorce; did you mean source", None),
        ("SELECT list_filter([1], x -> x > 0)", "lambda arrow", "lambda x"),
        ("SELEC 1", "syntax error", None),
        ("PIVOT rows ON split USING count(*)", "MULTI", "IN (value"),
        ("DROP VIEW rows", "type DROP", "only read"),
        ("SELECT * FROM read_text('/etc/passwd')", "/etc/passwd: queries see", None),
    ],
)
def test_mistakes_get_help(connection: duckdb.DuckDBPyConnection, sql: str, message: str, hint: str | None) -> None:
    with pytest.raises(QueryError) as caught:
        run(connection, sql)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert hint is None or hint in str(caught.value.hint)


def test_nesting_without_end_is_an_error_not_a_crash(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(QueryError):
        run(connection, "SELECT " + "(" * 5000 + "1" + ")" * 5000)
    with pytest.raises(QueryError):
        run(connection, "SELECT " + " + ".join(["1"] * 20000))


@pytest.fixture(scope="module")
def other_kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Datasets of other kinds and states: pairs, prompts, nothing measured, no rows at all."""
    base = tmp_path_factory.mktemp("kinds")
    turn = [{"role": "assistant", "content": "yes"}]
    pairs = [chat("p", n, kind="pair", messages=None) for n in range(3)]
    for row in pairs:
        row |= {"prompt": [{"role": "user", "content": "?"}], "chosen": turn, "rejected": turn}
    write_rows(base / "pairs", pairs, kind="pair")
    write_signals(base / "pairs", pairs)
    prompts = [chat("p", n, kind="prompt", messages=None, prompt=[{"role": "user", "content": "?"}]) for n in range(3)]
    write_signals(write_rows(base / "prompts", prompts, kind="prompt"), prompts)
    write_rows(base / "bare", [chat("p", n) for n in range(3)])
    write_signals(write_rows(base / "empty", []), [])
    return [base / name for name in ("pairs", "prompts", "bare", "empty")]


@pytest.mark.parametrize("name", sorted(path.stem for path in SAVED.glob("*.sql")))
def test_every_saved_query_runs_or_says_what_is_missing(name: str, data: Path, other_kinds: list[Path]) -> None:
    query = next(q for q in saved_queries() if q.name == name)
    assert query.sql.startswith("-- ")
    assert len(query.headline) <= 140
    for path in [data, *other_kinds]:
        both = connect([path, data])
        try:
            result = run(both, query.sql)
            assert result.columns
        except QueryError as error:
            assert path.name == "bare", error  # its signals were never measured
            assert "made by the stage signals" in str(error.hint)
        finally:
            both.close()


def test_saved_queries_find_what_was_planted(data: Path) -> None:
    connection = connect(data)
    saved = {query.name: query.sql for query in saved_queries()}
    rows = {name: run(connection, sql).rows for name, sql in saved.items() if name != "compare_sources"}
    assert [r["rows"] for r in rows["sources"]] == [5, 5]
    assert sum(r["in"] - r["rejected"] - r["dropped"] + r["copies"] - r["out"] for r in rows["funnel"]) == 0
    assert {(r["reason"], r["rows"]) for r in rows["drop_reasons"]} == {("near_duplicate", 1), ("contaminated", 1), ("sampled_out", 1)}
    assert [(r["flag"], r["fate"]) for r in rows["flags"]] == [("bad", "in")]
    assert rows["rejects"][0]["first"] == "f.jsonl:7"
    assert rows["split_leaks"] == rows["same_prompt"] == []
    assert len(rows["sample"]) == 10
    assert rows["duplicate_clusters"][0]["duplicates"] == 1
    connection.close()


def command(*words: object) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "columnar.query", *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.run(main, parser(), [str(word) for word in words])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_every_format_tells_the_same(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT source, n_tokens, messages, license IS NULL AS none FROM rows ORDER BY id"
    code, out, _ = call(capsys, data, sql, "--format", "json")
    rows = json.loads(out)
    assert code == 0
    assert len(rows) == 10
    assert json.loads(call(capsys, data, sql, "--json")[1]) == rows
    lines = list(csv.DictReader(io.StringIO(call(capsys, data, sql, "--format", "csv")[1])))
    assert [(line["source"], int(line["n_tokens"]), json.loads(line["messages"])) for line in lines] == [
        (row["source"], row["n_tokens"], row["messages"]) for row in rows
    ]
    assert call(capsys, data, sql, "--out", tmp_path / "x.parquet")[0] == 0
    assert [plain(row) for row in pq.read_table(tmp_path / "x.parquet").to_pylist()] == rows
    assert call(capsys, data, sql, "--out", tmp_path / "x.json")[0] == 0
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == rows
    _, table, told = call(capsys, data, sql)
    assert len(table.splitlines()) == 12
    assert "10 rows" in told
    assert json.loads(call(capsys, data, "SELECT 1 WHERE false", "--json")[1]) == []


def test_a_failed_query_leaves_no_file(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.parquet"
    failing = "SELECT CASE WHEN range = 300000 THEN 'x' ELSE '1' END::INT AS n FROM range(400000)"
    assert call(capsys, data, failing, "--out", out)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_table_cannot_steer_the_terminal(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, data, "SELECT chr(27) || '[2J' || chr(10) || chr(8238) || repeat('x', 300) AS text")
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[2J⏎" in out
    assert max(map(len, out.splitlines())) < 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{data}", "-f", "nosuch"], "no such file or saved query"),
        (["{data}", "-f", "source"], "did you mean sources"),
        (["{data}", "SELECT 1", "--format", "parquet"], "needs --out"),
        (["{data}", "SELECT 1", "--out", "x.txt"], "ends in .csv"),
        (["{data}", "SELECT 1", "--max-rows", "-1"], "expected a number of rows"),
        (["{data}", "SELECT 1", "--timeout", "0"], "more than 0"),
        (["SELECT 1 FROM rows"], "no dataset directory"),
        ([], "no dataset directory"),
        (["{data}/nowhere", "SELECT 1"], "no such directory"),
        (["{data}", "{data}2"], "no such directory"),
        (["{data}", "SELECT " + "no_such_column, " * 500 + "1 FROM rows"], "no column no_such_column"),
        (["{data}", "-f", "x" * 5000], "no such file"),
    ],
)
def test_wrong_command_lines(data: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *(word.format(data=data) for word in words))
    assert code in (1, 2)
    assert message in err
    assert out == ""


def test_without_a_statement_the_command_shows_the_views(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, data)
    assert code == 0
    assert any(line.startswith("rows ") and "n_tokens" in line for line in out.splitlines())
    code, out, _ = call(capsys, "--list", "--json")
    assert {line["query"] for line in json.loads(out)} == {path.stem for path in SAVED.glob("*.sql")}


def at_work(pid: int) -> list[int]:
    """Clock ticks that the threads of a process besides its first, which reads the modules, have worked."""
    ticks = []
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            ticks += [int(file.read_text().rpartition(")")[2].split()[11])] if file.parent.name != str(pid) else []
    return ticks


def test_the_real_command_two_datasets_and_ctrl_c(data: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "two", [chat("north", 1)], name="two")
    code, out, err = command(data, path, "SELECT count(*) AS n FROM rows JOIN two.rows USING (id)", "--json")
    assert (code, json.loads(out)) == (0, [{"n": 1}]), err
    endless = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = 7"
    running = subprocess.Popen([sys.executable, "-m", "columnar.query", str(data), endless], stderr=subprocess.PIPE, text=True)
    while running.poll() is None and not any(ticks > 20 for ticks in at_work(running.pid)):
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    assert "interrupted" in running.communicate(timeout=60)[1]
    assert running.returncode == 130


def test_memory_stays_within_the_limit_and_spills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "d", [chat("s", 1)])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spill"))
    (tmp_path / "spill").mkdir()
    connection = connect(path, memory="150MB")
    result = run(connection, "SELECT range AS n, repeat('x', 20) AS text FROM range(4000000) ORDER BY hash(range)", max_rows=3)
    assert result.truncated
    assert ask.BATCH > 0
    connection.close()
    assert list((tmp_path / "spill").iterdir()) == []


def test_sidecars_are_seen_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [chat("s", n) for n in range(3)]
    path = write_rows(tmp_path / "d", rows)
    sidecar(path, "judge", [row["id"] for row in rows], {"score": [0.1, 0.2, 0.3]})
    _, out, _ = call(capsys, path, "SELECT judge_score FROM rows ORDER BY 1", "--format", "csv")
    assert out == "judge_score\n0.1\n0.2\n0.3\n"
    sidecar(path, "judge", [row["id"] for row in rows], {"score": [0.1, 0.2, 0.3]}, tie="0" * 64)
    code, _, err = call(capsys, path, "SELECT 1")
    assert code == 1
    assert "judge" in err
    assert "delete" in err


def test_the_docs_are_true(data: Path, root: Path) -> None:
    text = (root / "docs" / "sql.md").read_text(encoding="utf-8")
    made = connect(data)
    recipes = [sql for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) for sql in block.split(";\n") if sql.strip()]
    assert len(recipes) >= 5
    for sql in recipes:
        run(made, sql)
    for (view,) in made.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main'").fetchall():
        assert f"`{view}`" in text
    made.close()
    for option in re.findall(r"--[a-z-]+", parser().format_help()):
        assert option in text or option in ("--help", "--traceback", "--file", "--json"), option
