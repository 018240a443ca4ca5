"""Files that cannot be read, among files that can: all are named, the source's policy decides, and both engines do the same."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from columnar import cli, load
from columnar.cluster import Cluster
from columnar.errors import InputError
from columnar.files import SourceSpec, resolve
from columnar.ingest_on import ingested
from columnar.load import load_source, shape_of
from columnar.store import open_dataset
from curation import build_mix
from decontam import scan
from generation import verify
from tests.scale.conftest import TINY, files_of

BAD = {"1.parquet", "3.jsonl.gz", "4.json", "5.parquet", "7.jsonl"}


def rows(first: int) -> list[dict[str, str]]:
    """Forty rows that no other file has."""
    return [{"instruction": f"Say {n}, then what comes after it.", "output": f"{n} and {n + 1}"} for n in range(first, first + 40)]


def as_lines(first: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows(first)).encode()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Eight whole files."""
    (tmp_path / "raw").mkdir()
    for number in (0, 1, 5):
        pq.write_table(pa.Table.from_pylist(rows(100 * number)), tmp_path / f"raw/{number}.parquet", row_group_size=10)
    for number in (2, 3):
        (tmp_path / f"raw/{number}.jsonl.gz").write_bytes(gzip.compress(as_lines(100 * number), mtime=0))
    (tmp_path / "raw/4.json").write_text(json.dumps(rows(400)))
    for number in (6, 7):
        (tmp_path / f"raw/{number}.jsonl").write_bytes(as_lines(100 * number))
    return tmp_path / "raw"


def hole(file: Path, group: int) -> None:
    """Spoil a row group of a Parquet file."""
    footer, held = pq.read_metadata(file), file.read_bytes()
    for number in range(footer.num_columns):
        column = footer.row_group(group).column(number)
        at = column.dictionary_page_offset or column.data_page_offset
        held = held[:at] + b"\xff" * 12 + held[at + 12 :]
    file.write_bytes(held)


def spoil(raw: Path) -> dict[str, bytes]:
    """A Parquet file cut off, one with a hole in a row group, a gzip cut off, a list that never ends, a link to nothing; what they held."""
    held = {name: (raw / name).read_bytes() for name in BAD}
    (raw / "1.parquet").write_bytes(held["1.parquet"][:-100])
    (raw / "3.jsonl.gz").write_bytes(held["3.jsonl.gz"][:-20])
    (raw / "4.json").write_bytes(held["4.json"][:-50])
    hole(raw / "5.parquet", 2)
    (raw / "7.jsonl").unlink()
    (raw / "7.jsonl").symlink_to("nowhere")
    return held


def mend(raw: Path, held: dict[str, bytes]) -> None:
    (raw / "7.jsonl").unlink()
    for name, data in held.items():
        (raw / name).write_bytes(data)


def mix(folder: Path, policy: str) -> Path:
    source = {"name": "shards", "path": "raw", "on_bad_file": policy}
    config = {"name": "m", "kind": "sft", "sources": [source], "signals": {"language": False}}
    (folder / f"{policy}.yaml").write_text(yaml.safe_dump(config))
    return folder / f"{policy}.yaml"


def build(config: Path, out: Path, engine: str) -> int:
    return cli.run(build_mix.main, build_mix.parser(), [str(config), "--out", str(out), "--cache", f"{out}.cache", "--engine", engine])


