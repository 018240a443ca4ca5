"""What lies on disk a piece at a time gives what arrays in memory would: columns, equal keys, shards, a whole mix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from columnar import cli
from curation import build_mix, narrow, rules, shelf, write
from curation.decide import Decisions, copy_id
from curation.narrow import Narrow, hex_ids, spans
from curation.write import plan_shards

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = st.lists(st.integers(0, 2**64 - 1), max_size=60)


@given(NUMBERS, st.integers(1, 9), st.data())
def test_a_column_gives_back_ranges_and_single_rows(numbers: list[int], piece: int, data: st.DataObject) -> None:
    whole = np.array(numbers, np.uint64)
    rows = Narrow()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrow, "PIECE", piece)
        for part in spans(0, len(whole)):
            rows.append(id=whole[part], half=(whole[part] >> np.uint64(40)).astype(np.uint32))
        assert np.array_equal(np.concatenate([np.zeros(0, np.uint64), *(rows.read("id", part) for part in spans(0, len(whole)))]), whole)
        picked = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)) if numbers else [], np.int64)
        assert rows.take("id", picked).tolist() == whole[picked].tolist()
        assert rows.take("half", picked).tolist() == [number >> 40 & 0xFFFFFFFF for number in whole[picked].tolist()]


@given(NUMBERS)
def test_ids_are_sixteen_digits(numbers: list[int]) -> None:
    assert hex_ids(np.array(numbers, np.uint64)).to_pylist() == [f"{number:016x}" for number in numbers]


@given(st.lists(st.integers(0, 30), max_size=80), st.booleans())
def test_rows_that_share_a_hash_are_found_in_memory_and_on_disk(values: list[int], on_disk: bool) -> None:
    hashes = np.array(values, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    with pytest.MonkeyPatch.context() as patch:
        if on_disk:
            patch.setattr(shelf, "WHOLE", 0)
            patch.setattr(shelf, "part_bits", lambda total: shelf.PART_BITS)
            patch.setattr(shelf, "WAITING", 5)
        pieces = [(hashes[start : start + 7], np.arange(start, min(start + 7, len(hashes)))) for start in range(0, len(hashes), 7)]
        found = shelf.sharing(pieces, len(hashes))
    assert found.tolist() == [i for i, value in enumerate(values) if values.count(value) > 1]


@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2), st.integers(1, 50)), unique_by=lambda row: row[0], max_size=80),
    st.integers(1, 3),
    st.integers(1, 12),
)
def test_shards_are_equal_parts_of_each_split_in_id_order(rows: list[tuple[int, int, int]], repeat: int, shard_rows: int) -> None:
    ids, split, chars = (np.array([row[place] for row in rows], kind) for place, kind in enumerate(("u8", "u1", "u4")))
    column = Narrow()
    column.append(id=ids, n_chars=chars)
    decisions = Decisions(column, [0, len(ids)], [repeat], np.zeros(len(ids), np.uint8), split)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrow, "PIECE", 9)
        patch.setattr(write, "SHARD_CHARS", 200)
        shards = plan_shards(decisions, shard_rows)
        made = decisions.output(0, slice(0, len(ids)))
    wanted, first = {}, 0
    for number in (1, 2):
        copies = [
            (int(copy_id(f"{i:016x}", c), 16), n) for i, s, n in rows if s == number for c in range(repeat if number == 1 else 1)
        ]  # training rows alone are repeated
        if not copies and number == 2:
            continue
        count = max(-(-len(copies) // shard_rows), -(-sum(n for _, n in copies) // 200), 1)
        wanted |= {i: first + place * count // len(copies) for place, (i, _) in enumerate(sorted(copies))}
        first += count
    assert len(shards.split) == first
    assert dict(zip(made.id.tolist(), shards.of(made.id, made.split).tolist(), strict=True)) == wanted


def test_a_mix_does_not_depend_on_the_size_of_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(name: str) -> dict[str, object]:
        argv = [
            str(ROOT / "recipes/mixes/tiny.yaml"),
            "--out",
            str(tmp_path / name),
            "--set",
            "shard_rows=31",
            "--set",
            "sources.chats.repeat=2",
        ]
        assert cli.run(build_mix.main, build_mix.parser(), argv) == 0
        found: dict[str, object] = json.loads((tmp_path / name / "manifest.json").read_text(encoding="utf-8"))["identity"]
        return found

    whole = build("whole")
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    assert "distinct rows shared a band with another and were compared" in card.partition("## Duplicates")[2].partition("##")[0]
    monkeypatch.setattr(narrow, "PIECE", 13)
    monkeypatch.setattr(rules, "PIECE", 13)
    monkeypatch.setattr(write, "IN_MEMORY", 10_000)
    assert build("pieces") == whole
