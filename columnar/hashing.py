"""`record.seal` for a whole batch at once: ids and both hashes of many rows in one compiled pass, the same values bit for bit.

    seal_batch(texts, rows, leads, ...) -> ids, hashes, prompt hashes as Arrow columns

The kernel normalises (NFKC, lower case, white space) and hashes (BLAKE2b, RFC 7693) straight from Arrow's buffers. Characters whose
normal form depends on their neighbours (combining marks, Hangul jamo, capital sigma, ...) make it give the row back: those rows are
hashed by `record.text_hash`, which is the definition.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from columnar.record import row_id, text_hash

TABLE = 0x20000  # the planes of living scripts and emoji; rarer characters take the slow way
_COMPLEX = -1
_IV = np.array(
    [
        0x6A09E667F3BCC908,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    ],
    dtype=np.uint64,
)
_SIGMA = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    ],
    dtype=np.uint64,  # unsigned, so that no index needs a look whether it is negative
)
_LOWER = np.array([32 if chr(c) in " \t\n\r\x0b\x0c" else ord(chr(c).lower()) for c in range(128)] + [0] * 128, np.uint8)


_U1, _U16, _U24, _U32, _U40, _U48, _U63 = (np.uint64(n) for n in (1, 16, 24, 32, 40, 48, 63))


class Sealed(NamedTuple):
    """The three columns that `seal` fills."""

    ids: pa.Array
    hashes: pa.Array
    prompt_hashes: pa.Array


def seal_batch(
    kind: str,
    texts: pa.StringArray,
    starts: np.ndarray[Any, Any],
    leads: np.ndarray[Any, Any],
    lead_names: Sequence[tuple[str, str]],
    source: str,
    place: str,
    rows: np.ndarray[Any, Any],
) -> Sealed:
    """Ids and hashes of rows that are their record's first.

    Args:
        texts: every text of every row, flat; no nulls.
        starts: int64, one more than there are rows: the first text of each row.
        leads: uint8 for each text: which of `lead_names`, its (field, role).
        rows: int64, the record numbers.
    """
    before = [f"\x1f{field}\x1f{role}\x1f".encode() for field, role in lead_names]
    asked = [
        f"{role}\x1f".encode() if role in ("user", "system") and field in ("messages", "prompt") else b"" for field, role in lead_names
    ]
    data, offsets = _buffers(texts)
    n = len(rows)
    full, prompt = np.empty((n, 32), np.uint8), np.empty((n, 32), np.uint8)
    simple = np.ones(n, np.bool_)
    _hash_rows(data, offsets, starts, leads, *_flat(before), *_flat(asked), _bytes(kind.encode()), _table(), full, prompt, simple)
    ids = np.empty((n, 16), np.uint8)
    _hash_ids(_bytes(f"{source}\x1f{place}\x1f".encode("utf-8", "surrogatepass")), rows, ids)
    for row in np.flatnonzero(~simple):
        said = texts.slice(starts[row], starts[row + 1] - starts[row]).to_pylist()
        names = [lead_names[i] for i in leads[starts[row] : starts[row + 1]]]
        everything = [kind]
        question: list[str] = []
        for (field, role), text in zip(names, said, strict=True):
            everything += (field, role, text)
            if role in ("user", "system") and field in ("messages", "prompt"):
                question += (role, text)
        full[row] = _bytes(text_hash(everything).encode())
        prompt[row] = _bytes(text_hash(question).encode())
    assert n == 0 or ids[0].tobytes().decode() == row_id(source, place, int(rows[0]))
    return Sealed(_strings(ids), _strings(full), _strings(prompt))


def _bytes(value: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(value, np.uint8)


def _flat(values: list[bytes]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return _bytes(b"".join(values) or b"\0"), np.cumsum([0, *map(len, values)]).astype(np.int64)


def _buffers(texts: pa.StringArray) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    _, offsets, data = texts.buffers()
    found = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return (np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)), found


def _strings(cells: np.ndarray[Any, Any]) -> pa.Array:
    """Rows of equally many ASCII bytes as an Arrow string column."""
    n, width = cells.shape
    offsets = np.arange(0, (n + 1) * width, width, dtype=np.int32) if n else np.zeros(1, np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(cells))


@functools.cache
def _table() -> np.ndarray[Any, Any]:
    """For every code point below TABLE what `normalise` makes of it (32 for white space), where that is one code point come what may."""
    table = np.full(TABLE, _COMPLEX, np.int32)
    for code in range(TABLE):
        if 0xD800 <= code < 0xE000:
            continue
        char = chr(code)
        low = char.lower()
        if char.isspace():
            table[code] = 32
        elif (
            len(low) == 1
            and ord(low) < 0x110000
            and not unicodedata.category(char).startswith("M")
            and not 0x1100 <= code < 0x1200
            and char != "Σ"
            and unicodedata.is_normalized("NFKC", char)
            and not low.isspace()
        ):
            table[code] = ord(low)
    return table


@numba.njit(cache=True, nogil=True, inline="always")
def _mix(a, b, c, d, x, y):  # type: ignore[no-untyped-def]  # the function G of RFC 7693
    a = a + b + x
    d = d ^ a
    d = (d >> _U32) | (d << _U32)
    c = c + d
    b = b ^ c
    b = (b >> _U24) | (b << _U40)
    a = a + b + y
    d = d ^ a
    d = (d >> _U16) | (d << _U48)
    c = c + d
    b = b ^ c
    b = (b >> _U63) | (b << _U1)
    return a, b, c, d


@numba.njit(cache=True, nogil=True)
def _blake2b(m, length, size, h):  # type: ignore[no-untyped-def]
    """BLAKE2b of the first `length` bytes of the words m (zeroes after them up to a block's end), a digest of `size` bytes, left in h."""
    for i in range(8):
        h[i] = _IV[i]
    h[0] ^= np.uint64(0x01010000) ^ np.uint64(size)
    blocks = max(1, (length + 127) // 128)
    for block in range(blocks):
        at = np.uint64(block * 16)
        last = block == blocks - 1
        v0, v1, v2, v3, v4, v5, v6, v7 = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
        v8, v9, v10, v11, v12, v13, v14, v15 = _IV[0], _IV[1], _IV[2], _IV[3], _IV[4], _IV[5], _IV[6], _IV[7]
        v12 = v12 ^ np.uint64(length if last else (block + 1) * 128)
        if last:
            v14 = ~v14
        for turn in range(12):
            s = _SIGMA[turn % 10]
            v0, v4, v8, v12 = _mix(v0, v4, v8, v12, m[at + s[0]], m[at + s[1]])
            v1, v5, v9, v13 = _mix(v1, v5, v9, v13, m[at + s[2]], m[at + s[3]])
            v2, v6, v10, v14 = _mix(v2, v6, v10, v14, m[at + s[4]], m[at + s[5]])
            v3, v7, v11, v15 = _mix(v3, v7, v11, v15, m[at + s[6]], m[at + s[7]])
            v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[at + s[8]], m[at + s[9]])
            v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[at + s[10]], m[at + s[11]])
            v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[at + s[12]], m[at + s[13]])
            v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[at + s[14]], m[at + s[15]])
        h[0] ^= v0 ^ v8
        h[1] ^= v1 ^ v9
        h[2] ^= v2 ^ v10
        h[3] ^= v3 ^ v11
        h[4] ^= v4 ^ v12
        h[5] ^= v5 ^ v13
        h[6] ^= v6 ^ v14
        h[7] ^= v7 ^ v15


