"""Foreign files -> a dataset directory: rows/, rejects.jsonl, manifest.json. Nothing is changed, nothing is lost in silence.

    python -m columnar.load chats.jsonl more/*.parquet --out data/chats
    python -m columnar.load "s3://bucket/raw/**/*.jsonl.gz" --out s3://bucket/chats        docs/object_stores.md
    python -m columnar.load raw.csv --out data/raw --columns instruction=Frage,output=Antwort --license cc-by-4.0

`--format auto` recognises the shape from the first records and says how it maps the fields; what it does not map is kept in `meta`.
Rows that are malformed go to rejects.jsonl with file, line, path, what was found and what was expected; more than --max-reject
(a share of all rows) of them is an error. A file that cannot be read to its end is one, too, unless --on-bad-file skip leaves it out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from columnar import cli, store
from columnar.errors import ConfigError, InputError, RejectedRows, StoreError
from columnar.files import SourceFile, SourceSpec, resolve, unchanged, unreadable
from columnar.filesystem import place, shown
from columnar.formats import NAMES, detect, named
from columnar.formats.ours import ROWS, kinds_in
from columnar.formats.shape import Shape
from columnar.ingest import Part, Reject, ingest, named_fields
from columnar.ingest_on import FileBlock, Ingester, Parts, kept
from columnar.readers import read
from columnar.record import Problem, schema_of

__all__ = ["SourceSpec", "detect", "iter_records", "load_source", "main", "source_key"]

VERSION = 1
MAX_REJECT = 0.01
SAMPLE = 100  # records looked at to recognise a shape
FIRST = 5  # files left out that are named at the end


def source_key(spec: SourceSpec, files: list[SourceFile]) -> str:
    """16 hex that change when the rows of this source could: this code's VERSION, the spec, the content of the files."""
    config = spec.model_dump(exclude={"path", "revision"})
    return store.stage_key("load", VERSION, config, [[f.place, f.uri, f.revision, f.sha256] for f in files])


