"""Which row goes where: one narrow table over all sources, in which every row gets exactly one fate. Touches no text.

In: loaded sources with their sidecars. Out: a frame of `DECISIONS` columns, one line a row. Order of judgement: rules, flags, exact
duplicates, near duplicates, contamination, and only then the draw, so that the amounts asked for are the amounts delivered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from columnar.errors import CaravanError
from columnar.store import Dataset
from columnar.view import connect
from curation.mix import MixConfig, MixSource, draw, split_validation
from curation.rules import judge, rules_for

# Fates: a row is kept (reason null, split set) or dropped (stage, reason, detail).
DECISIONS = {
    "source": pl.UInt16,  # number of the source in name order
    "row": pl.UInt32,  # position in the source's dataset
    "id": pl.UInt64,
    "prompt": pl.UInt64,  # first half of prompt_hash
    "n_chars": pl.UInt32,
    "n_tokens": pl.UInt32,
    "n_turns": pl.UInt32,
    "stage": pl.String,
    "reason": pl.String,
    "detail": pl.String,
    "split": pl.String,
    "copies": pl.UInt16,
}


@dataclass(frozen=True)
class Loaded:
    """One source, loaded and annotated."""

    config: MixSource
    order: int  # position in the config's list: what `keep: source_order` goes by
    dataset: Dataset
    key: str

    @property
    def name(self) -> str:
        """The source's name."""
        return self.config.name


def judge_sources(config: MixConfig, sources: list[Loaded]) -> pl.DataFrame:
    """Every row of every source with the verdict of the rules; `key` and `score` ride along for the duplicate search."""
    by = config.dedup.by if config.dedup else "row"
    score = (config.dedup.score if config.dedup else None) or ("chosen_score" if config.kind == "pair" else "NULL::DOUBLE")
    frames = []
    for number, source in enumerate(sources):
        rules = rules_for(config, source.config)
        connection = connect([source.dataset.path])
        try:
            columns = f"id AS hex, hash, prompt_hash, n_chars, n_tokens, n_turns, {score} AS score"
            frame = judge(connection, config.kind, rules, columns, source.name)
        finally:
            connection.close()
        if len(frame) != source.dataset.rows:
            raise CaravanError(f"{source.name}: {len(frame)} rows judged of {source.dataset.rows}: please report this")
        names = pl.DataFrame(
            {"rule": range(len(rules)), "stage": [r.stage for r in rules], "reason": [r.reason for r in rules]},
            schema={"rule": pl.Int32, "stage": pl.String, "reason": pl.String},
        )
        frame = frame.with_columns(
            source=pl.lit(number, pl.UInt16),
            row=pl.int_range(pl.len(), dtype=pl.UInt32),
            id=pl.col("hex").str.to_integer(base=16, dtype=pl.UInt64),
            prompt=pl.col("prompt_hash").str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64),
            key=pl.col("hash" if by == "row" else "prompt_hash").str.to_integer(base=16, dtype=pl.UInt128),
            score=pl.col("score").cast(pl.Float64),
            rule=pl.col("rule").cast(pl.Int32),
            detail=pl.col("detail").cast(pl.String),
            copies=pl.lit(source.config.repeat, pl.UInt16),
            split=pl.lit(None, pl.String),
        )
        frames.append(frame.join(names, on="rule", how="left", maintain_order="left").drop("rule", "hash", "prompt_hash", "hex"))
    return pl.concat(frames)


def drop(rows: pl.DataFrame, hits: pl.DataFrame) -> pl.DataFrame:
    """Give rows that still stand the fate in `hits` (id, stage, reason, detail); a row keeps its first reason."""
    joined = rows.join(hits.rename({c: f"new_{c}" for c in ("stage", "reason", "detail")}), on="id", how="left", maintain_order="left")
    first = pl.col("reason").is_null()
    return joined.with_columns(
        **{c: pl.when(first).then(f"new_{c}").otherwise(c) for c in ("stage", "reason", "detail")},
    ).drop("new_stage", "new_reason", "new_detail")


