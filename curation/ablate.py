"""The family of mixes behind an ablation table: the whole, each source left out in turn, and smaller sizes.

    python -m curation.ablate recipes/mixes/tiny.yaml --out out/ablate
    python -m curation.ablate recipes/mixes/tiny.yaml --out out/ablate --sizes 0.25,0.5 --only-sizes

Tülu 3 left out one kind of data at a time (arXiv 2411.15124, Table 10) and trained on shares of its mix; Tülu 1 trained on each set alone
(`--alone`). Every member is built by `curation.build_mix` in a directory of its own; they share one cache, so that each source is loaded
and measured once. `family.json` in the output lists them with their rows and tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar import cli
from columnar.errors import ConfigError

if TYPE_CHECKING:
    from curation.mix import MixConfig, MixSource


def family(config: MixConfig, sizes: list[float], leave_out: bool, alone: bool) -> Iterator[tuple[str, MixConfig]]:
    """The members as (name, config). A smaller size takes a subset of the rows of a larger one, source by source."""
    yield "all", config
    many = len(config.sources) > 1
    for source in config.sources if leave_out and many else ():
        rest = tuple(s for s in config.sources if s.name != source.name)
        yield f"without-{source.name}", config.model_copy(update={"sources": rest})
    for source in config.sources if alone and many else ():
        yield f"only-{source.name}", config.model_copy(update={"sources": (source,)})
    for size in sizes:
        yield f"size-{size:g}", config.model_copy(update={"sources": tuple(scaled(s, size) for s in config.sources)})


def scaled(source: MixSource, size: float) -> MixSource:
    """The source with its amount times `size`; at least one row."""
    if source.rows is not None:
        return source.model_copy(update={"rows": max(1, round(source.rows * size))})
    if source.tokens is not None:
        return source.model_copy(update={"tokens": max(1, round(source.tokens * size))})
    cap = max(1, round(source.cap * size)) if source.cap else None
    return source.model_copy(update={"fraction": (source.fraction or 1.0) * size, "all": None, "cap": cap})


def parse_sizes(text: str) -> list[float]:
    """`0.25,0.5` as numbers.

    Raises:
        ConfigError: something that is not a number between 0 and 1.
    """
    try:
        sizes = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"--sizes {text}: expected numbers between 0 and 1, for example 0.25,0.5") from error
    if any(not 0 < size < 1 for size in sizes):
        raise ConfigError(f"--sizes {text}: expected numbers between 0 and 1 (the whole mix is always built)")
    return sizes


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("curation.ablate", __doc__)
    made.add_argument("config", type=Path, help="the mix: a YAML file")
    made.add_argument("--out", type=Path, required=True, help="a directory for all members")
    made.add_argument("--sizes", default="0.25,0.5", help="shares of every source's amount (default: 0.25,0.5; empty for none)")
    made.add_argument("--only-sizes", action="store_true", help="do not leave sources out")
    made.add_argument("--alone", action="store_true", help="also each source alone")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting")
    made.add_argument("--limit", type=int, help="read at most so many records of each source")
    made.add_argument("--dry-run", action="store_true", help="list the members and do nothing")
    return made


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from columnar.config import load
    from columnar.store import write_json
    from curation.mix import MixConfig

    config = load(MixConfig, args.config, args.settings)
    members = list(family(config, parse_sizes(args.sizes), not args.only_sizes, args.alone))
    if args.dry_run:
        rows = [
            {"member": name, "sources": len(c.sources), "take": ", ".join(f"{s.name} {s.amount}" for s in c.sources)} for name, c in members
        ]
        cli.emit(rows) if args.json else print(cli.table(rows))
        return 0
    from curation import pipeline

    lines: list[dict[str, Any]] = []
    for name, member in members:
        job = pipeline.Job(member, args.config.parent, args.out / name, args.out / ".cache", args.limit)
        manifest, fresh = pipeline.build(job)
        counts = manifest["identity"]["counts"]
        lines.append({"member": name, "rows": counts["out"], "tokens": counts["tokens"], "ids": manifest["identity"]["ids_sha256"][:16]})
        cli.say(f"{name}: {'built' if fresh else 'unchanged'}, {counts['out']:,} rows")
    write_json(args.out / "family.json", {"config": str(args.config.name), "members": lines})
    cli.emit(lines) if args.json else print(cli.table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
