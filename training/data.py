"""A dataset directory as a trainer's columns, and a look at which tokens are learnt.

    python -m training.data out/tiny --show 3                       # green is learnt, grey is not
    python -m training.data out/tiny --show 3 --model out/sft --set loss_on=last --set max_length=512

Rows are tokenised here, once, so that what is shown is what is trained on. The tokens lie in an Arrow file that is read from the disk
while training; the next run with the same data, template and settings finds it. What was cut and what was dropped is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from columnar import cli, store
from columnar.config import override, parse
from columnar.errors import InputError
from columnar.filesystem import place
from training.columns import KINDS, MAKERS, SCHEMAS, Coder, Counts, View

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1
BATCH = 512
INSTEAD = {
    ("sft", "pair"): "train on it with training.reward or training.dpo",
    ("sft", "prompt"): "answer it first (python -m generation.respond), or train on it with training.rlvr",
    ("reward", "candidates"): "make pairs of it first: python -m generation.pairs",
    ("dpo", "candidates"): "make pairs of it first: python -m generation.pairs",
    ("reward", "sft"): "train on it with training.sft",
    ("dpo", "sft"): "train on it with training.sft",
}


NEEDED = {
    "sft": ("kind", "messages"),
    "pair": ("kind", "prompt", "chosen", "rejected"),
    "candidates": ("kind", "prompt", "candidates"),
    "prompt": ("kind", "prompt"),
}


@dataclass(frozen=True)
class Prepared:
    """Columns for a trainer, and what was counted on the way."""

    dataset: Dataset
    counts: Counts


def split_files(dataset: store.Dataset, split: str) -> list[Path]:
    """The row files of `validation`, or of `train`: all others."""
    return [f for f in dataset.row_files if f.name.startswith("validation-") == (split == "validation")]


def rows_of(dataset: store.Dataset, split: str) -> Iterator[list[dict[str, Any]]]:
    """The rows of a split, in batches."""
    for file in split_files(dataset, split):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=BATCH):
            yield batch.to_pylist()


def check_kind(dataset: store.Dataset, purpose: str) -> str:
    """The dataset's kind.

    Raises:
        InputError: rows of this kind cannot be trained on so, or a column is missing.
    """
    kind = dataset.manifest["identity"].get("kind")
    if kind not in KINDS[purpose]:
        hint = INSTEAD.get((purpose, str(kind)))
        raise InputError(f"{dataset.path}: its rows are of kind {kind!r}, expected {' or '.join(KINDS[purpose])}", hint)
    for file in dataset.row_files:
        missing = set(NEEDED[str(kind)]) - set(pq.read_schema(file).names)
        if missing:
            raise InputError(f"{file}: no column {', '.join(sorted(missing))}", "the dataset was changed by hand: build it again")
    return str(kind)


def prepare(
    dataset: store.Dataset,
    split: str,
    purpose: str,
    coder: Coder,
    cache: Path,
    limit: int | None = None,
    keep: set[str] | None = None,
) -> Prepared:
    """The columns of a split, from the cache or made now (in distributed runs: by the first process).

    Args:
        purpose: sft, reward, dpo or prompts.
        limit: read only so many rows (for estimates).
        keep: use only rows with these ids.

    Raises:
        InputError: rows of the wrong kind, an empty split, or nothing left of it.
    """
    from accelerate import PartialState
    from datasets import Dataset

    check_kind(dataset, purpose)
    chosen = sorted(keep) if keep is not None else None
    key = store.stage_key(f"tokens-{purpose}", VERSION, coder.key(), [dataset.content, split, limit, chosen])
    path = cache / f"{split}-{purpose}-{key}.arrow"
    with PartialState().main_process_first():
        if not path.with_suffix(".json").is_file():
            _write(dataset, split, purpose, coder, path, limit, keep)
    counts = Counts(**json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
    if split == "train" and not counts.kept:
        raise InputError(f"{dataset.path}: nothing to train on", counts.line(split) if counts.rows else "the dataset is empty")
    return Prepared(Dataset.from_file(str(path)), counts)


def _write(dataset: store.Dataset, split: str, purpose: str, coder: Coder, path: Path, limit: int | None, keep: set[str] | None) -> None:
    counts, dropped = Counts(), Counter[str]()
    make = MAKERS[purpose]
    total = dataset.rows if limit is None else limit
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(store.whole_file(path))
        sink = stack.enter_context(pa.OSFile(str(temporary), "wb"))
        writer = stack.enter_context(pa.ipc.new_stream(sink, SCHEMAS[purpose]))
        bar = stack.enter_context(cli.Progress(f"tokens of {split}", total=total))
        for rows in rows_of(dataset, split):
            if limit is not None and counts.rows >= limit:
                break
            if keep is not None:
                rows = [row for row in rows if row["id"] in keep]
            rows = rows[: None if limit is None else max(0, limit - counts.rows)]
            made = make(rows, coder, counts, dropped) if rows else []
            counts.rows += len(rows)
            counts.kept += len(made)
            if made:
                writer.write_batch(pa.RecordBatch.from_pylist(made, SCHEMAS[purpose]))
            bar.add(len(rows))
    counts.dropped = {reason: n for reason, n in sorted(dropped.items()) if n}
    store.write_json(path.with_suffix(".json"), asdict(counts))


def tokenizer_for(dataset: store.Dataset, model: str | None) -> Any:
    """The model's tokenizer; without a model, one trained on the dataset itself."""
    from training import tiny
    from training.template import load_tokenizer

    return load_tokenizer(model) if model else tiny.make_tokenizer(tiny.texts(dataset), tiny.SIZES["tiny"].vocabulary)


