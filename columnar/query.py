"""Ask a dataset anything in SQL. Only reads: one SELECT, over the files of the datasets named and nothing else.

    python -m columnar.query out/tiny "SELECT source, count(*) FROM rows GROUP BY 1"
    python -m columnar.query out/tiny -f sources                    a saved query: queries/sources.sql (--list names them all)
    python -m columnar.query out/tiny out/other "SELECT count(*) FROM a.rows JOIN b.rows USING (id)"
    python -m columnar.query out/tiny                               the views and columns there are

The views are described in docs/sql.md. From Python: columnar.ask.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from columnar import cli
from columnar.ask import Result, guard, plain, run, stream
from columnar.errors import ConfigError, QueryError
from columnar.filesystem import is_remote, place

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["guard", "run", "saved_queries", "stream"]
SAVED = Path(__file__).resolve().parent.parent / "queries"
FORMATS = ("table", "csv", "json", "parquet")
TABLE_ROWS = 1_000


@dataclass(frozen=True)
class Saved:
    """A query of the folder queries/: its name, the first line of its comment, and its text."""

    name: str
    headline: str
    sql: str


def saved_queries(folder: Path = SAVED) -> list[Saved]:
    """The saved queries by name. The comment on top of each says what it answers."""
    found = []
    for file in sorted(folder.glob("*.sql")):
        text = file.read_text(encoding="utf-8")
        found.append(Saved(file.stem, text.partition("\n")[0].lstrip("- "), text))
    return found


def saved_query(name: str) -> str:
    """The text of a SQL file, or of a saved query by its name.

    Raises:
        QueryError: neither; suggests the closest names.
    """
    import difflib

    path = Path(name)
    if os.path.isfile(name):  # noqa: PTH113  a name of any length
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise QueryError(f"{path}: not text in UTF-8") from error
    names = {query.name: query.sql for query in saved_queries()}
    if path.stem in names and path.suffix in ("", ".sql"):
        return names[path.stem]
    close = difflib.get_close_matches(path.stem, names, 3)
    raise QueryError(f"{name}: no such file or saved query", f"did you mean {' or '.join(close)}?" if close else "see --list")


def write(schema: pa.Schema, batches: Iterator[pa.RecordBatch], form: str, out: Path | None) -> int:
    """Write an answer as it comes; returns the number of rows. Files appear whole or not at all."""
    from columnar.store import whole_file

    if out is None:
        return _write_text(schema, batches, form, sys.stdout)
    with whole_file(out) as temporary:
        if form == "parquet":
            import pyarrow.parquet as pq

            count = 0
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    count += batch.num_rows
            return count
        with temporary.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            return _write_text(schema, batches, form, file)


def _write_text(schema: pa.Schema, batches: Iterator[pa.RecordBatch], form: str, file: TextIO) -> int:
    count = 0
    sheet = csv.writer(file, lineterminator="\n")
    if form == "csv":
        sheet.writerow(schema.names)
    for batch in batches:
        for row in batch.to_pylist():
            row = plain(row)
            if form == "csv":
                sheet.writerow(json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for v in row.values())
            else:
                file.write(("[\n" if count == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
            count += 1
    if form == "json":
        file.write("[]\n" if count == 0 else "\n]\n")
    return count


def show(result: Result, width: int) -> str:
    """The answer as a text table, long cells cut to `width` characters."""

    def cell(value: Any) -> Any:
        if isinstance(value, list | dict):
            value = json.dumps(value, ensure_ascii=False)
        return value[: width - 1] + "…" if isinstance(value, str) and len(value) > width else value

    return cli.table([{name: cell(value) for name, value in row.items()} for row in result.rows], result.columns)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("columnar.query", __doc__)
    made.add_argument("words", nargs="*", metavar="DIR [DIR2] SQL", help="one dataset directory or several, and the statement")
    made.add_argument("-f", "--file", help="read the statement from a file, or a saved query by its name")
    made.add_argument("--list", action="store_true", help="list the saved queries")
    made.add_argument("--format", choices=FORMATS, help="how to write the answer (default: table; or as --out ends)")
    made.add_argument("--out", type=Path, metavar="FILE", help="write to a file (.csv, .json, .parquet)")
    made.add_argument("--max-rows", type=int, metavar="N", help=f"stop after N rows; 0 = no limit (default: {TABLE_ROWS} for tables)")
    made.add_argument("--timeout", type=float, metavar="SECONDS", help="stop the query after so many seconds")
    made.add_argument("--width", type=int, default=60, metavar="N", help="cut cells of a table to N characters (default: 60)")
    return made


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.list:
        listed = [{"query": query.name, "answers": query.headline} for query in saved_queries()]
        cli.emit(listed) if args.json else print(cli.table(listed, ["query", "answers"]))
        return 0
    dirs, sql = list(args.words), None
    if args.file:
        sql = saved_query(args.file)
    elif dirs and not is_remote(dirs[-1]) and re.search(r"\s", dirs[-1]) and not os.path.isdir(dirs[-1]):  # noqa: PTH112  Path.is_dir fails on long statements
        sql = dirs.pop()
    if not dirs:
        raise ConfigError("no dataset directory given", 'for example: python -m columnar.query out/tiny "SELECT count(*) FROM rows"')
    form = _format(args)
    from columnar.view import connect

    connection = connect([place(word) for word in dirs])
    try:
        if sql is None:
            return _describe(connection, args.json)
        limit = TABLE_ROWS if args.max_rows is None and form == "table" else args.max_rows or None
        if form == "table":
            result = run(connection, sql, max_rows=limit, timeout=args.timeout)
            print(show(result, max(args.width, 2)))
            more = ", of more: --max-rows 0 shows all" if result.truncated else ""
            cli.say(f"{result.table.num_rows:,} rows{more}, {result.seconds:.2f} s")
            return 0
        schema, batches = stream(connection, sql, timeout=args.timeout)
        with contextlib.closing(batches):
            count = write(schema, _at_most(batches, limit), form, args.out)
        if args.out:
            cli.say(f"{args.out}: {count:,} rows")
    finally:
        connection.close()
    return 0


def _format(args: argparse.Namespace) -> str:
    named = args.format or ("json" if args.json else None)
    ending = args.out.suffix.lstrip(".").lower() if args.out else ""
    form = str(named or (ending if ending in FORMATS else "table"))
    if args.out and form == "table":
        raise ConfigError(f"--out {args.out}: expected a name that ends in .csv, .json or .parquet, or --format")
    if form == "parquet" and not args.out:
        raise ConfigError("--format parquet: needs --out FILE")
    if args.max_rows is not None and args.max_rows < 0:
        raise ConfigError(f"--max-rows {args.max_rows}: expected a number of rows, 0 for no limit")
    if args.timeout is not None and not 0 < args.timeout < threading.TIMEOUT_MAX:
        raise ConfigError(f"--timeout {args.timeout:g}: expected seconds, more than 0")
    return form


def _at_most(batches: Iterator[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    left = limit
    for batch in batches:
        if left is not None and batch.num_rows > left:
            yield batch.slice(0, left)
            cli.say(f"stopped after {limit:,} rows (--max-rows)")
            return
        left = None if left is None else left - batch.num_rows
        yield batch


def _describe(connection: duckdb.DuckDBPyConnection, as_json: bool) -> int:
    """What can be asked: each view with its columns."""
    listed = run(
        connection,
        "SELECT table_name AS view, list(column_name ORDER BY column_index) AS columns FROM duckdb_columns() "
        "WHERE schema_name = 'main' AND NOT internal GROUP BY 1 ORDER BY 1",
    ).rows
    if as_json:
        cli.emit(listed)
    else:
        print("\n".join(f"{line['view']:<17} {', '.join(line['columns'])}" for line in listed))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
