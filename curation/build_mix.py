"""Build a training mix: load, measure, apply rules, remove duplicates and contamination, sample, write, report.

    python -m curation.build_mix recipes/mixes/tiny.yaml --out out/tiny
    python -m curation.build_mix recipes/mixes/tiny.yaml --out out/tiny --dry-run
    python -m curation.build_mix recipes/mixes/tiny.yaml --out out/tiny --set seed=3 --set sources.chats.rows=50

Reads a mix config (docs/mix.md). Writes a dataset directory that is also a Hugging Face dataset: rows/, cols/, hits/, dropped/,
rejects.jsonl, config.yaml, README.md and, last, manifest.json. Loaded and measured sources are kept in a cache, so a second run
redoes only what depends on a change.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from columnar import cli, engine
from columnar.errors import ConfigError
from columnar.filesystem import place, shown


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("curation.build_mix", __doc__)
    made.add_argument("config", type=Path, help="the mix: a YAML file")
    made.add_argument("--out", type=place, required=True, help="the dataset directory to write; may be s3:// or gs://")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting, e.g. seed=3")
    made.add_argument("--cache", type=Path, help="where loaded sources are kept (default: .cache beside the output)")
    made.add_argument("--limit", type=int, help="read at most so many records of each source (for a try)")
    engine.add_flag(made)
    made.add_argument("--dry-run", action="store_true", help="print what would be done and why, and do nothing")
    made.add_argument("--force", action="store_true", help="build again even if nothing changed, or over another mix")
    made.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload the finished mix (private unless --public)")
    made.add_argument("--public", action="store_true", help="with --push-to-hub: make the repository public")
    return made


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit {args.limit}: expected a number of records, at least 1")
    from columnar.config import load  # heavy imports only now: --help answers at once
    from curation.mix import MixConfig

    config = load(MixConfig, args.config, args.settings)
    from curation import pipeline

    cache = args.cache or pipeline.default_cache(args.out)
    job = pipeline.Job(config, args.config.parent, args.out, cache, args.limit, args.force)
    from columnar.remote import output, peek

    if args.dry_run:
        peek(args.out)
        from curation.plan import describe, plan

        cli.emit(plan(job)) if args.json else print(describe(plan(job)))
        return 0
    started = time.time()
    with engine.chosen(args.engine) as where, output(args.out):
        manifest, fresh = pipeline.build(replace(job, engine=where))
    if args.json:
        cli.emit(manifest)
    else:
        from columnar.load import say_left_out
        from curation.card import funnel_rows

        counts = manifest["identity"]["counts"]
        print(cli.table(funnel_rows(counts)))
        for name, source in counts["by_source"].items():
            if not source["kept"]:
                cli.say(f"warning: nothing is left of {name}: " + ", ".join(f"{n:,} {why}" for why, n in source["dropped"].items()))
        say_left_out(args.out, counts.get("bad_files", 0))
        if not fresh:
            cli.say(f"{shown(args.out)}: nothing changed, nothing done ({time.time() - started:.1f} s)")
        else:
            cost = f"{manifest['circumstance']['seconds']:.1f} s, peak memory {manifest['circumstance']['peak_rss_mb']:,} MB"
            ids = manifest["identity"]["ids_sha256"][:16]
            cli.say(f"{shown(args.out)}: {counts['out']:,} rows, {counts['tokens']:,} tokens ({counts['tokens_by']}), ids {ids}, {cost}")
    if args.push_to_hub:
        from curation.hub import push

        cli.say(f"uploaded: {push(args.out, args.push_to_hub, private=not args.public)}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
