"""The fast way and the generic way give the same bytes; the compiled hashes are the defined ones."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columnar import fast, hashing, ingest, readers
from columnar.formats import chat, instruction
from columnar.formats.shape import Shape
from columnar.load import SourceSpec, load_source
from columnar.record import ROLES, conversation_problems, seal
from columnar.store import open_dataset

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['\\"', "\\\\", 'a"b', " A  b\n", "Ünï…", "ΣΑΣ", "e\u0301"]
)
value = st.one_of(text, st.none(), st.integers(-5, 5), st.lists(text, max_size=2), st.dictionaries(text, text, max_size=2))


def both_ways(lines: list[bytes], name: str = "a.jsonl", **spec: Any) -> list[tuple[Any, ...]]:
    """What loading gives, generic way first: counts, the bytes of the rows, the rejects."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(b"\n".join(lines) + b"\n")
        before = ingest.FAST_BYTES, readers.BLOCK
        try:
            for least, block in ((1 << 60, 1 << 22), (0, 1 << 22), (0, 100)):
                ingest.FAST_BYTES, readers.BLOCK = least, block
                out = Path(folder) / f"out{least}-{block}"
                counts = load_source(SourceSpec(name="s", path=str(path), max_reject=1.0, **spec), out)
                found.append((counts, open_dataset(out).content, (out / "rejects.jsonl").read_bytes()))
        finally:
            ingest.FAST_BYTES, readers.BLOCK = before
    return found


flat = st.fixed_dictionaries({"instruction": text, "input": text, "output": text, "id": value})
turn = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool", "human", "alien"]), "content": text})
talk = st.lists(turn, max_size=4) | st.lists(st.tuples(text, text), min_size=1, max_size=2).map(
    lambda pairs: [{"role": r, "content": c} for pair in pairs for r, c in zip(("user", "assistant"), pair, strict=True)]
)
talks = st.fixed_dictionaries({"messages": talk, "b": value, "a": value})
odd = st.sampled_from(
    [
        b'{"instruction": "a", "input": null, "output": "b", "id": 1}',
        b'{"instruction": "a", "instruction": "b", "input": "", "output": "b", "id": 1}',
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ["b"]}], "a": 1, "b": 2}',
        b'{"messages": [{"role": "user", "content": "a", "content": "x"}, {"role": "assistant", "content": "b"}], "a": 1, "b": 2}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}], "a": 1, "b": 2}',
        b'{"output": "\xff"}',
        b"nonsense",
        b"  ",
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([flat, talks]).flatmap(
        lambda rows: st.tuples(rows, st.lists(rows.map(lambda r: json.dumps(r).encode()) | odd, max_size=8))
    )
)
def test_fast_and_generic_give_the_same_bytes(made: tuple[dict[str, Any], list[bytes]]) -> None:
    first, lines = made
    if "messages" in first:
        first = {**first, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    generic, quick, small = both_ways([json.dumps(first).encode(), *lines])
    assert generic == quick == small
    assert generic[0]["in"] == generic[0]["rows"] + generic[0]["rejects"] == 1 + sum(bool(line.strip()) for line in lines)


def test_a_limit_and_a_list_go_the_fast_way_too() -> None:
    rows = [json.dumps({"prompt": f"p{i}", "completion": "c"}).encode() for i in range(50)]
    generic, quick, small = both_ways(rows, limit=17)
    assert generic == quick == small
    assert generic[0]["rows"] == 17
    listed = both_ways([b"[", *[row + b"," for row in rows[:-1]], rows[-1], b"]"], name="a.json")
    assert listed[0] == listed[1] == listed[2]
    assert listed[0][0]["rows"] == 50


def test_mostly_odd_files_go_on_in_the_generic_way() -> None:
    plain = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}).encode()
    parts = json.dumps(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}]}
    ).encode()
    generic, quick, small = both_ways([plain, *[parts] * 30])
    assert generic == quick == small
    assert generic[0]["rows"] == 31


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.text(st.characters(exclude_categories=["Cs"]))), max_size=4), min_size=1, max_size=4)
)
def test_compiled_hashes_are_the_defined_ones(talks: list[list[tuple[int, str]]]) -> None:
    texts = [said for messages in talks for _, said in messages]
    codes = np.array([code for messages in talks for code, _ in messages], np.uint8)
    starts = np.cumsum([0, *map(len, talks)], dtype=np.int64)
    rows = np.arange(len(talks), dtype=np.int64) * 99
    leads = [("messages", role) for role in ROLES]
    sealed = hashing.seal_batch("sft", pa.array(texts, pa.string()), starts, codes, leads, "söurce", "a/b.jsonl", rows)
    for i, messages in enumerate(talks):
        row: dict[str, Any] = {"kind": "sft", "source": "söurce", "origin": {"row": int(rows[i])}}
        seal({**row, "messages": [{"role": ROLES[code], "content": said} for code, said in messages]}, "a/b.jsonl")
        want = seal({**row, "messages": [{"role": ROLES[code], "content": said} for code, said in messages]}, "a/b.jsonl")
        assert (want["id"], want["hash"], want["prompt_hash"]) == tuple(column[i].as_py() for column in sealed)


