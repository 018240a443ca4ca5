"""The compiled inner loops of near-duplicate removal (numba): MinHash in datasketch's families, n-gram sets, keepers.

Everything here has a plain-Python twin in the tests. Imported only by the functions that run it: importing numba takes a
second, compiling these a few more on the very first run of a machine (`cache=True` keeps the result).
"""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import numpy as np

from decontam.compiled import kernel
from decontam.ngrams import roll, tokenise

U32, U64 = np.uint32, np.uint64
_LOW32 = U64(0xFFFFFFFF)
_MERSENNE = U64((1 << 61) - 1)


@kernel
def sign_texts(data, offsets, owner, chosen, fold, room, n, a, b, legacy, values, seen):
    """Lower the signature `values[row]` (uint32) of each chosen text's row by the text's n-grams; `seen[row]` where there was one.

    a, b: uint64, the coefficients of datasketch's legacy family or (below 2^32) of its affine32 family.
    """
    grams = np.empty(len(room.hashes), np.uint64)
    a32, b32 = a.astype(np.uint32), b.astype(np.uint32)
    for text in range(len(owner)):
        if not chosen[text]:
            continue
        tokens = tokenise(data, offsets[text], offsets[text + 1], fold, room, 0)
        if tokens:
            count = roll(room.hashes, 0, tokens, min(n, tokens), grams)
            seen[owner[text]] = True
            if legacy:
                _lower_legacy(grams, count, a, b, values[owner[text]])
            else:
                _lower_affine32(grams, count, a32, b32, values[owner[text]])


@kernel(boundscheck=False)
def _lower_affine32(grams, count, a, b, signature):
    """datasketch: the base hash through MurmurHash3's finaliser, then a * h + b modulo 2^32.

    numba widens 32-bit arithmetic to 64 bits, hence the U32 around every step. Four n-grams a turn: half the loads and stores.
    """
    i = 0
    while i + 4 <= count:
        h0, h1, h2, h3 = _finalise(grams[i]), _finalise(grams[i + 1]), _finalise(grams[i + 2]), _finalise(grams[i + 3])
        for p in range(len(a)):
            left = min(U32(a[p] * h0 + b[p]), U32(a[p] * h1 + b[p]))
            right = min(U32(a[p] * h2 + b[p]), U32(a[p] * h3 + b[p]))
            signature[p] = min(signature[p], min(left, right))
        i += 4
    while i < count:
        h = _finalise(grams[i])
        for p in range(len(a)):
            signature[p] = min(signature[p], U32(a[p] * h + b[p]))
        i += 1


@kernel(inline="always")
def _finalise(gram):
    h = U32(gram >> U64(32))
    h = U32(h ^ (h >> U32(16)))
    h = U32(h * U32(0x85EBCA6B))
    h = U32(h ^ (h >> U32(13)))
    h = U32(h * U32(0xC2B2AE35))
    return U32(h ^ (h >> U32(16)))


@kernel(boundscheck=False)
def _lower_legacy(grams, count, a, b, signature):
    """datasketch before 2.0: (a * h + b) modulo 2^64, then modulo the Mersenne prime 2^61 - 1, then its lower half."""
    for i in range(count):
        h = grams[i] >> U64(32)
        for p in range(len(a)):
            x = a[p] * h + b[p]
            x = (x & _MERSENNE) + (x >> U64(61))
            x = x - _MERSENNE if x >= _MERSENNE else x
            signature[p] = min(signature[p], U32(x & _LOW32))


@kernel
def grams_of_texts(data, offsets, owner, chosen, fold, room, n, grams, counts):
    """All n-grams of the chosen texts in order; `counts[owner]` grows by each text's. Returns how many there are."""
    total = 0
    for text in range(len(owner)):
        if chosen[text]:
            tokens = tokenise(data, offsets[text], offsets[text + 1], fold, room, 0)
            if tokens:
                count = roll(room.hashes, 0, tokens, min(n, tokens), grams[total:])
                counts[owner[text]] += count
                total += count
    return total


@kernel
def pack(grams, counts, a, b, legacy):
    """The record of each row (see `curation.verify.Sets`): its signature, two slots a word, then its distinct n-grams.

    Returns all records one after the other and the words of each; a, b, legacy as in `sign_texts`.
    """
    slots = len(a)
    head = (slots + 1) // 2
    words = np.empty(len(grams) + head * len(counts), np.uint64)
    sizes = np.empty(len(counts), np.int64)
    a32, b32 = a.astype(np.uint32), b.astype(np.uint32)
    signature = np.zeros(2 * head, np.uint32)
    most = 0
    for row in range(len(counts)):
        most = max(most, counts[row])
    size = _table_size(most)
    table, stamp = np.empty(size, np.uint64), np.zeros(size, np.int32)
    mask = U64(size - 1)
    read = write = 0
    for row in range(len(counts)):
        first = write + head
        end = first
        for i in range(read, read + counts[row]):
            at = (grams[i] >> U64(20)) & mask
            while stamp[at] == row + 1 and table[at] != grams[i]:
                at = (at + U64(1)) & mask
            if stamp[at] != row + 1:
                stamp[at] = row + 1
                table[at] = grams[i]
                words[end] = grams[i]
                end += 1
        read += counts[row]
        for slot in range(slots):
            signature[slot] = U32(0xFFFFFFFF)
        if legacy:
            _lower_legacy(words[first:end], end - first, a, b, signature[:slots])
        else:
            _lower_affine32(words[first:end], end - first, a32, b32, signature[:slots])
        both = signature.view(np.uint64)
        for word in range(head):  # by hand here and above: assigning to a slice takes numba seconds longer to compile
            words[write + word] = both[word]
        sizes[row] = end - write
        write = end
    return words[:write], sizes


