"""Every text of a batch of rows as one long column: the columnar twin of `record.texts_of`.

turns(batch) -> frame with one line a turn: row (position in the batch), field, turn, role, text, and has_* marks
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

FIELDS = ("messages", "prompt", "chosen", "rejected", "candidates")


def turns(batch: pa.RecordBatch, fields: tuple[str, ...] = FIELDS) -> pl.DataFrame:
    """One line for each turn of each row, in the order (field, row, turn).

    Returns:
        row u32 (position in the batch), field str, turn u32 (position in the field), role str, text str (null becomes empty),
        thinking bool, tool_calls bool. Candidates have the role `assistant`.
    """
    frames = [_field(batch, name) for name in fields if name in batch.schema.names]
    return pl.concat([f for f in frames if f is not None] or [_EMPTY])


def _field(batch: pa.RecordBatch, name: str) -> pl.DataFrame | None:
    lists = batch.column(name)
    if lists.null_count == len(lists):
        return None
    rows = pc.list_parent_indices(lists)
    flat = pc.list_flatten(lists)
    if not len(flat):
        return None
    starts = lists.offsets.to_numpy() - lists.offsets[0].as_py()
    row = rows.to_numpy(zero_copy_only=False)
    columns = {field.name: flat.field(i) for i, field in enumerate(flat.type)}
    frame = pl.DataFrame({"row": pl.Series(row, dtype=pl.UInt32), "text": pl.Series(pl.from_arrow(columns["content"]))})
    first = pl.Series(starts[row], dtype=pl.UInt32)
    role = pl.Series(pl.from_arrow(columns["role"])) if "role" in columns else pl.repeat("assistant", len(frame), eager=True)
    return frame.select(
        "row",
        field=pl.lit(name),
        turn=pl.int_range(pl.len(), dtype=pl.UInt32) - first,
        role=role,
        text=pl.col("text").fill_null(""),
        thinking=_present(columns.get("thinking"), len(frame)),
        tool_calls=_present(columns.get("tool_calls"), len(frame)),
    )


def _present(column: pa.Array | None, n: int) -> pl.Series:
    if column is None:
        return pl.repeat(False, n, eager=True)
    return pl.Series(pl.from_arrow(column)).is_not_null()


_EMPTY = pl.DataFrame(
    schema={
        "row": pl.UInt32,
        "field": pl.String,
        "turn": pl.UInt32,
        "role": pl.String,
        "text": pl.String,
        "thinking": pl.Boolean,
        "tool_calls": pl.Boolean,
    }
)
