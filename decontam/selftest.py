"""How much does the scan find? Items of your own benchmarks are hidden in rows, edited in known ways, and looked for.

    python -m decontam.selftest --benchmarks my.yaml                             # recall of every preset
    python -m decontam.selftest --benchmarks tulu3 --preset caravan --clean a.jsonl out/b    # and false flags on your clean data

Recall counts an item as found when the row is flagged for this very item. The items are a fixed sample of each benchmark (--items).
"1 word in 20" replaces every 20th word, from a random one on, by a word from elsewhere in the benchmark: shorter items may stay
whole. For clean sources the flags are split: a whole item found word for word is text that is there, the rest may be chance.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar import cli
from decontam.rules import PRESETS, DecontamConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from columnar.store import Dataset
    from decontam.benchmarks import Benchmark
    from decontam.index import Index

Edit = Callable[[str, random.Random, list[str]], str]

BEFORE = "Thank you for the help so far. Here is the next thing that I have been thinking about since the weekend.\n\n"
AFTER = "\n\nPlease take your time, and tell me when something is not clear to you."
TYPOGRAPHY = str.maketrans({" ": "\u00a0", "'": "’", '"': "”", "-": "–", "?": "？", "!": "！", ",": "，", ":": "："})


def replace_words(every: int) -> Edit:
    """An edit that replaces one word in `every`."""

    def edit(text: str, dice: random.Random, words: list[str]) -> str:
        parts = re.split(r"(\s+)", text)  # words at even places
        first = dice.randrange(every)
        for place in range(2 * first, len(parts), 2 * every):
            parts[place] = dice.choice(words)
        return "".join(parts)

    return edit


def half(text: str, second: bool) -> str:
    """The first or second half of the words."""
    words = text.split()
    middle = (len(words) + 1) // 2
    return " ".join(words[middle:] if second else words[:middle])


EDITS: dict[str, Edit] = {
    "verbatim": lambda text, dice, words: text,
    "case, punctuation": lambda text, dice, words: re.sub(r"[^\w\s]", " ", text).upper(),
    "unicode": lambda text, dice, words: text.translate(TYPOGRAPHY),
    "rewrapped": lambda text, dice, words: textwrap.fill(text, 40, initial_indent="> ", subsequent_indent="  "),
    "embedded": lambda text, dice, words: BEFORE + text + AFTER,
    "1 word in 20": replace_words(20),
    "1 word in 10": replace_words(10),
    "embedded, 1 in 10": lambda text, dice, words: BEFORE + replace_words(10)(text, dice, words) + AFTER,
    "first half": lambda text, dice, words: half(text, False),
    "second half": lambda text, dice, words: half(text, True),
}
VERBATIM_FAMILY = ("verbatim", "case, punctuation", "unicode", "rewrapped", "embedded")


def recall(index: Index, sample: int = 150, seed: int = 0) -> list[dict[str, Any]]:
    """One line a benchmark: the share of sampled items found, for each edit; and how many items cannot be seen at all."""
    lines = []
    for b, benchmark in enumerate(index.benchmarks):
        dice = random.Random(f"{seed} {benchmark.name}")
        texts = {i: text for i in range(len(benchmark.ids)) if (text := injected(benchmark, i)).strip()}
        chosen = sorted(dice.sample(sorted(texts), min(sample, len(texts))))
        words = " ".join(texts[i] for i in chosen).split() or ["word"]
        line: dict[str, Any] = {"benchmark": benchmark.name, "items": len(benchmark.ids), "unseeable": index.seen[b].unseeable}
        line["sample"] = len(chosen)
        for name, edit in EDITS.items():
            found = found_items(index, benchmark, [edit(texts[i], dice, words) for i in chosen])
            line[name] = sum(benchmark.ids[i] in ids for i, ids in zip(chosen, found, strict=True)) / max(len(chosen), 1)
        lines.append(line)
    return lines


def injected(benchmark: Benchmark, item: int) -> str:
    """What of an item is hidden in a row: its first deciding field that has text, or all of them where all decide."""
    fields = [text for text, decides in zip(benchmark.texts[item], benchmark.deciding, strict=True) if decides and text.strip()]
    return "\n\n".join(fields if benchmark.spec.decide == "all" else fields[:1])


def found_items(index: Index, benchmark: Benchmark, texts: list[str]) -> list[set[str]]:
    """For each text, as the user turn of a row: the items of the benchmark that the scan finds in it."""
    from decontam.found import scan_batch

    _, hits = scan_batch(rows_of(texts), index)
    found: list[set[str]] = [set() for _ in texts]
    for row, name, item in zip(*(hits.column(c).to_pylist() for c in ("id", "benchmark", "item_id")), strict=True):
        if name == benchmark.name:
            found[int(row)].add(item)
    return found


def rows_of(texts: list[str]) -> pa.RecordBatch:
    """Rows of kind sft with these user turns; the ids are their numbers."""
    from columnar.record import to_batch

    answer = {"role": "assistant", "content": "Certainly."}
    return to_batch([{"id": str(i), "kind": "sft", "messages": [{"role": "user", "content": t}, answer]} for i, t in enumerate(texts)])


def mean_recall(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Share of all sampled items, over all benchmarks."""
    total = sum(line["sample"] for line in lines)
    return {name: sum(line[name] * line["sample"] for line in lines) / max(total, 1) for name in EDITS}


