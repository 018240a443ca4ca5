"""The matching kernel: rows of text against the n-gram table of the benchmarks, one pass, with evidence.

In: the texts of a batch, grouped by row, and a `Table` (see decontam/index.py). Out: which rows hold a unit (one field of one
benchmark item), and for each such row, turn and unit one line of evidence. For every row:

    1. all texts become tokens; every n-gram is looked up: a Bloom filter first, the hash table for what passes it
    2. each distinct n-gram found marks its places in the units; a unit's coverage = its tokens inside marked n-grams. Wherever an n-gram
       puts a short unit beside a text, token by token, it also counts how many of the unit's tokens are the same there: aligned
    3. for units that reach the tokens they need: the longest common run of tokens and its place on both sides, turn by turn

`tests/decontam/ngram_oracle.py` computes the same from lists of words.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decontam.compiled import kernel
from decontam.ngrams import U, characters, roll, tokenise

NEVER, ANYWHERE, SENTENCE, WHOLE_TURN = range(4)  # where a unit found whole counts, whatever the tokens needed (Table.whole)

# the columns of evidence
ROW, TEXT, UNIT, COVERED, COVERED_ALL, ALIGNED, RUN, RUN_CHARACTERS, START, END, ITEM_FROM, TURN_COVERED, TURN_TOKENS = range(13)
EVIDENCE = 13

UNKNOWN, TEXT_SHIFT = np.int64(1) << 62, 40  # an alignment is told by its shift and its text
SLOT_SHIFT, BLOOM_SHIFT, BIT_SHIFT, BIT_MASK = U(20), U(40), U(6), U(63)


class Table(NamedTuple):
    """All units of all benchmarks, for the kernel. Tokens of all units stand in one row; unit u has tokens `unit_at[u]:unit_at[u + 1]`."""

    lengths: np.ndarray  # int64: n, then the token counts of units shorter than n that are looked up whole
    turns_only: int  # units of up to so many tokens are looked up only where they would be the whole turn
    bloom: np.ndarray  # uint64, two bits an n-gram
    keys: np.ndarray  # uint64, open addressing: hash of the n-gram
    grams: np.ndarray  # int32: its number, -1 for an empty slot
    posting_at: np.ndarray  # int64: n-gram g stands at tokens postings[posting_at[g]:posting_at[g + 1]]
    postings: np.ndarray  # int32, ascending
    tokens: np.ndarray  # uint64: hash of each token
    unit_of: np.ndarray  # int32: the unit of each token
    gram_of: np.ndarray  # int32: the n-gram that begins at each token, or -1
    unit_at: np.ndarray  # int64
    needed: np.ndarray  # int32: tokens of the unit that must be covered by n-grams that are not common
    aligned: np.ndarray  # int32: or so many tokens the same in one alignment; 0: alignment does not count; empty: for no unit
    held: np.ndarray  # int32: tokens that make it certain that a text holds the unit (see decontam/common.py)
    whole: np.ndarray  # uint8: NEVER, ANYWHERE, SENTENCE or WHOLE_TURN
    common: np.ndarray  # bool: n-grams that anybody might write; they do not count towards `needed`
    owner: np.ndarray  # int32: the benchmark of each unit


class Scratch(NamedTuple):
    """Marks of one thread; a mark is set when it equals the clock, so nothing is ever cleared."""

    clock: np.ndarray
    gram_seen: np.ndarray
    gram_held: np.ndarray
    token_seen: np.ndarray
    unit_seen: np.ndarray
    unit_count: np.ndarray
    unit_aligned: np.ndarray
    unit_shift: np.ndarray  # the alignment that was looked at last
    units: np.ndarray
    skip_cover: np.ndarray
    first_user: np.ndarray  # int32: the first source that used an n-gram on its own, -1 for none
    common: np.ndarray  # bool: n-grams that two sources used on their own


def scratch_for(table: Table) -> Scratch:
    """Marks for one thread: about 15 bytes a token of the benchmarks."""
    grams, tokens, units = len(table.posting_at) - 1, len(table.tokens), len(table.unit_at) - 1
    longest = int(np.diff(table.unit_at).max(initial=0))
    return Scratch(
        clock=np.zeros(1, np.int64),
        gram_seen=np.zeros(grams, np.int32),
        gram_held=np.zeros(grams, np.int32),
        token_seen=np.zeros(tokens, np.int32),
        unit_seen=np.zeros(units, np.int32),
        unit_count=np.zeros(units, np.int32),
        unit_aligned=np.zeros(units, np.int32),
        unit_shift=np.zeros(units, np.int64),
        units=np.zeros(units, np.int32),
        skip_cover=np.zeros(longest, np.bool_),
        first_user=np.full(grams, -1, np.int32),
        common=np.zeros(grams, np.bool_),
    )


@kernel
def fill_table(hashes, bloom, keys, grams, numbers):  # type: ignore[no-untyped-def]
    """Put n-grams into an empty table; `numbers[i]` becomes the number of n-gram i. Returns how many differ."""
    count = 0
    mask = len(keys) - 1
    for i in range(len(hashes)):
        h = hashes[i]
        word = np.int64(h >> BLOOM_SHIFT) & (len(bloom) - 1)
        bloom[word] |= (U(1) << (h & BIT_MASK)) | (U(1) << ((h >> BIT_SHIFT) & BIT_MASK))
        slot = np.int64(h >> SLOT_SHIFT) & mask
        while grams[slot] >= 0 and keys[slot] != h:
            slot = (slot + 1) & mask
        if grams[slot] < 0:
            grams[slot] = count
            keys[slot] = h
            count += 1
        numbers[i] = grams[slot]
    return count


@kernel
def scan_rows(data, offsets, row_at, order, fold, table, scratch, skip_budget, evidence, users, skip_own):  # type: ignore[no-untyped-def]
    """Scan rows; returns (row hit or not, lines of evidence).

    Args:
        data, offsets: the texts (decontam.ngrams.Texts).
        row_at, order: row r has the texts `order[row_at[r]:row_at[r + 1]]`.
        skip_budget: how many tokens of a run may differ (Llama 2); 0 counts plain n-gram coverage.
        evidence: False only marks rows.
        users: the source of each row, to note which n-grams sources use on their own (into scratch); empty: do not.
        skip_own: a unit of the row's own source does not count as held (benchmarks read as if they were data).
    """
    lengths, bloom, keys, slots = table.lengths, table.bloom, table.keys, table.grams
    posting_at, postings, unit_of, gram_of, unit_at = table.posting_at, table.postings, table.unit_of, table.gram_of, table.unit_at
    near = len(table.aligned) > 0
    rows = len(row_at) - 1
    hit_rows = np.zeros(rows, np.bool_)
    out = np.empty(64 * EVIDENCE, np.int64)
    found = np.int64(0)
    size, widest = np.int64(1), np.int64(1)
    for row in range(rows):
        length = np.int64(0)
        for k in range(row_at[row], row_at[row + 1]):
            length += offsets[order[k] + 1] - offsets[order[k]]
        size, widest = max(size, length), max(widest, row_at[row + 1] - row_at[row])
    hashes, grams, candidates = np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.int64)
    starts, ends = np.empty(size, np.int64), np.empty(size, np.int64)
    token_at, hit_at, runs = np.zeros(widest + 1, np.int64), np.zeros(widest + 1, np.int64), np.zeros((widest, 4), np.int64)
    positions, numbers = np.empty(1024, np.int64), np.empty(1024, np.int64)
    for row in range(rows):
        scratch.clock[0] += 1
        now = np.int32(scratch.clock[0])
        tokens, hits, texts = np.int64(0), np.int64(0), row_at[row + 1] - row_at[row]
        for j in range(texts):
            text = order[row_at[row] + j]
            count = tokenise(data, offsets[text], offsets[text + 1], fold, hashes[tokens:], starts[tokens:], ends[tokens:])
            for length in lengths:
                if length <= table.turns_only and length != count:
                    continue
                made = roll(hashes[tokens:], count, length, grams)
                passed = np.int64(0)
                for i in range(made):
                    h = grams[i]
                    word = bloom[np.int64(h >> BLOOM_SHIFT) & (len(bloom) - 1)]
                    candidates[passed] = i
                    passed += np.int64((word >> (h & BIT_MASK)) & (word >> ((h >> BIT_SHIFT) & BIT_MASK)) & U(1))
                if hits + passed > len(positions):
                    positions, numbers = _grown(positions, hits + passed), _grown(numbers, hits + passed)
                for c in range(passed):
                    number = _find(keys, slots, grams[candidates[c]])
                    if number >= 0:
                        positions[hits], numbers[hits] = tokens + candidates[c], number
                        hits += 1
            tokens += count
            token_at[j + 1], hit_at[j + 1] = tokens, hits
        if hits == 0:
            continue
        touched, j = np.int64(0), 0
        for i in range(hits):
            gram = numbers[i]
            fresh = scratch.gram_seen[gram] != now
            if not fresh and not near:
                continue
            scratch.gram_seen[gram] = now
            while i >= hit_at[j + 1]:
                j += 1
            for z in range(posting_at[gram], posting_at[gram + 1]):
                x = postings[z]
                unit = unit_of[x]
                if scratch.unit_seen[unit] != now:
                    scratch.unit_seen[unit] = now
                    scratch.unit_count[unit] = 0
                    scratch.unit_aligned[unit] = 0
                    scratch.unit_shift[unit] = -UNKNOWN
                    scratch.units[touched] = unit
                    touched += 1
                if fresh:
                    scratch.unit_count[unit] += 1
                    scratch.token_seen[x] = now
                if near and table.aligned[unit] and not table.common[gram]:
                    first, last, shift = unit_at[unit], unit_at[unit + 1], positions[i] - x
                    mark = shift + (j << TEXT_SHIFT)
                    if mark != scratch.unit_shift[unit] and scratch.unit_aligned[unit] < last - first:
                        scratch.unit_shift[unit] = mark
                        same = _same(hashes, table.tokens, first, last, shift, token_at[j], token_at[j + 1])
                        scratch.unit_aligned[unit] = max(same, scratch.unit_aligned[unit])
        for i in range(touched):
            unit = scratch.units[i]
            first, last = unit_at[unit], unit_at[unit + 1]
            span = min(lengths[0], last - first)
            aligned = near and 0 < table.aligned[unit] <= scratch.unit_aligned[unit]
            if skip_budget == 0 and not aligned and scratch.unit_count[unit] * span < min(table.needed[unit], last - first):
                continue
            own, every = _coverage(scratch.token_seen, gram_of, table.common, first, last, span, now)
            if len(users) and every >= table.held[unit] and not (skip_own and table.owner[unit] == users[row]):
                for x in range(first, last):
                    if gram_of[x] >= 0:
                        scratch.gram_held[gram_of[x]] = now
            if skip_budget == 0 and not aligned and own < table.needed[unit] and (table.whole[unit] == NEVER or every < last - first):
                continue
            if skip_budget == 0 and not evidence:
                hit_rows[row] = True
                continue
            skipped = _runs(
                posting_at,
                postings,
                table.tokens,
                first,
                last,
                span,
                hashes,
                texts,
                token_at,
                hit_at,
                positions,
                numbers,
                skip_budget,
                scratch.skip_cover,
                runs,
            )
            if skip_budget:
                own = every = skipped
                if own < table.needed[unit]:
                    continue
            hit_rows[row] = True
            for j in range(texts if evidence else 0):
                if runs[j, 3] == 0:
                    continue
                if (found + 1) * EVIDENCE > len(out):
                    out = _grown(out, (found + 1) * EVIDENCE)
                line = out[found * EVIDENCE : (found + 1) * EVIDENCE]
                found += 1
                text, begin, run = order[row_at[row] + j], runs[j, 1], runs[j, 0]
                line[ROW], line[TEXT], line[UNIT], line[COVERED], line[COVERED_ALL] = row, text, unit, own, every
                line[ALIGNED] = scratch.unit_aligned[unit] if aligned else 0
                line[RUN], line[ITEM_FROM], line[TURN_COVERED], line[TURN_TOKENS] = (
                    run,
                    runs[j, 2],
                    runs[j, 3],
                    token_at[j + 1] - token_at[j],
                )
                line[START] = characters(data, offsets[text], starts[begin])
                line[END] = line[START] + characters(data, starts[begin], ends[begin + run - 1])
                line[RUN_CHARACTERS] = 0
                for token in range(begin, begin + run):
                    line[RUN_CHARACTERS] += characters(data, starts[token], ends[token])
        if len(users):  # which n-grams this row uses without holding a unit they belong to
            for i in range(hits):
                gram = numbers[i]
                if scratch.gram_held[gram] != now:
                    if scratch.first_user[gram] < 0:
                        scratch.first_user[gram] = users[row]
                    elif scratch.first_user[gram] != users[row]:
                        scratch.common[gram] = True
    return hit_rows, out[: found * EVIDENCE]


@kernel
def _find(keys, slots, h):  # type: ignore[no-untyped-def]
    mask = len(keys) - 1
    slot = np.int64(h >> SLOT_SHIFT) & mask
    while slots[slot] >= 0:
        if keys[slot] == h:
            return slots[slot]
        slot = (slot + 1) & mask
    return -1


@kernel
def _grown(array, size):  # type: ignore[no-untyped-def]
    """A longer copy; by hand, because a slice assignment takes numba two seconds longer to compile."""
    bigger = np.empty(max(size, 2 * len(array)), np.int64)
    for i in range(len(array)):
        bigger[i] = array[i]
    return bigger


@kernel
def _same(hashes, unit_tokens, first, last, shift, text_first, text_last):  # type: ignore[no-untyped-def]
    """Tokens of the unit that equal the text's token `shift` places on."""
    same = 0
    for x in range(max(first, text_first - shift), min(last, text_last - shift)):
        same += unit_tokens[x] == hashes[x + shift]
    return same


