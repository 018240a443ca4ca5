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


def covered(item: list[str], turns: list[list[str]], n: int) -> list[bool]:
    """Which tokens of the item lie in an n-gram that one of the turns has."""
    grams = {tuple(turn[i : i + n]) for turn in turns for i in range(len(turn) - n + 1)}
    out = [False] * len(item)
    for i in range(len(item) - n + 1):
        if tuple(item[i : i + n]) in grams:
            out[i : i + n] = [True] * n
    return out


def aligned(item: list[str], turns: list[list[str]], n: int) -> int:
    """The most tokens that are the same when item and turn lie beside each other with at least one n-gram in common."""
    best = 0
    for turn in turns:
        for shift in range(-len(item), len(turn)):
            same = [0 <= x + shift < len(turn) and item[x] == turn[x + shift] for x in range(len(item))]
            if any(all(same[x : x + n]) for x in range(len(item) - n + 1)):
                best = max(best, sum(same))
    return best


def longest_run(item: list[str], turn: list[str]) -> int:
    best = 0
    for i in range(len(item)):
        for j in range(len(turn)):
            run = 0
            while i + run < len(item) and j + run < len(turn) and item[i + run] == turn[j + run]:
                run += 1
            best = max(best, run)
    return best


def skip_covered(item: list[str], turns: list[list[str]], n: int, budget: int) -> int:
    """Llama 2: tokens in runs longer than n that begin with n equal tokens, differ in at most `budget` places, and end equal."""
    out = [False] * len(item)
    for turn in turns:
        for i in range(len(item) - n + 1):
            for j in range(len(turn) - n + 1):
                if item[i : i + n] != turn[j : j + n]:
                    continue
                reach, step, missed = n, n, 0
                while i + step < len(item) and j + step < len(turn) and missed <= budget:
                    if item[i + step] == turn[j + step]:
                        reach = step + 1
                    else:
                        missed += 1
                    step += 1
                if reach > n:
                    out[i : i + reach] = [True] * reach
    return sum(out)
