"""Tables as raw records: csv and tsv (with or without a header), Parquet, xlsx. Cells are never guessed into numbers.

A file without a header gets the columns c0, c1, …: `columns:` names them, and `format: auto` knows a few such files.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from columnar.errors import InputError
from columnar.formats.headers import KNOWN
from columnar.readers import RawRecord, open_bytes, refuse_utf16
from columnar.record import Problem

SNIFF = 1 << 16


def read_delimited(path: Path, delimiter: str, header: bool | None) -> Iterator[RawRecord]:
    """The rows of a csv or tsv file; line breaks and spaces inside cells stay as they are."""
    csv.field_size_limit(sys.maxsize)
    with open_bytes(path) as raw:
        beginning = raw.read(SNIFF)
    refuse_utf16(path, beginning)
    head = beginning.decode("utf-8", "replace")
    if not head.strip():
        raise InputError(f"{path}: the file is empty", "expected at least one row")
    quoting: Literal[0, 3] = _quoting(head, delimiter) if delimiter == "\t" else csv.QUOTE_MINIMAL
    # bytes that are not UTF-8 become lone surrogates here and are found cell by cell, so that one bad row stays one bad row
    stream = io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="surrogateescape", newline="")
    with stream:
        seen: list[str] = []  # the lines of the record at hand, as they stand in the file
        reader = csv.reader(_noted(stream, seen), delimiter=delimiter, quoting=quoting, strict=True)
        first = next(reader, [])
        named = is_header(first, path) if header is None else header
        names = first if named else [f"c{i}" for i in range(len(first))]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError(f"{path}:1: column {twice!r} twice in the header", "rename one of them")
        before = reader.line_num if named else 0
        source = reader if named else _again(first, reader)
        row = 0
        if named:
            seen.clear()
        while True:
            try:
                cells = next(source)
            except StopIteration:
                return
            except csv.Error as error:
                broken = Problem("", f"a broken quotation ({error})", "quotes doubled inside quoted cells")
                yield RawRecord(row, before + 1, _text(seen).encode("utf-8", "surrogateescape"), None, broken)
                row, before = row + 1, reader.line_num
                continue
            line, before = before + 1, max(reader.line_num, before + 1)
            text = _text(seen)
            if not cells:
                continue  # an empty line holds no record
            if len(cells) != len(names):
                yield RawRecord(row, line, text, None, Problem("", f"{len(cells)} cells", f"{len(names)} as in the first row"))
            elif not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text):
                yield RawRecord(
                    row, line, text.encode("utf-8", "surrogateescape"), None, Problem("", "invalid UTF-8", "text encoded as UTF-8")
                )
            else:
                yield RawRecord(row, line, text, dict(zip(names, cells, strict=True)))
            row += 1


def _noted(lines: Iterable[str], seen: list[str]) -> Iterator[str]:
    for line in lines:
        seen.append(line)
        yield line


def _text(seen: list[str]) -> str:
    """The text of a record, and its lines forgotten."""
    text = "".join(seen).rstrip("\r\n")
    seen.clear()
    return text


def _again(first: list[str], reader: Iterator[list[str]]) -> Iterator[list[str]]:
    return itertools.chain([first], reader) if first else reader


def is_header(cells: list[str], path: Path) -> bool:
    """Does the first row name the columns? It does when a cell is a name that such files use; it does not when a cell reads like text.

    Raises:
        InputError: it may be either; guessing would make a row of the names, or lose the first row.
    """
    if any(cell.strip().lower() in KNOWN for cell in cells) and len(set(cells)) == len(cells):
        return True
    if any(not cell.strip() or len(cell) > 40 or len(cell.split()) > 4 or re.search(r"[.?!\n]|^[\d.,-]+$", cell) for cell in cells):
        return False
    raise InputError(
        f"{path}:1: {', '.join(cells[:6])}: a header or the first row?", "say --header or --no-header (in a mix: header: true)"
    )


def _quoting(head: str, delimiter: str) -> Literal[0, 3]:
    """Tab-separated files come in two kinds: cells as they are, or quoted as in csv. The one in which all rows are alike."""
    lines = head.split("\n")[:-1] or [head]
    plain = {line.count(delimiter) for line in lines if line}
    if len(plain) > 1:
        with_quotes = {len(row) for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter) if row}
        if len(with_quotes) == 1:
            return csv.QUOTE_MINIMAL
    cells = [cell.rstrip("\r") for line in lines for cell in line.split(delimiter) if cell.startswith('"')]
    whole = all(len(cell) > 1 and cell.endswith('"') and '"' not in cell[1:-1].replace('""', "") for cell in cells)
    return csv.QUOTE_MINIMAL if cells and whole else csv.QUOTE_NONE


def read_parquet(path: Path) -> Iterator[RawRecord]:
    """The rows of a Parquet file, a few at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a whole Parquet file: {error}", "the file is cut off or damaged: fetch it again") from error
    if file.metadata.num_rows == 0:
        raise InputError(f"{path}: the file is empty (columns: {', '.join(file.schema_arrow.names)})", "expected at least one row")
    row = 0
    for batch in file.iter_batches(batch_size=1000):
        for value in batch.to_pylist():
            yield RawRecord(row, row + 1, b"", value)
            row += 1


def read_xlsx(path: Path) -> Iterator[RawRecord]:
    """The rows of every sheet; the first row of a sheet names its columns, and the sheet's name is kept as `sheet`."""
    import zipfile

    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{path}: not an xlsx workbook: {error}", "the file is cut off or damaged: fetch it again") from error
    row = 0
    for sheet in book.worksheets:
        names: list[str] = []
        for cells in sheet.iter_rows(values_only=True):
            if all(cell is None for cell in cells):
                continue
            if not names:
                names = [str(cell) if cell is not None else f"c{i}" for i, cell in enumerate(cells)]
                continue
            value = dict(zip(names, cells, strict=False)) | ({"sheet": sheet.title} if len(book.worksheets) > 1 else {})
            yield RawRecord(row, row + 1, "", value)
            row += 1
    if row == 0:
        raise InputError(f"{path}: the workbook has no rows", "expected a header row and at least one row")