def test_left_out_whole_named_and_counted_and_loaded_once_they_are_mended(
    cluster: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = mix(tmp_path, "skip")
    assert build(config, tmp_path / "never", "local") == 0
    held = spoil(shards)
    for engine in ("local", "ray"):
        assert build(config, tmp_path / engine, engine) == 0
        told = capsys.readouterr()
        assert "warning: 5 files could not be read and were left out whole" in told.err
        assert "raw/1.parquet: not a whole Parquet file" in told.err and "bad files" in told.out
    assert files_of(tmp_path / "local") == files_of(tmp_path / "ray")

    identity = json.loads((tmp_path / "ray/manifest.json").read_text())["identity"]
    assert identity == json.loads((tmp_path / "local/manifest.json").read_text())["identity"]
    assert identity["counts"]["bad_files"] == identity["counts"]["by_source"]["shards"]["bad_files"] == 5
    assert identity["counts"]["in"] == identity["rows"] == 3 * 40, "no row of a bad file, though some came before the damage"
    rejects = [json.loads(line) for line in (tmp_path / "ray/rejects.jsonl").read_text().splitlines()]
    assert {reject["file"] for reject in rejects} == {f"raw/{name}" for name in BAD}
    assert all(reject["source"] == "shards" and reject["line"] is None and reject["found"] for reject in rejects)
    assert "left out whole (`on_bad_file: skip`): 5 of shards" in (tmp_path / "ray/README.md").read_text()

    # nothing changed: nothing is done, and the files are named again
    assert build(config, tmp_path / "local", "local") == 0
    told = capsys.readouterr()
    assert "nothing changed, nothing done" in told.err and "5 files could not be read" in told.err

    mend(shards, held)
    for engine in ("local", "ray"):
        assert build(config, tmp_path / engine, engine) == 0
        assert files_of(tmp_path / engine) == files_of(tmp_path / "never")


def test_a_run_that_may_not_leave_them_out_names_them_and_keeps_the_others(
    cluster: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = mix(tmp_path, "fail")
    assert build(config, tmp_path / "never", "local") == 0
    held = spoil(shards)
    for engine in ("local", "ray"):  # what is not there is known before anything is read
        assert build(config, tmp_path / engine, engine) == 2
        assert "error: raw/7.jsonl: no such file or directory" in capsys.readouterr().err
    (shards / "7.jsonl").unlink()
    (shards / "7.jsonl").write_bytes(held["7.jsonl"])

    assert build(config, tmp_path / "local", "local") == 2
    told = capsys.readouterr().err
    assert f"error: {shards / '1.parquet'}: not a whole Parquet file" in told and "on_bad_file: skip" in told
    assert build(config, tmp_path / "ray", "ray") == 2
    told = capsys.readouterr().err
    assert "error: 4 of 8 files cannot be read:" in told
    assert all(f"raw/{name}" in told for name in BAD - {"7.jsonl"})
    for engine in ("local", "ray"):
        assert not (tmp_path / engine / "manifest.json").exists()

    mend(shards, held)
    assert build(config, tmp_path / "ray", "ray") == 0
    assert "done, 4 were done before" in capsys.readouterr().err, "the whole files are not read again"
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "never")


def test_a_damaged_row_group_is_named_with_what_to_delete(
    cluster: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a source in the cache of a mix, and of a dataset: the same file on both engines, and no half a result."""
    config = mix(tmp_path, "fail")
    assert build(config, tmp_path / "never", "local") == 0
    for engine in ("local", "ray"):
        build(config, tmp_path / engine, engine)
        (home,) = (path.parent for path in (tmp_path / f"{engine}.cache").rglob("manifest.json") if (path.parent / "cols").is_dir())
        (home / "cols/signals.parquet").unlink()
        hole(next(home.glob("rows/*.parquet")), 0)
        assert build(config, tmp_path / engine, engine) == 1
        told = capsys.readouterr().err
        assert str(next(home.glob("rows/*.parquet"))) in told and f"delete {home / 'manifest.json'} and run again" in told
        assert not (home / "cols/signals.parquet").exists()
        (home / "manifest.json").unlink()
        assert build(config, tmp_path / engine, engine) == 0
        assert files_of(tmp_path / engine) == files_of(tmp_path / "never")

    sums, answers, data = tmp_path / "sums.jsonl", tmp_path / "answers.jsonl", tmp_path / "sums"
    sums.write_text("".join(f'{{"prompt": "{n} + 1?", "ground_truth": "{n + 1}", "dataset": "gsm8k"}}\n' for n in range(25_000)))
    load_source(SourceSpec(name="sums", path=str(sums)), data)
    file = data / "rows/part-00000.parquet"
    first = pq.read_table(file, columns=["id"])["id"][0].as_py()
    answers.write_text(json.dumps({"id": first, "completion": "#### 1"}) + "\n")
    hole(file, 1)
    benchmarks = str(TINY.parent / "tiny" / "benchmarks" / "benchmarks.yaml")
    for engine in ("local", "ray"):
        capsys.readouterr()
        assert scan.main([str(data), "--benchmarks", benchmarks, "--engine", engine]) == 1
        assert str(file) in capsys.readouterr().err
        assert cli.run(verify.main, verify.arguments(), [str(data), "--completions", str(answers), "--engine", engine]) == 1
        told = capsys.readouterr().err
        assert str(file) in told and f"delete {data / 'manifest.json'}" in told
    assert not list(data.glob("cols/*.parquet")) and not list(data.glob("hits/*.parquet"))


def test_the_same_rows_as_if_the_bad_files_had_never_been_there(shards: Path, tmp_path: Path) -> None:
    spec = SourceSpec(name="s", path=str(shards), on_bad_file="skip")
    spoil(shards)
    counts = load_source(spec, tmp_path / "with")
    for name in BAD:
        (shards / name).unlink()
    without = load_source(spec, tmp_path / "without")
    assert counts == {**without, "bad_files": 5}
    assert open_dataset(tmp_path / "with").content == open_dataset(tmp_path / "without").content
    assert sorted(p.name for p in (tmp_path / "with").iterdir()) == ["manifest.json", "rejects.jsonl", "rows"]


def test_nothing_but_bad_files_is_no_source(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(shards)
    argv = [*(str(shards / name) for name in sorted(BAD)), str(tmp_path / "gone.jsonl"), "--out", str(tmp_path / "out")]
    assert load.main([*argv, "--on-bad-file", "skip"]) == 2
    assert "error: 6 of 6 files cannot be read:" in capsys.readouterr().err
    assert not (tmp_path / "out/manifest.json").exists() and not (tmp_path / "out/rows").exists()


def test_what_stands_where_a_file_should_be_is_a_bad_file(shards: Path, tmp_path: Path) -> None:
    (shards / "8.jsonl").mkdir()
    spec: dict[str, Any] = {"name": "s", "path": [f"{shards}/*", str(tmp_path / "named.jsonl")]}
    with pytest.raises(InputError, match=r"named\.jsonl: no such file"):
        resolve(SourceSpec(**spec))
    files = resolve(SourceSpec(**spec, on_bad_file="skip"))
    assert {file.place: file.problem for file in files if file.problem} == {
        "8.jsonl": "is a directory",
        "named.jsonl": "no such file or directory",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_one_may_not_read_is_a_bad_file(shards: Path) -> None:
    (shards / "0.parquet").chmod(0)
    (shards / "closed").mkdir(mode=0)
    with pytest.raises(InputError, match="2 of 9 files cannot be read"):
        resolve(SourceSpec(name="s", path=str(shards)))
    files = resolve(SourceSpec(name="s", path=str(shards), on_bad_file="skip"))
    assert {file.place for file in files if file.problem == "permission denied"} == {"0.parquet", "closed"}


def test_what_was_read_of_a_changed_file_does_not_count_as_what_it_was(cluster: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_bytes(as_lines(0))
    spec = SourceSpec(name="raw", path=str(raw))
    files = resolve(spec)
    shape, _, samples = shape_of(spec, files)
    raw.write_bytes(as_lines(100))
    with Cluster(None) as engine:
        with (
            pytest.raises(InputError, match="changed while it was read"),
            ingested(engine, [(spec, files, shape, samples)], tmp_path / "l", print),
        ):
            pass
        raw.write_bytes(as_lines(0))
        with ingested(engine, [(spec, files, shape, samples)], tmp_path / "l", lambda file: None) as (parts,):
            (part,) = parts(files[0])
    assert [turns[0]["content"] for turns in part.rows.column("messages").to_pylist()] == [row["instruction"] for row in rows(0)]
    assert not (tmp_path / "l").exists()


def test_what_a_scan_that_was_cut_off_left_is_no_obstacle(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw.jsonl", tmp_path / "out"
    raw.write_bytes(as_lines(0))
    load_source(SourceSpec(name="raw", path=str(raw)), out)
    (out / ".blocks-0123456789abcdef").mkdir()
    raw.write_bytes(as_lines(100))
    assert load_source(SourceSpec(name="raw", path=str(raw)), out)["rows"] == 40
    assert not list(out.glob(".blocks-*"))
