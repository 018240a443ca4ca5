"""Which candidates are near-duplicates of a row that is KEPT: exact n-gram Jaccard, decided greedily in keep order.

In:   `Buckets` (curation.lsh), the n-gram set and signature of every candidate (`Sets`), the order in which rows may keep others.
Out:  `Decisions`: for each candidate its keeper or -1, the exact Jaccard with it, the agreement of both signatures, the band.
Why:  a chain a~b~c of pairwise duplicates says nothing about a and c; unions of such chains remove rows that resemble nothing kept.

The rule, row by row in keep order: the kept rows remembered in one of its buckets are its possible keepers, those whose
signatures agree most first; the first whose exact Jaccard reaches the threshold keeps it. A row without keeper is itself
kept and remembered in its buckets. A dropped row leaves its keeper in its buckets instead: what resembles the dropped
one is measured against the row that stands for it. So no removed row is below the threshold with its kept row, ever; what
may be missed is a pair that shares no bucket (`lsh.recall`), or one beyond the `REMEMBERED` kept rows of a bucket.

The sets lie in a temporary file (8 bytes an n-gram); a block of rows and its possible keepers are in memory at a time.
"""

from __future__ import annotations

import os
import tempfile
from typing import NamedTuple

import numpy as np

from curation.lsh import Buckets

REMEMBERED = 32  # kept rows that a bucket remembers: bounds the work in families of templates, where thousands share a band
SLACK = 3.0  # standard deviations that signatures may agree less than the threshold and still be verified
BLOCK_ROWS = 20_000
BLOCK_WORDS = 8 << 20  # 64 MB of n-grams in memory at a time


class Decisions(NamedTuple):
    """For each row given to `decide`: keeper (its number, -1 where kept), jaccard, agreement (shares of equal slots), band."""

    keeper: np.ndarray
    jaccard: np.ndarray
    agreement: np.ndarray
    band: np.ndarray
    forgotten: int  # times a full bucket could not remember one more kept row


class Sets:
    """A record of rows 0, 1, 2, ... in a temporary file, appended in order and read back in any order.

    A record is the row's signature, two 32-bit slots a word, and its distinct n-grams, a word each.
    """

    def __init__(self, num_perm: int) -> None:
        self.num_perm = num_perm
        self.file = tempfile.TemporaryFile(prefix="ngram-sets-")  # noqa: SIM115 - closed by __exit__
        self._starts: list[np.ndarray] = [np.zeros(1, np.int64)]

    def __enter__(self) -> Sets:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def append(self, words: np.ndarray, sizes: np.ndarray) -> None:
        """The records of the next rows, and how many words each has: `minhash.records`."""
        words.tofile(self.file)
        self._starts.append(self._starts[-1][-1] + np.cumsum(sizes))

    def starts(self) -> np.ndarray:
        """Where each row's words begin, and one more for the end; in words."""
        self.file.flush()
        self._starts = [np.concatenate(self._starts)]
        return self._starts[0]

    def gather(self, rows: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(words, starts) of these rows (ascending); neighbours are read at once."""
        sizes = starts[rows + 1] - starts[rows]
        out = np.concatenate([[0], np.cumsum(sizes)])
        words = np.empty(int(out[-1]), np.uint64)
        view = words.view(np.uint8).data
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, last in zip(np.concatenate([[0], breaks]).tolist(), np.concatenate([breaks, [len(rows)]]).tolist(), strict=True):
            low, high, offset = int(out[first]) * 8, int(out[last]) * 8, int(starts[rows[first]]) * 8
            while low < high:  # a call reads at most 2 GB
                got = os.preadv(self.file.fileno(), [view[low : min(high, low + (1 << 30))]], offset)
                if not got:
                    raise OSError("the temporary file of n-gram sets was cut short")
                low, offset = low + got, offset + got
        return words, out


def decide(buckets: Buckets, order: np.ndarray, sets: Sets, threshold: float, fixed: np.ndarray | None = None) -> Decisions:
    """Go through the rows in keep order and give each its keeper or none.

    Args:
        buckets: bucket numbers of rows 0..n-1 as `sets` holds them (`buckets.rows` is not used).
        order: the rows to decide, best keeper first.
        fixed: which rows are never dropped (those of a reference dataset).
    """
    from curation.kernels import decide_block
    from decontam.compiled import worth

    rows, bands = buckets.bucket.shape
    starts = sets.starts()
    room = np.minimum(buckets.sizes, REMEMBERED)
    slot = np.concatenate([[0], np.cumsum(room)]).astype(np.int64)
    kept = np.full(int(slot[-1]), -1, np.int32)
    filled = np.zeros(len(buckets.sizes), np.int32)
    keeper, band = np.full(rows, -1, np.int64), np.full(rows, -1, np.int16)
    jaccard, agreement = np.zeros(rows), np.zeros(rows, np.float32)
    fixed = np.zeros(rows, np.bool_) if fixed is None else fixed
    needed = threshold - SLACK * np.sqrt(threshold * (1 - threshold) / sets.num_perm)
    place = np.full(rows, -1, np.int32)
    seen = np.full(rows, -1, np.int32)
    forgotten = 0
    position, length = 0, BLOCK_ROWS
    while position < len(order):
        block = order[position : position + length]
        used = _used(block, buckets.bucket, slot, filled, kept)
        if len(block) > 1 and int((starts[used + 1] - starts[used]).sum()) > BLOCK_WORDS:
            length = max(1, len(block) // 2)
            continue
        words, at = sets.gather(used, starts)
        place[used] = np.arange(len(used))
        forgotten += worth(decide_block, 100 * len(block))(
            block, buckets.bucket, fixed, threshold, needed, words, words.view(np.uint32), at, place, sets.num_perm, bands * REMEMBERED,
            slot, kept, filled, seen, keeper, jaccard, agreement, band,
        )  # fmt: skip
        place[used] = -1
        position += len(block)
        length = min(BLOCK_ROWS, length * 2)
    return Decisions(keeper, jaccard, agreement, band, forgotten)


def _used(block: np.ndarray, bucket: np.ndarray, slot: np.ndarray, filled: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The rows whose sets a block needs: its own, and the kept rows that its buckets remember."""
    own = bucket[block]
    shared = np.zeros(len(filled), np.bool_)
    shared[own[own >= 0]] = True
    buckets = np.flatnonzero(shared)
    used = np.zeros(len(bucket), np.bool_)
    used[block] = True
    used[kept[_ranges(slot[buckets], filled[buckets])]] = True
    return np.flatnonzero(used)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start+1, ... for each start, one after the other."""
    total = int(lengths.sum())
    return (
        np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(total) if total else np.zeros(0, np.int64)
    )
