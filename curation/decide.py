"""Which row goes where: over all rows of all sources, every row gets exactly one fate. Touches no text.

In: loaded sources with their sidecars. Out: `Decisions`. Order of judgement: rules, flags, exact duplicates, near duplicates,
contamination, and only then the draw, so that the amounts asked for are the amounts delivered. Two bytes a row are in memory (its fate
and its split); ids, keys and counts lie on disk and are looked at a piece at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from columnar.errors import CaravanError, ConfigError
from columnar.record import row_id
from columnar.store import Dataset, read_batches
from columnar.view import connect
from curation import shelf
from curation.mix import Amounts, MixConfig, MixSource, draw, validation_cut
from curation.narrow import Narrow, exact_key, hexadecimal, spans
from curation.rules import Rule, judge, rules_for

MEMORY = "600MB"  # what DuckDB may hold while rules are judged; beyond that it spills to disk
TRAIN, VALIDATION = 1, 2
COUNTS = ("n_chars", "n_tokens", "n_turns")
SPLITS = {TRAIN: "train", VALIDATION: "validation"}
FLAGGED = Rule("flags", "flagged", "", "")
CONTAMINATED = Rule("decontam", "contaminated", "", "")
EXACT = Rule("dedup", "exact_duplicate", "", "")
NEAR = Rule("dedup", "near_duplicate", "", "")
SEMANTIC = Rule("dedup", "semantic_duplicate", "", "")
SAMPLED_OUT = Rule("sample", "sampled_out", "", "")
OVER_CAP = Rule("sample", "over_cap", "", "")


class Loaded(NamedTuple):
    """One source, loaded and annotated."""

    config: MixSource
    order: int  # position in the config's list: what `keep: source_order` goes by
    dataset: Dataset
    key: str

    @property
    def name(self) -> str:
        """The source's name."""
        return self.config.name


@dataclass
class Decisions:
    """The fate of every row; line i is row `i - starts[s]` of source s, sources in name order."""

    rows: Narrow  # id, prompt (half of prompt_hash), high and low (of the key of exact duplicates), merit, n_chars, n_tokens, n_turns
    starts: list[int]  # first line of each source, and the number of lines at the end
    repeat: list[int]  # of each source
    fate: npt.NDArray[np.uint8]  # 0 while the row stands, else a number of `fates`
    split: npt.NDArray[np.uint8]  # 0 until it is drawn
    fates: list[Rule | None] = field(default_factory=lambda: [None])
    details: dict[int, str] = field(default_factory=dict)  # line -> detail, where it cannot be told from the row itself

    def lines(self, source: int) -> slice:
        """The lines of a source."""
        return slice(self.starts[source], self.starts[source + 1])

    def parts(self, source: int) -> Iterator[slice]:
        """The lines of a source, a piece at a time."""
        return spans(self.starts[source], self.starts[source + 1])

    def number(self, rule: Rule) -> int:
        """The number of a fate, new if need be."""
        if rule not in self.fates:
            self.fates.append(rule)
        return self.fates.index(rule)

    def give(self, lines: npt.NDArray[np.int64], rule: Rule) -> None:
        """Drop these rows for this reason; a row keeps its first."""
        standing = lines[self.fate[lines] == 0]
        self.fate[standing] = self.number(rule)

    def times(self, source: int, part: slice) -> npt.NDArray[np.int64]:
        """How often each of these lines of a source appears in the mix: a row that is held out is measured once, whatever `repeat` says."""
        split = self.split[part]
        return np.where(split == TRAIN, self.repeat[source], (split == VALIDATION).astype(np.int64))

    def output(self, source: int, part: slice) -> Output:
        """The rows that these lines of a source put into the mix, in line order."""
        times = self.times(source, part)
        own = np.repeat(np.arange(len(times)), times)
        copy = np.arange(len(own)) - np.repeat(np.cumsum(times) - times, times)
        ids = self.rows.read("id", part)[own]
        again = np.flatnonzero(copy)
        ids[again] = [int(copy_id(f"{i:016x}", c), 16) for i, c in zip(ids[again].tolist(), copy[again].tolist(), strict=True)]
        return Output(own + part.start, copy, ids, self.split[part][own])


