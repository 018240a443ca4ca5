"""Text to tokens to n-gram hashes, at memory speed: what decontamination and near-duplicate search are built on.

In: Arrow string buffers. Out: token hashes with their byte spans, and rolling n-gram hashes.

What a token is. Text is read code point by code point. Each is folded: compatibility forms become plain ones (full-width
letters, ligatures, superscripts), case is folded, diacritics are dropped (NFKD, casefold, no combining diacritical marks).
    word        letters and digits join into one token with their neighbours:     "Don't" -> don, t      "ＡＢ²" -> ab2
    unspaced    in scripts written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) every letter is a token,
                together with the vowel signs and tone marks that follow it:      "什么x" -> 什, 么, x
    mark        a vowel sign or tone mark belongs to the token before it; without one it is nothing
    ignored     soft hyphens, zero-width characters, direction marks, diacritics: as if they were not there
    separator   everything else: spaces, punctuation, symbols, emoji. A text of symbols alone has no tokens.
Spans are those of the original text. `tests/decontam/ngram_oracle.py` says the same in plain Python.

    .venv/bin/python -c "import pyarrow as pa; from decontam.ngrams import token_table; print(token_table(pa.array(['A b, c!'])))"
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from decontam.compiled import kernel, worth

SEPARATOR, IGNORED, MARK, UNSPACED, WORD = range(5)
CODE_POINTS = sys.maxunicode + 1

# Folded letters in these ranges are tokens of their own.
UNSPACED_SCRIPTS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # ideographic repetition, closing mark, zero
    (0x3031, 0x312F),  # hiragana, katakana, bopomofo
    (0x31A0, 0x31FF),  # bopomofo and katakana extensions
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xA9E0, 0xA9FF),  # Burmese extensions
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x1B000, 0x1B16F),  # kana supplements
    (0x20000, 0x3FFFF),  # Han, further extensions
)
# Marks that change how a letter looks, not which letter it is: diacritics and variation selectors.
DIACRITICS = (
    (0x0300, 0x036F),
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),
    (0xFE00, 0xFE0F),
    (0xFE20, 0xFE2F),
    (0xE0100, 0xE01EF),
)

U = np.uint64
SEED = U(0xCBF29CE484222325)  # where the hash of a token begins
MIX = U(0xFF51AFD7ED558CCD)  # the first multiplier of MurmurHash3's finaliser
BASE = U(0x9E3779B97F4A7C15)  # an n-gram is a polynomial of its tokens' hashes in this base, modulo 2^64
ONE, HALF = U(1), U(32)
HIGH_BITS, LOW_BITS = U(0x8080808080808080), U(0x0101010101010101)  # of eight bytes
GATHER = U(0x0102040810204080)  # brings the lowest bits of eight bytes together, in the highest byte of the product


class Texts(NamedTuple):
    """An Arrow string column as plain arrays: text i is `data[offsets[i]:offsets[i + 1]]`."""

    data: np.ndarray  # uint8
    offsets: np.ndarray  # int64


class Fold(NamedTuple):
    """What each code point is (`kind`) and becomes (`to`: a code point, or -1 - the place of a zero-terminated list in `lists`)."""

    kind: np.ndarray  # uint8
    to: np.ndarray  # int32
    lists: np.ndarray  # int32


class Room(NamedTuple):
    """Where the tokeniser writes: tokens, and the bytes of the text it is at."""

    hashes: np.ndarray  # uint64, of tokens
    starts: np.ndarray  # int64: bytes of the data
    ends: np.ndarray
    words: np.ndarray  # uint64: the text's bytes with A to Z made small
    plain: np.ndarray  # uint8: the same memory, byte by byte
    inside: np.ndarray  # uint8: a bit for each byte, 0 for ASCII separators


def room_for(longest: int, tokens: int = 0) -> Room:
    """Room for texts of up to `longest` bytes and for so many tokens; if not said, those of one text: n bytes hold at most (n + 1) // 2."""
    tokens = tokens or (longest + 1) // 2
    words = np.empty(longest // 8 + 2, np.uint64)
    inside = np.empty(longest // 8 + 9, np.uint8)
    return Room(np.empty(tokens, np.uint64), np.empty(tokens, np.int64), np.empty(tokens, np.int64), words, words.view(np.uint8), inside)


def fold_code_point(code: int) -> tuple[int, str]:
    """Kind and folded text of one code point: the definition at the top of this file."""
    char = chr(code)
    category = unicodedata.category(char)
    if category == "Lo" and unicodedata.is_normalized("NFKD", char):  # no case, no other form: most letters there are
        return (UNSPACED if _within(code, UNSPACED_SCRIPTS) else WORD), char
    if category[0] == "C":  # Cf: invisible; Cs, Co, Cn, Cc: no text
        return (IGNORED if category == "Cf" else SEPARATOR), ""
    full = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    folded = "".join(c for c in full if unicodedata.category(c)[0] in "LNM" and not _within(ord(c), DIACRITICS))
    if not folded:
        return (IGNORED if _within(code, DIACRITICS) else SEPARATOR), ""
    if unicodedata.category(folded[0])[0] == "M":
        return MARK, folded
    return (UNSPACED if _within(ord(folded[0]), UNSPACED_SCRIPTS) else WORD), folded


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= code <= high for low, high in ranges)


@functools.cache
def fold_table() -> Fold:
    """`fold_code_point` of every code point, for the kernels (built once per process, about 0.2 s)."""
    kind, to, lists = np.zeros(CODE_POINTS, np.uint8), np.zeros(CODE_POINTS, np.int32), [0]
    for low, high in ((0, 0x323B0), (0xE0000, 0xE0200)):  # beyond and between them nothing is assigned (tested)
        for code in range(low, high):
            found, folded = fold_code_point(code)
            kind[code] = found
            if len(folded) == 1:
                to[code] = ord(folded)
            elif folded:
                to[code] = -1 - len(lists)
                lists += [*map(ord, folded), 0]
    return Fold(kind, to, np.array(lists, np.int32))


def texts_of_column(column: pa.Array | pa.ChunkedArray) -> Texts:
    """The buffers of a string column (nulls read as empty texts); no copy for one chunk of `large_string`."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if not pa.types.is_large_string(column.type):
        column = column.cast(pa.large_string())
    if column.null_count:
        column = column.fill_null("")
    _, offsets, data = column.buffers()
    if len(column) == 0 or offsets is None:
        return _frozen(np.zeros(0, np.uint8), np.zeros(len(column) + 1, np.int64))
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return _frozen(np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8), bounds)


def _frozen(data: np.ndarray, offsets: np.ndarray) -> Texts:
    """Read-only views, always: a kernel is compiled anew for every mixture of read-only and writable arrays."""
    data, offsets = data.view(), offsets.view()
    data.flags.writeable = offsets.flags.writeable = False
    return Texts(data, offsets)


@kernel(inline="always")
def mix(h):  # type: ignore[no-untyped-def]
    """Spread a hash over all 64 bits."""
    h = (h ^ (h >> HALF)) * MIX
    return h ^ (h >> HALF)


@kernel(inline="always")
def eight_bytes(data, i):  # type: ignore[no-untyped-def]
    """`data[i:i + 8]` as one number, the first byte lowest (unsigned places are not checked for being negative: one load)."""
    i = U(i)
    low = U(data[i]) | U(data[i + U(1)]) << U(8) | U(data[i + U(2)]) << U(16) | U(data[i + U(3)]) << U(24)
    high = U(data[i + U(4)]) | U(data[i + U(5)]) << U(8) | U(data[i + U(6)]) << U(16) | U(data[i + U(7)]) << U(24)
    return low | high << HALF


@kernel(inline="always")
def within_bytes(eight, low, high):  # type: ignore[no-untyped-def]
    """The high bit of each of eight bytes (none above 0x7F) that is from `low` to `high`."""
    return (eight + LOW_BITS * U(0x80 - low)) & ~(eight + LOW_BITS * U(0x7F - high)) & HIGH_BITS


@kernel(inline="always")
def plain_bytes(eight):  # type: ignore[no-untyped-def]
    """Eight bytes with A to Z made small; and eight bits: which of them belong to a token (as far as ASCII can say)."""
    wide = eight & HIGH_BITS
    low = eight ^ wide
    low |= within_bytes(low, 65, 90) >> U(2)  # A to Z become a to z: 0x20 more
    inside = wide | within_bytes(low, 97, 122) | within_bytes(low, 48, 57)
    return low | wide, ((inside >> U(7)) * GATHER) >> U(56)


@kernel
def _plain(data, start, end, room):  # type: ignore[no-untyped-def]
    """`plain_bytes` of `data[start:end]` into `room.words` and `room.inside` (the compiler makes wide instructions of this loop)."""
    words = (end - start + 7) >> 3
    whole = min(words, (len(data) - start) >> 3)
    for w in range(whole):
        room.words[w], room.inside[w] = plain_bytes(eight_bytes(data, start + (w << 3)))
    if whole < words:  # the last bytes of the data
        eight = U(0)
        for i in range(end - 1, start + (whole << 3) - 1, -1):
            eight = eight << U(8) | U(data[i])
        room.words[whole], room.inside[whole] = plain_bytes(eight)


@intrinsic
def trailing_zeros(context, number):  # type: ignore[no-untyped-def]
    """The place of the lowest bit that is set: one instruction."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@kernel
def tokenise(data, start, end, fold, room, count):  # type: ignore[no-untyped-def]
    """Put hash and byte span of every token of `data[start:end]` into `room`, from place `count` on; returns the place after the last.

    ASCII letters and what is not ASCII stand together between ASCII separators. Such a stretch is found in 64 bytes at once, by where
    the bits of `room.inside` change. If it is ASCII it is a token; if not, `_wide_tokens` reads its code points.
    A token is hashed over its folded code points, ASCII as one byte, others as three with the high bit set, eight bytes at a time.

    Args:
        data: UTF-8 bytes (wrong bytes count as separators).
        fold: what `fold_table` gives.
        room: what `room_for` gives for `end - start` bytes and the tokens already in it.
    """
    _plain(data, start, end, room)
    size = end - start
    before, first = U(0), -1
    for k in range(0, size + 1, 64):
        inside = eight_bytes(room.inside, k >> 3)
        if size - k < 64:
            inside &= (ONE << U(size - k)) - ONE
        edges = inside ^ (inside << ONE | before)
        before = inside >> U(63)
        while edges:
            last = k + np.int64(trailing_zeros(edges))  # type: ignore[call-arg]
            edges &= edges - ONE
            if first < 0:
                first = last
                continue
            h, wide, i = SEED, U(0), first
            while i + 8 <= last:
                eight = eight_bytes(room.plain, i)
                wide |= eight
                h = mix(h ^ eight)
                i += 8
            eight = eight_bytes(room.plain, i) & ((ONE << U((last - i) << 3)) - ONE)
            if (wide | eight) & HIGH_BITS:
                count = _wide_tokens(data, start + first, start + last, fold, room, count)
            else:
                room.hashes[U(count)] = mix(h ^ eight)
                room.starts[U(count)] = start + first
                room.ends[U(count)] = start + last
                count += 1
            first = -1
    return count


@kernel(inline="always")
def put(h, block, filled, byte):  # type: ignore[no-untyped-def]
    """One more byte of a token: its hash so far, and the bytes (how many) that are not in it yet."""
    block |= U(byte) << U(8 * filled)
    if filled == 7:
        return mix(h ^ block), U(0), 0
    return h, block, filled + 1


@kernel
def _wide_tokens(data, i, end, fold, room, count):  # type: ignore[no-untyped-def]
    """Tokens of `data[i:end]`, which has no ASCII separator, code point by code point: the definition at the top of this file."""
    inside = SEPARATOR  # kind of the open token: WORD, UNSPACED, or none
    h, block, filled = SEED, U(0), 0
    while i < end:
        code, width = decode(data, i, end)
        i += width
        kind, to = fold.kind[code], fold.to[code]
        if kind == SEPARATOR:
            inside = SEPARATOR
        elif kind != IGNORED and (kind != MARK or inside):
            if kind == UNSPACED or (kind == WORD and inside != WORD):
                room.starts[count] = i - width
                count += 1
                inside = kind
                h, block, filled = SEED, U(0), 0
            place = -1 - to if to < 0 else 0
            while to:
                letter = fold.lists[place] if place else to
                if letter < 0x80:
                    h, block, filled = put(h, block, filled, letter)
                else:
                    for shift in (0, 7, 14):
                        h, block, filled = put(h, block, filled, 0x80 | (letter >> shift) & 0x7F)
                place += 1 if place else 0
                to = fold.lists[place]  # lists[0] is 0: a single letter ends here too
            room.hashes[count - 1] = mix(h ^ block)
            room.ends[count - 1] = i
    return count


@kernel
def decode(data, i, end):  # type: ignore[no-untyped-def]
    """The code point at `data[i]` and its width in bytes; wrong UTF-8 gives (0, 1)."""
    lead = np.int64(data[i])
    if lead < 0x80:
        return lead, 1
    width = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if lead < 0xC2 or lead > 0xF4 or i + width > end:
        return 0, 1
    code = lead & (0x7F >> width)
    for j in range(i + 1, i + width):
        if data[j] & 0xC0 != 0x80:
            return 0, 1
        code = (code << 6) | np.int64(data[j] & 0x3F)
    return (code, width) if code < CODE_POINTS else (0, 1)


@kernel
def roll(hashes, first, last, n, grams):  # type: ignore[no-untyped-def]
    """Hashes of all n-grams of `hashes[first:last]` into `grams`; returns how many there are. n-grams of different n differ."""
    leaving = ONE
    for _ in range(n):
        leaving *= BASE
    size = U(n) * MIX
    h = U(0)
    for i in range(first, min(last, first + n)):
        h = h * BASE + hashes[i]
    if last - first < n:
        return 0
    grams[0] = mix(h ^ size)
    for i in range(U(first + n), U(last)):
        h = h * BASE + (hashes[i] - hashes[i - U(n)] * leaving)
        grams[i - U(first + n - 1)] = mix(h ^ size)
    return last - first - n + 1


@kernel
def characters(data, start, end):  # type: ignore[no-untyped-def]
    """How many code points `data[start:end]` holds: turns byte offsets into character offsets."""
    count = 0
    for i in range(start, end):
        count += (data[i] & 0xC0) != 0x80
    return count


@kernel
def _all_tokens(data, offsets, fold, room, bounds):  # type: ignore[no-untyped-def]
    """Tokens of all texts, one after the other, each text's counted from its own start."""
    count = np.int64(0)
    for text in range(len(offsets) - 1):
        bounds[text] = count
        count = tokenise(data, offsets[text], offsets[text + 1], fold, room, count)
        for i in range(bounds[text], count):
            room.starts[i] -= offsets[text]
            room.ends[i] -= offsets[text]
    bounds[len(offsets) - 1] = count


class TokenTable(NamedTuple):
    """The tokens of a column: text i has tokens `bounds[i]:bounds[i + 1]`; `starts` and `ends` are bytes from the text's own start."""

    hashes: np.ndarray  # uint64
    starts: np.ndarray  # int32
    ends: np.ndarray  # int32
    bounds: np.ndarray  # int64


def token_table(column: pa.Array | pa.ChunkedArray) -> TokenTable:
    """All tokens of a column at once: for the small side (benchmarks), and for tests."""
    data, offsets = texts_of_column(column)
    room = room_for(int(np.diff(offsets).max(initial=0)), int(offsets[-1] - offsets[0]) // 2 + len(offsets))
    bounds = np.zeros(len(offsets), np.int64)
    worth(_all_tokens, len(data))(data, offsets, fold_table(), room, bounds)
    count = int(bounds[-1])
    return TokenTable(room.hashes[:count].copy(), room.starts[:count].astype(np.int32), room.ends[:count].astype(np.int32), bounds)


@kernel
def _in_characters(data, offsets, bounds, places, out):  # type: ignore[no-untyped-def]
    for text in range(len(offsets) - 1):
        at, count = offsets[text], 0
        for i in range(bounds[text], bounds[text + 1]):
            count += characters(data, at, offsets[text] + places[i])
            at = offsets[text] + places[i]
            out[i] = count


def in_characters(column: pa.Array, bounds: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Ascending byte offsets in texts (those of text i are `places[bounds[i]:bounds[i + 1]]`) as character offsets."""
    data, offsets = texts_of_column(column)
    out = np.empty(len(places), np.int32)
    worth(_in_characters, len(places))(data, offsets, bounds, places, out)
    return out
