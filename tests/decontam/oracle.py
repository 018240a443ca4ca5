"""The definitions in plain Python, slowly: what the kernels must agree with. Nothing here is hashed."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from decontam.ngrams import DIACRITICS, UNSPACED_SCRIPTS


class Token(NamedTuple):
    text: str
    start: int
    end: int


def within(char: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= ord(char) <= high for low, high in ranges)


def folded(char: str) -> str:
    full = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(c for c in full if unicodedata.category(c)[0] in "LNM" and not within(c, DIACRITICS))


def tokens(text: str) -> list[Token]:
    """Tokens with character offsets."""
    out: list[Token] = []
    joinable = False  # the last token goes on if the next character is a mark, or both are of words
    unspaced = False
    for i, char in enumerate(text):
        category = unicodedata.category(char)
        if category == "Cf" or (within(char, DIACRITICS) and category[0] != "C"):
            continue
        letters = "" if category[0] == "C" else folded(char)
        if not letters:
            joinable = False
            continue
        mark, alone = unicodedata.category(letters[0])[0] == "M", within(letters[0], UNSPACED_SCRIPTS)
        if mark and not joinable:
            continue
        if joinable and (mark or not (alone or unspaced)):
            out[-1] = Token(out[-1].text + letters, out[-1].start, i + 1)
        else:
            out.append(Token(letters, i, i + 1))
            unspaced = alone
        joinable = True
    return out


def words(text: str) -> list[str]:
    return [token.text for token in tokens(text)]
