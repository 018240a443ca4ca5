"""Where two texts differ, word by word, as spans of characters: what the browser colours.

    found = word_diff("the red fox", "the blue fox")     # found.a == [(4, 7)], found.b == [(4, 8)], found.same == 2 / 3

Words that occur once in both texts are matched first, in the longest order they share, and the gaps between them likewise (patience
diff); a small gap without such words is solved exactly. So a pair of 100 kB texts takes a fraction of a second, whatever they hold:
the plain algorithm takes minutes on repetitive ones.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

Span = tuple[int, int]

MOST = 200_000  # characters of each text that are compared
EXACT = 40_000  # a gap of so many word pairs is solved exactly; a larger one without any word of its own counts as replaced
# Letters of scripts without spaces are words of their own; white space counts where it is more than one space.
WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|\w+|[^\w\s]|(?! (?!\s))\s+")


class Diff(NamedTuple):
    """The spans of each text that the other does not have."""

    a: list[Span]
    b: list[Span]
    same: float  # 0 to 1: share of the words of both texts that are matched
    head: int  # words at the beginning that are the same
    cut: bool  # a text is longer than was compared


def word_diff(a: str, b: str, most: int = MOST) -> Diff:
    """Compare two texts by words; only the first `most` characters of each are looked at."""
    cut = len(a) > most or len(b) > most
    places_a, places_b = ([m.span() for m in WORD.finditer(text, 0, most)] for text in (a, b))
    words_a, words_b = [a[s:e] for s, e in places_a], [b[s:e] for s, e in places_b]
    matches = _meaningful(_matches(words_a, words_b), len(words_a), len(words_b))
    matched = sum(n for _, _, n in matches)
    total = len(words_a) + len(words_b)
    return Diff(
        _changed(a, places_a, [(i, n) for i, _, n in matches]),
        _changed(b, places_b, [(j, n) for _, j, n in matches]),
        2 * matched / total if total else 1.0,
        _head(words_a, words_b),
        cut,
    )


def _head(a: Sequence[str], b: Sequence[str]) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def _matches(a: list[str], b: list[str]) -> list[tuple[int, int, int]]:
    """Runs (place in a, place in b, words) that are the same, in order, not overlapping."""
    pairs: list[tuple[int, int]] = []
    waiting = [(0, len(a), 0, len(b))]
    while waiting:
        a0, a1, b0, b1 = waiting.pop()
        while a0 < a1 and b0 < b1 and a[a0] == b[b0]:
            pairs.append((a0, b0))
            a0, b0 = a0 + 1, b0 + 1
        while a0 < a1 and b0 < b1 and a[a1 - 1] == b[b1 - 1]:
            a1, b1 = a1 - 1, b1 - 1
            pairs.append((a1, b1))
        if a0 == a1 or b0 == b1:
            continue
        anchors = _anchors(a, a0, a1, b, b0, b1)
        if anchors:
            pairs += anchors
            ends = [(a0 - 1, b0 - 1), *anchors, (a1, b1)]
            waiting += [(i + 1, k, j + 1, m) for (i, j), (k, m) in itertools.pairwise(ends)]
        elif (a1 - a0) * (b1 - b0) <= EXACT:
            for i, j, n in SequenceMatcher(None, a[a0:a1], b[b0:b1], autojunk=False).get_matching_blocks():
                pairs += [(a0 + i + k, b0 + j + k) for k in range(n)]
    runs: list[tuple[int, int, int]] = []
    for i, j in sorted(pairs):
        if runs and runs[-1][0] + runs[-1][2] == i and runs[-1][1] + runs[-1][2] == j:
            runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((i, j, 1))
    return runs


def _anchors(a: list[str], a0: int, a1: int, b: list[str], b0: int, b1: int) -> list[tuple[int, int]]:
    """The words that stand once on either side, in the longest order that both share."""
    at: dict[str, int] = {}
    for j in range(b0, b1):
        at[b[j]] = -1 if b[j] in at else j
    mine: dict[str, int] = {}
    for i in range(a0, a1):
        if at.get(a[i], -1) >= 0:
            mine[a[i]] = -1 if a[i] in mine else i
    pairs = sorted((i, at[word]) for word, i in mine.items() if i >= 0)
    tails: list[int] = []  # for each length: the smallest place in b that a run of this length can end at, ...
    ends: list[int] = []  # ... and which pair that is
    before: list[int] = []
    for number, (_, j) in enumerate(pairs):
        length = bisect_left(tails, j)
        before.append(ends[length - 1] if length else -1)
        tails[length : length + 1] = [j]
        ends[length : length + 1] = [number]
    out = []
    number = ends[-1] if ends else -1
    while number >= 0:
        out.append(pairs[number])
        number = before[number]
    return out[::-1]


def _meaningful(runs: list[tuple[int, int, int]], words_a: int, words_b: int) -> list[tuple[int, int, int]]:
    """Without the short runs between longer changes: an `and` that two unlike sentences share says nothing. What goes makes the changes
    around it longer, so it is asked again, a few times."""
    for _ in range(10):
        ends = [(0, 0, 0), *runs, (words_a, words_b, 0)]
        kept = []
        for (i0, j0, n0), (i, j, n), (i1, j1, _) in zip(ends, runs, ends[2:], strict=False):
            before, after = max(i - i0, j - j0) - n0, max(i1 - i, j1 - j) - n
            if n > 3 or min(before, after) == 0 or 4 * n > before + after:
                kept.append((i, j, n))
        if len(kept) == len(runs):
            break
        runs = kept
    return runs


def _changed(text: str, places: list[Span], kept: list[tuple[int, int]]) -> list[Span]:
    """The spans between the kept runs; the space between two changed words is changed too."""
    spans: list[Span] = []
    at = 0
    for start, n in [*kept, (len(places), 0)]:
        if start > at:
            spans.append((places[at][0], places[start - 1][1]))
        at = start + n
    return spans
