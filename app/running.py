"""One SQL statement running in the background, so that a page can show that it runs and stop it. No Streamlit.

    running = Running(data, "SELECT ...", max_rows=1000, timeout=30); running.wait(0.3); running.stop()

The same two locks as columnar.ask: the connection sees only the datasets' files, and the statement must be one that only reads.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from app.db import Data
from columnar.ask import Stopper, guard
from columnar.errors import QueryError
from columnar.mistakes import explain_mistake

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_BYTES = 64 << 20  # of an answer; more is cut like more rows
BATCH = 2_048  # rows read at a time: the fewest that DuckDB gives


_under_way: weakref.WeakSet[Running] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """DuckDB must not be at work when Python ends."""
    for running in list(_under_way):
        running.stop()
        running.wait(5)


class Running:
    """A statement and, once it is done, its answer (`table`) or what went wrong (`error`)."""

    def __init__(self, data: Data, sql: str, max_rows: int, timeout: float) -> None:
        self.sql, self.max_rows, self.timeout = sql, max_rows, timeout
        self.stamp = data.stamp
        self.table: pa.Table | None = None
        self.truncated = ""  # why the answer was cut, if it was
        self.error: QueryError | None = None
        self.began = time.monotonic()
        self.seconds = 0.0
        self._why = f"stopped after {timeout:g} s"
        self._done = threading.Event()
        self._cursor: DuckDBPyConnection = data.connection.cursor()
        self._stopper = Stopper(self._cursor, timeout)
        _under_way.add(self)
        threading.Thread(target=self._run, args=(data,), daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether there is an answer or an error."""
        return self._done.is_set()

    @property
    def elapsed(self) -> float:
        """Seconds since it began; when it is done, how long it took."""
        return self.seconds if self.done else time.monotonic() - self.began

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so long; whether it is done."""
        return self._done.wait(seconds)

    def stop(self) -> None:
        """End it."""
        self._why = "stopped"
        self._stopper.stop()

    def _run(self, data: Data) -> None:
        try:
            self.table = self._read(guard(self.sql, data.connection))
        except QueryError as error:
            self.error = error
        except (duckdb.Error, pa.ArrowException, OSError, RuntimeError, MemoryError) as error:
            ended = "interrupt" in str(error).lower()
            self.error = QueryError(self._why, "ask for less, or allow it more time") if ended else explain_mistake(error, data.connection)
        finally:
            self.seconds = time.monotonic() - self.began
            self._stopper.over()
            self._cursor.close()
            self._done.set()

    def _read(self, statement: str) -> pa.Table:
        reader = self._cursor.sql(statement).to_arrow_reader(BATCH)
        kept: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in reader:
            kept.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows > self.max_rows or size > MAX_BYTES:
                break
        table = pa.Table.from_batches(kept, reader.schema)
        if rows > self.max_rows:
            self.truncated = f"cut after {self.max_rows:,} rows: there are more"
            table = table.slice(0, self.max_rows)
        elif size > MAX_BYTES:
            self.truncated = f"cut after {rows:,} rows, {size >> 20} MB: there may be more"
        return table