class Output(NamedTuple):
    """Rows of the mix: the line each comes from, the number of its copy (0: the row itself), its id and its split."""

    line: npt.NDArray[np.int64]
    copy: npt.NDArray[np.int64]
    id: npt.NDArray[np.uint64]
    split: npt.NDArray[np.uint8]


def judge_sources(config: MixConfig, sources: list[Loaded]) -> Decisions:
    """Every row of every source with the verdict of the rules.

    Raises:
        ConfigError: a rule that is not SQL over the columns there are.
    """
    starts = [0, *np.cumsum([source.dataset.rows for source in sources]).tolist()]
    zeros = np.zeros(starts[-1], np.uint8)
    decisions = Decisions(Narrow(), starts, [source.config.repeat for source in sources], zeros, zeros.copy())
    for number, source in enumerate(sources):
        lines = decisions.lines(number)
        apart = CaravanError(f"{source.name}: its rows and its columns are out of step", f"delete {source.dataset.path} and run again")
        read = 0
        for batch in read_batches(source.dataset, ["id", "hash", "prompt_hash"]):
            decisions.rows.append(**_keys(config, batch))
            read += batch.num_rows
        rules = rules_for(config, source.config)
        fates = np.array([decisions.number(rule) for rule in rules], np.uint8)
        line = lines.start
        connection = connect([source.dataset.path], memory=MEMORY)
        try:
            columns = f"('0x' || id)::UBIGINT AS id, n_chars, n_tokens, n_turns, {_merit(config)} AS merit"
            for judged in judge(connection, config.kind, rules, columns, source.name):
                mine = slice(line, line + len(judged))
                if mine.stop > lines.start + read or not np.array_equal(judged["id"].to_numpy(), decisions.rows.read("id", mine)):
                    raise apart
                counts = {name: judged[name].fill_null(0).cast(pl.UInt32).to_numpy() for name in COUNTS}
                merit = judged["merit"].cast(pl.Float64).fill_nan(None).fill_null(-np.inf).to_numpy()
                decisions.rows.append(**counts, merit=merit)
                rule = judged["rule"].to_numpy()
                decisions.fate[mine][rule >= 0] = fates[rule[rule >= 0]]
                line = mine.stop
        finally:
            connection.close()
        if not read == line - lines.start == source.dataset.rows:
            raise apart
    _refuse_same_ids(decisions, sources)
    return decisions


def _refuse_same_ids(decisions: Decisions, sources: list[Loaded]) -> None:
    total = decisions.starts[-1]
    pieces = ((decisions.rows.read("id", part), np.arange(part.start, part.stop)) for part in spans(0, total))
    lines = shelf.sharing(pieces, total)
    ids = decisions.rows.take("id", lines) if len(lines) else np.zeros(0, np.uint64)
    known, counts = np.unique(ids, return_counts=True)
    if not (counts > 1).any():
        return
    lines = lines[np.isin(ids, known[counts > 1])]
    number = int(decisions.rows.take("id", lines[:1])[0])
    places = decisions.rows.take("id", lines) == number
    names = sorted({sources[int(s)].name for s in np.searchsorted(decisions.starts, lines[places], side="right") - 1})
    raise ConfigError(
        f"sources {' and '.join(names)}: {len(lines):,} rows have an id in common, the first is {number:016x}",
        "the same dataset directory is read twice; to take rows more often, use repeat",
    )


def _keys(config: MixConfig, batch: pa.RecordBatch) -> dict[str, npt.NDArray[np.uint64]]:
    frame = pl.DataFrame(pl.from_arrow(batch))
    keys = {"id": hexadecimal(frame["id"]), "prompt": hexadecimal(frame["prompt_hash"].str.slice(0, 16))}
    return {**keys, **exact_key(frame["prompt_hash" if config.dedup and config.dedup.by == "prompt" else "hash"])}


def _merit(config: MixConfig) -> str:
    """What the kept one of duplicates has most of."""
    keep = config.dedup.keep if config.dedup else "first"
    if config.dedup and keep == "highest_score":
        return config.dedup.score or ("chosen_score" if config.kind == "pair" else "NULL::DOUBLE")
    return "n_chars" if keep == "longest" else "NULL::DOUBLE"


