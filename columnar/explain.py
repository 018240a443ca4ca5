"""The story of one row: where it came from, what each stage said of it, and why it is in or out.

    python -m columnar.explain out/tiny 3f2a91c04d5e6b78
    python -m columnar.explain out/tiny 3f2a --json               the beginning of an id, when only one row has it

Works for kept rows, dropped rows, and rows that only lost the draw (of those the dataset keeps everything but the text).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar import cli
from columnar.errors import InputError
from columnar.filesystem import place
from columnar.jsonviews import literal, quoted

if TYPE_CHECKING:
    import duckdb

    from columnar.store import Dataset

MOST = 20  # hits of one sort that are told; the count is told always
ID = 16  # characters of a whole id
UP_TO = "\U0010ffff"  # sorts after every continuation of a prefix


def explain(
    directory: Path | str, row_id: str, connection: duckdb.DuckDBPyConnection | None = None, schema: str = "main"
) -> dict[str, Any]:
    """Everything a dataset knows of one row.

    Args:
        row_id: an id, or the beginning of one.
        connection: of columnar.view, when there is one already; `schema` is the dataset's name in it.

    Returns:
        id, fate (in | dropped), why (a sentence), split, row (envelope and text), stages {stage: its columns},
        hits {name: evidence about this row}, stands_for (duplicates it was kept for), kept {id, fate, why} (the row kept instead),
        flags, children (ids of rows made of this one: repeated copies, answers, rewritings).

    Raises:
        InputError: no such row, or several that begin so.
    """
    from columnar.store import open_dataset
    from columnar.view import connect

    dataset = open_dataset(directory)
    own = None if connection else connect(dataset.path)
    cursor = (connection or own).cursor()  # type: ignore[union-attr]
    try:
        return _story(cursor, dataset, quoted(schema), row_id.strip())
    finally:
        cursor.close()
        if own:
            own.close()


def _story(cursor: duckdb.DuckDBPyConnection, dataset: Dataset, schema: str, wanted: str) -> dict[str, Any]:
    from columnar.record import SCHEMA

    row_id = wanted
    row, stages = _kept(cursor, dataset, wanted) if len(wanted) == ID else (None, {})
    if row is None:
        row_id = _find(cursor, schema, wanted, dataset)
        row, stages = _kept(cursor, dataset, row_id)
    dropped = None if row else _first(cursor, f"SELECT * FROM {schema}.dropped WHERE id = $id", row_id)
    if dropped:
        row = {name: dropped.get(name) for name in SCHEMA.names}
        signals = {name: v for name, v in dropped.items() if name not in SCHEMA.names and name not in ("stage", "reason", "detail")}
        stages = {"signals": signals} if signals else {}
        stages[dropped["stage"] or "dropped"] = {"reason": dropped["reason"], "detail": dropped["detail"]}
    assert row is not None
    names = [
        r[0]
        for r in cursor.sql(
            "SELECT view_name FROM duckdb_views() WHERE '\"' || replace(schema_name, '\"', '\"\"') || '\"' = $s "
            "AND starts_with(view_name, 'hits_') ORDER BY 1",
            params={"s": schema},
        ).fetchall()
    ]
    hits = {name.removeprefix("hits_"): _hits(cursor, f"{schema}.{quoted(name)}", "id", row_id) for name in names}
    for found in hits.values():
        for hit in found:
            hit |= _matched(row, hit)
    stands_for = _hits(cursor, f"{schema}.hits_duplicates", "kept_id", row_id)
    children = _rows(cursor, f"SELECT id FROM {schema}.text WHERE list_contains(parents, $id) ORDER BY id LIMIT {MOST}", row_id)
    story = {
        "id": row_id,
        "dataset": dataset.manifest["identity"].get("name"),
        "fate": "dropped" if dropped else "in",
        "why": "",
        "split": None if dropped else _split(stages, row),
        "row": {**row, "meta": _parsed(row.get("meta"))},
        "stages": stages,
        "hits": {name: found for name, found in hits.items() if found},
        "stands_for": stands_for,
        "kept": _keeper(cursor, dataset, schema, hits.get("duplicates", []), row_id),
        "flags": _rows(cursor, f'SELECT flag, note, who, "at" FROM {schema}.flags WHERE id = $id', row_id),
        "children": [child["id"] for child in children],
    }
    row.pop("filename", None)
    story["why"] = _why(story, dropped)
    return story


def _find(cursor: duckdb.DuckDBPyConnection, schema: str, wanted: str, dataset: Dataset) -> str:
    """The one id that is, or begins with, what was asked for."""
    both = f"(SELECT id FROM {schema}.text UNION ALL SELECT id FROM {schema}.dropped)"
    if wanted:
        sql = f"SELECT DISTINCT id FROM {both} WHERE id >= $id AND id < $end ORDER BY 1 LIMIT 6"
        found = [r[0] for r in cursor.sql(sql, params={"id": wanted, "end": wanted + UP_TO}).fetchall()]
        if wanted in found or len(found) == 1:
            return wanted if wanted in found else str(found[0])
        if found:
            more = ", ..." if len(found) > 5 else ""
            raise InputError(f"{wanted}: several rows of {dataset.path} begin so: {', '.join(found[:5])}{more}", "give more of the id")
    near = cursor.sql(
        f"SELECT id FROM {both} WHERE levenshtein(id, $id) <= 3 ORDER BY levenshtein(id, $id), id LIMIT 3",
        params={"id": wanted or "-"},
    ).fetchall()
    raise InputError(
        f"{wanted or '(nothing)'}: no row of {dataset.path} has this id, neither kept nor dropped",
        f"close: {', '.join(r[0] for r in near)}" if near else "rows that failed validation have no id: SELECT * FROM rejects",
    )


def _kept(cursor: duckdb.DuckDBPyConnection, dataset: Dataset, row_id: str) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """The row and its sidecar columns, fetched by position: through the joined view this would read every row before it."""
    import pyarrow.parquet as pq

    files = sorted((dataset.path.resolve() / "rows").glob("*.parquet"))
    listed = ", ".join(literal(str(file)) for file in files)
    row = _first(cursor, f"SELECT *, filename, file_row_number FROM read_parquet([{listed}]) WHERE id = $id", row_id)
    if row is None:
        return None, {}
    at = int(row.pop("file_row_number"))
    for file in files:
        if str(file) == row["filename"]:
            break
        at += pq.read_metadata(file).num_rows
    stages = {}
    for file in sorted((dataset.path.resolve() / "cols").glob("*.parquet")):
        columns = _line(file, at)
        if columns is None or columns.get("id") != row_id:  # not in step: someone else's, in an order of its own
            columns = _first(cursor, f"SELECT * FROM read_parquet({literal(str(file))}) WHERE id = $id", row_id)
        told = {name: value for name, value in (columns or {}).items() if name != "id"}
        if told:
            stages[file.stem] = told
    return row, stages


def _line(file: Path, at: int) -> dict[str, Any] | None:
    """One line of a Parquet file: of a large one this reads a row group, where a query would look into every one."""
    import pyarrow.parquet as pq

    from columnar.ask import plain

    parquet = pq.ParquetFile(file, memory_map=True)
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        if at < count:
            found: dict[str, Any] = plain(parquet.read_row_group(group, use_threads=False).slice(at, 1).to_pylist()[0])
            return found
        at -= count
    return None


def _split(stages: dict[str, dict[str, Any]], row: dict[str, Any]) -> str:
    for columns in stages.values():
        if columns.get("split"):
            return str(columns["split"])
    name = Path(row["filename"]).name.partition("-")[0]
    return "train" if name == "part" else name


def _keeper(
    cursor: duckdb.DuckDBPyConnection, dataset: Dataset, schema: str, duplicates: list[dict[str, Any]], row_id: str
) -> dict[str, Any] | None:
    """What became of the row that was kept instead of this one."""
    kept = next((hit["kept_id"] for hit in duplicates if hit.get("kept_id") and hit["kept_id"] != row_id), None)
    if kept is None:
        return None
    if _first(cursor, f"SELECT id FROM {schema}.text WHERE id = $id", kept):
        return {"id": kept, "fate": "in", "why": "in the dataset"}
    lost = _first(cursor, f"SELECT stage, reason FROM {schema}.dropped WHERE id = $id", kept)
    return (
        {"id": kept, "fate": "dropped", "why": f"{lost['stage']}: {lost['reason']}"} if lost else {"id": kept, "fate": "unknown", "why": ""}
    )


def _matched(row: dict[str, Any], hit: dict[str, Any]) -> dict[str, Any]:
    """The part of the row's own text that a hit points at: field, turn and a span of characters."""
    start, end, turn = hit.get("start"), hit.get("end"), hit.get("turn")
    turns = row.get(str(hit.get("field")))
    if start is None or end is None or turn is None or not turns or turn >= len(turns):
        return {}
    return {"matched": (turns[turn].get("content") or "")[start:end]}


