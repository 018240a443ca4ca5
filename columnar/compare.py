"""Compare two datasets row by row: what was added, removed, changed or only renamed, by source, and why.

python -m columnar.compare out/before out/after
python -m columnar.compare out/before out/after --json

shared    the same id and the same text in both
changed   the same id, another text
moved     another id, the same text (the source was renamed, or the row sits elsewhere in its file)
removed   only in the first; with the reason, when the second says why it dropped the row
added     only in the second; with the reason, when the first says why it dropped the row
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar import cli
from columnar.filesystem import place, shown

if TYPE_CHECKING:
    import duckdb

EXAMPLES = 5

# Rows with one id in only one of the two, then those of them with equal text paired off one to one (the k-th with the k-th).
PREPARE = """
    CREATE TEMP TABLE only_a AS SELECT id, hash, source, parents FROM a.text ANTI JOIN b.text USING (id);
    CREATE TEMP TABLE only_b AS SELECT id, hash, source, parents FROM b.text ANTI JOIN a.text USING (id);
    CREATE TEMP TABLE moved AS
        WITH x AS (SELECT *, row_number() OVER (PARTITION BY hash ORDER BY id) AS k FROM only_a),
             y AS (SELECT *, row_number() OVER (PARTITION BY hash ORDER BY id) AS k FROM only_b)
        SELECT x.id AS a_id, y.id AS b_id, x.source AS a_source, y.source AS b_source FROM x JOIN y USING (hash, k);
    CREATE TEMP TABLE removed AS FROM only_a ANTI JOIN (SELECT a_id AS id FROM moved) USING (id);
    CREATE TEMP TABLE added AS SELECT * FROM only_b ANTI JOIN (SELECT b_id AS id FROM moved) USING (id);
"""

BY_SOURCE = """
    WITH counted AS (
        SELECT source, 'a' AS what, count(*) AS n FROM a.text GROUP BY 1
        UNION ALL SELECT source, 'b', count(*) FROM b.text GROUP BY 1
        UNION ALL SELECT x.source, CASE WHEN x.hash = y.hash THEN 'shared' ELSE 'changed' END, count(*)
                  FROM a.text AS x JOIN b.text AS y USING (id) GROUP BY 1, 2
        UNION ALL SELECT a_source, 'moved_from', count(*) FROM moved GROUP BY 1
        UNION ALL SELECT b_source, 'moved_to', count(*) FROM moved GROUP BY 1
        UNION ALL SELECT source, 'removed', count(*) FROM removed GROUP BY 1
        UNION ALL SELECT source, 'added', count(*) FROM added GROUP BY 1)
    SELECT source,
      coalesce(sum(n) FILTER (what = 'a'), 0)::BIGINT AS a,
      coalesce(sum(n) FILTER (what = 'b'), 0)::BIGINT AS b,
      coalesce(sum(n) FILTER (what = 'shared'), 0)::BIGINT AS shared,
      coalesce(sum(n) FILTER (what = 'changed'), 0)::BIGINT AS changed,
      coalesce(sum(n) FILTER (what = 'moved_from'), 0)::BIGINT AS moved_from,
      coalesce(sum(n) FILTER (what = 'moved_to'), 0)::BIGINT AS moved_to,
      coalesce(sum(n) FILTER (what = 'removed'), 0)::BIGINT AS removed,
      coalesce(sum(n) FILTER (what = 'added'), 0)::BIGINT AS added
    FROM counted GROUP BY source ORDER BY source
"""

# {gone}: rows of the side {own}; {other}: the side that should know. A repeated copy (same text as its parent, which is there too) has no
# fate of its own there: it is told by its original's.
REASONS = """
    WITH gone AS (
        SELECT g.id, g.source, o.id AS original FROM {gone} AS g LEFT JOIN {own}.text AS o ON o.id = g.parents[1] AND o.hash = g.hash),
    fates AS (SELECT DISTINCT ON (id) id, stage, reason FROM {other}.dropped)
    SELECT g.source, coalesce(d.stage, p.stage, '') AS stage,
      CASE WHEN d.id IS NOT NULL OR p.id IS NOT NULL THEN coalesce(d.reason, p.reason)
           WHEN t.id IS NOT NULL THEN 'fewer copies'
           ELSE 'not among its inputs' END AS reason,
      count(*) AS rows
    FROM gone AS g
    LEFT JOIN fates AS d ON d.id = g.id
    LEFT JOIN fates AS p ON p.id = g.original
    LEFT JOIN {other}.text AS t ON t.id = g.original
    GROUP BY ALL ORDER BY rows DESC, source, reason
