"""One batch scanned: rows in, verdict columns and hits out. A pure function, the same in a thread, a process or on a cluster.

columns, hits = scan_batch(batch, index)        # batch: rows with the columns of columnar.record
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from columnar.turns import FIELDS, turns
from decontam import match
from decontam.rules import Policy, Rule

if TYPE_CHECKING:
    from decontam.index import Index

HITS = pa.schema(
    [
        ("id", pa.string()),
        ("field", pa.string()),  # messages, prompt, chosen, rejected or candidates
        ("turn", pa.int32()),
        ("benchmark", pa.string()),
        ("item_id", pa.string()),
        ("item_field", pa.string()),
        ("coverage_item", pa.float64()),  # share of the item field's tokens that the row (all its turns) covers: what the rule looks at
        ("coverage_row", pa.float64()),  # share of this turn's tokens that lie in n-grams of the item field
        ("longest_run", pa.int32()),  # tokens of the longest common run in this turn
        ("start", pa.int64()),  # where that run is: characters of this turn's text ...
        ("end", pa.int64()),
        ("item_start", pa.int64()),  # ... and of the item field's text
        ("item_end", pa.int64()),
        ("rule", pa.string()),  # the preset; `:whole` when only the whole-item rule found it; Llama 2's bucket
    ]
)
COLUMNS = pa.schema(
    [
        ("contaminated", pa.bool_()),
        ("benchmark", pa.string()),
        ("coverage", pa.float64()),
        ("verdict", pa.string()),  # clean, report or drop
        ("reason", pa.string()),
    ]
)


class RowTexts(NamedTuple):
    """The texts of a batch that the rule looks at, grouped by row."""

    frame: pl.DataFrame  # row, field, turn, role, text
    column: pa.ChunkedArray  # their texts
    row_at: np.ndarray
    order: np.ndarray


def texts_by_row(batch: pa.RecordBatch, rule: Rule, fields: tuple[str, ...] = FIELDS) -> RowTexts:
    """Every turn of the rule's roles in these fields."""
    frame, column = turns(batch, fields), _contents(batch, fields)
    if not {"system", "user", "assistant", "tool"} <= set(rule.roles):
        wanted = frame["role"].is_in(rule.roles)
        frame, column = frame.filter(wanted), column.filter(wanted.to_arrow())
    rows = frame["row"].to_numpy()
    order = np.argsort(rows, kind="stable") if len(set(frame["field"].unique())) > 1 else np.arange(len(rows))
    row_at = np.searchsorted(rows[order], np.arange(batch.num_rows + 1))
    return RowTexts(frame, column, row_at.astype(np.int64), order.astype(np.int64))


def _contents(batch: pa.RecordBatch, fields: tuple[str, ...]) -> pa.ChunkedArray:
    """The text of every turn, in the order of `turns`, as it lies in the batch."""
    flat = [pc.list_flatten(batch.column(name)) for name in fields if name in batch.schema.names]
    parts = [turn.field("content").cast(pa.large_string()) for turn in flat if len(turn)]
    return pa.chunked_array(parts, pa.large_string())


def mark_batch(
    batch: pa.RecordBatch, index: Index, scratch: match.Scratch, users: np.ndarray, fields: tuple[str, ...] = FIELDS
) -> np.ndarray:
    """Which rows may hold an item, whatever n-grams turn out to be common; notes in `scratch` who uses which n-gram on its own."""
    return _run(texts_by_row(batch, index.rule, fields), index, scratch, False, users)[0]


