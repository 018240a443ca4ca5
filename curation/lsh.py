"""Banded locality-sensitive hashing: which rows share a band of their MinHash signature, and so may be near-duplicates.

In:   signatures (uint32, rows x permutations) in batches, each with the numbers of its rows and of the scopes they are compared in.
Out:  `Buckets`: the candidate rows, and for each of them and each band the bucket it shares with others.
Why:  two rows of Jaccard similarity j agree in a band of r values with probability j**r, so in one of b bands with
      1 - (1 - j**r)**b (`recall`): only pairs that share a bucket are ever compared (Leskovec, Rajaraman, Ullman,
      Mining of Massive Datasets, section 3.4).

    found = find_buckets([(numpy.arange(len(signatures)), signatures, None)], len(signatures), bands=18, rows=6)

A band of a row becomes one 64-bit word: its hash above, the row's number below. Sorting the words of a band puts its buckets
side by side; that is all. No compiled code: numpy sorts such words at memory speed. Beyond `IN_MEMORY` words the bands lie
in temporary files, and one band, or a piece of one, is in memory at a time (curation.shelf); all ways give the same buckets,
whatever the batches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from columnar.errors import CaravanError
from curation import shelf

IN_MEMORY = 1 << 25  # words of 8 bytes over all bands: 256 MB, two million rows in 16 bands
MOST = 2**31 - 1  # buckets that have a number
RECALL_AT_THRESHOLD = 0.85
_MIX, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_BLOCK = 512  # rows hashed at once: signatures and scratch stay in the second-level cache

Batch = tuple[np.ndarray, np.ndarray, np.ndarray | None]


class Buckets(NamedTuple):
    """Rows that share at least one band with another row.

    `rows` int64 ascending: the candidates. `bucket` int32 (candidates, bands): number of the candidate's bucket in that band,
    -1 where it is alone. `sizes` int64 (buckets,): members of each.
    """

    rows: np.ndarray
    bucket: np.ndarray
    sizes: np.ndarray


def recall(jaccard: float, bands: int, rows: int) -> float:
    """Probability that a pair of this similarity shares a bucket."""
    return float(1 - (1 - jaccard**rows) ** bands)


def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows per band): the longest bands, hence the fewest candidates, that still find `RECALL_AT_THRESHOLD` of the pairs
    exactly at the threshold (all pairs above it are found more often)."""
    for rows in range(num_perm, 1, -1):
        if recall(threshold, num_perm // rows, rows) >= RECALL_AT_THRESHOLD:
            return num_perm // rows, rows
    return num_perm, 1


def band_hashes(signatures: np.ndarray, scopes: np.ndarray | None, bands: int, rows: int) -> np.ndarray:
    """uint64 (bands, signatures): the hash of each band. Rows of different scopes get different hashes, so they never meet."""
    hashes = np.empty((bands, len(signatures)), np.uint64)
    for start in range(0, len(signatures), _BLOCK):
        block = np.ascontiguousarray(signatures[start : start + _BLOCK, : bands * rows].T.astype(np.uint64))
        block = block.reshape(bands, rows, -1)
        state = np.full((bands, block.shape[2]), _MIX)
        if scopes is not None:
            state ^= scopes[start : start + _BLOCK].astype(np.uint64) * _MIX2
        for row in range(rows):
            state ^= block[:, row]
            state *= _MIX2
            state ^= state >> np.uint64(32)
        hashes[:, start : start + _BLOCK] = state * _MIX
    return hashes


def find_buckets(
    batches: Iterable[Batch], total: int, bands: int, rows: int, in_memory: int = IN_MEMORY, whole: int = shelf.WHOLE
) -> Buckets:
    """All buckets with at least two members.

    Args:
        batches: (row numbers below `total`, signatures, scopes or None); a row without a signature is simply not there.
        total: an upper bound of the row numbers: with it the words are laid out.
        in_memory: words that may be held in memory; more go to temporary files.
        whole: rows up to which a band is taken whole; with more it is taken in pieces.
    """
    low = shelf.number_bits(total)
    with tempfile.TemporaryDirectory(prefix="lsh-") as folder:
        words = shelf.Shelf(bands, shelf.part_bits(total, whole), Path(folder) if total * bands > in_memory else None)
        for numbers, signatures, scopes in batches:
            words.add(band_hashes(signatures, scopes, bands, rows), numbers, low)
        meets = np.zeros(total, np.bool_)
        for band, part, piece in words.drain():
            shared = shelf.shared(piece, low)
            meets[shelf.numbers_of(shared, low)] = True
            words.put(band, part, shared)
        candidates = np.flatnonzero(meets)
        del meets
        return _assemble(words, candidates, bands, low)


def _assemble(words: shelf.Shelf, candidates: np.ndarray, bands: int, low: int) -> Buckets:
    bucket = np.full((len(candidates), bands), -1, np.int32)
    sizes: list[np.ndarray] = []
    first = 0
    for band, _, piece in words.drain():
        if len(piece):
            starts = np.concatenate([[True], (piece[1:] ^ piece[:-1]) >> np.uint64(low) != 0])
            group = np.cumsum(starts) - 1
            bucket[np.searchsorted(candidates, shelf.numbers_of(piece, low)), band] = group + first
            sizes.append(np.bincount(group))
            first += int(group[-1]) + 1
            if first > MOST:
                raise CaravanError(f"more than {MOST:,} groups of rows share a band", "build the mix in parts, or with a higher threshold")
    return Buckets(candidates, bucket, np.concatenate(sizes) if sizes else np.zeros(0, np.int64))