def _why(story: dict[str, Any], dropped: dict[str, Any] | None) -> str:
    if dropped is None:
        passed = ", ".join(stage for stage in story["stages"] if stage != "select")
        copy = (story["stages"].get("select") or {}).get("copy")
        which = f", copy {copy} of {', '.join(story['row']['parents'] or ())}" if copy else ""
        return f"in the {story['split']} split{which}" + (f"; seen by {passed}" if passed else "")
    said = f"dropped by {dropped['stage']}: {dropped['reason']}" + (f" ({dropped['detail']})" if dropped["detail"] else "")
    kept = story["kept"]
    return said + (f"; kept instead: {kept['id']} ({kept['why']})" if kept else "")


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _hits(cursor: duckdb.DuckDBPyConnection, view: str, column: str, row_id: str) -> list[dict[str, Any]]:
    if column not in cursor.sql(f"SELECT * FROM {view} LIMIT 0").columns:
        return []
    return _rows(cursor, f"SELECT * FROM {view} WHERE {column} = $id LIMIT {MOST}", row_id)


def _rows(cursor: duckdb.DuckDBPyConnection, sql: str, row_id: str) -> list[dict[str, Any]]:
    from columnar.ask import plain

    return [plain(row) for row in cursor.sql(sql, params={"id": row_id}).to_arrow_table().to_pylist()]


