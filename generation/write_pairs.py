"""Writes the rows that `pairs` gives as a dataset directory, with the report and the prompts that gave none.

candidates -> DIR/rows/, DIR/hits/unpaired.parquet (id, reason), DIR/report.json, DIR/manifest.json
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from columnar import store
from columnar.cli import emit, parser, run, say
from columnar.config import load
from columnar.errors import CaravanError, InputError, StoreError
from columnar.record import schema_of, to_batch
from generation.card import write_card
from generation.pair_report import Report, lines
from generation.pairs import VERSION, PairsConfig, PairsRun, every_pair

UNPAIRED = pa.schema([("id", pa.string()), ("reason", pa.string())])


def candidates_of(dataset: store.Dataset) -> Iterator[dict[str, Any]]:
    """The rows of candidates, in row order.

    Raises:
        InputError: rows of another kind.
    """
    for batch in store.read_batches(dataset, rows=200):
        for row in batch.to_pylist():
            if row["kind"] != "candidates":
                raise InputError(
                    f"{dataset.path}: found a row of kind {row['kind']}, expected candidates", "make them with generation.respond"
                )
            yield row


def write_pairs(
    source: store.Dataset, config: PairsConfig, out: Path, seed: int, name: str, key: str, told: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the dataset; returns (identity, summary)."""
    started = time.time()
    kind = "pair" if config.output == "pairs" else "sft"
    (out / "manifest.json").unlink(missing_ok=True)
    for part in ("rows", "cols", "hits"):
        shutil.rmtree(out / part, ignore_errors=True)
    writer, report = store.RowWriter(out, schema_of([kind]), row_group=2_000), Report()
    pending: list[dict[str, Any]] = []
    with store.whole_file(out / "hits" / "unpaired.parquet") as at, store.table_writer(at, UNPAIRED) as unpaired:
        without: list[dict[str, Any]] = []
        for row, made, why in every_pair(candidates_of(source), config, seed, name):
            report.add(row, made, why)
            pending += made
            if why:
                without.append({"id": row["id"], "reason": why})
            if len(pending) >= 200:
                writer.write(to_batch(pending, writer.schema))
                pending = []
            if len(without) >= 10_000:
                unpaired.write_table(pa.Table.from_pylist(without, UNPAIRED))
                without = []
        if pending:
            writer.write(to_batch(pending, writer.schema))
        if without:
            unpaired.write_table(pa.Table.from_pylist(without, UNPAIRED))
        writer.close()
    summary = report.summary(source.path / "hits" / "judgements.parquet")
    if summary["equal_texts"]:
        raise CaravanError(f"{summary['equal_texts']} pairs of equal texts: this is a bug, please report it")
    store.write_json(out / "report.json", summary)
    counts = {k: summary[k] for k in ("prompts", "rows", "yield", "without", "equal_texts")}
    identity = {
        "name": name, "kind": kind, "stage": {"name": told.pop("stage"), "version": VERSION}, "key": key, "seed": seed,
        "rows": writer.rows, "rows_sha256": writer.content.hexdigest(), "ids_sha256": writer.ids.hexdigest(), "counts": counts, **told,
    }  # fmt: skip
    write_card(out, identity)
    store.write_manifest(out, identity, started)
    return identity, summary


def command(doc: str | None, argv: list[str] | None) -> int:
    """The command line of generation.pairs."""
    made = parser("generation.pairs", doc)
    made.add_argument("config", type=Path, help="YAML: candidates, pairs")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset directory to write")
    made.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting, e.g. pairs.min_margin=1"
    )
    made.add_argument("--force", action="store_true", help="replace whatever dataset --out holds")
    return run(_main, made, argv)


def _main(args: argparse.Namespace) -> int:
    config = load(PairsRun, args.config, args.settings)
    source = store.open_dataset(config.candidates)
    if source.path.resolve() == args.out.resolve():
        raise StoreError(f"{args.out}: is the dataset the pairs are made from", "give another --out")
    key = store.stage_key("pairs", VERSION, [config.pairs.model_dump(), config.seed, config.name], source.content)
    known = store.open_dataset(args.out).manifest["identity"] if (args.out / "manifest.json").is_file() else None
    if known is not None and not args.force and known.get("stage", {}).get("name") != "pairs":
        raise StoreError(f"{args.out}: holds another dataset ({known.get('name')})", "give another --out, or --force to replace it")
    told = {"stage": "pairs", "config": config.model_dump(), "inputs": [{"uri": config.candidates, "rows_sha256": source.content}]}
    identity, summary = write_pairs(source, config.pairs, args.out, config.seed, config.name, key, told)
    if args.json:
        emit(summary)
    for line in lines(summary):
        say(line)
    if not identity["rows"]:
        raise CaravanError("no pair was made", "the reasons are above; loosen the rule, or look at the candidates' scores")
    return 0