def iter_records(source: SourceSpec | Path | str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The raw records of a source, unmapped: (place, 0-based number, fields); `columns:` of a spec are applied.

    Raises:
        InputError: a file that cannot be read, whatever `on_bad_file` says.
        RejectedRows: a record that cannot be decoded.
    """
    spec = source if isinstance(source, SourceSpec) else SourceSpec(name=Path(str(source)).name, path=str(source))
    for file in resolve(spec.model_copy(update={"on_bad_file": "fail"})):
        for record in named_fields(read(file.path, spec.header), spec.columns):
            if record.value is None:
                raise RejectedRows(f"{file.uri}:{record.line}: {record.problem}")
            yield file.place, record.row, record.value


def load_source(
    spec: SourceSpec,
    out: Path,
    *,
    force: bool = False,
    files: list[SourceFile] | None = None,
    on_rows: Callable[[int, int], None] | None = None,
    parts: Parts | None = None,
) -> dict[str, Any]:
    """Write the source as a dataset directory and give its counts; does nothing when it is there already under the same key.

    Args:
        files: what `resolve(spec)` gave, where the caller has it already.
        on_rows: told (rows, rejects) after each batch, for progress.
        parts: what each file holds, where it is read already (columnar.ingest_on).

    Returns:
        {in, rows, rejects, records, kinds, format, mapping, by_problem}; in == rows + rejects; and `bad_files`, how many were left out
        because they could not be read, where some were.

    Raises:
        RejectedRows: more rows are malformed than `max_reject` allows; rejects.jsonl is written, the manifest is not.
        InputError: a file cannot be read, and `on_bad_file` is not `skip`; or none can.
        ConfigError, StoreError: see columnar.errors.
    """
    started = time.time()
    files = resolve(spec) if files is None else files
    key = source_key(spec, files)
    known = _manifest(out)
    if known is not None and not force:
        if known["identity"].get("key") == key:
            return dict(known["identity"]["counts"])
        if known["identity"].get("stage", {}).get("name") != "load" or known["identity"].get("name") != spec.name:
            raise StoreError(
                f"{out}: holds another dataset ({known['identity'].get('name')})", "give another --out, or --force to replace it"
            )
    _clear(out, force)
    shape, words, samples = shape_of(spec, files)
    writer = store.RowWriter(out, schema_of(shape.kinds))
    counts: dict[str, Any] = {"in": 0, "rows": 0, "rejects": 0, "records": 0, "kinds": {}, "format": shape.name, "mapping": words}
    problems: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    first: Reject | None = None
    bad: dict[str, str] = {}
    inputs = []
    with store.whole_file(out / "rejects.jsonl") as temporary, temporary.open("w", encoding="utf-8") as rejected:
        left = spec.limit
        for file in files:
            seen = 0
            if file.problem:
                made: Iterator[Part] | str = file.problem
            elif parts:
                made = parts(file)
            elif spec.on_bad_file == "fail":
                made = ingest(file, shape, spec, writer.schema, samples, left)
            else:
                aside = FileBlock(0, file, out / ".aside.arrow.tmp", left)
                made = kept(aside.rows, Ingester([(spec, shape, samples)])(aside))
            if isinstance(made, str):
                bad[file.uri] = made
                left_out = Reject(file.uri, None, Problem("", made, "a file that can be read to its end"), "")
                _write_reject(rejected, left_out)
            for part in () if isinstance(made, str) else made:
                writer.write(part.rows)
                for reject in part.rejects:
                    first = first or reject
                    problems[_reason(reject.problem)] += 1
                    _write_reject(rejected, reject)
                for kind in part.rows.column("kind").value_counts().to_pylist():
                    kinds[kind["values"]] += kind["counts"]
                seen += part.records
                counts["rejects"] += len(part.rejects)
                counts["rows"] += part.rows.num_rows
                if on_rows:
                    on_rows(counts["rows"], counts["rejects"])
            if not parts and spec.on_bad_file == "fail":  # otherwise whoever read it has looked
                unchanged(file)
            told = {"uri": file.uri, "revision": file.revision, "sha256": file.sha256, "bytes": file.bytes, "records": seen}
            inputs.append(told | ({"problem": made} if isinstance(made, str) else {}))
            counts["records"] += seen
            if left is not None:
                left -= seen
        writer.close()
    (out / ".aside.arrow.tmp").unlink(missing_ok=True)
    if len(bad) == len(files):
        shutil.rmtree(out / "rows")
        raise unreadable(bad, len(files), None)
    counts["in"] = counts["rows"] + counts["rejects"]
    counts |= {"bad_files": len(bad)} if bad else {}
    counts["kinds"], counts["by_problem"] = dict(sorted(kinds.items())), dict(sorted(problems.items()))
    limit = MAX_REJECT if spec.max_reject is None else spec.max_reject
    if counts["rejects"] > limit * counts["in"]:
        assert first is not None
        shutil.rmtree(out / "rows")
        raise RejectedRows(_too_many(first, counts, limit, out), "fix the file, or raise max_reject to accept the loss")
    identity = {
        "name": spec.name,
        "kind": "+".join(counts["kinds"]) or shape.kinds[0],
        "stage": {"name": "load", "version": VERSION},
        "key": key,
        "config": spec.model_dump(),
        "inputs": inputs,
        "rows": writer.rows,
        "rows_sha256": writer.content.hexdigest(),
        "ids_sha256": writer.ids.hexdigest(),
        "counts": counts,
    }
    assert writer.rows == counts["rows"]
    store.write_manifest(out, identity, started)
    return counts


def shape_of(spec: SourceSpec, files: list[SourceFile]) -> tuple[Shape, str, list[dict[str, Any]]]:
    """The shape of a source, in words how its fields are mapped, and the records that were looked at."""
    samples: list[dict[str, Any]] = []
    for file in files:
        if file.problem:
            continue
        with contextlib.suppress(InputError):  # said when it is its turn to be read
            records = named_fields(read(file.path, spec.header), spec.columns)
            samples += [r.value for r in islice(records, SAMPLE) if r.value is not None]
        if len(samples) >= SAMPLE:
            break
    if not samples:  # nothing to look at: every record of the beginning is malformed, and reading will say how
        return named(NAMES[-1] if spec.format == "auto" else spec.format), "no record could be read", []
    if spec.format != "auto":
        shape = named(spec.format)
        words = shape.match({f for r in samples for f in r}, samples) or "as the format says"
    else:
        try:
            name, words = detect(samples)
        except InputError as error:
            raise InputError(f"{files[0].uri}: {error}", error.hint) from None
        shape = named(name)
    return shape._replace(kinds=kinds_in(samples)) if shape is ROWS else shape, words, samples


def _write_reject(file: IO[str], reject: Reject) -> None:
    line = {"file": reject.file, "line": reject.line, **reject.problem._asdict(), "raw": reject.raw}
    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _reason(problem: Problem) -> str:
    """What a problem is called in counts: without the numbers that differ from row to row."""
    path, expected = re.sub(r"[0-9]+", "", problem.path), re.sub(r"(?<![-\w])[0-9]+", "N", problem.expected)
    return f"{path or 'record'}: expected {expected}"


def _too_many(first: Reject, counts: dict[str, Any], limit: float, out: Path) -> str:
    share = counts["rejects"] / counts["in"]
    return (
        f"{first.file}:{first.line}: {str(first.problem).removeprefix(': ')}\n"
        f"  row starts: {first.raw[:80]}\n"
        f"  {counts['rejects']:,} of {counts['in']:,} rows rejected ({share:.2%}), limit is max_reject: {limit:g}."
        f" All of them: {out / 'rejects.jsonl'}"
    )


def _manifest(out: Path) -> dict[str, Any] | None:
    return store.open_dataset(out).manifest if (out / "manifest.json").is_file() else None


def _clear(out: Path, force: bool) -> None:
    """Make room: what an earlier, cut-off or stale run left goes; anything that is not ours stays and is an error."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: a file is in the way", "give another --out")
    if out.is_dir() and not force:
        strange = [p.name for p in out.iterdir() if p.name not in ("rows", "cols", "hits", "manifest.json", "rejects.jsonl", "flags.jsonl")]
        strange = [name for name in strange if not (name.startswith(".") and (name.endswith(".tmp") or "blocks-" in name))]
        if strange:
            raise StoreError(f"{out}: not empty, and not a dataset directory (has {', '.join(sorted(strange)[:5])})", "give another --out")
    (out / "manifest.json").unlink(missing_ok=True)
    for left in out.glob(".*.tmp"):
        left.unlink()
    for left in out.glob(".blocks-*"):  # of a scan on a cluster that was cut off
        shutil.rmtree(left)
    for part in ("rows", "cols", "hits"):
        shutil.rmtree(out / part, ignore_errors=True)


