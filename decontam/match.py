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
from decontam.ngrams import ONE, Room, U, characters, roll, room_for, tokenise

NEVER, ANYWHERE, SENTENCE, WHOLE_TURN = range(4)  # where a unit found whole counts, whatever the tokens needed (Table.whole)

# the columns of evidence
ROW, TEXT, UNIT, COVERED, COVERED_ALL, ALIGNED, RUN, RUN_CHARACTERS, START, END, ITEM_FROM, TURN_COVERED, TURN_TOKENS = range(13)
EVIDENCE = 13
LINES = 1 << 14  # room for so many at first

SEEN, COUNT, SAME, SHIFT, FIRST, LAST, NEAR = range(7)  # the columns of Scratch.unit
UNKNOWN, TEXT_SHIFT = np.int64(1) << 62, 40  # an alignment is told by its shift and its text
SLOT_SHIFT, BLOOM_SHIFT, BIT_SHIFT, BIT_MASK = U(20), U(40), U(6), U(63)


class Table(NamedTuple):
    """All units of all benchmarks, for the kernel. Tokens of all units stand in one row; unit u has tokens `unit_at[u]:unit_at[u + 1]`."""

    lengths: np.ndarray  # int64: n, then the token counts of units shorter than n that are looked up whole
    turns_only: int  # units of up to so many tokens are looked up only where they would be the whole turn
    bloom: np.ndarray  # uint64, two bits an n-gram
    keys: np.ndarray  # uint64, open addressing: hash of the n-gram
    grams: np.ndarray  # int32: its number, -1 for an empty slot
    hash_of: np.ndarray  # uint64: of each n-gram, by number; those of a unit that no other unit has are numbered one after the other
    posting_at: np.ndarray  # int64: n-gram g stands at postings[posting_at[g]:posting_at[g + 1]]
    postings: np.ndarray  # int32: (token, its unit), ascending
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
    unit: np.ndarray  # int64, 64 bytes a unit: SEEN (a mark), COUNT of n-grams, SAME tokens in an alignment, the SHIFT looked at last;
    # and copied from the table, to have it at hand: the unit's FIRST and LAST token, the tokens it needs in an alignment (NEAR)
    units: np.ndarray
    skip_cover: np.ndarray
    first_user: np.ndarray  # int32: the first source that used an n-gram on its own, -1 for none
    common: np.ndarray  # bool: n-grams that two sources used on their own


def scratch_for(table: Table) -> Scratch:
    """Marks for one thread: about 15 bytes a token of the benchmarks."""
    grams, tokens, units = len(table.posting_at) - 1, len(table.tokens), len(table.unit_at) - 1
    longest = int(np.diff(table.unit_at).max(initial=0))
    unit = np.zeros((units, 8), np.int64)
    unit[:, FIRST], unit[:, LAST] = table.unit_at[:-1], table.unit_at[1:]
    unit[:, NEAR] = table.aligned if len(table.aligned) else 0
    return Scratch(
        clock=np.zeros(1, np.int64),
        gram_seen=np.zeros(grams, np.int32),
        gram_held=np.zeros(grams, np.int32),
        token_seen=np.zeros(tokens, np.int32),
        unit=unit,
        units=np.zeros(units, np.int32),
        skip_cover=np.zeros(longest, np.bool_),
        first_user=np.full(grams, -1, np.int32),
        common=np.zeros(grams, np.bool_),
    )


@kernel
def fill_table(hashes, bloom, keys, grams, hash_of, numbers):  # type: ignore[no-untyped-def]
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
            keys[slot] = hash_of[count] = h
            count += 1
        numbers[i] = grams[slot]
    return count


