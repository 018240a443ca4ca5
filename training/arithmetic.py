"""A toy task that can be learned on a CPU in a minute and checked by a verifier: sums of small numbers, with answers some of which lie.

    python -m training.arithmetic --out out/sums

    out/sums/sft       conversations whose answer is right in `right` of all cases: what is learned from them can be improved on
    out/sums/prompts   the same questions as prompts with the verifier `gsm8k`, for RLVR and rejection sampling
    out/sums/pairs     the right answer against a wrong one, for DPO and reward models
    out/sums/dev       prompts that occur in none of the above: what is reported

The policy that SFT gives answers like its data: right in about `right` of all cases. Reinforcement has to find out which answers are
right from the verifier alone. Deterministic from the seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from columnar import cli, store
from columnar.record import schema_of, seal, to_batch

VERSION = 1
SOURCE = "sums"


def questions(largest: int, seed: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """All pairs of numbers up to `largest`, shuffled: (to train on, held out: every fifth)."""
    pairs = [(a, b) for a in range(largest + 1) for b in range(largest + 1)]
    random.Random(f"{seed}/questions").shuffle(pairs)
    return [p for i, p in enumerate(pairs) if i % 5], pairs[::5]


def ask(a: int, b: int) -> list[dict[str, str]]:
    """The prompt of a sum."""
    return [{"role": "user", "content": f"{a}+{b}"}]


def answer(value: int) -> list[dict[str, str]]:
    """An answer as a message."""
    return [{"role": "assistant", "content": str(value)}]


def wrong(rng: random.Random, a: int, b: int) -> int:
    """A wrong answer, near enough to be believed."""
    return max(0, a + b + rng.choice([-3, -2, -1, 1, 2, 3])) if a + b > 2 else a + b + rng.choice([1, 2, 3])


def conversations(pairs: list[tuple[int, int]], copies: int, right: float, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of kind sft: each question `copies` times, its answer right with probability `right`."""
    rng = random.Random(f"{seed}/answers")
    for a, b in pairs:
        for _ in range(copies):
            yield {"kind": "sft", "messages": ask(a, b) + answer(a + b if rng.random() < right else wrong(rng, a, b))}


def prompts(pairs: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """Rows of kind prompt, with what checks them."""
    for a, b in pairs:
        yield {"kind": "prompt", "prompt": ask(a, b), "verifier": "gsm8k", "ground_truth": str(a + b)}


def preferences(pairs: list[tuple[int, int]], seed: int) -> Iterator[dict[str, Any]]:
    """Rows of kind pair: the right answer was preferred."""
    rng = random.Random(f"{seed}/pairs")
    for a, b in pairs:
        off = wrong(rng, a, b)
        scores = {"chosen_score": 1.0, "rejected_score": 1.0 - abs(off - a - b) / 3}
        yield {"kind": "pair", "prompt": ask(a, b), "chosen": answer(a + b), "rejected": answer(off), **scores}


def write(
    out: Path, name: str, rows: Iterable[dict[str, Any]], config: dict[str, Any], held_out: Iterable[dict[str, Any]] = ()
) -> store.Dataset:
    """One dataset directory; rows held out become its validation split."""
    started = time.time()
    (out / "manifest.json").unlink(missing_ok=True)
    made = []
    for i, row in enumerate(rows):
        made.append(seal({"source": SOURCE, "origin": {"uri": SOURCE, "revision": None, "split": None, "row": i}, **row}, name))
    rest = []
    for i, row in enumerate(held_out, len(made)):
        rest.append(seal({"source": SOURCE, "origin": {"uri": SOURCE, "revision": None, "split": None, "row": i}, **row}, name))
    writer = store.RowWriter(out, schema_of([made[0]["kind"]]))
    for split, part in ("train", made), ("validation", rest):
        if part:
            writer.start_shard(f"{split}-00000")
            writer.write(to_batch(part, writer.schema))
            writer.close()
    identity = {
        "name": f"{SOURCE}/{name}",
        "kind": made[0]["kind"],
        "stage": {"name": "arithmetic", "version": VERSION},
        "key": store.stage_key("arithmetic", VERSION, {**config, "name": name}, None),
        "config": config,
        "seed": config["seed"],
        "inputs": [],
        "rows": writer.rows,
        "rows_sha256": writer.content.hexdigest(),
        "ids_sha256": writer.ids.hexdigest(),
        "counts": {"rows": writer.rows},
    }
    store.write_manifest(out, identity, started)
    return store.open_dataset(out)


def make(out: Path, largest: int = 19, copies: int = 8, right: float = 0.4, seed: int = 0) -> dict[str, store.Dataset]:
    """All four datasets, by name."""
    train, held_out = questions(largest, seed)
    config = {"largest": largest, "copies": copies, "right": right, "seed": seed}
    parts = {
        "sft": conversations(train, copies, right, seed),
        "prompts": prompts(train),
        "pairs": preferences(train, seed),
        "dev": prompts(held_out),
    }
    return {name: write(out / name, name, rows, config) for name, rows in parts.items()}


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("training.arithmetic", __doc__)
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the four dataset directories go")
    made.add_argument("--largest", type=int, default=19, help="the largest number that is added (default: 19)")
    made.add_argument("--copies", type=int, default=8, help="conversations for each question (default: 8)")
    made.add_argument("--right", type=float, default=0.4, help="share of right answers among them (default: 0.4)")
    made.add_argument("--seed", type=int, default=0)
    return made


def main(args: argparse.Namespace) -> int:
    """Write the datasets and say what there is."""
    made = make(args.out, args.largest, args.copies, args.right, args.seed)
    lines = [{"directory": str(d.path), "kind": d.manifest["identity"]["kind"], "rows": d.rows} for d in made.values()]
    cli.emit(lines) if args.json else print(cli.table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