def drop_flagged(decisions: Decisions, sources: list[Loaded], flags: list[dict[str, Any]], exclude: tuple[str, ...]) -> None:
    """Drop rows that carry one of the flags the mix excludes. A flag on a repeated copy counts for its row."""
    notes = {
        int(f["id"], 16): f"{f['flag']}: {f['note']}" if f.get("note") else str(f["flag"])
        for f in flags
        if f["flag"] in exclude and re.fullmatch("[0-9a-f]{16}", f["id"])
    }
    if not notes:
        return
    wanted = np.array(sorted(notes), np.uint64)
    for number, repeat in enumerate(decisions.repeat):
        for part in decisions.parts(number):
            ids = decisions.rows.read("id", part)
            told = {i: notes[int(ids[i])] for i in np.flatnonzero(np.isin(ids, wanted)).tolist()}
            for i, own in enumerate(ids.tolist() if repeat > 1 else ()):
                for copy in range(1, repeat):
                    note = notes.get(int(copy_id(f"{own:016x}", copy), 16))
                    if note:
                        told[i] = note
            lines = part.start + np.array(sorted(told), np.int64)
            decisions.details.update({line: told[line - part.start] for line in lines.tolist() if decisions.fate[line] == 0})
            decisions.give(lines, FLAGGED)


def copy_id(hex_id: str, copy: int) -> str:
    """The id of a repeated copy (copy 0 is the row itself)."""
    return row_id("copy", hex_id, copy) if copy else hex_id


def drop_contaminated(decisions: Decisions, verdicts: list[Path]) -> None:
    """Drop the rows that the decontamination stage says are to be dropped; `verdicts` has the sidecar of each source."""
    for number, path in enumerate(verdicts):
        line = decisions.starts[number]
        for batch in pq.ParquetFile(path).iter_batches(columns=["verdict"]):
            drop = np.flatnonzero(pc.equal(batch.column(0), "drop").fill_null(False).to_numpy(zero_copy_only=False))
            decisions.give(drop + line, CONTAMINATED)
            line += batch.num_rows


def draw_rows(config: MixConfig, sources: list[Loaded], decisions: Decisions) -> None:
    """Take from each source what the config asks for, and split off validation. Rows not drawn get the fate `sampled_out`.

    Raises:
        ConfigError: a source has fewer rows than asked for.
    """
    for number, source in enumerate(sources):
        drawn = draw(source.config, partial(_eligible, decisions, number), config.seed)
        left_out = OVER_CAP if source.config.amount.startswith("all") else SAMPLED_OUT
        for part in decisions.parts(number):
            lines = part.start + np.flatnonzero(decisions.fate[part] == 0)
            decisions.give(lines[~drawn.takes(decisions.rows.read("id", part)[lines - part.start])], left_out)
    held_out = validation_cut(config.validation, partial(_prompts, decisions), config.seed)
    for part in spans(0, decisions.starts[-1]):
        taken = held_out.takes(decisions.rows.read("prompt", part))
        decisions.split[part] = np.where(decisions.fate[part] != 0, 0, np.where(taken, VALIDATION, TRAIN))


def _eligible(decisions: Decisions, source: int) -> Iterator[Amounts]:
    """Ids and tokens of a source's rows that stand."""
    for part in decisions.parts(source):
        standing = decisions.fate[part] == 0
        yield decisions.rows.read("id", part)[standing], decisions.rows.read("n_tokens", part)[standing]


def _prompts(decisions: Decisions) -> Iterator[npt.NDArray[np.uint64]]:
    """Prompts of all rows that stand."""
    for part in spans(0, decisions.starts[-1]):
        yield decisions.rows.read("prompt", part)[decisions.fate[part] == 0]


def cached_path(cache: Path, stage: str, name: str, key: str) -> Path:
    """Where a stage's dataset lies in the cache: readable name (whatever characters the source's has), exact key."""
    return cache / stage / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:80]}-{key}"