def _run(texts: RowTexts, index: Index, scratch: match.Scratch | None, evidence: bool, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from decontam.compiled import worth
    from decontam.ngrams import fold_table, texts_of_column

    data, offsets = texts_of_column(texts.column)
    scratch = scratch or match.scratch_for(index.table)
    skip = index.rule.skip_budget
    scan_rows = worth(match.scan_rows, int(offsets[-1] - offsets[0]))
    hit_rows, lines = scan_rows(data, offsets, texts.row_at, texts.order, fold_table(), index.table, scratch, skip, evidence, users, False)
    return hit_rows, lines.reshape(-1, match.EVIDENCE)


def scan_batch(
    batch: pa.RecordBatch,
    index: Index,
    policy: Policy | None = None,
    fields: tuple[str, ...] = FIELDS,
    scratch: match.Scratch | None = None,
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Verdict columns, one line a row (without `id`), and the hits (schema `HITS`), in the order of rows, turns, benchmarks, items.

    Args:
        scratch: marks to reuse from batch to batch, by one thread at a time; None makes new ones.
    """
    texts = texts_by_row(batch, index.rule, fields)
    _, lines = _run(texts, index, scratch, True, np.zeros(0, np.int32))
    hits = _hits(lines, texts, batch, index)
    return _columns(hits, batch.num_rows, index, policy or Policy()), _as_hits(hits)


def _hits(lines: np.ndarray, texts: RowTexts, batch: pa.RecordBatch, index: Index) -> pl.DataFrame:
    """Evidence of units -> hits of items: the rule's last word, one line a member, undecided items left out."""
    rule, table = index.rule, index.table
    unit = lines[:, match.UNIT]
    length = np.diff(table.unit_at)[unit]
    covered = (lines[:, match.COVERED] >= table.needed[unit]) | (lines[:, match.ALIGNED] > 0)
    whole = (lines[:, match.RUN] == length) & (table.whole[unit] != match.NEVER)
    whole &= (table.whole[unit] != match.WHOLE_TURN) | (lines[:, match.TURN_TOKENS] == length)
    for i in np.flatnonzero(whole & ~covered & (table.whole[unit] == match.SENTENCE)):
        last = index.member_token[index.member_at[unit[i]]] + length[i] - 1
        tail = index.texts[int(unit[i])].as_py()[index.token_ends[last] :].rstrip()
        text = texts.frame["text"][int(lines[i, match.TEXT])]
        stands = own_sentence(text, int(lines[i, match.START]), int(lines[i, match.END]), tail)
        whole[i] = stands is not None
        lines[i, [match.START, match.END]] = stands or (0, 0)
    if rule.run_characters:
        covered = lines[:, match.RUN_CHARACTERS] >= rule.run_characters
    keep = covered | whole
    lines, unit, length, covered, whole = lines[keep], unit[keep], length[keep], covered[keep], whole[keep]

    counts = np.diff(index.member_at)[unit]
    line = np.repeat(np.arange(len(lines)), counts)
    member = index.member_at[unit][line] + np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = index.member_token[member] + lines[line, match.ITEM_FROM]
    text = lines[:, match.TEXT]
    plain = whole | bool(rule.run_characters)  # common n-grams count
    share = np.maximum(lines[:, match.ALIGNED], np.where(plain, lines[:, match.COVERED_ALL], lines[:, match.COVERED])) / np.maximum(
        length, 1
    )
    frame = pl.DataFrame(
        {
            "row": lines[line, match.ROW],
            "text": text[line],
            "benchmark": index.member_benchmark[member],
            "item": index.member_item[member],
            "item_field": index.member_field[member],
            "decides": index.member_decides[member],
            "coverage_item": share[line],
            "coverage_row": (lines[:, match.TURN_COVERED] / np.maximum(lines[:, match.TURN_TOKENS], 1))[line],
            "longest_run": lines[line, match.RUN],
            "start": lines[line, match.START],
            "end": lines[line, match.END],
            "item_start": index.token_starts[first],
            "item_end": index.token_ends[first + lines[line, match.RUN] - 1],
            "by_coverage": covered[line],
        }
    )
    frame = _decided(frame, index)
    turn = texts.frame[frame["text"].to_numpy()]
    names = pl.Series([b.name for b in index.benchmarks], dtype=pl.String)
    place = np.cumsum([0] + [len(b.spec.fields) for b in index.benchmarks])
    field_names = pl.Series([f for b in index.benchmarks for f in b.spec.fields], dtype=pl.String)
    bench = frame["benchmark"].to_numpy()
    item_ids = [index.benchmarks[b].ids[i] for b, i in zip(bench, frame["item"], strict=True)]
    return frame.with_columns(
        id=pl.Series(pl.from_arrow(batch.column("id")), dtype=pl.String)[frame["row"].to_numpy()],
        field=turn["field"],
        turn=turn["turn"],
        bench=frame["benchmark"],
        benchmark=names[bench],
        item_id=pl.Series(item_ids, dtype=pl.String),
        item_field=field_names[place[bench] + frame["item_field"].to_numpy()],
        rule=_rule_names(rule),
    ).sort("row", "text", "bench", "item", "item_field", maintain_order=True)


# What may stand before and after a sentence or line: its ends, line breaks, punctuation that ends one, quotes, brackets, markup.
_BEFORE = re.compile(r"""(?:^|[\n.?!:;"“”„‘’«»。？！：；…()\[\]{}<>*#|•$\-–—`]|\s')\s*$""")
_AFTER = re.compile(r"""\s*(?:$|[\n.?!:;"“”»。？！：；…)\]}<*#|$`]|['’](?!\w))""")


def own_sentence(text: str, start: int, end: int, tail: str = "") -> tuple[int, int] | None:
    """Where text[start:end], here or repeated elsewhere in the text, is a sentence or a line of its own.

    Args:
        tail: the symbols that the item ends with, which are no tokens ("then x =") and may follow.
    """
    for place in itertools.chain([(start, end)], (m.span() for m in re.finditer(re.escape(text[start:end]), text))):
        ends = [place[1], place[1] + len(tail)] if text.startswith(tail, place[1]) else [place[1]]
        if _BEFORE.search(text[max(0, place[0] - 40) : place[0]]) and any(_AFTER.match(text, at) for at in ends):
            return place
    return None


def _rule_names(rule: Rule) -> pl.Expr:
    if rule.skip_budget:
        return pl.lit(rule.name) + pl.when(pl.col("coverage_item") >= 0.8).then(pl.lit(":dirty")).otherwise(pl.lit(":not clean"))
    return pl.lit(rule.name) + pl.when("by_coverage").then(pl.lit("")).otherwise(pl.lit(":whole"))


def _decided(frame: pl.DataFrame, index: Index) -> pl.DataFrame:
    """Only hits of items that are found: any deciding field, or all that can be seen, where the benchmark says so."""
    item = ["row", "benchmark", "item"]
    found = frame.filter("decides").group_by(item).agg(pl.col("item_field").n_unique().alias("fields"))
    for b, benchmark in enumerate(index.benchmarks):
        if benchmark.spec.decide == "all":
            of_all = pl.Series(index.deciding_units[b])
            mine = found.filter(pl.col("benchmark") == b)
            short = mine.filter(pl.col("fields") < of_all[mine["item"].to_numpy()])
            found = found.join(short, on=item, how="anti")
    return frame.join(found.select(item), on=item, how="semi", maintain_order="left")


def _columns(hits: pl.DataFrame, rows: int, index: Index, policy: Policy) -> pa.RecordBatch:
    action = pl.Series([getattr(policy, b.spec.policy) for b in index.benchmarks], dtype=pl.String)
    worst = (
        hits.filter("decides")
        .with_columns(verdict=action[hits.filter("decides")["bench"].to_numpy()])
        .sort(
            "row",
            pl.col("verdict") != "drop",
            "coverage_item",
            "longest_run",
            "bench",
            "item",
            descending=[False, False, True, True, False, False],
        )
        .unique("row", keep="first", maintain_order=True)
    )
    reason = pl.format("{}: {} of {} {} ({})", "rule", pl.col("coverage_item").round(2), "benchmark", "item_id", "item_field")
    line = pl.DataFrame({"row": np.arange(rows, dtype=np.int64)}).join(
        worst.select("row", "benchmark", "verdict", coverage="coverage_item", reason=reason), on="row", how="left", maintain_order="left"
    )
    made = line.select(
        contaminated=pl.col("benchmark").is_not_null(),
        benchmark="benchmark",
        coverage=pl.col("coverage").fill_null(0.0),
        verdict=pl.col("verdict").fill_null("clean"),
        reason="reason",
    )
    return _as_batch(made, COLUMNS)


def _as_hits(hits: pl.DataFrame) -> pa.RecordBatch:
    return _as_batch(hits.select(HITS.names), HITS)


def _as_batch(frame: pl.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    batches = frame.to_arrow().cast(schema).combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema)
