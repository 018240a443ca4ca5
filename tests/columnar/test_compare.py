"""Comparing datasets: every row of both is counted once, and removed rows carry the reason that the other side gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import chat, mix, write_dropped, write_rows

from columnar import cli
from columnar.compare import compare, describe, main, parser, settings_that_differ


def test_each_sort_of_difference_is_told_apart(tmp_path: Path) -> None:
    shared, changed, gone, drawn = (chat("s", n) for n in range(4))
    renamed = chat("old", 50, "Same words?", "Same.")
    a = write_rows(tmp_path / "a", [shared, changed, gone, drawn, renamed], name="a set")
    edited = chat("s", 1, answer="It is two.")
    moved = chat("new", 60, "Same words?", "Same.")
    b = write_rows(tmp_path / "b", [shared, edited, moved, chat("s", 7)], name="b set")
    write_dropped(b, [(gone, "dedup", "near_duplicate", "of x")])
    write_dropped(b, [(drawn, "sample", "sampled_out", "")], text=False)
    found = compare(a, b)
    assert found["total"] == {"a": 5, "b": 4, "shared": 1, "changed": 1, "moved_from": 1, "moved_to": 1, "removed": 2, "added": 1}
    by_source = {line["source"]: line for line in found["by_source"]}
    assert by_source["old"]["moved_from"] == by_source["new"]["moved_to"] == 1
    assert {(line["stage"], line["reason"], line["rows"]) for line in found["why_removed"]} == {
        ("dedup", "near_duplicate", 1),
        ("sample", "sampled_out", 1),
    }
    assert found["why_added"] == [{"source": "s", "stage": "", "reason": "not among its inputs", "rows": 1}]
    assert found["examples"] == {
        "changed": [changed["id"]],
        "moved": [f"{renamed['id']} -> {moved['id']}"],
        "removed": sorted([gone["id"], drawn["id"]]),
        "added": [chat("s", 7)["id"]],
    }


def test_a_lost_copy_of_a_kept_row_says_so(tmp_path: Path) -> None:
    row = chat("s", 1)
    copy = {**row, "id": "c" * 16, "parents": [row["id"]]}
    a, b = write_rows(tmp_path / "a", [row, copy]), write_rows(tmp_path / "b", [row])
    assert [line["reason"] for line in compare(a, b)["why_removed"]] == ["fewer copies"]
    c = write_rows(tmp_path / "c", [chat("s", 2)])
    write_dropped(c, [(row, "dedup", "near_duplicate", "")])
    assert [(line["reason"], line["rows"]) for line in compare(a, c)["why_removed"]] == [("near_duplicate", 2)]


Rows = st.dictionaries(st.integers(0, 12), st.integers(0, 3), max_size=10)


@settings(max_examples=20, deadline=None)
@given(Rows, Rows, st.sampled_from(["s", "t"]))
def test_every_row_is_counted_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, a: dict[int, int], b: dict[int, int], source: str
) -> None:
    base = tmp_path_factory.mktemp("c")
    paths = []
    for name, rows, origin in (("a", a, "s"), ("b", b, source)):
        paths.append(write_rows(base / name, [chat(origin, n, f"Question {text}?", f"Answer {text}") for n, text in rows.items()]))
    found = compare(*paths)
    total = found["total"]
    assert total["a"] == len(a) == total["shared"] + total["changed"] + total["moved_from"] + total["removed"]
    assert total["b"] == len(b) == total["shared"] + total["changed"] + total["moved_to"] + total["added"]
    assert total["moved_from"] == total["moved_to"]
    if source == "s":
        assert total["shared"] == sum(a[n] == b[n] for n in a.keys() & b.keys())
        assert total["changed"] == sum(a[n] != b[n] for n in a.keys() & b.keys())
    back = compare(*reversed(paths))["total"]
    assert (back["removed"], back["added"], back["moved_to"]) == (total["added"], total["removed"], total["moved_from"])
    assert sum(line["rows"] for line in found["why_removed"]) == total["removed"]


def test_a_dataset_equals_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, rows = mix(tmp_path / "d", name='it\'s "one"')
    found = compare(path, path)
    assert found["total"]["shared"] == len(rows)
    assert not any(found["total"][name] for name in ("changed", "moved_from", "removed", "added"))
    assert found["settings"] == []
    assert cli.run(main, parser(), [str(path), str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))
    assert cli.run(main, parser(), [str(path), str(path)]) == 0
    assert "total" in capsys.readouterr().out


def test_empty_datasets_compare(tmp_path: Path) -> None:
    a, b = write_rows(tmp_path / "a", []), write_rows(tmp_path / "b", [chat("s", 1)])
    assert compare(a, b)["total"]["added"] == 1
    assert compare(a, a)["by_source"] == []
    assert "total" in describe(compare(a, a))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"seed": 1}, {"seed": 1}, []),
        ({"seed": 1}, {"seed": 2}, [("seed", 1, 2)]),
        ({"x": {"y": 1}}, {"x": {"y": 1, "z": None}}, []),
        (
            {"sources": [{"name": "a", "rows": 1}, {"name": "b"}]},
            {"sources": [{"name": "b"}, {"name": "a", "rows": 2}]},
            [("sources.a.rows", 1, 2)],
        ),
        ({"l": [1, 2]}, {"l": [2, 1]}, [("l", [1, 2], [2, 1])]),
        (None, {"a": 1}, [("", None, {"a": 1})]),
    ],
)
def test_settings_that_differ(a: Any, b: Any, expected: list[tuple]) -> None:
    assert [(line["setting"], line["a"], line["b"]) for line in settings_that_differ(a, b)] == expected


def test_a_missing_dataset_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = mix(tmp_path / "d")
    assert cli.run(main, parser(), [str(path), str(tmp_path / "no")]) == 1
    assert "no such directory" in capsys.readouterr().err
