"""Common n-grams: those that anybody might write ("Write a function to check whether the given"). They are no evidence.

An n-gram is *used on its own* by a row that contains it without holding any item it belongs to. It is common when two sources
of the data use it on their own, or two benchmarks do so in their items. Rows that do hold an item (HELD: all of a short one, half of
a long one) do not count, so that a benchmark copied into many sources does not make itself invisible.

In: an index and the batches of a dataset. Out: the index, with its common n-grams marked.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decontam import match
from decontam.index import Index
from decontam.ngrams import fold_table, texts_of_column


def common_in_benchmarks(index: Index) -> np.ndarray:
    """For each n-gram: do two benchmarks use it on their own."""
    texts = texts_of_column(index.texts)
    scratch = match.scratch_for(index.table)
    rows = len(index.texts)
    each = np.arange(rows + 1, dtype=np.int64)
    owner = index.table.owner
    match.scan_rows(texts.data, texts.offsets, each, each[:-1], fold_table(), index.table, scratch, 0, False, owner, True)
    return scratch.common


def merge_users(scratches: list[match.Scratch]) -> np.ndarray:
    """For each n-gram: do two sources use it on their own; each thread has noted what it saw."""
    common = np.zeros_like(scratches[0].common)
    first = np.full_like(scratches[0].first_user, -1)
    for scratch in scratches:
        common |= scratch.common | ((first >= 0) & (scratch.first_user >= 0) & (first != scratch.first_user))
        first = np.where(first < 0, scratch.first_user, first)
    return common


def with_common(index: Index, common: np.ndarray) -> Index:
    """The index with these n-grams marked; items made of nothing else count only as a whole turn."""
    table = index.table
    own = np.zeros(len(table.unit_at) - 1, bool)
    begins = table.gram_of >= 0
    np.logical_or.at(own, table.unit_of[begins], ~common[table.gram_of[begins]])
    whole = np.where(~own & (table.whole == match.ANYWHERE), match.WHOLE_TURN, table.whole).astype(np.uint8)
    return replace(index, table=table._replace(common=common, whole=whole))