class Found(NamedTuple):
    """Room for one row: its n-grams, and which of them the table has. All turns of a row stand one after the other."""

    grams: np.ndarray  # uint64: of one turn
    passed: np.ndarray  # int64: places in `grams` that the filters let through
    position: np.ndarray  # int64: token of the row at which an n-gram of the table begins
    number: np.ndarray  # int32: which n-gram it is
    token_at: np.ndarray  # int64: turn j has the tokens token_at[j]:token_at[j + 1]
    hit_at: np.ndarray  # int64: and the hits hit_at[j]:hit_at[j + 1]
    run: np.ndarray  # int64: per turn (tokens of the longest common run, its first token in the row, in the unit, covered tokens)


def rooms_for(offsets: np.ndarray, row_at: np.ndarray, table: Table) -> tuple[Room, Found]:
    """Room for the largest row of a batch."""
    turns = int(np.diff(row_at).max(initial=0))
    tokens = int(np.diff(offsets[row_at]).max(initial=0)) // 2 + turns
    most = int((table.lengths > table.turns_only).sum()) * tokens + turns  # n-grams that are looked up
    counts = np.zeros((2, turns + 1), np.int64)
    found = Found(
        np.empty(tokens, np.uint64),
        np.empty(tokens, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.int32),
        counts[0],
        counts[1],
        np.zeros((max(turns, 1), 4), np.int64),
    )
    return room_for(int(np.diff(offsets).max(initial=0)), tokens), found


@kernel
def scan_rows(data, offsets, row_at, fold, room, found, table, scratch, rule, users, rows_hit, first_row, out):  # type: ignore[no-untyped-def]
    """Scan rows from `first_row` on until `out` may not hold the next one's evidence; returns (the next row, lines of evidence).

    Args:
        data, offsets: the texts (decontam.ngrams.Texts); row r has the texts `row_at[r]:row_at[r + 1]`.
        room, found: what `rooms_for` gives.
        rule: (tokens of a run that may differ (Llama 2), 0: plain n-gram coverage; are characters of runs counted; is evidence wanted;
            does a unit of the row's own source not count as held (benchmarks read as if they were data)).
        users: the source of each row, to note which n-grams sources use on their own (into scratch); empty: do not.
        rows_hit: set to True for rows that hold a unit.
        out: lines of evidence, `EVIDENCE` numbers each.
    """
    skip_budget, count_characters, evidence, skip_own = rule
    lines = np.int64(0)
    for row in range(first_row, len(row_at) - 1):
        first_text, texts = row_at[row], row_at[row + 1] - row_at[row]
        hits = _look_up(data, offsets, first_text, texts, fold, room, found, table)
        if hits == 0:
            continue
        scratch.clock[0] += 1
        now = np.int32(scratch.clock[0])
        touched = _mark(room.hashes, found, hits, table, scratch, now)
        if evidence and lines + touched * texts > len(out):
            return row, lines
        for i in range(touched):
            unit = scratch.units[i]
            first, last = table.unit_at[unit], table.unit_at[unit + 1]
            span = min(table.lengths[0], last - first)
            needed = table.needed[unit]
            aligned = len(table.aligned) > 0 and 0 < table.aligned[unit] <= scratch.unit[unit, SAME]
            if skip_budget == 0 and not aligned and scratch.unit[unit, COUNT] * span < min(needed, last - first):
                continue
            own, every = _coverage(scratch.token_seen, table.gram_of, table.common, first, last, span, now)
            if len(users) and every >= table.held[unit] and not (skip_own and table.owner[unit] == users[row]):
                for x in range(first, last):
                    if table.gram_of[x] >= 0:
                        scratch.gram_held[table.gram_of[x]] = now
            if skip_budget == 0:
                if not aligned and own < needed and (table.whole[unit] == NEVER or every < last - first):
                    continue
                rows_hit[row] = True
                if not evidence:
                    continue
            skipped = _runs(table, first, last, span, room.hashes, texts, found, skip_budget, scratch.skip_cover)
            if skip_budget:
                own = every = skipped
                if own < needed:
                    continue
                rows_hit[row] = True
            for j in range(texts if evidence else 0):
                if found.run[j, 3]:
                    _write(out, lines, data, offsets[first_text + j], room, found, j, count_characters)
                    out[lines, ROW], out[lines, TEXT], out[lines, UNIT] = row, first_text + j, unit
                    out[lines, COVERED], out[lines, COVERED_ALL] = own, every
                    out[lines, ALIGNED] = scratch.unit[unit, SAME] if aligned else 0
                    lines += 1
        if len(users):  # which n-grams this row uses without holding a unit they belong to
            for i in range(hits):
                gram = found.number[i]
                if scratch.gram_held[gram] != now:
                    if scratch.first_user[gram] < 0:
                        scratch.first_user[gram] = users[row]
                    elif scratch.first_user[gram] != users[row]:
                        scratch.common[gram] = True
    return len(row_at) - 1, lines


