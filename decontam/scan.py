"""Scan a dataset, or any file the loaders read, for benchmark items, with evidence.

    python -m decontam.scan out/tiny --benchmarks tulu3                        # names from the registry (--list shows them)
    python -m decontam.scan chats.jsonl --benchmarks my.yaml --preset tulu3 --out out/scan --fail-on unseen

In a dataset directory it writes
    cols/decontam.parquet   id, contaminated, benchmark (the worst), coverage, verdict (clean, report, drop), reason: one line a row
    hits/decontam.parquet   one line for each turn of a row and field of an item that share text, with spans on both sides
    hits/decontam_items.parquet   benchmark, item_id, item_field, text: the items that were hit, to read beside the rows
    report.json             per benchmark and source what was found, and what could not be seen
Exit code 4 when --fail-on dev|unseen|any asks for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar import cli, config
from columnar import engine as engines
from columnar.engine import LOCAL, Engine
from columnar.errors import ConfigError, Contaminated, StoreError
from columnar.filesystem import place, shown, url_of
from decontam.rules import PRESETS, DecontamConfig

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from columnar.store import Dataset
    from decontam.common import Marks
    from decontam.index import Index
    from decontam.pieces import Piece, Scratches

STAGE = "decontam"
ITEM = ("benchmark", "item_id", "item_field")
COMMON = "common_ngrams"  # metadata of the hits: numbers of the n-grams left out, for the scan of what is left after removal
VERSION = 3


def scan_dataset(
    dataset: Dataset,
    wanted: DecontamConfig,
    out: Path | None = None,
    threads: int | None = None,
    force: bool = False,
    on_rows: Callable[[int], None] | None = None,
    index: Index | None = None,
    engine: Engine = LOCAL,
) -> dict[str, Any]:
    """Scan every row of a dataset; writes cols/, hits/ and report.json and returns the report. Same key: nothing is done again.

    Args:
        out: where to write; None: into the dataset.
        threads: None: one a core. The result does not depend on it.
        index: what `build_index` makes of this config, where the caller has it.
        on_rows: told how many rows each finished piece had, for progress; rows are passed twice when common n-grams are looked for.
        engine: where it is done; the result does not depend on it.

    Raises:
        ConfigError, InputError: about the benchmarks.
    """
    from columnar.store import sidecar_key, stage_key
    from decontam.benchmarks import fingerprint, load_benchmarks
    from decontam.index import build_index
    from decontam.report import make_report, read_report

    rule = wanted.rule()
    said = wanted.model_dump(mode="json", exclude={"fail_on", "benchmarks", "root"})
    key = stage_key(STAGE, VERSION, said, [fingerprint(wanted.benchmarks, wanted.root), dataset.content])
    out = out or dataset.path
    files = [out / "cols" / f"{STAGE}.parquet", out / "hits" / f"{STAGE}.parquet", out / "hits" / f"{STAGE}_items.parquet"]
    if not force and all(sidecar_key(file) == key for file in files):
        report = read_report(out, key)
        if report is not None:
            return report
    index = index or build_index(load_benchmarks(wanted.benchmarks, wanted.root), rule)
    threads = threads or os.cpu_count() or 1
    (out / "report.json").unlink(missing_ok=True)
    marks = None
    blocks = out / f".blocks-{key}"  # a cluster's results, until both tables are whole
    for old in out.glob(".blocks-*"):
        if force or old != blocks:
            shutil.rmtree(old, ignore_errors=True)
    if rule.common:
        from decontam.common import without_common

        index, marks = without_common(index, [dataset], wanted.fields, threads, on_rows, engine, blocks / "first")
    counts = _write(dataset, index, wanted, marks, files, key, threads, on_rows, engine, blocks / "second")
    shutil.rmtree(blocks, ignore_errors=True)
    return make_report(dataset, index, wanted, out, key, counts)


def _write(
    dataset: Dataset,
    index: Index,
    wanted: DecontamConfig,
    marks: Marks | None,
    files: list[Path],
    key: str,
    threads: int,
    on_rows: Callable[[int], None] | None,
    engine: Engine,
    blocks: Path,
) -> dict[tuple[str, str], int]:
    """Write both tables; returns how many rows each source has of each verdict."""
    import numpy as np
    import pyarrow as pa

    from columnar.store import ROW_GROUP, table_writer, whole_file, write_table
    from decontam.found import COLUMNS, HITS
    from decontam.pieces import Scratches, over_pieces

    total = Counter[tuple[str, str]]()
    hit: set[tuple[str, str, str]] = set()
    said = {"stage": STAGE, "key": key, "rows_sha256": dataset.content}
    common = {COMMON: json.dumps(np.flatnonzero(index.table.common).tolist())}
    with whole_file(files[0]) as cols_file, whole_file(files[1]) as hits_file:
        schema = pa.schema([("id", pa.string()), *COLUMNS])
        with table_writer(cols_file, schema, said) as cols, table_writer(hits_file, HITS, said | common) as hits_writer:
            work = Scanner(Scratches(index), wanted, marks)
            for piece, (columns, hits, counts) in over_pieces(dataset.row_files, work, threads, engine, blocks):
                total.update(counts)
                cols.write_table(columns, row_group_size=ROW_GROUP)
                if hits.num_rows:
                    hits_writer.write_table(hits, row_group_size=ROW_GROUP)
                    several = hits.select(list(ITEM)).group_by(list(ITEM)).aggregate([])
                    hit.update(zip(*(several.column(name).to_pylist() for name in ITEM), strict=True))
                if on_rows:
                    on_rows(piece.rows)
    write_table(files[2], _items(index, hit), said)
    return dict(total)


@dataclass(frozen=True)
class Scanner:
    """The scan of a piece."""

    scratches: Scratches
    wanted: DecontamConfig
    marks: Marks | None

    def __call__(self, piece: Piece) -> tuple[pa.Table, pa.Table, Counter[tuple[str, str]]]:
        """The verdict columns of all rows behind their ids, the hits, and how many rows each source has of each verdict."""
        import numpy as np
        import pyarrow as pa

        from decontam.found import COLUMNS, HITS, scan_batch
        from decontam.pieces import read_piece

        columns, hits, at, counts = [], [], 0, Counter[tuple[str, str]]()
        mark = None if self.marks is None else self.marks[piece]
        names = ["id", "source", *(self.wanted.fields if mark is None or len(mark) else ())]
        with self.scratches.borrowed() as scratch:
            for batch in read_piece(piece, names):
                chosen = None if mark is None else np.isin(np.arange(at, at + batch.num_rows), mark)
                at += batch.num_rows
                looked_at = batch if chosen is None else batch.filter(pa.array(chosen))
                made = scan_batch(looked_at, self.scratches.index, self.wanted.policy, self.wanted.fields, scratch)
                columns.append(_with_ids(batch, made[0], chosen))
                hits.append(made[1])
                said = pa.table([batch.column("source").cast(pa.string()), columns[-1].column("verdict")], ["source", "verdict"])
                for line in said.group_by(["source", "verdict"]).aggregate([([], "count_all")]).to_pylist():
                    counts[line["source"], line["verdict"]] += line["count_all"]
        schema = pa.schema([("id", pa.string()), *COLUMNS])
        return pa.Table.from_batches(columns, schema), pa.Table.from_batches(hits, HITS), counts


def _items(index: Index, hit: set[tuple[str, str, str]]) -> pa.Table:
    """The texts of the items that were hit, in the order of their names."""
    import pyarrow as pa

    items: dict[str, set[str]] = {}
    for name, item, _ in hit:
        items.setdefault(name, set()).add(item)
    texts = {}
    for benchmark in index.benchmarks:
        mine = items.get(benchmark.name, set())
        for item, fields in zip(benchmark.ids, benchmark.texts, strict=True):
            if item in mine:
                texts.update({(benchmark.name, item, field): text for field, text in zip(benchmark.spec.fields, fields, strict=True)})
    lines = [(*key, texts[key]) for key in sorted(hit)]
    columns = [pa.array([line[i] for line in lines], pa.string()) for i in range(len(ITEM) + 1)]
    return pa.Table.from_arrays(columns, [*ITEM, "text"])


def _with_ids(batch: pa.RecordBatch, made: pa.RecordBatch, chosen: np.ndarray | None) -> pa.RecordBatch:
    """The verdict columns behind the ids of all rows; rows that were not looked at again are clean."""
    import numpy as np
    import pyarrow as pa

    if chosen is not None:
        clean = pa.RecordBatch.from_pylist([{"contaminated": False, "coverage": 0.0, "verdict": "clean"}], made.schema)
        at = np.zeros(batch.num_rows, np.int64)
        at[chosen] = np.arange(1, made.num_rows + 1)
        made = pa.Table.from_batches([clean, made]).combine_chunks().to_batches()[0].take(pa.array(at))
    ids = batch.column("id").cast(pa.string())
    return pa.RecordBatch.from_arrays([ids, *made.columns], ["id", *made.schema.names])


def recheck(files: list[Path], wanted: DecontamConfig, first: Path, engine: Engine = LOCAL, folder: Path | None = None) -> None:
    """Scan what is left after removal, with the common n-grams of the first scan: nothing that was to be dropped may be there.

    Args:
        files: the row files that are left.
        first: where the first scan wrote.
        folder: where a cluster puts its results; gone afterwards.

    Raises:
        StoreError: a row still holds an item.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from decontam.benchmarks import load_benchmarks
    from decontam.common import with_common
    from decontam.index import build_index
    from decontam.pieces import Scratches, over_pieces

    index = build_index(load_benchmarks(wanted.benchmarks, wanted.root), wanted.rule())
    if wanted.rule().common:
        common = np.zeros_like(index.table.common)
        common[json.loads(pq.read_schema(first / "hits" / f"{STAGE}.parquet").metadata[COMMON.encode()])] = True
        index = with_common(index, common)

    left = [
        ident
        for _, (columns, *_) in over_pieces(files, Scanner(Scratches(index), wanted, None), os.cpu_count() or 1, engine, folder)
        for ident, verdict in zip(columns.column("id").to_pylist(), columns.column("verdict").to_pylist(), strict=True)
        if verdict == "drop"
    ]
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    if left:
        raise StoreError(
            f"{len(left)} rows still hold benchmark items after removal, the first is {left[0]}",
            "this is an error of ours: please report it",
        )


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    made = cli.parser("decontam.scan", __doc__)
    made.add_argument("input", nargs="?", help="a dataset directory, or a file, folder or pattern that the loaders read")
    made.add_argument(
        "--benchmarks", action="append", help="names or suites of the registry, a YAML file, a folder of files; may be repeated"
    )
    made.add_argument("--root", help="where relative sources of the YAML start (default: its folder)")
    made.add_argument("--preset", default="caravan", help=f"the rule: {', '.join(PRESETS)}")
    made.add_argument("--ngram", type=int, help="tokens of an n-gram, instead of the preset's")
    made.add_argument("--threshold", type=float, help="share of an item's tokens to be covered, instead of the preset's")
    made.add_argument("--config", help="a YAML file with all of this; flags win")
    made.add_argument("--out", type=place, help="where to write (default: into the dataset directory; for other files nothing is kept)")
    made.add_argument("--fail-on", choices=("dev", "unseen", "any"), help="exit code 4 when a benchmark of this kind was hit")
    made.add_argument("--threads", type=int, help="of the engine local; default: one a core")
    engines.add_flag(made)
    made.add_argument("--force", action="store_true", help="scan again even if nothing changed")
    made.add_argument("--list", action="store_true", help="list the registry's benchmarks and suites, and stop")
    return cli.run(_command, made, argv)


