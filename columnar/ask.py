"""Guarded SQL: one statement that only reads, with a limit on rows and time; what the query command and the app share.

    run(connect(["out/tiny"]), "SELECT source, count(*) FROM rows GROUP BY 1", max_rows=1000, timeout=10).rows

The connection (columnar.view) already sees nothing but its datasets' files; `guard` is the second lock.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from columnar.errors import QueryError
from columnar.mistakes import explain_mistake

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

BATCH = 10_000
ONLY_READ = "queries only read: SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW"
READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}


@dataclass(frozen=True)
class Result:
    """The answer to a query."""

    table: pa.Table
    truncated: bool  # there were more than max_rows rows
    seconds: float

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.table.schema.names)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as plain Python values that JSON can hold."""
        return [plain(row) for row in self.table.to_pylist()]


def guard(sql: str, connection: duckdb.DuckDBPyConnection | None = None) -> str:
    """The statement, when it is exactly one that only reads (SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW).

    Since DuckDB 2.0 a WITH clause may hold INSERT, UPDATE, DELETE or COPY ... TO and still be of type SELECT: the parsed tree is searched.

    Raises:
        QueryError: no statement, several, one that is not SQL, or one that does anything but read.
    """
    import duckdb

    own = None if connection else duckdb.connect()
    parser = connection.cursor() if connection else own
    assert parser is not None
    try:
        statements = parser.extract_statements(sql)
        if len(statements) != 1:
            raise QueryError(f"found {len(statements) or 'no'} statements, expected exactly one SELECT")
        kind = str(statements[0].type).rpartition(".")[2]
        if kind != "SELECT":
            hint = "write PIVOT ... ON column IN (value, ...)" if kind == "MULTI" else ONLY_READ
            raise QueryError(f"found a statement of type {kind}, expected one that reads", hint)
        text = statements[0].query.strip().rstrip("; \n\t")
        tree = json.loads(parser.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0])
    except duckdb.Error as error:
        raise explain_mistake(error, parser) from error
    except RecursionError as error:
        raise QueryError("the statement is nested too deeply") from error
    finally:
        parser.close()
    if tree["error"]:
        raise QueryError(tree["error_message"])
    writes = {node for node in _node_types(tree) if node.endswith("_NODE")} - READING
    if writes:
        found = ", ".join(sorted(node.split("_")[0] for node in writes))
        raise QueryError(f"found {found} inside WITH, expected only reading", ONLY_READ)
    return str(text)


def _node_types(tree: Any) -> Iterator[str]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("type"), str):
                yield node["type"]
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


class Stopper:
    """Stops what a cursor does, when told to or when its time is up.

    DuckDB forgets an interrupt that comes before the work has begun, so it is repeated until the work is `over`.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, seconds: float | None = None) -> None:
        self._cursor, self._seconds = cursor, seconds
        self._stopped, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        self._stopped.wait(self._seconds)
        while not self._over.wait(0.05):
            self._cursor.interrupt()

    def stop(self) -> None:
        """Stop it now; returns at once."""
        self._stopped.set()

    def over(self) -> None:
        """The work has ended: nothing is interrupted from now on."""
        self._over.set()
        self._stopped.set()
        self._thread.join()


def stream(
    connection: duckdb.DuckDBPyConnection, sql: str, params: Any = None, timeout: float | None = None
) -> tuple[pa.Schema, Generator[pa.RecordBatch]]:
    """The answer in batches, made while they are read: memory stays bounded whatever the answer's size.

    Args:
        params: a list for `?`, a dict for `$name`.
        timeout: seconds after which the query is stopped.

    Raises:
        QueryError: refused, failed, or out of time (also while reading the batches).
    """
    import duckdb
    import pyarrow as pa

    statement = guard(sql, connection)
    cursor = connection.cursor()
    worker = ThreadPoolExecutor(1)  # DuckDB's calls do not end on Ctrl-C; waiting for a thread does
    stopper = Stopper(cursor, timeout)
    failures = (duckdb.Error, pa.ArrowException, OSError, RuntimeError)

    def failed(error: Exception) -> QueryError:
        if "Interrupted" in str(error) and timeout:
            return QueryError(f"stopped after {timeout:g} s", "ask for less, or raise --timeout")
        return explain_mistake(error, connection)

    def patiently(work: Callable[..., Any], *args: Any) -> Any:
        try:
            return worker.submit(work, *args).result()
        except KeyboardInterrupt:
            stopper.stop()
            raise

    def end() -> None:
        worker.shutdown()
        stopper.over()
        cursor.close()

    try:
        reader = patiently(lambda: cursor.sql(statement, params=params).to_arrow_reader(BATCH))
    except failures as error:
        end()
        raise failed(error) from error
    except KeyboardInterrupt:
        end()
        raise

    def batches() -> Generator[pa.RecordBatch]:
        try:
            while (batch := patiently(next, reader, None)) is not None:
                yield batch
        except failures as error:
            raise failed(error) from error
        finally:
            reader.close()
            end()

    return reader.schema, batches()


def run(
    connection: duckdb.DuckDBPyConnection, sql: str, params: Any = None, max_rows: int | None = None, timeout: float | None = None
) -> Result:
    """The answer as one table of at most `max_rows` rows; arguments and errors as in `stream`."""
    import pyarrow as pa

    started = time.monotonic()
    schema, batches = stream(connection, sql, params, timeout)
    kept, count = [], 0
    with contextlib.closing(batches):
        for batch in batches:
            kept.append(batch)
            count += batch.num_rows
            if max_rows is not None and count > max_rows:
                break
    table = pa.Table.from_batches(kept, schema)
    truncated = max_rows is not None and count > max_rows
    return Result(table.slice(0, max_rows) if truncated else table, truncated, time.monotonic() - started)


def plain(value: Any) -> Any:
    """A value from Arrow as JSON can hold it: DuckDB's big integers as int, decimals as float, what is not a number as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