def flagged(rows: pl.DataFrame, flags: list[dict[str, Any]], exclude: tuple[str, ...]) -> pl.DataFrame:
    """Drop rows that carry one of the flags the mix excludes. A flag on a repeated copy counts for its row."""
    notes = {f["id"]: f"{f['flag']}: {f['note']}" if f.get("note") else str(f["flag"]) for f in flags if f["flag"] in exclude}
    if not notes:
        return rows
    found = {hex_id: note for hex_id, note in notes.items() if re.fullmatch("[0-9a-f]{16}", hex_id)}
    repeated = rows.filter(pl.col("copies") > 1)
    for number, copies in zip(repeated["id"], repeated["copies"], strict=True):
        hex_id = f"{number:016x}"
        for copy in range(1, copies):
            note = found.get(copy_id(hex_id, copy))
            if note:
                found[hex_id] = note
    hits = pl.DataFrame(
        {"id": [int(i, 16) for i in found], "stage": "flags", "reason": "flagged", "detail": list(found.values())},
        schema={"id": pl.UInt64, "stage": pl.String, "reason": pl.String, "detail": pl.String},
    )
    return drop(rows, hits)


def copy_id(hex_id: str, copy: int) -> str:
    """The id of a repeated copy (copy 0 is the row itself)."""
    from columnar.record import row_id

    return row_id("copy", hex_id, copy) if copy else hex_id


def contaminated(rows: pl.DataFrame, verdicts: list[Path]) -> pl.DataFrame:
    """Drop the rows that the decontamination stage says are to be dropped; `verdicts` has the sidecar of each source."""
    for path in verdicts:
        hits = (
            pl.scan_parquet(path)
            .filter(pl.col("verdict") == "drop")
            .select(
                id=pl.col("id").str.to_integer(base=16, dtype=pl.UInt64),
                stage=pl.lit("decontam"),
                reason=pl.lit("contaminated"),
                detail=pl.col("reason"),
            )
        )
        rows = drop(rows, hits.collect())
    return rows


def draw_rows(config: MixConfig, sources: list[Loaded], rows: pl.DataFrame) -> pl.DataFrame:
    """Take from each source what the config asks for, and split off validation. Rows not drawn get the reason `sampled_out`.

    Raises:
        ConfigError: a source has fewer rows than asked for.
    """
    parts = []
    for number, source in enumerate(sources):
        mine = rows.filter(pl.col("source") == number)
        eligible = mine.filter(pl.col("reason").is_null())
        taken = draw(source.config, eligible["id"].to_numpy(), eligible["n_tokens"].fill_null(0).to_numpy(), config.seed)
        out = eligible.filter(~pl.Series(taken, dtype=pl.Boolean))
        why = "over_cap" if source.config.amount.startswith("all") else "sampled_out"
        detail = f"not among the {int(taken.sum()):,} of {len(eligible):,} drawn ({source.config.amount})"
        parts.append(drop(mine, out.select("id", stage=pl.lit("sample"), reason=pl.lit(why), detail=pl.lit(detail))))
    rows = pl.concat(parts)
    kept = rows.filter(pl.col("reason").is_null())
    held_out = split_validation(kept["prompt"].to_numpy(), config.validation, config.seed)
    split = kept.select(
        "id", new_split=pl.when(pl.Series(held_out, dtype=pl.Boolean)).then(pl.lit("validation")).otherwise(pl.lit("train"))
    )
    rows = rows.join(split, on="id", how="left", maintain_order="left").with_columns(split="new_split").drop("new_split")
    once = pl.when(pl.col("split") == "validation").then(1).otherwise("copies").cast(pl.UInt16)  # a held-out row is measured once
    return rows.with_columns(copies=once).select(list(DECISIONS)).cast(DECISIONS)  # type: ignore[arg-type]


def cached_path(cache: Path, stage: str, name: str, key: str) -> Path:
    """Where a stage's dataset lies in the cache: readable name, exact key."""
    return cache / stage / f"{name}-{key}"