def _command(args: argparse.Namespace) -> int:
    from columnar.remote import output
    from decontam.report import registry_table, report_tables

    if args.list:
        print(registry_table())
        return 0
    if not args.input:
        raise ConfigError("no input given", "name a dataset directory or a file: python -m decontam.scan out/tiny --benchmarks tulu3")
    said = config.read_yaml(args.config) if args.config else {}
    flags = {"benchmarks": args.benchmarks, "root": args.root, "preset": args.preset if "preset" not in said else None}
    flags |= {"ngram": args.ngram, "threshold": args.threshold, "fail_on": args.fail_on}
    wanted = config.parse(DecontamConfig, said | {k: v for k, v in flags.items() if v is not None}, args.config or "flags")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as sent:
        if args.out:
            sent.enter_context(output(args.out))
        dataset = open_input(args.input, args.out or Path(folder) / "loaded")
        if not args.out:
            sent.enter_context(output(dataset.path))
        total = dataset.rows * (2 if wanted.rule().common else 1)
        with engines.chosen(args.engine) as engine, cli.Progress("scan", total, quiet=args.json) as bar:
            report = scan_dataset(dataset, wanted, args.out, args.threads, args.force, bar.add, engine=engine)
        where = shown(args.out or dataset.path) if args.out or dataset.path == place(args.input) else None
        if args.json:
            cli.emit(report)
        else:
            print(report_tables(report))
            seconds = time.monotonic() - started
            cli.say(
                f"{dataset.rows:,} rows in {seconds:.1f} s"
                + (f"; evidence: {where}/hits/decontam.parquet" if where else "; nothing kept (--out DIR keeps it)")
            )
    return _verdict(report, wanted, where)


def open_input(given: str, out: Path) -> Dataset:
    """The dataset directory as it is, or the file loaded into `out`."""
    from columnar.load import SourceSpec, load_source
    from columnar.remote import peek
    from columnar.store import open_dataset

    path = place(given)
    if peek(path) if url_of(path) else (path / "rows").is_dir():
        return open_dataset(path)
    load_source(SourceSpec(name=Path(given).name.split(".")[0], path=given), out)
    return open_dataset(out)


def _verdict(report: dict[str, Any], wanted: DecontamConfig, where: str | None) -> int:
    """Raises `Contaminated` (exit code 4) when a benchmark of the kind that must not be hit was hit."""
    if wanted.fail_on:
        hit = [b for b in report["benchmarks"] if b["hit"] and wanted.fail_on in (b["policy"], "any")]
        if hit:
            named = ", ".join(f"{b['benchmark']} ({b['hit']} of {b['items']} items)" for b in hit)
            places = f"every place is in {where}/hits/decontam.parquet" if where else "give --out DIR to see every place"
            raise Contaminated(f"--fail-on {wanted.fail_on}: {named}", places)
    return 0


if __name__ == "__main__":
    sys.exit(main())
