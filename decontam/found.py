"""One batch scanned: rows in, verdict columns and hits out. A pure function, the same in a thread, a process or on a cluster.

columns, hits = scan_batch(batch, index)        # batch: rows with the columns of columnar.record
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from columnar.turns import FIELDS
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
    """The texts of a batch that the rule looks at, row by row."""

    row_at: np.ndarray  # row r has the texts row_at[r]:row_at[r + 1]
    field: np.ndarray  # of each text: its place in FIELDS
    turn: np.ndarray
    column: pa.LargeStringArray | pa.ChunkedArray


def texts_by_row(batch: pa.RecordBatch, rule: Rule, fields: tuple[str, ...] = FIELDS) -> RowTexts:
    """Every turn of the rule's roles in these fields; candidates are the assistant's."""
    rows, places, turns, contents = [np.zeros(0, np.int64)], [np.zeros(0, np.int8)], [np.zeros(0, np.int64)], []
    for name in fields:
        if name not in batch.schema.names or batch.column(name).null_count == batch.num_rows:
            continue
        lists = batch.column(name)
        flat, row = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
        turn = np.arange(len(row)) - (lists.offsets.to_numpy() - lists.offsets[0].as_py())[row]
        content = flat.field("content").cast(pa.large_string())
        if not {"system", "user", "assistant", "tool"} <= set(rule.roles):
            if "role" in [part.name for part in flat.type]:
                wanted = pc.is_in(flat.field("role"), pa.array(rule.roles))
            else:
                wanted = pa.array(np.full(len(row), "assistant" in rule.roles))
            content, row, turn = content.filter(wanted), row[wanted.to_numpy(False)], turn[wanted.to_numpy(False)]
        rows.append(row)
        turns.append(turn)
        places.append(np.full(len(row), FIELDS.index(name), np.int8))
        contents.append(content)
    row, place, turn = np.concatenate(rows), np.concatenate(places), np.concatenate(turns)
    column = pa.chunked_array(contents, pa.large_string())
    if len(contents) > 1:
        order = np.argsort(row, kind="stable")
        row, place, turn, column = row[order], place[order], turn[order], column.take(pa.array(order))
    return RowTexts(np.searchsorted(row, np.arange(batch.num_rows + 1)), place, turn, column)


def mark_batch(
    batch: pa.RecordBatch, index: Index, scratch: match.Scratch, users: np.ndarray, fields: tuple[str, ...] = FIELDS
) -> np.ndarray:
    """Which rows may hold an item, whatever n-grams turn out to be common; notes in `scratch` who uses which n-gram on its own."""
    return scan_texts(texts_by_row(batch, index.rule, fields), index, scratch, users)[0]


def scan_texts(
    texts: RowTexts, index: Index, scratch: match.Scratch | None, users: np.ndarray, evidence: bool = False, skip_own: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The kernel over a batch: which rows are hit, and lines of evidence (see `decontam.match.scan_rows`)."""
    from decontam.compiled import worth
    from decontam.ngrams import fold_table, texts_of_column

    data, offsets = texts_of_column(texts.column)
    room, found = match.rooms_for(offsets, texts.row_at, index.table)
    scan_rows = worth(match.scan_rows, int(offsets[-1] - offsets[0]))
    how = (index.rule.skip_budget, index.rule.run_characters > 0, evidence, skip_own)
    rows = len(texts.row_at) - 1
    hit_rows, lines = np.zeros(rows, np.bool_), [np.zeros((0, match.EVIDENCE), np.int64)]
    out, row = np.empty((match.LINES, match.EVIDENCE), np.int64), 0
    scratch = scratch or match.scratch_for(index.table)
    while row < rows:
        before = row
        row, count = scan_rows(data, offsets, texts.row_at, fold_table(), room, found, index.table, scratch, how, users, hit_rows, row, out)
        lines.append(out[:count].copy())
        if row == before:  # more evidence for one row than there is room
            out = np.empty((2 * len(out), match.EVIDENCE), np.int64)
    return hit_rows, np.concatenate(lines)


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
    _, lines = scan_texts(texts, index, scratch, np.zeros(0, np.int32), evidence=True)
    hits = _hits(lines, texts, index)
    return _columns(hits, batch.num_rows, index, policy or Policy()), _as_hits(hits, texts, batch, index)


Hits = dict[str, np.ndarray]  # columns of hits of items, one line a text and item field, sorted by row, text, benchmark, item, field


