"""A selection without sorting takes the rows that sorting would, whatever the pieces."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.select import first_rows


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from([0, 1, 2, 65535, 65536, 1 << 40, (1 << 64) - 1]), st.integers(0, 4)), min_size=1, max_size=40),
    spread=st.booleans(),
    weighted=st.booleans(),
    limit=st.integers(0, 90),
    size=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_first_rows_are_those_of_the_sorted_keys(rows, spread, weighted, limit, size, seed):
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 2**64, len(rows), np.uint64) if spread else np.array([key for key, _ in rows], np.uint64)
    ids = rng.permutation(len(rows)).astype(np.uint64)
    weights = np.array([weight for _, weight in rows], np.uint32) if weighted else None
    order = np.lexsort((ids, keys))
    running = np.cumsum(np.ones(len(rows), np.int64) if weights is None else weights[order])
    wanted = np.zeros(len(rows), bool)
    wanted[order[: np.searchsorted(running, limit, side="right")]] = True

    def pieces():
        for i in range(0, len(rows), size):
            yield keys[i : i + size], ids[i : i + size], None if weights is None else weights[i : i + size]

    cut = first_rows(pieces, limit)
    assert np.concatenate([cut.takes(k, i) for k, i, _ in pieces()]).tolist() == wanted.tolist()