COLOURS = {"plain": "\x1b[90m", "learnt": "\x1b[32m", "rejected": "\x1b[31m"}
MARKS = {"plain": ("", ""), "learnt": ("⟦", "⟧"), "rejected": ("⟦-", "⟧")}


def parts_of(line: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """A row's token columns as runs of (plain, learnt or rejected; tokens)."""
    if "labels" in line:
        runs: list[tuple[str, list[int]]] = []
        for token, label in zip(line["input_ids"], line["labels"], strict=True):
            name = "learnt" if label != -100 else "plain"
            if not runs or runs[-1][0] != name:
                runs.append((name, []))
            runs[-1][1].append(token)
        return runs
    prompt = [("plain", line["prompt_ids"])] if "prompt_ids" in line else []
    return [*prompt, ("learnt", line["chosen_ids"]), ("rejected", line["rejected_ids"])]


def render(line: dict[str, Any], tokenizer: Any, colour: bool) -> str:
    """One row as a trainer sees it: what is learnt is green (or in ⟦ ⟧), a rejected answer red (or in ⟦- ⟧)."""
    if "prompt" in line:
        said = "\n".join(f"{m['role']}: {m['content']}" for m in line["prompt"])
        return _safe(f"{said}\n[verifier {line['verifier']}, ground truth {line['ground_truth']}]")
    out = []
    for name, ids in parts_of(line):
        text = _safe(tokenizer.decode(ids))
        before, after = MARKS[name]
        out.append(f"{COLOURS[name]}{text}\x1b[0m" if colour else f"{before}{text}{after}")
    return "".join(out)


def _safe(text: str) -> str:
    return "\n".join(cli.printable(line) for line in text.split("\n"))


def main(args: argparse.Namespace) -> int:
    """Count a split and show some of its rows."""
    from tempfile import TemporaryDirectory

    from training.run import quiet

    quiet()
    dataset = store.open_dataset(args.directory)
    purpose = args.purpose or {"sft": "sft", "candidates": "sft", "pair": "dpo"}.get(dataset.manifest["identity"].get("kind"), "prompts")
    view = parse(View, override({}, args.settings), "--set")
    coder, notes = Coder.of(tokenizer_for(dataset, args.model), view)
    with TemporaryDirectory() as cache:
        made = prepare(dataset, args.split, purpose, coder, Path(cache))
        lines = [made.dataset[i] for i in range(min(args.show, len(made.dataset)))]
    if args.json:
        cli.emit({"purpose": purpose, "split": args.split, **asdict(made.counts), "rows_shown": lines})
        return 0
    colour = sys.stdout.isatty() if args.colour == "auto" else args.colour == "always"
    for number, line in enumerate(lines):
        print(f"--- {number + 1}\n{render(line, coder.tokenizer, colour)}")
    for note in notes:
        cli.say(note)
    cli.say(made.counts.line(args.split))
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("training.data", __doc__)
    made.add_argument("directory", type=place, help="a dataset directory")
    made.add_argument("--show", type=int, default=3, metavar="N", help="so many rows (default: 3)")
    made.add_argument("--model", help="whose tokenizer and template (default: a tokenizer trained on the directory)")
    made.add_argument("--split", default="train", choices=["train", "validation"], help="default: train")
    made.add_argument("--purpose", choices=list(KINDS), help="default: what the rows are for")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="template, loss_on, max_length, ...")
    made.add_argument("--colour", choices=["auto", "always", "never"], default="auto", help="default: on a terminal")
    return made


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
