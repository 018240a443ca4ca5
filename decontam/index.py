"""The index: all items of all benchmarks as one n-gram table, built once, used by every batch, thread and worker.

In: benchmarks and a rule. Out: an `Index`. A *unit* is one text to look for: a field of an item. Fields with the same tokens
are one unit with several members. What cannot be seen under the rule is counted here, per benchmark:

    empty      no text in any deciding field, or symbols only
    short      fewer tokens than the rule's n-grams have
    same       more than SAME items of the benchmark have exactly these tokens: a match would not say which item it is
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from decontam import match, ngrams
from decontam.benchmarks import Benchmark
from decontam.rules import SHORT_BYTES, SHORT_TOKENS, TINY_BYTES, TINY_TOKENS, Rule, tokens_aligned, tokens_needed

SAME = 10
HELD = ((12, 1.0), (30, 0.8))  # coverage at which a text certainly holds an item (see decontam/common.py)


@dataclass(frozen=True)
class Seen:
    """What of one benchmark the rule can see."""

    items: int
    empty: int
    short: int
    same: int

    @property
    def unseeable(self) -> int:
        """Items that can never be found."""
        return self.empty + self.short + self.same


@dataclass(frozen=True)
class Index:
    """Units, their members (benchmark, item, field) and the kernel's table. Picklable; about 60 bytes a token."""

    rule: Rule
    benchmarks: list[Benchmark]
    seen: list[Seen]
    table: match.Table
    texts: pa.LargeStringArray  # the text of each unit's first member
    token_starts: np.ndarray  # characters from the start of its text, one for each token of each text
    token_ends: np.ndarray
    member_at: np.ndarray  # unit u has members member_at[u]:member_at[u + 1]
    member_benchmark: np.ndarray
    member_item: np.ndarray
    member_field: np.ndarray
    member_decides: np.ndarray
    member_token: np.ndarray  # the member's first token in token_starts
    deciding_units: list[np.ndarray]  # per benchmark, per item: how many deciding units it has (for `decide: all`)


def build_index(benchmarks: list[Benchmark], rule: Rule) -> Index:
    """Tokenise all items and build the table. Which n-grams are common is not known yet (see `decontam.common`)."""
    owner, item, place, texts = _members(benchmarks)
    column = pa.array(texts, pa.large_string())
    table = ngrams.token_table(column)
    lengths = np.diff(table.bounds)
    unit_of_text, first_text = _same_tokens(table, lengths)
    decides = np.array([benchmarks[b].deciding[f] for b, f in zip(owner, place, strict=True)], bool)
    seeable = _seeable(rule, lengths, owner, unit_of_text)
    seen = [_seen(b, benchmark, rule, owner, item, decides, lengths, seeable) for b, benchmark in enumerate(benchmarks)]

    used = np.unique(unit_of_text[seeable])  # units that go into the table, renumbered from 0
    number = np.full(len(first_text), -1, np.int64)
    number[used] = np.arange(len(used))
    first = first_text[used]
    members = np.flatnonzero(seeable)
    members = members[np.argsort(number[unit_of_text[members]], kind="stable")]
    counts = np.bincount(number[unit_of_text[members]], minlength=len(used))
    tokens = _ranges(table.bounds[first], lengths[first])
    unit_at = np.concatenate([[0], np.cumsum(lengths[first])]).astype(np.int64)
    size = np.add.reduceat(np.append((table.ends - table.starts)[tokens], 0), unit_at[:-1]) if len(first) else np.zeros(0, np.int64)
    made = _table(rule, table.hashes[tokens], unit_at, owner[first], size)
    return Index(
        rule=rule,
        benchmarks=benchmarks,
        seen=seen,
        table=made,
        texts=column.take(pa.array(first)),
        token_starts=ngrams.in_characters(column, table.bounds, table.starts),
        token_ends=ngrams.in_characters(column, table.bounds, table.ends),
        member_at=np.concatenate([[0], np.cumsum(counts)]),
        member_benchmark=owner[members],
        member_item=item[members],
        member_field=place[members],
        member_decides=decides[members],
        member_token=table.bounds[members],
        deciding_units=[
            np.bincount(item[members[(owner[members] == b) & decides[members]]], minlength=len(benchmark.ids))
            for b, benchmark in enumerate(benchmarks)
        ],
    )


