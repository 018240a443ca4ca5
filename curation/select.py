"""The first rows in the order of a key, as many as a limit allows: without sorting, in a few passes over the keys, piece by piece.

In:   a function that gives the pieces again and again: (key uint64, tie uint64, weight) of each row; a limit in weight.
Out:  `Cut`: rows below a key are taken, and of those that have this very key the ones up to a tie.
Why:  sampling by hashed keys then needs no memory that grows with the rows, and the pieces may lie on disk or be dealt out: each pass
      is a sum of histograms (a selection by digits of the key, 16 bits at a time).

    cut = first_rows(lambda: [(keys, ids, None)], limit=1000)
    taken = cut.takes(keys, ids)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

DIGIT = 16
Piece = tuple[np.ndarray, np.ndarray, np.ndarray | None]


class Cut(NamedTuple):
    """Where the taken rows end, in the order of (key, tie); the row at this very place is the last that is taken."""

    key: int
    tie: int
    none: bool = False  # not even one row fits

    def takes(self, keys: np.ndarray, ties: np.ndarray) -> np.ndarray:
        """Which of these rows are taken."""
        if self.none:
            return np.zeros(len(keys), np.bool_)
        key = np.uint64(self.key)
        return (keys < key) | ((keys == key) & (ties <= np.uint64(self.tie)))


NO_ROW = Cut(0, 0, none=True)


def before(key: int) -> Cut:
    """All rows of a lesser key."""
    return Cut(key - 1, (1 << 64) - 1) if key else NO_ROW


def first_rows(pieces: Callable[[], Iterable[Piece]], limit: int) -> Cut:
    """The longest run of first rows whose weights come to no more than `limit`; a weight of None is 1 for every row.

    Rows that weigh nothing are taken as long as those before them are.
    """
    prefix, left = 0, limit
    for shift in range(64 - DIGIT, -1, -DIGIT):
        weights = np.zeros(1 << DIGIT, np.int64)
        for keys, _, weight in pieces():
            mine = keys >> np.uint64(shift + DIGIT) == np.uint64(prefix) if shift + DIGIT < 64 else np.ones(len(keys), np.bool_)
            digits = ((keys[mine] >> np.uint64(shift)) & np.uint64((1 << DIGIT) - 1)).astype(np.int64)
            weights += np.bincount(digits, None if weight is None else weight[mine], 1 << DIGIT).astype(np.int64)
        running = np.cumsum(weights)
        digit = int(np.searchsorted(running, left, side="right"))  # the first whose rows do not all fit
        if digit == 1 << DIGIT:  # all fit: only possible in the first pass
            return Cut((1 << 64) - 1, (1 << 64) - 1)
        left -= int(running[digit - 1]) if digit else 0
        prefix = prefix << DIGIT | digit
    found = [(ties[keys == np.uint64(prefix)], None if w is None else w[keys == np.uint64(prefix)]) for keys, ties, w in pieces()]
    ties = np.concatenate([t for t, _ in found])
    each = np.concatenate([np.ones(len(t), np.int64) if w is None else w.astype(np.int64) for t, w in found])
    order = np.argsort(ties, kind="stable")
    fitting = int(np.searchsorted(np.cumsum(each[order]), left, side="right"))
    if fitting:
        return Cut(prefix, int(ties[order[fitting - 1]]))
    return before(prefix)
