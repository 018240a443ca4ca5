"""One row by its id, wherever it is: kept, or dropped with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.db import Data
from columnar.jsonviews import quoted

TEXTS = ("messages", "prompt", "chosen", "rejected", "candidates")


def row_of(data: Data, row_id: str, schema: str = "main") -> tuple[dict[str, Any] | None, str]:
    """The row and its fate: "in", "dropped: REASON", or "not in this dataset" without a row."""
    kept = data.run(f"SELECT * FROM {quoted(schema)}.text WHERE id = $id", {"id": row_id}, 1).rows
    if kept:
        return kept[0], "in"
    gone = data.run(f"SELECT * FROM {quoted(schema)}.dropped WHERE id = $id", {"id": row_id}, 1).rows
    if gone:
        return gone[0], f"dropped: {gone[0]['reason']}"
    return None, "not in this dataset"


def has_text(row: dict[str, Any]) -> bool:
    """Whether any text of the row was kept."""
    return any(row.get(field) for field in TEXTS)


def previews(data: Data, ids: Sequence[str], schema: str = "main") -> dict[str, str]:
    """The beginning of these rows, kept or dropped, where signals were measured."""
    found: dict[str, str] = {}
    for view in ("rows", "dropped"):
        if ids and "preview" in data.columns[view]:
            sql = f"SELECT id, preview FROM {quoted(schema)}.{view} WHERE id IN (SELECT unnest($ids::VARCHAR[]))"
            found |= {line["id"]: line["preview"] or "" for line in data.run(sql, {"ids": list(ids)}).rows}
    return found
