"""Turns DuckDB's complaint about a query into one a user of these datasets can act on: close names, and which stage makes a column."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from columnar.errors import QueryError
from columnar.record import PAYLOADS

if TYPE_CHECKING:
    import duckdb

# Columns that stages add to `rows`, so that a query for a missing one can say what to run.
MADE_BY = {
    "signals": "preview n_chars n_words n_tokens n_turns prompt_chars response_chars rejected_chars lang lang_score repetition refusal "
    "truncated self_id mentions_ai_brand as_an_ai has_code has_thinking has_tools format empty same_answers",
    "dedup": "kept_id jaccard dedup_cluster dedup_reason",
    "decontam": "contaminated benchmark coverage decontam_verdict decontam_reason",
    "select": "copy",
}

VIEWS = "SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main'"
COLUMNS = "SELECT column_name FROM duckdb_columns() WHERE NOT internal AND schema_name = 'main'"


def explain_mistake(error: Exception, connection: duckdb.DuckDBPyConnection) -> QueryError:
    """The error as a QueryError: what was found, and what there is instead."""
    text = str(error).strip()
    found = re.search(r'[Cc]olumn (?:named )?"?([^"\s]+)"? (?:not found|referenced that exists in the SELECT)|column named "([^"]+)"', text)
    if found:
        return _unknown_column(found[1] or found[2], text, connection)
    found = re.search(r"Table with name (.+?) does not exist", text)
    if found:
        names = _names(connection, VIEWS)
        if found[1].strip('"').lower().startswith(("a.", "b.")):
            return QueryError(f"no view named {found[1]}", "a. and b. are the two datasets of: python -m columnar.query DIR DIR2 ...")
        return QueryError(f"no view named {found[1]}{_close(found[1], names)}", f"views: {', '.join(names)}")
    if "file system operations are disabled" in text:
        place = re.search(r'Cannot access (?:file|directory) "(.*?)"', text)
        what = place[1] if place else "a file"
        return QueryError(f"{what}: queries see the files of the datasets they are given and no others")
    if "Out of Memory" in text:
        return QueryError(text.partition("\n")[0], "ask for fewer columns or rows: the text columns are the large ones")
    if "Deprecated lambda arrow" in text:
        return QueryError("the lambda arrow x -> ... is gone", "write lambda x: ...")
    reserved = re.search(r"syntax error.*LINE \d+:.*\b(at|end)\b", text, re.IGNORECASE | re.DOTALL)
    if reserved:
        return QueryError(text, f'{reserved[1]} is a word of SQL: for the column write "{reserved[1].lower()}"')
    return QueryError(text)


def _unknown_column(name: str, text: str, connection: duckdb.DuckDBPyConnection) -> QueryError:
    from columnar.layout import COMMANDS

    names, in_rows = _names(connection, COLUMNS), _names(connection, f"{COLUMNS} AND table_name = 'rows'")
    bound = re.search(r"Candidate bindings: (.*)", text)
    near = re.findall(r'"([^"]+)"', bound[1]) if bound else []
    where = re.search(r"LINE \d+:.*", text, re.DOTALL)
    message = f"no column {name}{_close(name, [*near, *names])}" + (f"\n{where[0]}" if where else "")
    for stage, columns in MADE_BY.items():
        if name.casefold() in columns.split() and name.casefold() not in in_rows:
            command = COMMANDS[stage].format(path="DIR")
            return QueryError(message, f"{name} is made by the stage {stage}, which this dataset has not been through: {command}")
    kinds = [kind for kind, columns in PAYLOADS.items() if name.casefold() in columns]
    if kinds and name.casefold() not in near:
        return QueryError(message, f"{name} is a column of rows of kind {' or '.join(kinds)}; see the columns there are: DESCRIBE rows")
    return QueryError(message, "see the columns there are: DESCRIBE rows")


def _names(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    return sorted({row[0] for row in connection.cursor().sql(sql).fetchall()})


def _close(name: str, names: list[str]) -> str:
    wanted = name.rpartition(".")[2].casefold()
    close = [match for match in dict.fromkeys(difflib.get_close_matches(wanted, names, 4)) if match != wanted]
    return f"; did you mean {' or '.join(close)}?" if close else ""
