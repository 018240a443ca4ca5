"""Buckets are exactly the rows with equal bands, in memory or on disk, whatever the batches; the promised recall is real."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.lsh import Buckets, choose_bands, find_buckets, recall


def split(signatures: np.ndarray, scopes: np.ndarray | None, size: int):
    numbers = np.arange(len(signatures))
    for i in range(0, len(signatures), size):
        part = slice(i, i + size)
        yield numbers[part], signatures[part], None if scopes is None else scopes[part]


def groups(found: Buckets) -> list[set[frozenset[int]]]:
    """Per band, the sets of rows that share a bucket."""
    out = []
    for band in range(found.bucket.shape[1]):
        members: dict[int, set[int]] = {}
        for row, bucket in zip(found.rows.tolist(), found.bucket[:, band].tolist(), strict=True):
            if bucket >= 0:
                members.setdefault(bucket, set()).add(row)
        assert all(len(rows) == found.sizes[bucket] for bucket, rows in members.items())
        out.append({frozenset(rows) for rows in members.values()})
    return out


def naive(signatures: np.ndarray, scopes: np.ndarray | None, bands: int, rows: int) -> list[set[frozenset[int]]]:
    out = []
    for band in range(bands):
        members: dict[tuple, set[int]] = {}
        for i, signature in enumerate(signatures):
            key = (int(scopes[i]) if scopes is not None else 0, *signature[band * rows : (band + 1) * rows].tolist())
            members.setdefault(key, set()).add(i)
        out.append({frozenset(rows) for rows in members.values() if len(rows) > 1})
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 3), st.integers(1, 25), st.booleans(), st.integers(0, 2**32 - 1))
def test_buckets_are_equal_bands(count, bands, rows, size, scoped, seed):
    rng = np.random.default_rng(seed)
    signatures = rng.integers(0, 4, (count, bands * rows + 1)).astype(np.uint32)
    scopes = rng.integers(0, 2, count).astype(np.uint64) if scoped else None
    memory = find_buckets(split(signatures, scopes, size), count, bands, rows)
    disk = find_buckets(split(signatures, scopes, 7), count, bands, rows, in_memory=0)
    pieces = find_buckets(split(signatures, scopes, 3), count, bands, rows, in_memory=0, whole=0)
    assert groups(memory) == naive(signatures, scopes, bands, rows)
    for a, b, c in zip(memory, disk, pieces, strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, c)
    assert memory.rows.tolist() == sorted({i for band in groups(memory) for group in band for i in group})


def test_nothing_and_one_row():
    for count in (0, 1):
        found = find_buckets(split(np.zeros((count, 8), np.uint32), None, 5), count, 4, 2)
        assert len(found.rows) == 0 and len(found.sizes) == 0


def test_rows_without_signature_are_absent():
    numbers = np.array([3, 7])
    found = find_buckets([(numbers, np.ones((2, 4), np.uint32), None)], 10, 2, 2)
    assert found.rows.tolist() == [3, 7]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.95, 1.0])
def test_chosen_bands_keep_their_promise(threshold):
    bands, rows = choose_bands(threshold, 112)
    assert bands * rows <= 112
    assert recall(threshold, bands, rows) >= 0.85
    assert rows == 112 or recall(threshold, 112 // (rows + 1), rows + 1) < 0.85, "a longer band would still do"


@pytest.mark.parametrize("jaccard", [0.6, 0.7, 0.8])
def test_measured_recall_is_the_formula(jaccard):
    from datasketch import MinHash

    rng = np.random.default_rng(5)
    pairs, size = 400, 240
    common = round(2 * size * jaccard / (1 + jaccard))
    signatures = np.empty((2 * pairs, 112), np.uint32)
    for i in range(pairs):
        base = rng.integers(0, 2**32, 2 * size - common, dtype=np.uint64)
        for side, values in enumerate((base[:size], base[size - common :])):
            sketch = MinHash(num_perm=112, scheme="affine32", hashfunc=lambda h: h)
            sketch.update_batch(values.tolist())
            signatures[2 * i + side] = sketch.hashvalues
    bands, rows = choose_bands(0.7, 112)
    found = find_buckets([(np.arange(2 * pairs), signatures, None)], 2 * pairs, bands, rows)
    together = {tuple(sorted(group)) for band in groups(found) for group in band}
    share = sum((2 * i, 2 * i + 1) in together for i in range(pairs)) / pairs
    assert abs(share - recall(jaccard, bands, rows)) < 0.08
