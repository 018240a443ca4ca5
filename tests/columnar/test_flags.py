"""Flags: append-only, folded, crash-safe, and nothing lost when several write at once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from columnar.errors import StoreError
from columnar.flags import add_flags, read_flags


def test_undo_and_last_write_win(tmp_path: Path) -> None:
    add_flags(tmp_path, [{"id": "a", "flag": "bad", "note": "first"}, {"id": "b", "flag": "bad"}])
    add_flags(tmp_path, [{"id": "a", "flag": "bad", "note": "second"}, {"id": "b", "flag": "bad", "undo": True}])
    assert read_flags(tmp_path) == [{"id": "a", "flag": "bad", "note": "second"}]


def test_no_file_means_no_flags(tmp_path: Path) -> None:
    assert read_flags(tmp_path) == []


def test_a_cut_off_last_line_spoils_nothing(tmp_path: Path) -> None:
    add_flags(tmp_path, [{"id": "a", "flag": "bad"}])
    with (tmp_path / "flags.jsonl").open("a") as file:
        file.write('{"id": "b", "fl')
    assert [f["id"] for f in read_flags(tmp_path)] == ["a"]
    add_flags(tmp_path, [{"id": "c", "flag": "bad"}])
    with pytest.raises(StoreError, match=r"flags.jsonl:2: found .* expected an object with id and flag"):
        read_flags(tmp_path)  # now it is a damaged line in the middle: said, never skipped


def _flag_many(directory: Path, who: int) -> None:
    for i in range(100):
        add_flags(directory, [{"id": f"{who}-{i}", "flag": "seen"}])


def test_two_windows_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    windows = [context.Process(target=_flag_many, args=(tmp_path, who)) for who in range(3)]
    for window in windows:
        window.start()
    for window in windows:
        window.join()
    assert {f["id"] for f in read_flags(tmp_path)} == {f"{who}-{i}" for who in range(3) for i in range(100)}
