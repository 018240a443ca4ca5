"""Which passages two texts share: the spans to mark on both sides of a contaminated row.

The scan keeps the longest shared run of each hit. To read a case one wants to see every shared passage, so they are found again here,
for the two texts on the screen only, by runs of words without regard to case and punctuation.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from app.diff import Span

WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|\w+")
NGRAM = 5  # words a shared passage has at least
MOST = 200_000  # characters of each text that are looked at


class Shared(NamedTuple):
    """Shared passages in each text, in order, and the share of the second text's words that lie in them."""

    a: list[Span]
    b: list[Span]
    covered: float


def shared_passages(a: str, b: str, n: int = NGRAM) -> Shared:
    """The runs of at least `n` words that stand in both texts; in a shorter text all its words are one run."""
    words_a, words_b = ([(m.group().casefold(), *m.span()) for m in WORD.finditer(text, 0, MOST)] for text in (a, b))
    n = max(1, min(n, len(words_a), len(words_b)))
    grams: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for j in range(len(words_b) - n + 1):
        grams[tuple(word for word, _, _ in words_b[j : j + n])].append(j)
    in_a, in_b = [False] * len(words_a), [False] * len(words_b)
    for i in range(len(words_a) - n + 1):
        key = tuple(word for word, _, _ in words_a[i : i + n])
        places = grams.get(key)
        if places is None:
            continue
        in_a[i : i + n] = [True] * n
        for j in places:
            in_b[j : j + n] = [True] * n
        grams[key] = []  # its places are marked once, however often it stands in the first text
    return Shared(_spans(words_a, in_a), _spans(words_b, in_b), sum(in_b) / len(in_b) if in_b else 0.0)


def _spans(words: list[tuple[str, int, int]], inside: list[bool]) -> list[Span]:
    spans: list[Span] = []
    open_ = False
    for (_, start, end), here in zip(words, inside, strict=True):
        if here and open_:
            spans[-1] = (spans[-1][0], end)
        elif here:
            spans.append((start, end))
        open_ = here
    return spans


def merged(spans: Iterable[Span], length: int) -> list[Span]:
    """Spans in order, overlaps joined, cut to a text of this length; what lies outside or is empty is left out."""
    out: list[Span] = []
    for start, end in sorted((max(0, s), min(length, e)) for s, e in spans):
        if start >= end:
            continue
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out
