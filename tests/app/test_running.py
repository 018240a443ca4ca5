"""SQL of the browser: what attacks it is refused, what runs away is stopped, what is cut says so."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.db import Data, open_data
from app.running import Running
from app.views.sql import as_csv, as_parquet
from tests.columnar.small import mix

RUNAWAY = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range % 7 = 3"


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return open_data(mix(tmp_path / "d")[0])


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "secret.csv"
    file.write_text("word\nopensesame\n")
    yield file


def ran(data: Data, sql: str, max_rows: int = 1000, timeout: float = 20) -> Running:
    running = Running(data, sql, max_rows, timeout)
    assert running.wait(60)
    return running


ATTACKS = [
    "COPY (SELECT 1) TO '{out}'",
    "COPY rows TO '{out}' (FORMAT csv)",
    "WITH x AS (COPY (SELECT 1) TO '{out}') SELECT 1",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW rows AS SELECT 1",
    "DROP VIEW rows",
    "DROP SCHEMA main CASCADE",
    "ATTACH '{out}' AS x",
    "ATTACH 'http://127.0.0.1:9/x.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "EXPORT DATABASE '{out}'",
    "SELECT 1; DROP VIEW rows",
    "SELECT 1; SELECT 2",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{out}''')",
    "SELECT getenv('HOME')",
    "FROM duckdb_secrets() WHERE error(name)",
    "EXECUTE x",
    "PREPARE x AS SELECT 1",
    "BEGIN TRANSACTION",
    "VACUUM",
    "CHECKPOINT",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "",
    ";;",
    "not SQL at all",
    "SELECT " + "(" * 5000 + "1" + ")" * 5000,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_read_nothing_write_nothing_and_leave_the_data_readable(data: Data, secret: Path, tmp_path: Path, attack: str) -> None:
    out = tmp_path / "out"
    before = sorted(tmp_path.rglob("*"))
    running = ran(data, attack.format(out=out, secret=secret) if "{" in attack else attack)
    said = "" if running.table is None else str(running.table.to_pylist())
    assert "opensesame" not in said and "root:" not in said
    assert running.error is not None or running.table.num_rows == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert ran(data, "SELECT count(*) AS n FROM rows").table.to_pylist() == [{"n": 10}]


def test_a_runaway_query_ends_within_its_limit(data: Data) -> None:
    running = Running(data, RUNAWAY, 10, 0.5)
    assert running.wait(60)
    assert "stopped after 0.5 s" in str(running.error)


def test_a_query_is_stopped_by_hand_and_others_go_on(data: Data) -> None:
    running = Running(data, RUNAWAY, 10, 60)
    assert not running.wait(0.3)
    assert ran(data, "SELECT count(*) AS n FROM rows").table.to_pylist() == [{"n": 10}]
    running.stop()
    assert running.wait(60)
    assert str(running.error) == "stopped"


def test_a_query_stopped_before_it_has_begun_ends_too(data: Data) -> None:
    for _ in range(20):
        running = Running(data, RUNAWAY, 10, 600)
        running.stop()
        assert running.wait(60)
        assert str(running.error) == "stopped"


def test_an_answer_that_is_cut_says_so_and_a_whole_one_does_not(data: Data) -> None:
    cut = ran(data, "SELECT * FROM range(100)", max_rows=10)
    assert cut.table.num_rows == 10 and "after 10 rows" in cut.truncated
    whole = ran(data, "SELECT * FROM range(10)", max_rows=10)
    assert whole.table.num_rows == 10 and whole.truncated == ""
    wide = ran(data, "SELECT repeat('x', 10000) FROM range(50000)", max_rows=50_000)
    assert "MB" in wide.truncated and wide.table.num_rows < 10_000


def test_a_mistake_is_explained(data: Data) -> None:
    error = ran(data, "SELECT n_token FROM rows").error
    assert error is not None and "n_tokens" in f"{error} {error.hint}"


def test_downloads_hold_the_answer() -> None:
    table = pa.table({"a": [1, 2], "b": [["x, y"], ['"é"\n']]})
    assert as_csv(table).decode() == 'a,b\n1,"[""x, y""]"\n2,"[""\\""é\\""\\n""]"\n'
    assert pq.read_table(io.BytesIO(as_parquet(table))).equals(table)