@numba.njit(cache=True, nogil=True)
def _hex(h, out):  # type: ignore[no-untyped-def]
    for i in range(len(out) // 2):
        byte = np.int64((h[i // 8] >> np.uint64(8 * (i % 8))) & np.uint64(255))
        high, low = byte >> 4, byte & 15
        out[2 * i] = high + (48 if high < 10 else 87)
        out[2 * i + 1] = low + (48 if low < 10 else 87)


@numba.njit(cache=True, nogil=True)
def _digest(scratch, length, out, h):  # type: ignore[no-untyped-def]
    """The hex digest of the first `length` bytes of scratch (which must have room for a block more)."""
    end = max(128, (length + 127) // 128 * 128)
    scratch[length:end] = 0
    _blake2b(scratch[:end].view(np.uint64), length, len(out) // 2, h)
    _hex(h, out)


@numba.njit(cache=True, nogil=True)
def _normalise(data, start, end, table, out, at):  # type: ignore[no-untyped-def]
    """`record.normalise` of one text, written to out from `at` on; returns where it ends, or -1 when it takes the slow way."""
    begin = at
    high = np.uint8(0)
    for k in range(start, end):
        high |= data[k]
    if high < 128:
        before = np.uint8(32)
        for k in range(start, end):
            c = _LOWER[data[k]]
            out[at] = c
            at += 1 - ((c == 32) & (before == 32))
            before = c
        return at - 1 if at > begin and before == 32 else at
    gap = False
    i = start
    while i < end:
        c = np.int64(data[i])
        if c < 128:
            i += 1
        elif c < 0xE0:
            c = (c & 0x1F) << 6 | np.int64(data[i + 1]) & 0x3F
            i += 2
        elif c < 0xF0:
            c = (c & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | np.int64(data[i + 2]) & 0x3F
            i += 3
        else:
            c = (c & 0x07) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12 | (np.int64(data[i + 2]) & 0x3F) << 6 | np.int64(data[i + 3]) & 0x3F
            i += 4
        if c >= len(table) or table[c] < 0:
            return -1
        c = np.int64(table[c])
        if c == 32:
            gap = True
            continue
        if gap and at > begin:
            out[at] = 32
            at += 1
        gap = False
        if c < 0x80:
            out[at] = c
            at += 1
        elif c < 0x800:
            out[at] = 0xC0 | c >> 6
            out[at + 1] = 0x80 | c & 0x3F
            at += 2
        elif c < 0x10000:
            out[at] = 0xE0 | c >> 12
            out[at + 1] = 0x80 | c >> 6 & 0x3F
            out[at + 2] = 0x80 | c & 0x3F
            at += 3
        else:
            out[at] = 0xF0 | c >> 18
            out[at + 1] = 0x80 | c >> 12 & 0x3F
            out[at + 2] = 0x80 | c >> 6 & 0x3F
            out[at + 3] = 0x80 | c & 0x3F
            at += 4
    return at


@numba.njit(cache=True, nogil=True)
def _hash_rows(data, offsets, starts, leads, before, before_at, asked, asked_at, kind, table, full, prompt, simple):  # type: ignore[no-untyped-def]
    room = 0
    for row in range(len(starts) - 1):
        texts = starts[row + 1] - starts[row]
        # lower case may take one byte more than upper case (two to three), never twice as many
        room = max(room, 2 * (offsets[starts[row + 1]] - offsets[starts[row]]) + 32 * texts)
    one = np.empty((room + len(kind) + 511) // 128 * 128, np.uint8)
    two = np.empty_like(one)
    h = np.empty(8, np.uint64)
    for row in range(len(starts) - 1):
        end1, end2 = len(kind), 0
        one[:end1] = kind
        for text in range(starts[row], starts[row + 1]):
            lead = leads[text]
            for k in range(before_at[lead], before_at[lead + 1]):
                one[end1] = before[k]
                end1 += 1
            start1 = end1
            end1 = _normalise(data, offsets[text], offsets[text + 1], table, one, end1)
            if end1 < 0:
                simple[row] = False
                break
            if asked_at[lead + 1] > asked_at[lead]:
                if end2:
                    two[end2] = 31
                    end2 += 1
                for k in range(asked_at[lead], asked_at[lead + 1]):
                    two[end2] = asked[k]
                    end2 += 1
                two[end2 : end2 + end1 - start1] = one[start1:end1]
                end2 += end1 - start1
        if simple[row]:
            _digest(one, end1, full[row], h)
            _digest(two, end2, prompt[row], h)


@numba.njit(cache=True, nogil=True)
def _hash_ids(prefix, rows, out):  # type: ignore[no-untyped-def]
    scratch = np.empty((len(prefix) + 320) // 128 * 128, np.uint8)
    scratch[: len(prefix)] = prefix
    h = np.empty(8, np.uint64)
    for i in range(len(rows)):
        digits, rest = 1, rows[i]
        while rest >= 10:
            rest //= 10
            digits += 1
        rest = rows[i]
        for k in range(digits):
            scratch[len(prefix) + digits - 1 - k] = 48 + rest % 10
            rest //= 10
        _digest(scratch, len(prefix) + digits, out[i], h)


@numba.njit(cache=True, nogil=True)
def count_quotes(data):  # type: ignore[no-untyped-def]
    """How many quotation marks delimit strings in well-formed JSON text: those that no backslash escapes."""
    found = 0
    for begin in range(0, len(data), 1 << 14):
        end = min(begin + (1 << 14), len(data))
        marks, escaped, twice = 0, 0, 0
        for i in range(max(begin, 2), end):  # plain sums, which the compiler turns into vector instructions
            quote = data[i] == 34
            marks += quote
            escaped += quote & (data[i - 1] == 92)
            twice += quote & (data[i - 1] == 92) & (data[i - 2] == 92)
        for i in range(begin, min(2, end)):
            marks += data[i] == 34
        if twice == 0:
            found += marks - escaped
            continue
        held = False  # a backslash before a backslash: go through it in order
        k = begin - 1
        while k >= 0 and data[k] == 92:
            held = not held
            k -= 1
        for i in range(begin, end):
            found += (data[i] == 34) & (not held)
            held = (data[i] == 92) & (not held)
    return found