def test_every_character_hashes_as_defined_beside_any_neighbour() -> None:
    """All of Unicode, one text a character, after a letter that accents compose with and before one."""
    texts = [f"E{chr(code)}a {chr(code)}" for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    n = len(texts)
    sealed = hashing.seal_batch(
        "sft",
        pa.array(texts),
        np.arange(n + 1, dtype=np.int64),
        np.ones(n, np.uint8),
        [("messages", r) for r in ROLES],
        "s",
        "p",
        np.arange(n),
    )
    for i in range(0, n, 1):
        row = {"kind": "sft", "source": "s", "origin": {"row": i}, "messages": [{"role": "user", "content": texts[i]}]}
        assert seal(row, "p")["hash"] == sealed.hashes[i].as_py(), hex(ord(texts[i][1]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(sorted(fast._CODE)), max_size=5), min_size=1, max_size=4))
def test_the_rules_of_a_conversation_are_the_same_in_columns(talks: list[list[str]]) -> None:
    codes = np.array([fast._CODE[role] for roles in talks for role in roles], np.uint8)
    good = fast._in_turn(codes, np.cumsum([0, *map(len, talks)], dtype=np.int64))
    for roles, ok in zip(talks, good, strict=True):
        messages = [{"role": chat.ROLE_OF[role], "content": "x"} for role in roles]
        assert ok == (not conversation_problems(messages, "messages", must_end="assistant"))


@pytest.mark.parametrize("text", [b"", b'"', b'"a"', b'"\\""', b'"\\\\"', b'"\\\\\\""' * 20000, b"x" * 16383 + b'\\"' + b'"'])
def test_quotes_are_counted_as_a_parser_would(text: bytes) -> None:
    count, held = 0, False
    for byte in text:
        count += byte == 34 and not held
        held = byte == 92 and not held
    assert hashing.count_quotes(np.frombuffer(text, np.uint8)) == count


@pytest.mark.parametrize("shape", [chat.MESSAGES, chat.SHAREGPT, instruction.ALPACA, instruction.DOLLY, instruction.PROMPT_COMPLETION])
def test_a_worker_on_a_cluster_takes_the_fast_way_too(shape: Shape) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    samples: dict[str, dict[str, Any]] = {
        "messages": {"messages": turns},
        "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        "alpaca": {"instruction": "q", "input": "", "output": "a"},
        "dolly": {"instruction": "q", "context": "", "response": "a", "category": "c"},
        "prompt_completion": {"prompt": "q", "completion": "a"},
    }
    sent = pickle.loads(pickle.dumps(shape))
    assert sent is not shape and fast.plan(sent, [samples[shape.name]]) is not None
