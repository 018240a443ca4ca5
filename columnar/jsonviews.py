"""The SQL of views over a dataset's JSON files: what people flagged, what was rejected, and what the manifest says.

    flags               the flags that hold, as columnar.flags folds them; `flags_log` has every line, and why one cannot be read
    rejects             input rows that failed validation: file, line, path, found, expected, the beginning of the row
    manifest            one line: name, kind, stage, counts of rows, hashes, time, and the whole as JSON
    manifest_inputs     one line for each input, `manifest_outputs` one for each file
    funnel              source, step, rows: in, rejected, each reason for dropping, copies, out

Files are read line by line as text: one that appears later is seen, and a damaged line spoils no other.
"""

from __future__ import annotations

from pathlib import Path


def quoted(name: str) -> str:
    """A name as SQL writes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def json_views(root: Path) -> dict[str, str]:
    """The SELECT behind each of these views, for the dataset directory `root`."""
    manifest = f"(SELECT content::JSON AS manifest FROM read_text({literal(str(root / 'manifest.json'))}))"
    flags = _lines(root / "flags.jsonl")
    return {
        "flags_log": f"""
            SELECT line, {_fields("entry", "id flag note who at")}, coalesce((entry ->> '$.undo')::BOOLEAN, false) AS undo,
              CASE WHEN (entry ->> '$.id') IS NULL OR (entry ->> '$.flag') IS NULL
                THEN 'not an object with id and flag: ' || text END AS problem
            FROM {flags}""",
        "flags": f"""
            SELECT {_fields("last", "id flag note who at")}
            FROM (SELECT max_by(entry, line) AS last, max(line) AS line FROM {flags}
                  WHERE (entry ->> '$.id') IS NOT NULL AND (entry ->> '$.flag') IS NOT NULL
                  GROUP BY entry ->> '$.id', entry ->> '$.flag')
            WHERE NOT coalesce((last ->> '$.undo')::BOOLEAN, false)
            ORDER BY line""",
        "rejects": f"""
            SELECT {_fields("entry", "source file")}, {_fields("entry", "line", "BIGINT")}, {_fields("entry", "path found expected raw")}
            FROM {_lines(root / "rejects.jsonl")}""",
        "manifest": f"""
            SELECT {_fields("identity", "name kind key")}, identity ->> '$.stage.name' AS stage,
              {_fields("identity", "seed rows", "BIGINT")}, {_fields("identity", "rows_sha256 ids_sha256")},
              (manifest ->> '$.circumstance.finished')::TIMESTAMP AS finished,
              (manifest ->> '$.circumstance.seconds')::DOUBLE AS seconds, manifest
            FROM (SELECT manifest, manifest -> '$.identity' AS identity FROM {manifest})""",
        "manifest_inputs": f"""
            SELECT {_fields("input", "source uri revision sha256 license amount")}, {_fields("input", "rows bytes", "BIGINT")}, input
            FROM (SELECT unnest((manifest -> '$.identity.inputs')::JSON[]) AS input FROM {manifest})""",
        "manifest_outputs": f"""
            SELECT {_fields("output", "path")}, {_fields("output", "bytes", "BIGINT")}, {_fields("output", "sha256")}
            FROM (SELECT unnest((manifest -> '$.identity.outputs')::JSON[]) AS output FROM {manifest})""",
        "funnel": f"""
            WITH one AS (SELECT manifest -> '$.identity' AS i FROM {manifest}),
            sources AS (
                SELECT key AS source, value AS c FROM one, json_each(i -> '$.counts.by_source')
                UNION ALL
                SELECT i ->> '$.name',
                  json_object('in', i -> '$.counts.in', 'rejected', i -> '$.counts.rejects', 'out', i -> '$.rows')::JSON
                FROM one WHERE (i -> '$.counts.by_source') IS NULL)
            SELECT source, step, rows FROM (
                SELECT source, 1 AS n, 'in' AS step, (c ->> '$.in')::BIGINT AS rows FROM sources
                UNION ALL SELECT source, 2, 'rejected', (c ->> '$.rejected')::BIGINT FROM sources
                UNION ALL SELECT source, 3, d.key, (d.value ->> '$')::BIGINT FROM sources, json_each(c -> '$.dropped') AS d
                UNION ALL SELECT source, 4, 'copies', (c ->> '$.copies')::BIGINT FROM sources
                UNION ALL SELECT source, 5, 'out', (c ->> '$.out')::BIGINT FROM sources)
            WHERE rows IS NOT NULL ORDER BY source, n, rows DESC, step""",
    }


def _lines(file: Path) -> str:
    """The lines of a file that are not blank: line (from 1), text, and entry, the JSON object it is or NULL."""
    return f"""(
        SELECT line, text, CASE WHEN json_valid(text) AND json_type(text) = 'OBJECT' THEN text::JSON END AS entry
        FROM (SELECT unnest(texts) AS text, generate_subscripts(texts, 1) AS line
              FROM (SELECT string_split(content, chr(10)) AS texts FROM read_text({literal(str(file))})))
        WHERE trim(text, chr(13) || ' ') <> '')"""


def _fields(source: str, names: str, kind: str = "VARCHAR") -> str:
    return ", ".join(f"({source} ->> '$.{name}')::{kind} AS {quoted(name)}" for name in names.split())