def _first(cursor: duckdb.DuckDBPyConnection, sql: str, row_id: str) -> dict[str, Any] | None:
    return next(iter(_rows(cursor, f"{sql} LIMIT 1", row_id)), None)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else cli.printable(str(value))


def describe(story: dict[str, Any], width: int = 120) -> str:
    """The story for people."""
    row = story["row"]
    origin = row.get("origin") or {}
    place = f"{origin.get('uri')}" + (f"@{origin['revision']}" if origin.get("revision") else "") + f", record {origin.get('row')}"
    lines = [f"{story['id']}  {story['why']}"]

    def tell(name: str, text: Any) -> None:
        flat = cli.printable(" ".join(str(text).split()))
        lines.append(f"  {name:<14} {flat if len(flat) <= width else flat[: width - 1] + '…'}")

    tell("from", f"{row.get('source')} ({row.get('kind')}), {place}, license {row.get('license') or 'not stated'}")
    if row.get("parents"):
        tell("parents", ", ".join(row["parents"]))
    if row.get("meta"):
        tell("meta", json.dumps(row["meta"], ensure_ascii=False))
    for stage, columns in story["stages"].items():
        shown = {name: v for name, v in columns.items() if v is not None and v is not False and name != "preview"}
        lines.append(f"  {stage:<14} " + (" · ".join(f"{name} {_short(v)}" for name, v in shown.items()) or "nothing to say"))
    for name, found in story["hits"].items():
        for hit in found:
            tell(f"hit {name}", " · ".join(f"{k} {_short(v)}" for k, v in hit.items() if v is not None and k not in ("id", "matched")))
            if hit.get("matched"):
                tell("  matched", hit["matched"])
    for twin in story["stands_for"]:
        tell("stands for", " · ".join(f"{k} {_short(v)}" for k, v in twin.items() if v is not None and k != "kept_id"))
    for flag in story["flags"]:
        tell("flag", f"{flag['flag']}: {flag['note'] or '(no note)'} ({flag['who'] or 'unknown'}, {flag['at'] or 'undated'})")
    if story["children"]:
        tell("children", ", ".join(story["children"]))
    for field in ("messages", "prompt", "chosen", "rejected", "candidates"):
        for turn in row.get(field) or ():
            tell(
                turn.get("role") or field if field in ("messages", "prompt") else field, turn.get("content") or turn.get("tool_calls") or ""
            )
    if story["fate"] == "dropped" and not any(row.get(f) for f in ("messages", "prompt", "chosen", "candidates")):
        lines.append("  text           not kept for rows dropped for this reason; it is in the file named above")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("columnar.explain", __doc__)
    made.add_argument("dir", type=place, help="a dataset directory")
    made.add_argument("id", help="a row's id, or the beginning of it")
    return made


def main(args: argparse.Namespace) -> None:
    """Run the command."""
    story = explain(args.dir, args.id)
    cli.emit(story) if args.json else print(describe(story))


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