def _members(benchmarks: list[Benchmark]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """One line a field of an item: benchmark, item, field, text."""
    owner, item, place, texts = [], [], [], []
    for b, benchmark in enumerate(benchmarks):
        for i, fields in enumerate(benchmark.texts):
            for f, text in enumerate(fields):
                owner.append(b)
                item.append(i)
                place.append(f)
                texts.append(text)
    return np.array(owner, np.int32), np.array(item, np.int64), np.array(place, np.int32), texts


def _same_tokens(table: ngrams.TokenTable, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texts with equal tokens: the group of each text, and the first text of each group."""
    whole = np.zeros(len(lengths), np.uint64)
    powers = np.ones(int(lengths.max(initial=0)) + 1, np.uint64)
    np.multiply.accumulate(np.full(len(powers) - 1, ngrams.BASE), out=powers[1:])
    filled = lengths > 0
    position = np.arange(len(table.hashes)) - np.repeat(table.bounds[:-1], lengths)
    if filled.any():
        whole[filled] = np.add.reduceat(table.hashes * powers[position], table.bounds[:-1][filled])
    _, first, group = np.unique(np.stack([whole, lengths.astype(np.uint64)]), axis=1, return_index=True, return_inverse=True)
    return group.reshape(-1), first


def _seeable(rule: Rule, lengths: np.ndarray, owner: np.ndarray, unit_of_text: np.ndarray) -> np.ndarray:
    """Which texts can be found under the rule and, when found, tell their item."""
    long_enough = lengths >= (1 if rule.whole_items else rule.n)
    both = owner * (np.int64(unit_of_text.max(initial=0)) + 1) + unit_of_text
    _, group, sizes = np.unique(both, return_inverse=True, return_counts=True)
    return long_enough & (sizes[group] <= SAME)


def _seen(
    b: int,
    benchmark: Benchmark,
    rule: Rule,
    owner: np.ndarray,
    item: np.ndarray,
    decides: np.ndarray,
    lengths: np.ndarray,
    seeable: np.ndarray,
) -> Seen:
    mine = (owner == b) & decides
    items = len(benchmark.ids)

    def any_of(mask: np.ndarray) -> np.ndarray:
        return np.bincount(item[mine & mask], minlength=items) > 0

    visible, filled = any_of(seeable), any_of(lengths > 0)
    long_enough = any_of(lengths >= (1 if rule.whole_items else rule.n))
    return Seen(
        items,
        empty=int((~filled).sum()),
        short=int((~visible & filled & ~long_enough).sum()),
        same=int((~visible & long_enough).sum()),
    )


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers starts[0] .. starts[0] + lengths[0] - 1, then those of starts[1], ..."""
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum())) + np.repeat(starts - (ends - lengths), lengths)


def _table(rule: Rule, tokens: np.ndarray, unit_at: np.ndarray, owner: np.ndarray, size: np.ndarray) -> match.Table:
    """The kernel's table; `size` is the bytes of each unit's tokens."""
    lengths = np.diff(unit_at)
    unit_of = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    below = np.unique(lengths[lengths < rule.n])
    starts, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for length in [rule.n, *below.tolist()]:
        grams = np.empty(max(len(tokens), 1), np.uint64)
        count = ngrams.roll(tokens, 0, len(tokens), length, grams)
        at = np.arange(count)
        inside = unit_of[at] == unit_of[at + length - 1] if count else np.zeros(0, bool)
        if length < rule.n:
            inside &= lengths[unit_of[at]] == length
        starts.append(at[inside])
        hashes.append(grams[:count][inside])
    start, gram_hash = np.concatenate(starts), np.concatenate(hashes)
    slots = 1 << max(int(np.ceil(np.log2(max(len(start), 16) * 2))), 5)
    keys, slot_gram, bloom = np.zeros(slots, np.uint64), np.full(slots, -1, np.int32), np.zeros(max(1 << 12, slots >> 5), np.uint64)
    numbers = np.zeros(len(start), np.int32)
    hash_of = np.zeros(len(start) + 1, np.uint64)
    count = match.fill_table(gram_hash, bloom, keys, slot_gram, hash_of, numbers)
    gram_of = np.full(len(tokens), -1, np.int32)
    gram_of[start] = numbers
    order = np.argsort(numbers, kind="stable")  # places of one n-gram are ascending already
    points, shares = zip(*HELD, strict=True)
    needed = tokens_needed(rule, lengths)
    aligned = tokens_aligned(rule, lengths)
    whole = np.full(len(lengths), match.NEVER, np.uint8)
    if rule.whole_items:
        short = (lengths < SHORT_TOKENS) | (size < SHORT_BYTES)
        tiny = (lengths < TINY_TOKENS) | (size < TINY_BYTES)
        whole[:] = np.where(tiny, match.WHOLE_TURN, np.where(short, match.SENTENCE, match.ANYWHERE))
        needed[short] = lengths[short] + 1  # cannot be reached: only whole
        aligned[short[: len(aligned)]] = 0
    return match.Table(
        lengths=np.array([rule.n, *below.tolist()], np.int64),
        turns_only=min(TINY_TOKENS, rule.n) - 1 if rule.whole_items else 0,
        bloom=bloom,
        keys=keys,
        grams=slot_gram,
        hash_of=hash_of[: count + 1].copy(),
        posting_at=np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))]).astype(np.int64),
        postings=np.stack([start[order], unit_of[start[order]]], axis=1).astype(np.int32),
        tokens=tokens,
        unit_of=unit_of,
        gram_of=gram_of,
        unit_at=unit_at,
        needed=needed,
        held=np.ceil(np.interp(lengths, points, shares) * lengths - 1e-9).astype(np.int32),
        aligned=aligned,
        whole=whole,
        common=np.zeros(count, bool),
        owner=owner.astype(np.int32),
    )
