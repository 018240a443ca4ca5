"""Records out of files: splitting, strictness, tables."""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columnar import readers
from columnar.errors import InputError
from columnar.readers import decode, read

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
records = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), json_values, min_size=1, max_size=4)


def written(data: bytes, name: str) -> Path:
    folder = Path(tempfile.mkdtemp())
    (folder / name).write_bytes(data)
    return folder / name


@settings(max_examples=150, deadline=None)
@given(st.lists(records, min_size=1, max_size=6), st.sampled_from([None, 1]), st.booleans(), st.sampled_from([7, 64, 1 << 22]))
def test_every_container_gives_the_records_back(made: list[dict[str, Any]], indent: int | None, ascii_only: bool, block: int) -> None:
    """A list, lines, gzip and zstd of the same records read the same, at any block size."""
    lines = "".join(json.dumps(r, ensure_ascii=ascii_only) + "\n" for r in made).encode()
    with tempfile.TemporaryDirectory() as folder:
        before, readers.BLOCK = readers.BLOCK, block
        try:
            (Path(folder) / "a.json").write_text(json.dumps(made, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
            (Path(folder) / "b.jsonl").write_bytes(lines.rstrip(b"\n"))
            (Path(folder) / "c.jsonl.gz").write_bytes(gzip.compress(lines[:50]) + gzip.compress(lines[50:]))
            (Path(folder) / "d.jsonl.zst").write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
            for path in sorted(Path(folder).iterdir()):
                found = list(read(path))
                assert [r.value for r in found] == made
                assert [r.row for r in found] == list(range(len(made)))
        finally:
            readers.BLOCK = before


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\r\n\n   \n{"a": 2}\n')
    assert [(r.row, r.line) for r in read(tmp_path / "a.jsonl")] == [(0, 1), (1, 4)]
    (tmp_path / "b.json").write_bytes(b'[\n {"a":\n 1},\n\n {"a": 2}\n]\n')
    assert [(r.row, r.line) for r in read(tmp_path / "b.json")] == [(0, 2), (1, 5)]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b'{"a": "x"', "cut off"),
        (b'{"a": "\xff"}', "invalid UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": NaN}', "NaN"),
        (b"[1]", "a list"),
        (b'{"a": 1, "a": 2}', "this key twice"),
        (b'{"a": {"b": "x", "c": 1, "b": "x"}}', "this key twice"),
        (b'{"a" : "\\\\", "a"\t: "\\""}', "this key twice"),
        (b'{"a": 1} {"b": 2}', "trailing"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(raw: bytes, found: str) -> None:
    record = decode(0, 1, raw)
    assert record.value is None
    assert record.problem is not None
    assert found in record.problem.found


@settings(max_examples=300, deadline=None)
@given(records, st.booleans())
def test_a_key_that_comes_twice_is_always_found(record: dict[str, Any], inner: bool) -> None:
    """Whatever quotes and backslashes the texts hold, and wherever it is."""
    key = next(iter(record))
    text = json.dumps(record)
    twice = text[:-1] + ", " + json.dumps(key) + ": 0}"
    assert decode(0, 1, text.encode()).value == record
    raw = f'{{"list": [0, {twice}]}}' if inner else twice
    problem = decode(0, 1, raw.encode()).problem
    assert problem == (key, "this key twice in one object", "each key once")


def test_a_list_that_is_not_closed_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"a": 1},\n {"a": 2}')
    with pytest.raises(InputError, match=r"a\.json: cannot be read to its end: a list that is never closed \(line 2 is the last\)"):
        list(read(tmp_path / "a.json"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)] * 2).filter(any),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_cells_come_back_as_they_were(cells: list[tuple[str, str]], end: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("question", "answer"), *cells])
        assert [tuple((r.value or {}).values()) for r in read(path)] == cells


def test_one_bad_csv_row_is_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'question,answer\n"x\n\ny",z\nc,d,e\n\xff,b\n"q" w,v\nlast,one\n')
    found = list(read(tmp_path / "a.csv"))
    assert [r.line for r in found] == [2, 5, 6, 7, 8]
    assert [r.value is not None for r in found] == [True, False, False, False, True]
    assert found[0].value == {"question": "x\n\ny", "answer": "z"}


def test_a_bad_row_is_kept_as_it_stands_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('question,answer\n"a, b",c,d\ne,f\n"g,h\ni,j\n')
    ragged, good, open_quote = read(tmp_path / "a.csv")
    assert (ragged.raw, ragged.value) == ('"a, b",c,d', None)
    assert good.value == {"question": "e", "answer": "f"}
    assert (open_quote.line, open_quote.raw, open_quote.value) == (4, b'"g,h\ni,j', None)


def test_tables_without_header_and_tabs_with_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('He said "no"\tyes\n"Open\tquote\n')
    with pytest.raises(InputError, match="a header or the first row"):
        list(read(tmp_path / "a.tsv"))
    assert [r.value for r in read(tmp_path / "a.tsv", header=False)] == [
        {"c0": 'He said "no"', "c1": "yes"},
        {"c0": '"Open', "c1": "quote"},
    ]
    (tmp_path / "b.tsv").write_text('prompt\tcompletion\n"a\tb"\t"c ""d"""\n')
    assert [r.value for r in read(tmp_path / "b.tsv")] == [{"prompt": "a\tb", "completion": 'c "d"'}]
    assert next(read(tmp_path / "b.tsv", header=False)).value == {"c0": "prompt", "c1": "completion"}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.json", b"[]", "the file is empty"),
        ("a.csv", b"\n", "the file is empty"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:30], "cannot be read to its end"),
        ("a.jsonl.zst", b"nonsense", "cannot be read to its end"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
        ("a.xlsx", b"PK", "not an xlsx workbook"),
        ("a.txt", b"x", "not a type we read"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), "encoded as UTF-16"),
        ("a.csv", "question,answer\na,b\n".encode("utf-16"), "encoded as UTF-16"),
    ],
)
def test_a_file_that_cannot_be_read_at_all(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        list(read(tmp_path / name))
