"""Which row goes where: narrow arrays over all rows of all sources, in which every row gets exactly one fate. Touches no text.

In: loaded sources with their sidecars. Out: `Decisions`. Order of judgement: rules, flags, exact duplicates, near duplicates,
contamination, and only then the draw, so that the amounts asked for are the amounts delivered. About 60 bytes a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.compute as pc
import pyarrow.parquet as pq

from columnar.errors import CaravanError, ConfigError
from columnar.record import row_id
from columnar.store import Dataset, read_batches
from columnar.view import connect
from curation.mix import MixConfig, MixSource, draw, split_validation
from curation.rules import Rule, judge, rules_for

MEMORY = "600MB"  # what DuckDB may hold while rules are judged; beyond that it spills to disk
TRAIN, VALIDATION = 1, 2
SPLITS = {TRAIN: "train", VALIDATION: "validation"}
ROWS = {
    "id": pl.UInt64,
    "prompt": pl.UInt64,  # first half of prompt_hash
    "key": pl.UInt128,  # what makes exact duplicates: hash or prompt_hash; gone after the search for them
    "n_chars": pl.UInt32,
    "n_tokens": pl.UInt32,
    "n_turns": pl.UInt32,
    "score": pl.Float32,  # for keep: highest_score
}
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

    rows: pl.DataFrame  # ROWS
    starts: list[int]  # first line of each source, and the number of lines at the end
    fate: npt.NDArray[np.uint8]  # 0 while the row stands, else a number of `fates`
    split: npt.NDArray[np.uint8]  # 0 until it is drawn
    fates: list[Rule | None] = field(default_factory=lambda: [None])
    details: dict[int, str] = field(default_factory=dict)  # line -> detail, where it cannot be told from the row itself

    def lines(self, source: int) -> slice:
        """The lines of a source."""
        return slice(self.starts[source], self.starts[source + 1])

    def number(self, rule: Rule) -> int:
        """The number of a fate, new if need be."""
        if rule not in self.fates:
            self.fates.append(rule)
        return self.fates.index(rule)

    def give(self, lines: npt.NDArray[np.int64], rule: Rule) -> None:
        """Drop these rows for this reason; a row keeps its first."""
        standing = lines[self.fate[lines] == 0]
        self.fate[standing] = self.number(rule)

    @property
    def standing(self) -> npt.NDArray[np.int64]:
        """The lines that no rule has dropped."""
        return np.flatnonzero(self.fate == 0)

    def copies(self, sources: list[Loaded]) -> npt.NDArray[np.int64]:
        """How often each line appears in the mix: a row that is held out is measured once, whatever `repeat` says."""
        repeat = np.repeat([s.config.repeat for s in sources], np.diff(self.starts))
        return np.where(self.split == TRAIN, repeat, (self.split == VALIDATION).astype(np.int64))


def judge_sources(config: MixConfig, sources: list[Loaded]) -> Decisions:
    """Every row of every source with the verdict of the rules.

    Raises:
        ConfigError: a rule that is not SQL over the columns there are.
    """
    starts = [0, *np.cumsum([source.dataset.rows for source in sources]).tolist()]
    zeros = np.zeros(starts[-1], np.uint8)
    decisions = Decisions(pl.DataFrame(), starts, zeros, zeros.copy())
    frames = []
    for number, source in enumerate(sources):
        rules = rules_for(config, source.config)
        keys = pl.concat([*_keys(config, source.dataset), pl.DataFrame(schema={c: ROWS[c] for c in ("id", "prompt", "key")})])
        connection = connect([source.dataset.path], memory=MEMORY)
        try:
            columns = f"('0x' || id)::UBIGINT AS id, n_chars, n_tokens, n_turns, {_score(config)} AS score"
            judged = judge(connection, config.kind, rules, columns, source.name)
        finally:
            connection.close()
        if not judged["id"].equals(keys["id"]):
            raise CaravanError(f"{source.name}: its rows and its columns are out of step", f"delete {source.dataset.path} and run again")
        fates = np.array([decisions.number(rule) for rule in rules], np.uint8)
        rule = judged["rule"].to_numpy()
        mine = decisions.fate[decisions.lines(number)]
        mine[rule >= 0] = fates[rule[rule >= 0]]
        frames.append(pl.concat([keys, judged.drop("id", "rule")], how="horizontal").cast(ROWS))  # type: ignore[arg-type]
    decisions.rows = pl.DataFrame([_joined(frames, name) for name in ROWS])
    _refuse_same_ids(decisions, sources)
    return decisions


def _joined(frames: list[pl.DataFrame], name: str) -> pl.Series:
    """A column of all frames in one piece, taken out of them: there is never more than one column twice."""
    return pl.concat([frame.drop_in_place(name) for frame in frames], rechunk=True)


def _refuse_same_ids(decisions: Decisions, sources: list[Loaded]) -> None:
    ids = decisions.rows["id"]
    ascending = np.sort(ids.to_numpy())
    if not (ascending[1:] == ascending[:-1]).any():
        return
    twice = np.flatnonzero(ids.is_duplicated().to_numpy())
    number = int(ids[int(twice[0])])
    places = np.flatnonzero((ids == number).to_numpy())
    names = sorted({sources[int(s)].name for s in np.searchsorted(decisions.starts, places, side="right") - 1})
    raise ConfigError(
        f"sources {' and '.join(names)}: {len(twice):,} rows have an id in common, the first is {number:016x}",
        "the same dataset directory is read twice; to take rows more often, use repeat",
    )


def _keys(config: MixConfig, dataset: Dataset) -> list[pl.DataFrame]:
    by = "prompt_hash" if config.dedup and config.dedup.by == "prompt" else "hash"
    key = pl.col(by).str.to_integer(base=16, dtype=pl.UInt128) if config.dedup else pl.lit(None, pl.UInt128)
    return [
        pl.DataFrame(pl.from_arrow(batch)).select(
            id=pl.col("id").str.to_integer(base=16, dtype=pl.UInt64),
            prompt=pl.col("prompt_hash").str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64),
            key=key,
        )
        for batch in read_batches(dataset, ["id", "hash", "prompt_hash"])
    ]


def _score(config: MixConfig) -> str:
    if config.dedup and config.dedup.keep == "highest_score":
        return config.dedup.score or ("chosen_score" if config.kind == "pair" else "NULL::DOUBLE")
    return "NULL::DOUBLE"


def drop_flagged(decisions: Decisions, sources: list[Loaded], flags: list[dict[str, Any]], exclude: tuple[str, ...]) -> None:
    """Drop rows that carry one of the flags the mix excludes. A flag on a repeated copy counts for its row."""
    notes = {
        int(f["id"], 16): f"{f['flag']}: {f['note']}" if f.get("note") else str(f["flag"])
        for f in flags
        if f["flag"] in exclude and re.fullmatch("[0-9a-f]{16}", f["id"])
    }
    if not notes:
        return
    for number, source in enumerate(sources):
        if source.config.repeat > 1:
            for own in decisions.rows["id"][decisions.lines(number)]:
                for copy in range(1, source.config.repeat):
                    note = notes.get(int(copy_id(f"{own:016x}", copy), 16))
                    if note:
                        notes[own] = note
    ids = decisions.rows["id"]
    lines = np.flatnonzero(ids.is_in(pl.Series(list(notes), dtype=pl.UInt64)).to_numpy())
    decisions.details.update({line: notes[ids[line]] for line in lines.tolist() if decisions.fate[line] == 0})
    decisions.give(lines, FLAGGED)


def copy_id(hex_id: str, copy: int) -> str:
    """The id of a repeated copy (copy 0 is the row itself)."""
    return row_id("copy", hex_id, copy) if copy else hex_id


def drop_contaminated(decisions: Decisions, verdicts: list[Path]) -> None:
    """Drop the rows that the decontamination stage says are to be dropped; `verdicts` has the sidecar of each source."""
    for number, path in enumerate(verdicts):
        drop = np.flatnonzero(pc.equal(pq.read_table(path, columns=["verdict"])["verdict"], "drop").fill_null(False).to_numpy())
        decisions.give(drop + decisions.starts[number], CONTAMINATED)


def draw_rows(config: MixConfig, sources: list[Loaded], decisions: Decisions) -> None:
    """Take from each source what the config asks for, and split off validation. Rows not drawn get the fate `sampled_out`.

    Raises:
        ConfigError: a source has fewer rows than asked for.
    """
    ids, tokens = decisions.rows["id"].to_numpy(), decisions.rows["n_tokens"].fill_null(0).to_numpy()
    for number, source in enumerate(sources):
        mine = decisions.standing
        mine = mine[(mine >= decisions.starts[number]) & (mine < decisions.starts[number + 1])]
        taken = draw(source.config, ids[mine], tokens[mine], config.seed)
        decisions.give(mine[~taken], OVER_CAP if source.config.amount.startswith("all") else SAMPLED_OUT)
    kept = decisions.standing
    held_out = split_validation(decisions.rows["prompt"].to_numpy()[kept], config.validation, config.seed)
    decisions.split[kept] = np.where(held_out, VALIDATION, TRAIN)


def cached_path(cache: Path, stage: str, name: str, key: str) -> Path:
    """Where a stage's dataset lies in the cache: readable name (whatever characters the source's has), exact key."""
    return cache / stage / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:80]}-{key}"
