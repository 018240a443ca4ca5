"""Narrow keys by the billion: words put on a shelf in any order and taken back in pieces that hold every word of a hash together.

In:   words of 64 bits in lanes (a band of signatures is a lane; so is the one hash of a row): a hash above, a row's number below.
Out:  the same words, lane by lane and within it by ascending upper bits of the hash, a piece at a time.
Why:  whatever compares keys (near-duplicates by band, exact ones) then needs one piece in memory, not the set: this is the shuffle of
      a cluster, done by files. A piece is a part of the hash space, so pieces do not depend on the order in which words came.

With few words everything stays in memory; with more, each lane is a file; with very many, `2**PART_BITS` files, and as the part says
the upper bits of a hash these need not be in the word: with a billion rows 42 bits of hash are left to tell keys apart instead of 34.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

PART_BITS = 8
WHOLE = 1 << 22  # rows whose words of one lane are taken at once: 32 MB
WAITING = 1 << 21  # words in memory before they are written: few, long writes


def part_bits(total: int, whole: int = WHOLE) -> int:
    """How many upper bits of a hash name the piece it belongs to."""
    return 0 if total <= whole else PART_BITS


class Shelf:
    """Words in `lanes`, each in `2**bits` pieces; in memory, or in `folder`."""

    def __init__(self, lanes: int, bits: int, folder: Path | None) -> None:
        self.lanes, self.bits, self.folder = lanes, bits, folder
        self._held: dict[tuple[int, int], list[np.ndarray]] = {}
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._words = 0

    def add(self, hashes: np.ndarray, numbers: np.ndarray, low: int) -> None:
        """Words of rows: hashes uint64 (lanes, rows), the rows' numbers in the `low` lowest bits."""
        keep = ~np.uint64((1 << low) - 1)
        parts = (hashes >> np.uint64(64 - self.bits)).astype(np.uint8) if self.bits else np.zeros((self.lanes, 0), np.uint8)
        self._waiting.append((((hashes << np.uint64(self.bits)) & keep) | numbers.astype(np.uint64), parts))
        self._words += hashes.size
        if self.folder is not None and self._words >= WAITING:
            self._settle()

    def _settle(self) -> None:
        """What waits goes where it belongs."""
        for lane in range(self.lanes if self._waiting else 0):
            words = np.concatenate([words[lane] for words, _ in self._waiting])
            if not self.bits:
                self._append(lane, 0, words)
                continue
            parts = np.concatenate([parts[lane] for _, parts in self._waiting])
            words = words[np.argsort(parts, kind="stable")]
            ends = np.cumsum(np.bincount(parts, minlength=1 << self.bits))
            for part, piece in enumerate(np.split(words, ends[:-1])):
                self._append(lane, part, piece)
        self._waiting.clear()
        self._words = 0

    def _append(self, lane: int, part: int, words: np.ndarray) -> None:
        if self.folder is None:
            self._held.setdefault((lane, part), []).append(words)
        elif len(words):
            with (self.folder / f"{lane}-{part}").open("ab") as file:
                words.tofile(file)

    def put(self, lane: int, part: int, words: np.ndarray) -> None:
        """Words back in the place of a piece that was taken."""
        self._append(lane, part, words)

    def drain(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """(lane, part, words) of each piece once; what is not put back is gone."""
        self._settle()
        for lane in range(self.lanes):
            for part in range(1 << self.bits):
                yield lane, part, self._take(lane, part)

    def _take(self, lane: int, part: int) -> np.ndarray:
        if self.folder is None:
            pieces = self._held.pop((lane, part), [])
            return np.concatenate(pieces) if pieces else np.zeros(0, np.uint64)
        path = self.folder / f"{lane}-{part}"
        if not path.exists():
            return np.zeros(0, np.uint64)
        words = np.fromfile(path, np.uint64)
        path.unlink()
        return words


def shared(words: np.ndarray, low: int) -> np.ndarray:
    """The words of a piece whose hash another word has too, sorted."""
    words.sort()
    same = (words[1:] ^ words[:-1]) >> np.uint64(low) == 0
    member = np.zeros(len(words), np.bool_)
    member[1:] = same
    member[:-1] |= same
    return words[member]


def sharing(pieces: Iterable[tuple[np.ndarray, np.ndarray]], total: int) -> np.ndarray:
    """The numbers (int64, ascending) of rows whose hash another row has too: exact duplicates, and by chance a few more.

    Args:
        pieces: (hashes uint64, numbers below `total`); 39 bits or more of a hash are compared, as long as there are fewer than 2**33 rows.
    """
    low = number_bits(total)
    with tempfile.TemporaryDirectory(prefix="keys-") as folder:
        words = Shelf(1, part_bits(total), Path(folder) if total > WHOLE else None)
        for hashes, numbers in pieces:
            words.add(hashes[None], numbers, low)
        found = [numbers_of(shared(piece, low), low) for _, _, piece in words.drain()]
    return np.sort(np.concatenate(found))


def numbers_of(words: np.ndarray, low: int) -> np.ndarray:
    """The rows' numbers in words, int64."""
    return (words & np.uint64((1 << low) - 1)).astype(np.int64)


def number_bits(total: int) -> int:
    """The bits that a row's number needs."""
    return max(1, (max(total, 1) - 1).bit_length())