@kernel(part=True)
def _look_up(data, offsets, first_text, texts, fold, room, found, table):  # type: ignore[no-untyped-def]
    """All n-grams of a row's turns that the table has, into `found`; returns how many.

    Two filters without a branch come before the search, so that the memory they wait for is fetched many places at a time.
    """
    grams, passed, bloom, keys = found.grams, found.passed, table.bloom, table.keys
    words, mask, hash_of = U(len(bloom) - 1), U(len(keys) - 1), table.hash_of
    tokens, hits = np.int64(0), np.int64(0)  # np.int64(0) and not 0: or numba compiles what they are passed to twice
    for j in range(texts):
        begin = tokens
        tokens = tokenise(data, offsets[first_text + j], offsets[first_text + j + 1], fold, room, tokens)
        for length in table.lengths:
            if length <= table.turns_only and length != tokens - begin:
                continue
            made = roll(room.hashes, begin, tokens, length, grams)
            left = U(0)
            for i in range(U(0), U(made)):
                h = grams[i]
                word = bloom[h >> BLOOM_SHIFT & words]
                passed[left] = i
                left += word >> (h & BIT_MASK) & word >> (h >> BIT_SHIFT & BIT_MASK) & ONE
            some, left, before = left, U(0), -2
            for c in range(U(0), some):  # of n-grams in a row only the first is looked for here
                i = passed[c]
                h = grams[i]
                head = i != before + 1
                before = i
                slot = h >> SLOT_SHIFT & mask if head else U(0)
                passed[left] = i
                left += U((not head) | (keys[slot] == h) | (keys[slot + ONE & mask] != 0))
            before, number = -2, np.int32(-1)
            for c in range(U(0), left):
                i = passed[c]
                h = grams[i]
                if i == before + 1 and hash_of[number + 1] == h:  # the next n-gram of the same unit: no search
                    number += np.int32(1)
                else:
                    number = _find(keys, table.grams, h)
                if number >= 0:
                    before = i
                    found.position[hits], found.number[hits] = begin + i, number
                    hits += 1
        found.token_at[j + 1], found.hit_at[j + 1] = tokens, hits
    return hits


@kernel(part=True)
def _mark(hashes, found, hits, table, scratch, now):  # type: ignore[no-untyped-def]
    """Mark the tokens of units at which the n-grams found begin; returns how many units were touched (they stand in `scratch.units`)."""
    near, state = len(table.aligned) > 0, scratch.unit
    touched, j = np.int64(0), 0
    for i in range(hits):
        gram = found.number[i]
        fresh = scratch.gram_seen[gram] != now
        if not fresh and not near:
            continue
        scratch.gram_seen[gram] = now
        while i >= found.hit_at[j + 1]:
            j += 1
        counts = near and not table.common[gram]
        for z in range(table.posting_at[gram], table.posting_at[gram + 1]):
            x, unit = table.postings[z, 0], table.postings[z, 1]
            if state[unit, SEEN] != now:
                state[unit, SEEN], state[unit, COUNT], state[unit, SAME], state[unit, SHIFT] = now, 0, 0, -UNKNOWN
                scratch.units[touched] = unit
                touched += 1
            if fresh:
                state[unit, COUNT] += 1
                scratch.token_seen[x] = now
            if counts and state[unit, NEAR]:
                shift = found.position[i] - x
                mark = shift + (j << TEXT_SHIFT)
                if mark != state[unit, SHIFT]:
                    state[unit, SHIFT] = mark
                    low, high = found.token_at[j] - shift, found.token_at[j + 1] - shift
                    least = max(state[unit, NEAR], state[unit, SAME] + 1)
                    same = _same(hashes, table.tokens, state[unit, FIRST], state[unit, LAST], shift, low, high, least)
                    state[unit, SAME] = max(same, state[unit, SAME])
    return touched


