"""Flags: written at once, taken back exactly, honoured by the next build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app import db, listing, marks
from app.state import NULL, State, parse
from columnar.errors import ConfigError
from columnar.flags import read_flags
from tests.app.conftest import ROOT, run


def held(directory: Path) -> set[tuple[str, str]]:
    return {(flag["id"], flag["flag"]) for flag in read_flags(directory)}


def test_flags_and_undo_leave_what_others_did(tiny: Path) -> None:
    mine = marks.set_flag(tiny, ["a", "b"], "bad", "too short")
    marks.set_flag(tiny, ["a"], "good")
    assert held(tiny) == {("a", "bad"), ("b", "bad"), ("a", "good")}
    marks.take_back(tiny, mine)
    assert held(tiny) == {("a", "good")}
    marks.take_back(tiny, marks.set_flag(tiny, ["a"], "good", undo=True))
    assert held(tiny) == {("a", "good")}
    first = json.loads((tiny / "flags.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["note"] == "too short" and first["who"] and first["at"].endswith("Z")
    assert len((tiny / "flags.jsonl").read_text(encoding="utf-8").splitlines()) == 7, "nothing is ever rewritten"


def test_a_flag_needs_a_name(tiny: Path) -> None:
    with pytest.raises(ConfigError):
        marks.set_flag(tiny, ["a"], "  ")
    assert not (tiny / "flags.jsonl").exists()


def test_all_rows_of_a_filter_are_flagged_and_filtered_by_it(tiny: Path) -> None:
    data = db.open_data(tiny)
    place = parse({"source": ["faq"]})
    ids = marks.ids_of(data, "rows", listing.limits(data, place))
    assert len(ids) == listing.count(data, place) > 0
    marks.set_flag(tiny, ids, "check")
    data = db.open_data(tiny)
    assert listing.count(data, State(flag=("check",))) == len(ids)
    assert listing.count(data, State(flag=(NULL,))) == data.dataset.rows - len(ids)
    assert marks.flags_of(data, ids[:2]) == {ids[0]: ["check"], ids[1]: ["check"]}


def test_too_many_rows_are_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "MOST", 10)
    data = db.open_data(tiny)
    with pytest.raises(ConfigError, match="more than 10 rows"):
        marks.ids_of(data, "rows", listing.limits(data, State()))


def test_the_next_build_leaves_flagged_rows_out(tmp_path: Path) -> None:
    mixes = tmp_path / "recipes" / "mixes"
    shutil.copytree(ROOT / "recipes" / "mixes" / "tiny", mixes / "tiny")
    shutil.copy(ROOT / "recipes" / "mixes" / "tiny.yaml", mixes)
    out = tmp_path / "out"
    run("curation.build_mix", str(mixes / "tiny.yaml"), "--out", str(out))
    data = db.open_data(out)
    flagged = [row["id"] for row in listing.page(data, State()).rows[:3]]
    marks.set_flag(out, flagged, "bad")
    run("curation.build_mix", str(mixes / "tiny.yaml"), "--out", str(out))
    again = db.open_data(out)
    fates = again.run("SELECT id, reason FROM dropped WHERE reason = 'flagged'").rows
    assert {row["id"] for row in fates} >= {
        row_id for row_id in flagged if not again.one("SELECT id FROM text WHERE id = $i", {"i": row_id})
    }
    assert not again.run("SELECT id FROM text WHERE id IN (SELECT id FROM flags WHERE flag = 'bad')").rows
    assert fates