def say_left_out(out: Path, count: int) -> None:
    """Name the first files that were left out because they could not be read: rejects.jsonl names all."""
    if not count:
        return
    cli.say(f"warning: {count:,} files could not be read and were left out whole (on_bad_file: skip):")
    with (out / "rejects.jsonl").open(encoding="utf-8") as file:
        lines = (line for line in map(json.loads, file) if line["line"] is None)
        for line in islice(lines, FIRST):
            cli.say(f"  {line['file']}: {line['found']}")
    if count > FIRST:
        cli.say(f"  and {count - FIRST:,} more: {shown(out / 'rejects.jsonl')}")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    made = cli.parser("columnar.load", __doc__)
    made.add_argument(
        "files", nargs="+", metavar="FILE", help="file, directory or pattern, also s3://, gs:// or hf://datasets/owner/name@revision/"
    )
    made.add_argument("--out", required=True, type=place, metavar="DIR", help="dataset directory to write")
    made.add_argument("--format", default="auto", help="auto, or one of: " + ", ".join(NAMES))
    made.add_argument(
        "--columns", default="", metavar="OURS=THEIRS,…", help="map names by hand, for example instruction=Frage,output=Antwort"
    )
    made.add_argument("--source", metavar="NAME", help="what to call the rows' source (default: the first file's name)")
    made.add_argument("--license", help="the licence of the rows, an SPDX name or a link")
    made.add_argument("--revision", help="hf:// only: branch, tag or commit")
    made.add_argument("--split", help="of several splits, the one to read")
    made.add_argument("--max-reject", type=float, metavar="SHARE", help=f"share of rows that may be malformed (default {MAX_REJECT})")
    made.add_argument(
        "--on-bad-file", choices=["fail", "skip"], default="fail", help="a file that cannot be read: end the run (default), or leave it out"
    )
    made.add_argument("--limit", type=int, metavar="N", help="read only the first N records")
    made.add_argument("--header", action=argparse.BooleanOptionalAction, help="csv, tsv: the first line is (not) a header")
    made.add_argument("--force", action="store_true", help="replace whatever dataset --out holds")
    return cli.run(_main, made, argv)


def _main(args: argparse.Namespace) -> int:
    columns = {}
    for item in filter(None, args.columns.split(",")):
        ours, equals, theirs = item.partition("=")
        if not equals or not ours or not theirs:
            raise ConfigError(f"--columns {item}: expected OURS=THEIRS, for example instruction=Frage")
        columns[ours.strip()] = theirs.strip()
    if args.max_reject is not None and not 0 <= args.max_reject <= 1:
        raise ConfigError(f"--max-reject {args.max_reject:g}: expected a share between 0 and 1, for example 0.01")
    spec = SourceSpec(
        name=args.source or Path(args.files[0].rstrip("/")).name.split(".")[0] or "source",
        path=args.files if len(args.files) > 1 else args.files[0],
        format=args.format,
        columns=columns,
        license=args.license,
        revision=args.revision,
        split=args.split,
        max_reject=args.max_reject,
        on_bad_file=args.on_bad_file,
        limit=args.limit,
        header=args.header,
    )
    from columnar.remote import output

    with output(args.out), cli.Progress("load") as bar:
        done = 0

        def show(rows: int, rejects: int) -> None:
            nonlocal done
            bar.add(rows + rejects - done, note=f"{rejects:,} rejected" if rejects else "")
            done = rows + rejects

        counts = load_source(spec, args.out, force=args.force, on_rows=show)
    cli.say(f"format: {counts['format']} ({counts['mapping']})")
    if not done:
        cli.say(f"{shown(args.out)}: up to date, nothing to do")
    cli.say(f"{counts['rows']:,} rows, {counts['rejects']:,} rejected, from {counts['records']:,} records -> {shown(args.out)}")
    for problem, n in counts["by_problem"].items():
        cli.say(f"  rejected {n:,}: {problem}")
    say_left_out(args.out, counts.get("bad_files", 0))
    if args.json:
        cli.emit(counts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
