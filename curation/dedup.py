"""Exact and near-duplicates over one or many dataset directories: marked with the row that is kept for them, never deleted here.

    python -m curation.dedup out/a out/b --threshold 0.8 --by prompt --against data/eval_prompts
    python -m columnar.query out/a "SELECT id, kept_id, jaccard FROM rows WHERE dedup_reason = 'near_duplicate' ORDER BY jaccard"

Writes into each DIR, row for row and one line a removed row:
    cols/dedup.parquet       id, cluster, kept_id, jaccard, reason     reason: exact_duplicate, near_duplicate, null where kept
    hits/duplicates.parquet  id, source, kept_id, kept_source, jaccard, estimate, band, kind (exact, near, semantic)
and the signatures as cols/minhash.parquet, which every later run reuses. `--against` marks rows that duplicate a row of another
dataset (an evaluation set, an earlier mix); those reference rows are never marked themselves. docs/dedup.md tells the rules.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from columnar import cli
from columnar.config import Config, parse
from columnar.errors import ConfigError
from columnar.filesystem import place


class NearConfig(Config):
    """How near-duplicates are found."""

    threshold: float = Field(0.7, gt=0, le=1)  # exact n-gram Jaccard with the kept row from which a row is a duplicate
    by: Literal["row", "prompt"] = "row"  # in a mix: what `dedup.by` says, unless given
    ngram: int = Field(5, ge=1, le=64)
    num_perm: int = Field(112, ge=8, le=1024)
    bands: int | None = Field(None, ge=1)
    rows: int | None = Field(None, ge=1)  # signature slots in a band; bands and rows follow from threshold and num_perm when not given
    system: bool = False  # count system turns: off, because one long system prompt makes all its conversations look alike
    scheme: Literal["affine32", "legacy"] = "affine32"  # datasketch's hash family: of version 2, or before
    seed: int = 1  # datasketch's default

    @model_validator(mode="after")
    def _bands_fit(self) -> NearConfig:
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows belong together: give both or neither")
        if self.bands and self.rows and self.bands * self.rows > self.num_perm:
            raise ValueError(
                f"{self.bands} bands of {self.rows} rows need {self.bands * self.rows} permutations, num_perm is {self.num_perm}"
            )
        return self

    @property
    def banding(self) -> tuple[int, int]:
        """(bands, rows per band)."""
        from curation.lsh import choose_bands

        return (self.bands, self.rows) if self.bands and self.rows else choose_bands(self.threshold, self.num_perm)

    @property
    def stage(self) -> str:
        """The sidecar that holds the signatures."""
        return "minhash" if self.by == "row" else "minhash_prompt"

    @property
    def signature(self) -> dict[str, object]:
        """What a signature depends on: the threshold and the banding may change without signing again."""
        return self.model_dump(include={"by", "ngram", "num_perm", "system", "scheme", "seed"})


class SemanticConfig(Config):
    """An optional tier by embeddings: proposes pairs, drops nothing unless told to."""

    threshold: float = Field(0.95, gt=0, le=1)  # cosine
    embeddings: str | None = None  # a Parquet file with columns id and embedding
    endpoint: str | None = None  # base URL of an OpenAI-compatible server, e.g. http://localhost:8000/v1
    model: str | None = None
    drop: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> SemanticConfig:
        if (self.embeddings is None) == (self.endpoint is None):
            raise ValueError("give exactly one of embeddings (a Parquet file) and endpoint (a server)")
        if self.endpoint and not self.model:
            raise ValueError("endpoint needs model: the name of the embedding model to ask for")
        return self


class DedupConfig(Config):
    """What counts as a duplicate, which of them is kept, and among which rows."""

    exact: bool = True
    by: Literal["row", "prompt"] = "row"
    keep: Literal["source_order", "longest", "first", "highest_score"] = "source_order"
    scope: Literal["all", "source"] = "all"
    near: NearConfig | None = None
    against: tuple[str, ...] = ()  # dataset directories whose rows keep, and are never marked
    score: str | None = None  # for keep: highest_score, a column of the rows, or STAGE.COLUMN of a sidecar
    semantic: SemanticConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _near_follows(cls, data: Any) -> Any:
        """`near: true` means the defaults; near-duplicates are sought by what exact ones are sought by, unless said otherwise."""
        if isinstance(data, dict) and "near" in data:
            near = {} if data["near"] is True else None if data["near"] is False else data["near"]
            if isinstance(near, dict) and "by" not in near and data.get("by") in ("row", "prompt"):
                near = {**near, "by": data["by"]}
            data = {**data, "near": near}
        return data

    @model_validator(mode="after")
    def _fits(self) -> DedupConfig:
        if self.near and self.exact and self.by == "prompt" and self.near.by == "row":
            raise ValueError("by: prompt keeps one row of each prompt whatever its answer, so near.by must be prompt too (or exact: false)")
        return self


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("curation.dedup", __doc__)
    made.add_argument("datasets", nargs="+", type=place, metavar="DIR", help="dataset directories; the first are kept before the later")
    made.add_argument("--by", choices=["row", "prompt"], default="row", help="what must be alike: the whole row, or what it asks")
    made.add_argument("--exact-only", action="store_true", help="no near-duplicates")
    made.add_argument(
        "--threshold", type=float, default=0.7, help="n-gram Jaccard with the kept row from which a row is near (default: 0.7)"
    )
    made.add_argument("--ngram", type=int, default=5, help="tokens in an n-gram (default: 5)")
    made.add_argument("--num-perm", type=int, default=112, help="slots of a signature (default: 112)")
    made.add_argument("--keep", choices=["source_order", "longest", "first", "highest_score"], default="source_order")
    made.add_argument("--score", metavar="COLUMN", help="for --keep highest_score: a column of the rows, or STAGE.COLUMN of a sidecar")
    made.add_argument("--scope", choices=["all", "source"], default="all", help="seek duplicates among all rows, or within each source")
    made.add_argument(
        "--against", nargs="+", action="extend", default=[], metavar="DIR", help="reference datasets: never marked, always keep"
    )
    made.add_argument("--embeddings", metavar="PARQUET", help="semantic tier: a file with id and embedding; reported, not marked")
    made.add_argument("--endpoint", metavar="URL", help="semantic tier: an OpenAI-compatible embedding server")
    made.add_argument("--model", help="with --endpoint: the embedding model")
    made.add_argument("--cosine", type=float, default=0.95, help="semantic tier: cosine from which a pair is reported (default: 0.95)")
    made.add_argument("--semantic-drop", action="store_true", help="semantic tier: mark those rows as duplicates too")
    made.add_argument("--out", type=Path, help="also write all evidence to this folder: duplicates.parquet, report.json")
    return made


def config_of(args: argparse.Namespace) -> DedupConfig:
    """The flags as a config, with a config's checks."""
    near = None if args.exact_only else {"threshold": args.threshold, "ngram": args.ngram, "num_perm": args.num_perm}
    semantic = None
    if args.embeddings or args.endpoint:
        semantic = {"threshold": args.cosine, "embeddings": args.embeddings, "endpoint": args.endpoint, "model": args.model}
        semantic["drop"] = args.semantic_drop
    data = {"by": args.by, "keep": args.keep, "scope": args.scope, "against": args.against, "score": args.score}
    return parse(DedupConfig, {**data, "near": near, "semantic": semantic}, "flags")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    config = config_of(args)
    paths = [path.resolve() for path in args.datasets]
    if len(set(paths)) < len(paths):
        raise ConfigError("the same directory is given twice", "to keep reference rows out of the result, use --against")
    if both := set(paths) & {place(path).resolve() for path in args.against}:
        raise ConfigError(f"{min(both)}: searched and --against at once: its rows would all be duplicates of themselves")
    from columnar.remote import output
    from columnar.store import open_dataset
    from curation.duplicate_report import report, search, write

    datasets = [open_dataset(path) for path in args.datasets]
    found, everything = search(datasets, config)
    with contextlib.ExitStack() as sent:
        for dataset in datasets:
            sent.enter_context(output(dataset.path))
        write(found, everything, config, args.out)
    made = report(found, config)
    if args.json:
        cli.emit(made)
        return 0
    print(cli.table(made["sources"]))
    if len(made["sources"]) > 1 and made["pairs"]:
        print("\nremoved rows by source, and the source of the row that is kept:")
        print(cli.table(made["pairs"]))
    for line in made["notes"]:
        cli.say(line)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