def _hits(lines: np.ndarray, texts: RowTexts, index: Index) -> Hits:
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
        text = texts.column[int(lines[i, match.TEXT])].as_py()
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
    plain = whole | bool(rule.run_characters)  # common n-grams count
    share = np.maximum(lines[:, match.ALIGNED], np.where(plain, lines[:, match.COVERED_ALL], lines[:, match.COVERED])) / np.maximum(
        length, 1
    )
    made = {
        "row": lines[line, match.ROW],
        "text": lines[line, match.TEXT],
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
    places = np.cumsum([0] + [len(b.spec.fields) for b in index.benchmarks])  # of the first field of each benchmark
    _, by_name = np.unique([field for b in index.benchmarks for field in b.spec.fields], return_inverse=True)
    field_order = by_name[places[made["benchmark"]] + made["item_field"]]
    order = np.lexsort([field_order, *(made[name] for name in ("item", "benchmark", "text", "row"))])
    order = order[_decided({name: made[name][order] for name in ("row", "benchmark", "item", "item_field", "decides")}, index)]
    return {name: values[order] for name, values in made.items()}


def _decided(hits: Hits, index: Index) -> np.ndarray:
    """Which hits are of items that are found: any deciding field, or all that can be seen, where the benchmark says so.

    Args:
        hits: sorted by row.
    """
    items = max((len(b.ids) for b in index.benchmarks), default=0) + 1
    _, number = np.unique((hits["row"] * len(index.benchmarks) + hits["benchmark"]) * items + hits["item"], return_inverse=True)
    most = max((len(b.spec.fields) for b in index.benchmarks), default=0) + 1
    fields = np.unique((number * most + hits["item_field"])[hits["decides"]]) // most
    found = np.bincount(fields, minlength=int(number.max(initial=-1)) + 1)[number]
    needed = np.ones(len(number), np.int64)
    for b, benchmark in enumerate(index.benchmarks):
        if benchmark.spec.decide == "all":
            mine = hits["benchmark"] == b
            needed[mine] = np.maximum(index.deciding_units[b][hits["item"][mine]], 1)
    return np.asarray(found >= needed)


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


def _columns(hits: Hits, rows: int, index: Index, policy: Policy) -> pa.RecordBatch:
    """For each row the worst hit that decides: one to be dropped, then by coverage, by run."""
    drops = np.array([getattr(policy, b.spec.policy) == "drop" for b in index.benchmarks], bool)
    chosen = np.flatnonzero(hits["decides"])
    row, bench = hits["row"][chosen], hits["benchmark"][chosen]
    order = np.lexsort([hits["item"][chosen], bench, -hits["longest_run"][chosen], -hits["coverage_item"][chosen], ~drops[bench], row])
    worst = chosen[order[np.append(True, np.diff(row[order]) != 0)]] if len(order) else chosen
    place = np.full(rows, -1, np.int64)
    place[hits["row"][worst]] = np.arange(len(worst))
    at = pa.array(place, mask=place < 0)
    words = _words({name: values[worst] for name, values in hits.items()}, index)
    coverage = hits["coverage_item"][worst]
    reason = [
        f"{rule}: {share} of {name} {item} ({field})"
        for rule, share, name, item, field in zip(
            words["rule"], np.round(coverage, 2).tolist(), words["benchmark"], words["item_id"], words["item_field"], strict=True
        )
    ]
    verdict = np.array(["report", "drop"], object)[drops[hits["benchmark"][worst]].astype(int)]
    columns = [
        pa.array(place >= 0),
        pa.array(words["benchmark"], pa.string()).take(at),
        pc.fill_null(pa.array(coverage, pa.float64()).take(at), 0.0),
        pc.fill_null(pa.array(verdict, pa.string()).take(at), "clean"),
        pa.array(reason, pa.string()).take(at),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=COLUMNS)


def _words(hits: Hits, index: Index) -> dict[str, list[str]]:
    """The names of benchmark, item, field and rule."""
    pairs = list(zip(hits["benchmark"].tolist(), hits["item"].tolist(), hits["item_field"].tolist(), strict=True))
    rule = index.rule
    if rule.skip_budget:
        said = np.where(hits["coverage_item"] >= 0.8, f"{rule.name}:dirty", f"{rule.name}:not clean")
    else:
        said = np.where(hits["by_coverage"], rule.name, f"{rule.name}:whole")
    return {
        "benchmark": [index.benchmarks[b].name for b, _, _ in pairs],
        "item_id": [index.benchmarks[b].ids[i] for b, i, _ in pairs],
        "item_field": [index.benchmarks[b].spec.fields[f] for b, _, f in pairs],
        "rule": said.tolist(),
    }


def _as_hits(hits: Hits, texts: RowTexts, batch: pa.RecordBatch, index: Index) -> pa.RecordBatch:
    """The hits as a table of `HITS`."""
    columns: dict[str, Any] = {name: hits[name] for name in HITS.names if name in hits} | _words(hits, index)
    columns["id"] = batch.column("id").cast(pa.string()).take(pa.array(hits["row"]))
    columns["field"] = [FIELDS[place] for place in texts.field[hits["text"]]]
    columns["turn"] = texts.turn[hits["text"]]
    return pa.RecordBatch.from_arrays([pa.array(columns[field.name]).cast(field.type) for field in HITS], schema=HITS)