@kernel
def _table_size(members):
    size = 16
    while size < 2 * members:
        size *= 2
    return size


@kernel
def _fill(table, stamp, epoch, words, start, end):
    """Put a set into the open-addressing table; slots of another epoch count as empty, so it is never cleared."""
    mask = U64(len(table) - 1)
    for i in range(start, end):
        at = (words[i] >> U64(20)) & mask
        while stamp[at] == epoch and table[at] != words[i]:
            at = (at + U64(1)) & mask
        stamp[at] = epoch
        table[at] = words[i]


@kernel
def _jaccard(table, stamp, epoch, filled, words, start, end, threshold):
    """Exact Jaccard of the set in the table (`filled` members) and another; 0 as soon as it cannot reach the threshold."""
    size = end - start
    needed = threshold / (1.0 + threshold) * (filled + size) - 1e-6
    if min(filled, size) < needed or size + filled == 0:
        return 0.0
    mask = U64(len(table) - 1)
    may_miss = size - needed
    common = 0
    for i in range(start, end):
        at = (words[i] >> U64(20)) & mask
        while stamp[at] == epoch and table[at] != words[i]:
            at = (at + U64(1)) & mask
        if stamp[at] == epoch:
            common += 1
        elif i - start + 1 - common > may_miss:
            return 0.0
    return common / (filled + size - common)


@kernel
def decide_block(
    block, bucket, fixed, threshold, needed, words, halves, at, place, num_perm, most,
    slot, kept, filled, seen, keeper, jaccard, agreement, band,
):  # fmt: skip
    """The rule of `curation.verify` for the rows of a block, in order; returns how often a full bucket forgot a kept row.

    words / halves: gathered records as 64- and 32-bit words: signature first, n-grams after; `at[place[row]]` is where a row's begins.
    kept[slot[b] : slot[b] + filled[b]]: the kept rows that bucket b remembers. seen, keeper, jaccard, agreement, band: results by row.
    """
    bands = bucket.shape[1]
    head = (num_perm + 1) // 2
    largest = 1
    for i in range(len(at) - 1):
        largest = max(largest, at[i + 1] - at[i] - head)
    size = _table_size(largest)
    table, stamp = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    epoch = 0
    options, scores, through = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int16)
    forgotten = 0
    for row in block:
        mine = at[place[row]]
        found = 0
        if not fixed[row]:
            for column in range(bands):
                b = bucket[row, column]
                if b < 0:
                    continue
                for j in range(slot[b], slot[b] + filled[b]):
                    other = kept[j]
                    if seen[other] == row:
                        continue
                    seen[other] = row
                    theirs = at[place[other]]
                    equal = 0
                    for p in range(num_perm):
                        equal += halves[2 * mine + p] == halves[2 * theirs + p]
                    if equal >= needed * num_perm:
                        k = found  # insertion by agreement; equal agreement: the one remembered first
                        while k > 0 and scores[k - 1] < equal:
                            options[k], scores[k], through[k] = options[k - 1], scores[k - 1], through[k - 1]
                            k -= 1
                        options[k], scores[k], through[k] = other, equal, column
                        found += 1
        if found:
            epoch += 1
            end = at[place[row] + 1]
            _fill(table, stamp, epoch, words, mine + head, end)
            for k in range(found):
                other = options[k]
                o = place[other]
                value = _jaccard(table, stamp, epoch, end - mine - head, words, at[o] + head, at[o + 1], threshold)
                if value < threshold:
                    continue
                keeper[row], jaccard[row], band[row] = other, value, through[k]
                agreement[row] = scores[k] / num_perm
                break
        stands = row if keeper[row] < 0 else keeper[row]
        for column in range(bands):
            b = bucket[row, column]
            if b < 0:
                continue
            known = False
            for j in range(slot[b], slot[b] + filled[b]):
                if kept[j] == stands:
                    known = True
                    break
            if known:
                continue
            if filled[b] < slot[b + 1] - slot[b]:
                kept[slot[b] + filled[b]] = stands
                filled[b] += 1
            else:
                forgotten += 1
    return forgotten
