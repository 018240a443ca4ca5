"""The story of a row: kept, dropped, sampled out, flagged, duplicated, contaminated; and ids that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from small import chat, mix, sidecar, write_rows

from columnar import cli
from columnar.errors import InputError
from columnar.explain import describe, explain, main, parser
from columnar.store import write_table
from columnar.view import connect


def reason(path: Path, why: str) -> str:
    connection = connect(path)
    try:
        return str(connection.sql("SELECT id FROM dropped WHERE reason = $r", params={"r": why}).fetchall()[0][0])
    finally:
        connection.close()


def test_every_kept_row_tells_its_own_story(tmp_path: Path) -> None:
    """Sidecars are fetched by position over several shards: each row must get its own columns."""
    path, rows = mix(tmp_path / "d", count=11)
    for row in rows:
        story = explain(path, row["id"])
        assert (story["fate"], story["split"]) == ("in", row["split"])
        assert story["row"]["messages"][0]["content"] == row["messages"][0]["content"]
        assert story["stages"]["signals"]["preview"] == row["messages"][0]["content"]
        assert story["stages"]["select"]["split"] == row["split"]
        assert story["row"]["origin"] == row["origin"]
        assert list(story["stages"]) == ["decontam", "select", "signals"]


def test_a_kept_row_knows_its_flags_and_whom_it_stands_for(tmp_path: Path) -> None:
    path, rows = mix(tmp_path / "d")
    story = explain(path, rows[0]["id"])
    assert story["flags"] == [{"flag": "bad", "note": "wrong sum", "who": "ann", "at": "2026-11-20T10:00:00Z"}]
    assert [twin["id"] for twin in story["stands_for"]] == [reason(path, "near_duplicate")]
    assert explain(path, rows[1]["id"])["flags"] == []  # taken back


def test_a_duplicate_points_at_the_row_that_was_kept(tmp_path: Path) -> None:
    path, rows = mix(tmp_path / "d")
    story = explain(path, reason(path, "near_duplicate"))
    assert (story["fate"], story["split"]) == ("dropped", None)
    assert story["why"].startswith("dropped by dedup: near_duplicate")
    assert story["kept"] == {"id": rows[0]["id"], "fate": "in", "why": "in the dataset"}
    assert story["stages"]["dedup"]["detail"] == f"of {rows[0]['id']}"
    assert story["row"]["messages"][1]["content"] == "It is, I think, 1802."
    assert story["stages"]["signals"]["n_chars"] > 0


def test_contamination_shows_the_matched_text_of_the_row(tmp_path: Path) -> None:
    path, _ = mix(tmp_path / "d")
    row_id = reason(path, "contaminated")
    hit = {"id": row_id, "field": "messages", "turn": 0, "benchmark": "gsm8k", "item_id": "7", "start": 0, "end": 18, "coverage_item": 0.9}
    write_table(path / "hits" / "decontam.parquet", pa.table({name: [value] for name, value in hit.items()}))
    story = explain(path, row_id)
    assert story["hits"]["decontam"][0]["matched"] == "Natalia sold clips"
    assert "Natalia sold clips" in describe(story)


def test_a_row_that_lost_the_draw_has_a_story_without_text(tmp_path: Path) -> None:
    path, _ = mix(tmp_path / "d")
    story = explain(path, reason(path, "sampled_out"))
    assert story["why"] == "dropped by sample: sampled_out (not among the 5 of 6 drawn)"
    assert story["row"]["messages"] is None
    assert story["row"]["origin"]["row"] == 903
    assert "not kept" in describe(story)


def test_the_beginning_of_an_id_is_enough_when_it_is_unique(tmp_path: Path) -> None:
    row, twin = chat("s", 1), chat("s", 2)
    row["id"], twin["id"] = "abcd000000000000", "abce000000000000"
    path = write_rows(tmp_path / "d", [row, twin])
    assert explain(path, "abcd")["id"] == row["id"]
    assert explain(path, f" {twin['id']} ")["id"] == twin["id"]
    with pytest.raises(InputError, match=r"several rows .* begin so: abcd000000000000, abce000000000000"):
        explain(path, "abc")


@pytest.mark.parametrize("wanted", ["abcd00000000000f", "", "%", "' OR 1=1 --", "ffff", "é" * 40])
def test_an_unknown_id_is_told_with_those_that_are_close(tmp_path: Path, wanted: str) -> None:
    row = {**chat("s", 1), "id": "abcd000000000000"}
    path = write_rows(tmp_path / "d", [row])
    with pytest.raises(InputError, match="neither kept nor dropped") as caught:
        explain(path, wanted)
    assert ("close: abcd000000000000" in str(caught.value.hint)) == wanted.startswith("abcd")


def test_parents_and_children(tmp_path: Path) -> None:
    parent = chat("s", 1)
    child = {**chat("s", 2), "parents": [parent["id"]], "meta": '{"model": "m", "n": 1}'}
    path = write_rows(tmp_path / "d", [parent, child])
    assert explain(path, parent["id"])["children"] == [child["id"]]
    story = explain(path, child["id"])
    assert (story["row"]["parents"], story["row"]["meta"]) == ([parent["id"]], {"model": "m", "n": 1})


def test_a_sidecar_joined_by_id_and_hostile_names(tmp_path: Path) -> None:
    rows = [chat("s", n) for n in range(6)]
    path = write_rows(tmp_path / 'it\'s "d" [1]', rows, name='na"me; ü')
    sidecar(path, "theirs", [rows[4]["id"], rows[1]["id"]], {"stars": [4, 1]}, tie=None)
    assert explain(path, rows[4]["id"])["stages"] == {"theirs": {"stars": 4}}
    assert explain(path, rows[0]["id"])["stages"] == {}
    connection = connect([path, mix(tmp_path / "e")[0]])
    assert explain(path, rows[1]["id"], connection, schema='na"me; ü')["stages"] == {"theirs": {"stars": 1}}
    connection.close()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, rows = mix(tmp_path / "d")
    hostile = chat("s", 1, "\x1b[2J\nclear", "\u202ereversed")
    other = write_rows(tmp_path / "h", [hostile])
    assert cli.run(main, parser(), [str(path), rows[0]["id"][:10], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(explain(path, rows[0]["id"])))
    assert cli.run(main, parser(), [str(other), hostile["id"]]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert cli.run(main, parser(), [str(path), "nope"]) == 2
