"""Rules: each is a SQL predicate a row must satisfy and the reason it is dropped for when it does not. First failed rule wins.

Order: the source's `where`, the mix's `limits`, its `select` rules. A predicate that is NULL for a row is not satisfied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb
import polars as pl

from columnar.ask import guard
from columnar.errors import ConfigError, QueryError
from columnar.record import schema_of
from columnar.view import sql_type
from curation.mix import Limits, MixConfig, MixSource
from curation.narrow import PIECE


class Rule(NamedTuple):
    """A reason, the predicate that keeps a row, and what to tell of a row that fails it: words, or the column whose value says it."""

    stage: str
    reason: str
    keep: str
    words: str
    column: str | None = None


def rules_for(config: MixConfig, source: MixSource) -> list[Rule]:
    """The rules of one source, in the order they apply."""
    rules = [Rule("kind", "other_kind", f"kind = '{config.kind}'", f"is not of kind {config.kind}")]
    if source.where:
        rules.append(Rule("where", "where", source.where, f"not: {source.where}"))
    for limit in Limits.model_fields:
        bound = getattr(config.limits, limit)
        if bound is not None:
            side, what = limit.split("_", 1)
            rules.append(Rule("limits", limit, f"n_{what} {'<=' if side == 'max' else '>='} {bound}", "", f"n_{what}"))
    return rules + [Rule("select", reason, keep, f"not: {keep}") for reason, keep in config.select.items()]


def relation(connection: duckdb.DuckDBPyConnection, kind: str) -> str:
    """`rows` with every column that the mix's kind can have: a source without scores has NULL there, and a rule may say so."""
    there = set(connection.sql("SELECT * FROM rows LIMIT 0").columns)
    missing = [f"NULL::{sql_type(field.type)} AS {field.name}" for field in schema_of([kind]) if field.name not in there]
    return f"(SELECT {', '.join(['*', *missing])} FROM rows) AS rows"


def statement(rules: list[Rule], columns: str, rows: str) -> str:
    """The one SELECT that judges every row of a source: `columns`, and `rule`: the number of the first failed one, or -1."""
    cases = "\n".join(f"            WHEN ({rule.keep}) IS NOT TRUE THEN {number}" for number, rule in enumerate(rules))
    return f"""
        SELECT {columns},
          CASE
{cases}
            ELSE -1
          END::INT AS rule
        FROM {rows}"""


def judge(connection: duckdb.DuckDBPyConnection, kind: str, rules: list[Rule], columns: str, source: str) -> Iterator[pl.DataFrame]:
    """Judge every row behind the connection's `rows` view, in row order and a piece at a time; `kind` is the mix's.

    Raises:
        ConfigError: a predicate is not one SQL expression over the columns there are; names the rule.
    """
    rows = relation(connection, kind)
    for rule in rules:
        check(connection, rule, source, rows)
    for batch in connection.sql(statement(rules, columns, rows)).to_arrow_reader(PIECE):
        yield pl.DataFrame(batch)


def check(connection: duckdb.DuckDBPyConnection, rule: Rule, source: str, rows: str) -> None:
    """Refuse a predicate that is not one boolean expression, before any row is judged."""
    sql = f"SELECT ({rule.keep}) IS TRUE AS keep FROM {rows} LIMIT 0"
    try:
        guard(sql, connection)
        found: list[Any] = connection.sql(sql).columns
    except (duckdb.Error, QueryError) as error:
        raise ConfigError(
            f"sources[{source}]: rule {rule.reason!r}: {rule.keep}: {str(error).strip()}",
            "rules are SQL over the columns of rows and signals; see them with: python -m columnar.query DIR 'DESCRIBE rows'",
        ) from error
    if found != ["keep"]:
        raise ConfigError(f"sources[{source}]: rule {rule.reason!r}: {rule.keep}: expected one SQL expression, found {len(found)}")