@kernel(part=True)
def _find(keys, slots, h):  # type: ignore[no-untyped-def]
    """The number of an n-gram, or -1."""
    mask = U(len(keys) - 1)
    slot = h >> SLOT_SHIFT & mask
    while slots[slot] >= 0:
        if keys[slot] == h:
            return slots[slot]
        slot = slot + U(1) & mask
    return np.int32(-1)


@kernel(part=True)
def _same(hashes, unit_tokens, first, last, shift, low, high, least):  # type: ignore[no-untyped-def]
    """How many tokens of the unit equal the text's token `shift` places on (those from `low` to `high` have one); 0 for under `least`."""
    may_miss = last - first - least
    begin, end = max(first, low), min(last, high)
    missed = last - first - (end - begin)
    for x in range(begin, end):
        missed += unit_tokens[x] != hashes[x + shift]
        if missed > may_miss:
            return 0
    return last - first - missed if missed <= may_miss else 0


@kernel(part=True)
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


@kernel(part=True)
def _write(out, line, data, start, room, found, j, count_characters):  # type: ignore[no-untyped-def]
    """Where turn j, which begins at byte `start`, has its longest run: into a line of evidence."""
    run, begin = found.run[j, 0], found.run[j, 1]
    out[line, RUN], out[line, ITEM_FROM], out[line, TURN_COVERED] = run, found.run[j, 2], found.run[j, 3]
    out[line, TURN_TOKENS] = found.token_at[j + 1] - found.token_at[j]
    out[line, START] = characters(data, start, room.starts[begin])
    out[line, END] = out[line, START] + characters(data, room.starts[begin], room.ends[begin + run - 1])
    out[line, RUN_CHARACTERS] = 0
    if count_characters:
        for token in range(begin, begin + run):
            out[line, RUN_CHARACTERS] += characters(data, room.starts[token], room.ends[token])


@kernel(part=True)
def _runs(table, first, last, span, hashes, texts, found, budget, cover):  # type: ignore[no-untyped-def]
    """For each text of the row: longest common run with the unit, where it is, and how many tokens lie in n-grams of the unit.

    Every maximal run of at least `span` tokens is found at its first n-gram. With a budget also: how many tokens of the unit lie in
    runs longer than `span` that begin with `span` equal tokens, differ in at most `budget` places and end equal (returned).
    """
    posting_at, postings, unit_tokens = table.posting_at, table.postings, table.tokens
    token_at, hit_at, positions, numbers, runs = found.token_at, found.hit_at, found.position, found.number, found.run
    for k in range(last - first if budget else 0):
        cover[k] = False
    for j in range(texts):
        best, covered, covered_to = 0, 0, token_at[j]
        for i in range(hit_at[j], hit_at[j + 1]):
            low, high = posting_at[numbers[i]], posting_at[numbers[i] + 1]
            end = high
            while low < high:  # the first posting inside the unit
                middle = (low + high) >> 1
                if postings[middle, 0] < first:
                    low = middle + 1
                else:
                    high = middle
            if low == end or postings[low, 0] >= last:
                continue
            p = positions[i]
            covered += p + span - max(p, covered_to)
            covered_to = p + span
            while low < end and postings[low, 0] < last and (budget or best < last - first):
                x = postings[low, 0]
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
