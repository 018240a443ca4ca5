"""The loader as a user meets it: what lies in the directory, what is said of bad input, what a second run does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columnar import load
from columnar.errors import InputError, RejectedRows, StoreError
from columnar.files import SourceSpec, resolve
from columnar.load import iter_records, load_source, source_key
from columnar.store import open_dataset, read_batches

GOOD = '{"prompt": "p%d", "completion": "c", "topic": "t"}\n'


def lines(n: int) -> str:
    return "".join(GOOD % i for i in range(n))


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for batch in read_batches(open_dataset(out)) for row in batch.to_pylist()]


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = load.main([str(a) for a in args])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_command_writes_a_dataset_and_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text(lines(3))
    code, out, err = run(capsys, tmp_path / "a.jsonl", "--out", tmp_path / "o", "--license", "mit", "--source", "mine", "--json")
    assert code == 0
    counts = json.loads(out)
    assert (counts["in"], counts["rows"], counts["rejects"], counts["records"], counts["kinds"]) == (3, 3, 0, 3, {"sft": 3})
    assert "format: prompt_completion (prompt -> user, completion -> assistant)" in err
    row = rows_of(tmp_path / "o")[1]
    assert (row["source"], row["license"], json.loads(row["meta"])) == ("mine", "mit", {"topic": "t"})
    assert row["origin"] == {"uri": str(tmp_path / "a.jsonl"), "revision": None, "split": None, "row": 1}
    identity = open_dataset(tmp_path / "o").manifest["identity"]
    assert set(identity) >= {"name", "kind", "stage", "key", "config", "inputs", "rows", "rows_sha256", "ids_sha256", "counts"}
    assert [set(i) for i in identity["inputs"]] == [{"uri", "revision", "sha256", "bytes", "records"}]


def test_a_second_run_does_nothing_and_an_edit_in_place_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "a.jsonl", tmp_path / "o"
    file.write_text(lines(3))
    run(capsys, file, "--out", out)
    before = (out / "manifest.json").stat().st_mtime_ns
    assert "up to date, nothing to do" in run(capsys, file, "--out", out)[2]
    assert (out / "manifest.json").stat().st_mtime_ns == before
    stat = file.stat()
    file.write_text(lines(3).replace("p1", "q1"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time: only the content differs
    run(capsys, file, "--out", out)
    assert rows_of(out)[1]["messages"][0]["content"] == "q1"


def test_ids_stay_when_the_folder_moves_and_when_a_file_is_added(tmp_path: Path) -> None:
    ids = []
    for name, more in (("x", False), ("y", True)):
        folder = tmp_path / name / "data"
        folder.mkdir(parents=True)
        (folder / "b.jsonl").write_text(lines(2))
        if more:
            (folder / "a.jsonl").write_text(lines(2))
        load_source(SourceSpec(name="s", path=str(folder)), tmp_path / f"out-{name}")
        ids.append({row["id"] for row in rows_of(tmp_path / f"out-{name}") if row["origin"]["uri"].endswith("b.jsonl")})
    assert ids[0] == ids[1]


def test_files_folders_patterns_and_lists(tmp_path: Path) -> None:
    for name in ("d/a.jsonl", "d/deep/b.jsonl", "e/a.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(lines(1))
    (tmp_path / "d/notes.md").write_text("x")
    (tmp_path / "d/.hidden.jsonl").write_text("x")

    def places(path: str | list[str], **more: Any) -> list[str]:
        return [file.place for file in resolve(SourceSpec(name="s", path=path, **more))]

    assert places(f"{tmp_path}/d") == ["a.jsonl", "deep/b.jsonl"]
    assert places(f"{tmp_path}/d/**/*.jsonl") == ["a.jsonl", "deep/b.jsonl"]
    assert places([f"{tmp_path}/d/a.jsonl", f"{tmp_path}/e/a.jsonl"]) == ["d/a.jsonl", "e/a.jsonl"]
    with pytest.raises(InputError, match="named twice"):
        places([f"{tmp_path}/d/a.jsonl", f"{tmp_path}/d/a.jsonl"])
    for split in ("train", "test"):
        (tmp_path / f"e/{split}-00000-of-00001.jsonl").write_text(lines(1))
    assert places(f"{tmp_path}/e/*0001.jsonl", split="train") == ["train-00000-of-00001.jsonl"]


def test_a_dataset_of_ours_reads_back_with_its_ids(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(3))
    load_source(SourceSpec(name="one", path=str(tmp_path / "a.jsonl")), tmp_path / "one")
    load_source(SourceSpec(name="two", path=str(tmp_path / "one")), tmp_path / "two")
    before, after = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert [{**row, "source": "one"} for row in after] == before
    assert (
        pq.read_schema(open_dataset(tmp_path / "two").row_files[0]).names
        == pq.read_schema(open_dataset(tmp_path / "one").row_files[0]).names
    )


def test_columns_are_named_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("Frage,Antwort\nwas,das\n")
    code, _, err = run(capsys, tmp_path / "a.csv", "--out", tmp_path / "o")
    assert (code, "a header or the first row?" in err) == (2, True)
    named = ("--header", "--columns", "question=Frage,answer=Antwort")
    assert run(capsys, tmp_path / "a.csv", "--out", tmp_path / "o", *named)[0] == 0
    assert [m["content"] for m in rows_of(tmp_path / "o")[0]["messages"]] == ["was", "das"]
    (tmp_path / "a.jsonl").write_text('{"dialog": [{"who": "human", "said": "a"}, {"who": "bot", "said": "b"}]}\n')
    assert run(capsys, tmp_path / "a.jsonl", "--out", tmp_path / "p", "--columns", "messages=dialog,role=who,content=said")[0] == 0
    assert [m["role"] for m in rows_of(tmp_path / "p")[0]["messages"]] == ["user", "assistant"]
    assert run(capsys, tmp_path / "a.jsonl", "--out", tmp_path / "p", "--columns", "messages")[0] == 2


BAD = {
    "two users": (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}',
        "messages[1]: found two user messages",
    ),
    "strange role": ('{"messages": [{"role": "alien", "content": "a"}]}', "messages[0].role: found 'alien'"),
    "empty": ('{"messages": []}', "messages: found an empty list"),
    "null": ('{"messages": [{"role": "user", "content": null}]}', "messages[0].content: found nothing, expected text"),
    "number": ('{"messages": [{"role": "user", "content": 5}]}', "messages[0].content: found int 5"),
    "cut off": ('{"messages": [{"role": "user", "con', "found a record that is cut off"),
    "twice": ('{"messages": [], "messages": []}', "messages: found this key twice"),
}
TALK = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_and_stops_the_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, words = BAD[name]
    (tmp_path / "a.jsonl").write_text(TALK + "\n" + bad)
    code, _, err = run(capsys, tmp_path / "a.jsonl", "--out", tmp_path / "o")
    assert code == 3
    assert f"a.jsonl:3: {words}" in err
    assert f"row starts: {bad[:80]}" in err
    assert "1 of 2 rows rejected (50.00%), limit is max_reject: 0.01" in err
    (reject,) = [json.loads(line) for line in (tmp_path / "o/rejects.jsonl").read_text().splitlines()]
    assert (reject["line"], reject["raw"]) == (3, bad)
    assert {"file", "line", "path", "found", "expected", "raw"} == set(reject)
    assert not (tmp_path / "o/manifest.json").exists()
    assert run(capsys, tmp_path / "a.jsonl", "--out", tmp_path / "o", "--max-reject", "0.5")[0] == 0
    assert open_dataset(tmp_path / "o").rows == 1


def test_a_row_of_ten_megabytes_is_a_row(tmp_path: Path) -> None:
    long = 'é\\n\\"' * 2_000_000
    (tmp_path / "a.jsonl").write_text(lines(2) + f'{{"prompt": "p", "completion": "{long}"}}\n' + lines(1), encoding="utf-8")
    assert load_source(SourceSpec(name="s", path=str(tmp_path / "a.jsonl")), tmp_path / "o")["rows"] == 4
    assert rows_of(tmp_path / "o")[2]["messages"][1]["content"] == json.loads(f'"{long}"')


def test_a_directory_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(1))
    (tmp_path / "o").mkdir()
    (tmp_path / "o/thesis.tex").write_text("years of work")
    spec = SourceSpec(name="s", path=str(tmp_path / "a.jsonl"))
    with pytest.raises(StoreError, match="not a dataset directory"):
        load_source(spec, tmp_path / "o")
    load_source(spec, tmp_path / "p")
    with pytest.raises(StoreError, match="holds another dataset"):
        load_source(SourceSpec(name="other", path=str(tmp_path / "a.jsonl")), tmp_path / "p")


def test_another_parquet_schema_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"x": [1, 2], "y": ["a", "b"]}), tmp_path / "a.parquet")
    code, _, err = run(capsys, tmp_path / "a.parquet", "--out", tmp_path / "o")
    assert code == 2
    assert "a.parquet: no known shape: the records have the fields x, y" in err
    assert "formats tried: " in err


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([GOOD % 1, '{"prompt": 1, "completion": "x"}\n']) | st.text(max_size=30).map(lambda t: t + "\n"), max_size=20)
)
def test_rows_and_rejects_are_all_there_was(tmp_path_factory: pytest.TempPathFactory, made: list[str]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    data = (GOOD % 0 + "".join(made)).encode("utf-8", "surrogatepass")
    (folder / "a.jsonl").write_bytes(data)
    counts = load_source(SourceSpec(name="s", path=str(folder / "a.jsonl"), max_reject=1.0), folder / "o")
    assert counts["in"] == counts["rows"] + counts["rejects"] == sum(bool(line.strip()) for line in data.split(b"\n"))
    rejects = [json.loads(line) for line in (folder / "o/rejects.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(rejects) == counts["rejects"] == sum(counts["by_problem"].values())
    assert len({row["id"] for row in rows_of(folder / "o")}) == counts["rows"]


def test_raw_records_and_keys(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(2))
    assert [(place, row, r["prompt"]) for place, row, r in iter_records(tmp_path / "a.jsonl")] == [
        ("a.jsonl", 0, "p0"),
        ("a.jsonl", 1, "p1"),
    ]
    spec = SourceSpec(name="s", path=str(tmp_path / "a.jsonl"))
    key = source_key(spec, resolve(spec))
    assert key != source_key(spec.model_copy(update={"format": "prompt"}), resolve(spec))
    (tmp_path / "a.jsonl").write_text(lines(2) + "x\n")
    assert key != source_key(spec, resolve(spec))
    with pytest.raises(RejectedRows, match=r"a\.jsonl:3"):
        list(iter_records(tmp_path / "a.jsonl"))


def test_killed_at_any_time_the_next_run_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(20_000))
    command = [sys.executable, "-m", "columnar.load", str(tmp_path / "a.jsonl"), "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    whole = open_dataset(tmp_path / "whole")
    for wait in (0.4, 0.7, 1.0):
        process = subprocess.Popen([*command, str(tmp_path / "cut")], stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "cut")], check=True, capture_output=True)
    cut = open_dataset(tmp_path / "cut")
    assert [p.read_bytes() for p in cut.row_files] == [p.read_bytes() for p in whole.row_files]
    assert not list((tmp_path / "cut").rglob("*.tmp"))