"""

SAMPLES = {
    "changed": "SELECT x.id FROM a.text AS x JOIN b.text AS y USING (id) WHERE x.hash <> y.hash",
    "moved": "SELECT a_id || ' -> ' || b_id AS id FROM moved",
    "removed": "SELECT id FROM removed",
    "added": "SELECT id FROM added",
}


def compare(a: Path | str, b: Path | str) -> dict[str, Any]:
    """What differs between two datasets.

    Returns:
        a, b {name, path, rows}; total and by_source {a, b, shared, changed, moved_from, moved_to, removed, added}, where
        a == shared + changed + moved_from + removed and b == shared + changed + moved_to + added; why_removed and why_added
        {source, stage, reason, rows}; settings, the parts of the
        config that differ (when the same command made both); examples, a few ids of each sort.
    """
    from columnar.store import open_dataset
    from columnar.view import connect

    first, second = open_dataset(a), open_dataset(b)
    ours, theirs = first.manifest["identity"], second.manifest["identity"]
    connection = connect([a, b])
    try:
        connection.execute(PREPARE)
        by_source = _dicts(connection, BY_SOURCE)
        fields = ("a", "b", "shared", "changed", "moved_from", "moved_to", "removed", "added")
        return {
            "a": {"name": ours.get("name"), "path": shown(a), "rows": first.rows},
            "b": {"name": theirs.get("name"), "path": shown(b), "rows": second.rows},
            "total": {name: sum(line[name] for line in by_source) for name in fields},
            "by_source": by_source,
            "why_removed": _dicts(connection, REASONS.format(gone="removed", own="a", other="b")),
            "why_added": _dicts(connection, REASONS.format(gone="added", own="b", other="a")),
            "settings": settings_that_differ(ours.get("config"), theirs.get("config")) if ours.get("stage") == theirs.get("stage") else [],
            "examples": {name: _ids(connection, sql) for name, sql in SAMPLES.items()},
        }
    finally:
        connection.close()


def settings_that_differ(a: Any, b: Any, path: str = "") -> list[dict[str, Any]]:
    """The leaves in which two configs differ: {setting, a, b}. Items of a list go by their `name`, when they have one."""
    if isinstance(a, list) and isinstance(b, list) and all(isinstance(item, dict) and "name" in item for item in (*a, *b)):
        a, b = ({item["name"]: item for item in side} for side in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted({*a, *b}, key=str)
        return [line for key in keys for line in settings_that_differ(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))]
    return [] if a == b else [{"setting": path, "a": a, "b": b}]


def _dicts(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
    return found


def _ids(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    return [row[0] for row in connection.sql(f"{sql} ORDER BY id LIMIT {EXAMPLES}").fetchall()]


def describe(found: dict[str, Any]) -> str:
    """The comparison for people."""
    total = {"source": "total", **found["total"]}
    parts = [
        f"a: {found['a']['path']} ({found['a']['name']}), {found['a']['rows']:,} rows\n"
        f"b: {found['b']['path']} ({found['b']['name']}), {found['b']['rows']:,} rows",
        cli.table([*found["by_source"], total] if len(found["by_source"]) != 1 else found["by_source"]),
    ]
    for field, title in (("why_removed", "Removed: why b does not have them"), ("why_added", "Added: why a did not have them")):
        if found[field]:
            parts.append(f"{title}\n{cli.table(found[field])}")
    if found["settings"]:
        parts.append(f"Settings that differ\n{cli.table([{k: str(v)[:60] for k, v in line.items()} for line in found['settings']])}")
    examples = "\n".join(f"{name:<8} {', '.join(ids)}" for name, ids in found["examples"].items() if ids)
    if examples:
        parts.append(f"Examples (python -m columnar.explain DIR ID)\n{examples}")
    return "\n\n".join(parts)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("columnar.compare", __doc__)
    made.add_argument("a", type=place, help="the first dataset directory")
    made.add_argument("b", type=place, help="the second")
    return made


def main(args: argparse.Namespace) -> None:
    """Run the command."""
    found = compare(args.a, args.b)
    cli.emit(found) if args.json else print(describe(found))


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
