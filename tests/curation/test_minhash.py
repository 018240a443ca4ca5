"""Signatures are datasketch's, bit for bit; n-gram sets are what the definition says, whatever the kind of row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from duplicates import grams, make, message, real_rows, sft

from columnar.record import schema_of, seal, to_batch
from columnar.store import open_dataset
from curation.dedup import NearConfig
from curation.minhash import records, sign, signatures, stored

MASK = (1 << 64) - 1
SYSTEM = message("system", "You are a very long system prompt indeed, yes.")
CHOSEN, REJECTED = [message("assistant", "The first one it is then, sir")], [message("assistant", "No")]
CANDIDATES = [{"model": "a", "content": "one two three four five six"}, {"model": "b", "content": "it"}]
ROWS = [
    {"kind": "sft", "messages": [SYSTEM, *sft("What is it?", "It is a cat.")["messages"]]},
    {"kind": "sft", "messages": [message("user", "..."), message("assistant", "!!")]},
    {"kind": "pair", "prompt": [message("user", "Name one of the two")], "chosen": CHOSEN, "rejected": REJECTED},
    {"kind": "candidates", "prompt": [message("user", "Say it")], "candidates": CANDIDATES},
    {"kind": "prompt", "prompt": [message("user", "Ünïcode straße ﬁne 什么意思 ½ ok ok ok ok ok ok ok")]},
]


def batch_of(rows: list[dict]) -> pa.RecordBatch:
    sealed = [seal({"source": "s", "origin": {"uri": "t", "row": i}, **row}, "t") for i, row in enumerate(rows)]
    return to_batch(sealed, schema_of({row["kind"] for row in rows}))


def mix(h: int) -> int:
    h = ((h ^ (h >> 32)) * 0xFF51AFD7ED558CCD) & MASK
    return h ^ (h >> 32)


def gram_hash(gram: tuple[str, ...]) -> int:
    """decontam.ngrams' hash of an n-gram with Python's integers."""
    value = 0
    for token in gram:
        codes = [ord(char) for char in token]
        data = bytes(b for c in codes for b in ([c] if c < 0x80 else [0x80 | (c >> shift) & 0x7F for shift in (0, 7, 14)]))
        h = 0xCBF29CE484222325
        for start in range(0, len(data) + 1, 8):
            h = mix(h ^ int.from_bytes(data[start : start + 8], "little"))
        value = (value * 0x9E3779B97F4A7C15 + h) & MASK
    return mix(value ^ (len(gram) * 0xFF51AFD7ED558CCD) & MASK)


def sets_of(batch: pa.RecordBatch, near: NearConfig) -> list[set[int]]:
    words, sizes = records(batch, near, np.arange(batch.num_rows))
    head = (near.num_perm + 1) // 2
    return [set(part[head:].tolist()) for part in np.split(words, np.cumsum(sizes)[:-1])]


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
@pytest.mark.parametrize("num_perm", [112, 37])
def test_signatures_are_datasketchs(shared, scheme, num_perm):
    rows = real_rows(shared, "dolly_15k.parquet", "instruction", "response", 150) + ROWS
    rows += real_rows(shared, "baize_quora_ko.parquet", "topic", "input", 50) + real_rows(
        shared, "oasst1_sft_zh.parquet", "instruction", "output", 50
    )
    near = NearConfig(scheme=scheme, num_perm=num_perm, seed=7)
    column = signatures(batch_of(rows), near).column("minhash")
    for row, signature in zip(rows, column.to_pylist(), strict=True):
        base = [gram_hash(gram) >> 32 for gram in grams(row)]
        if not base:
            assert signature is None
            continue
        sketch = MinHash(num_perm=num_perm, seed=7, scheme=scheme, hashfunc=lambda h: h)
        sketch.update_batch(base)
        assert signature == sketch.hashvalues.tolist()
        resumed = MinHash(num_perm=num_perm, seed=7, scheme=scheme, hashvalues=signature)
        assert resumed.jaccard(sketch) == 1.0


@pytest.mark.parametrize(
    "near", [NearConfig(), NearConfig(by="prompt"), NearConfig(system=True), NearConfig(by="prompt", system=True, ngram=2)]
)
def test_sets_are_the_definition(near):
    expected = [{gram_hash(g) for g in grams(row, near.ngram, near.by, near.system)} for row in ROWS]
    assert sets_of(batch_of(ROWS), near) == expected


def test_records_carry_the_signature_of_their_set():
    near = NearConfig(num_perm=33)
    batch = batch_of(ROWS)
    words, sizes = records(batch, near, np.array([0, 2, 4]))
    starts = np.cumsum(sizes) - sizes
    for start, row in zip(starts, (0, 2, 4), strict=True):
        slots = words[start : start + 17].view(np.uint32)[:33]
        assert slots.tolist() == signatures(batch, near).column(0)[row].as_py()


def test_signatures_do_not_depend_on_batches(shared):
    batch = batch_of(real_rows(shared, "code_alpaca_2k.parquet", "instruction", "output", 300) + ROWS)
    near = NearConfig()
    pieces = [signatures(batch.slice(i, 7), near).column(0) for i in range(0, batch.num_rows, 7)]
    assert pa.concat_arrays(pieces).to_pylist() == signatures(batch, near).column(0).to_pylist()


def test_stored_signatures_come_back_and_are_made_once(tmp_path):
    dataset = make(tmp_path / "d", [{"source": "s", **row} for row in ROWS])
    near = NearConfig()
    assert sign([dataset], near) and not sign([dataset], near)
    assert not sign([dataset], NearConfig(threshold=0.9)), "the threshold does not change signatures"
    [(first, rows, values)] = list(stored(dataset, near))
    assert (first, rows.tolist()) == (0, [0, 2, 3, 4])
    whole = signatures(batch_of(ROWS), near).column(0)
    assert values.tolist() == [whole[i].as_py() for i in (0, 2, 3, 4)]
    assert sign([dataset], NearConfig(num_perm=16)), "other settings are signed anew"


def test_hostile_texts():
    long = "word " * 2_000_000  # 10 MB, one distinct n-gram
    rows = [sft(long, long), sft("", ""), sft("\x00\x01", "\U0001f600" * 50), sft("a" * 1_000_000, "b")]
    near = NearConfig()
    assert [len(s) for s in sets_of(batch_of(rows), near)] == [1, 0, 0, 2]
    assert [value is None for value in signatures(batch_of(rows), near).column(0).to_pylist()] == [False, True, True, False]


def test_no_rows(tmp_path):
    dataset = make(tmp_path / "empty", [])
    assert sign([open_dataset(dataset.path)], NearConfig())
    assert sum(len(rows) for _, rows, _ in stored(dataset, NearConfig())) == 0