def flags(index: Index, datasets: list[Dataset], wanted: DecontamConfig) -> list[dict[str, Any]]:
    """One line a source: rows, rows flagged, and those of them where no item stands word for word."""
    import pyarrow.compute as pc

    from decontam.found import scan_batch
    from decontam.match import scratch_for
    from decontam.pieces import over_pieces, read_piece

    scratch = scratch_for(index.table)
    counts: dict[str, list[int]] = {}
    for piece, made in over_pieces(
        [file for dataset in datasets for file in dataset.row_files],
        lambda piece: [
            (b, *scan_batch(b, index, wanted.policy, wanted.fields, scratch)) for b in read_piece(piece, ["id", "source", *wanted.fields])
        ],
        threads=1,
    ):
        del piece
        for batch, columns, hits in made:
            whole = set(hits.filter(pc.greater_equal(hits.column("coverage_item"), 1.0)).column("id").to_pylist())
            rows = zip(
                batch.column("id").to_pylist(), batch.column("source").to_pylist(), columns.column("contaminated").to_pylist(), strict=True
            )
            for ident, source, flagged in rows:
                count = counts.setdefault(source, [0, 0, 0])
                count[0] += 1
                count[1] += flagged
                count[2] += flagged and ident not in whole
    return [
        {"source": s, "rows": n, "flagged": f, "flagged %": 100 * f / n, "not word for word": p, "not word for word %": 100 * p / n}
        for s, (n, f, p) in sorted(counts.items())
    ]


def selftest(wanted: DecontamConfig, presets: list[str], clean: list[Dataset], sample: int, seed: int) -> dict[str, Any]:
    """Recall and flags of each preset."""
    from decontam.benchmarks import load_benchmarks
    from decontam.common import without_common
    from decontam.index import build_index

    benchmarks = load_benchmarks(wanted.benchmarks, wanted.root)
    result: dict[str, Any] = {}
    for preset in presets:
        index = build_index(benchmarks, (config := wanted.model_copy(update={"preset": preset})).rule())
        if index.rule.common:
            index, _ = without_common(index, clean, wanted.fields, 1)
        lines = recall(index, sample, seed)
        result[preset] = {"recall": mean_recall(lines), "benchmarks": lines, "flags": flags(index, clean, config) if clean else []}
    return result


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    made = cli.parser("decontam.selftest", __doc__)
    made.add_argument("--benchmarks", action="append", required=True, help="names or suites, a YAML file, a folder; may be repeated")
    made.add_argument("--root", help="where relative sources of the YAML start")
    made.add_argument("--preset", action="append", choices=list(PRESETS), help="may be repeated (default: all)")
    made.add_argument("--clean", nargs="*", default=[], help="dataset directories or files of yours that should hold no benchmark")
    made.add_argument("--items", type=int, default=150, help="items of each benchmark to hide (default: 150)")
    made.add_argument("--seed", type=int, default=0)
    return cli.run(_command, made, argv)


def _command(args: argparse.Namespace) -> int:
    from decontam.scan import open_input

    wanted = DecontamConfig(benchmarks=args.benchmarks, root=args.root)
    with tempfile.TemporaryDirectory() as folder:
        clean = [open_input(given, Path(folder) / str(i)) for i, given in enumerate(args.clean)]
        result = selftest(wanted, args.preset or list(PRESETS), clean, args.items, args.seed)
    if args.json:
        cli.emit(result)
    else:
        print(tables(result))
    return 0


def tables(result: dict[str, Any]) -> str:
    """The result for the terminal: all presets, then each benchmark and source under each preset."""

    def percent(line: dict[str, Any]) -> dict[str, Any]:
        return {k: round(100 * v, 1) if k in EDITS else v for k, v in line.items()}

    out = ["recall, %, all sampled items", cli.table([percent({"preset": name, **each["recall"]}) for name, each in result.items()])]
    for name, each in result.items():
        out += ["", f"recall by benchmark, %, preset {name}", cli.table([percent(line) for line in each["benchmarks"]])]
        if each["flags"]:
            out += ["", f"flags on clean sources, preset {name}", cli.table(each["flags"])]
    return "\n".join(out)


if __name__ == "__main__":
    sys.exit(main())