@kernel
def _coverage(token_seen, gram_of, common, first, last, span, now):  # type: ignore[no-untyped-def]
    """Tokens of the unit inside the n-grams found: (those that are not common, all)."""
    own, every, own_to, every_to = 0, 0, first, first
    for x in range(first, last):
        if token_seen[x] == now:
            every_to = x + span
            if not common[gram_of[x]]:
                own_to = x + span
        own += x < own_to
        every += x < every_to
    return own, every


@kernel
def _runs(posting_at, postings, unit_tokens, first, last, span, hashes, texts, token_at, hit_at, positions, numbers, budget, cover, runs):  # type: ignore[no-untyped-def]
    """For each text of the row: longest common run with the unit, where it is, and how many tokens lie in n-grams of the unit.

    Every maximal run of at least `span` tokens is found at its first n-gram. With a budget also: how many tokens of the unit lie in
    runs longer than `span` that begin with `span` equal tokens, differ in at most `budget` places and end equal (returned).

    Args:
        runs: filled: (tokens of the run, its first token in the row, its first token in the unit, covered tokens of the text).
    """
    for k in range(last - first if budget else 0):
        cover[k] = False
    for j in range(texts):
        best, covered, covered_to = 0, 0, token_at[j]
        for i in range(hit_at[j], hit_at[j + 1]):
            low, high = posting_at[numbers[i]], posting_at[numbers[i] + 1]
            end = high
            while low < high:  # the first posting inside the unit
                middle = (low + high) >> 1
                if postings[middle] < first:
                    low = middle + 1
                else:
                    high = middle
            if low == end or postings[low] >= last:
                continue
            p = positions[i]
            covered += p + span - max(p, covered_to)
            covered_to = p + span
            while low < end and postings[low] < last and (budget or best < last - first):
                x = postings[low]
                low += 1
                if p != token_at[j] and x != first and hashes[p - 1] == unit_tokens[x - 1]:
                    continue  # inside a run that was followed from its beginning
                run = span
                while p + run < token_at[j + 1] and x + run < last and hashes[p + run] == unit_tokens[x + run]:
                    run += 1
                if run > best:
                    best = run
                    runs[j, 1], runs[j, 2] = p, x - first
                if budget:
                    reach, step, missed = run, run, 0
                    while p + step < token_at[j + 1] and x + step < last and missed <= budget:
                        if hashes[p + step] == unit_tokens[x + step]:
                            reach = step + 1
                        else:
                            missed += 1
                        step += 1
                    for k in range(x - first, x - first + reach if reach > span else 0):
                        cover[k] = True
        runs[j, 0], runs[j, 3] = best, covered
    skipped = 0
    for k in range(last - first if budget else 0):
        skipped += cover[k]
    return skipped
