"""The duplicate search as a stage of a mix: among the rows that passed the rules, which are dropped for which kept row.

sign(config, sources)                      signatures, one sidecar a source, reused by every later mix
drop_duplicates(config, sources, rows)     the rows with their fates, and the evidence for hits/duplicates.parquet
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from columnar import cli
from columnar.engine import LOCAL, Engine
from columnar.filesystem import under
from columnar.store import Dataset, open_dataset, read_batches, write_table
from curation import duplicate_search, minhash
from curation.decide import EXACT, NEAR, SEMANTIC, Decisions, Loaded
from curation.dedup import DedupConfig


class Evidence(NamedTuple):
    """What was found: one line a dropped row, with the row that is kept for it."""

    hits: pa.Table
    notes: list[str]
    lines: npt.NDArray[np.int64]  # the line of each hit

    def details(self, lines: npt.NDArray[np.int64]) -> list[str]:
        """What to tell of these dropped rows."""
        hits = self.hits.take(pa.array(np.searchsorted(self.lines, lines)))
        columns = (hits.column(name).to_pylist() for name in ("kind", "jaccard", "kept_id", "kept_source"))
        return [
            f"says what {kept} of {source} says" if kind == "exact" else f"Jaccard {jaccard or 0:.3f} with {kept} of {source}"
            for kind, jaccard, kept, source in zip(*columns, strict=True)
        ]

    def write(self, out: Path) -> None:
        """Write hits/duplicates.parquet."""
        write_table(out / "hits" / "duplicates.parquet", self.hits)


def references(config: DedupConfig, root: Path) -> list[Dataset]:
    """The datasets of `against:`; relative paths start at `root`."""
    return [open_dataset(under(root, path)) for path in config.against]


def sign(config: DedupConfig, sources: list[Loaded], against: list[Dataset], engine: Engine = LOCAL) -> None:
    """Write the signatures of every source that has none yet."""
    if config.near is None:
        return
    datasets = [*(source.dataset for source in sources), *against]
    with cli.Progress("sign", sum(dataset.rows for dataset in datasets)) as bar:
        minhash.sign(datasets, config.near, bar.add, engine)


def drop_duplicates(config: DedupConfig, sources: list[Loaded], against: list[Dataset], decisions: Decisions) -> Evidence:
    """Give exact and near duplicates among the rows that stand their fate."""
    lines = decisions.standing
    ids = [decisions.rows["id"].gather(lines)]
    for dataset in against:
        ids += [pl.Series(pl.from_arrow(b.column("id"))).str.to_integer(base=16, dtype=pl.UInt64) for b in read_batches(dataset, ["id"])]
    keys = _keys(config, sources, against, decisions, lines)
    decisions.rows = decisions.rows.drop("key", "score")
    found = duplicate_search.find_duplicates(keys.pop(), [s.dataset for s in sources] + against, config)
    hits = found.hits(pl.concat(ids).to_arrow())
    for place, name in ((0, "id"), (2, "kept_id")):
        hits = hits.set_column(place, name, pa.array([f"{number:016x}" for number in hits.column(name).to_pylist()], pa.string()))
    for kind, fate in ((duplicate_search.EXACT, EXACT), (duplicate_search.NEAR, NEAR), (duplicate_search.SEMANTIC, SEMANTIC)):
        decisions.give(lines[np.flatnonzero(found.kind[: len(lines)] == kind)], fate)
    gone = lines[np.flatnonzero(found.kind[: len(lines)] != duplicate_search.KEPT)]
    return Evidence(hits, found.notes, gone)


def _keys(
    config: DedupConfig, sources: list[Loaded], against: list[Dataset], decisions: Decisions, lines: npt.NDArray[np.int64]
) -> list[pl.DataFrame]:
    """What the search goes by, of the rows that stand and of the references: one frame, in a list from which it can be handed over."""
    source = np.searchsorted(decisions.starts, lines, side="right") - 1
    ranks = np.array([s.order if config.keep == "source_order" else 0 for s in sources], np.int32)
    names = pl.Series("name", [s.name for s in sources], dtype=pl.Categorical)
    more = {"longest": "n_chars", "highest_score": "score"}.get(config.keep)
    columns = {
        "dataset": pl.Series(source, dtype=pl.Int32),
        "row": pl.Series(lines - np.array(decisions.starts)[source], dtype=pl.Int64),
        "rank": pl.Series(ranks[source]),
        "key": decisions.rows["key"].gather(lines),
        "source": names.gather(source),
    }
    if more:
        columns[more] = decisions.rows[more].gather(lines).cast(duplicate_search.KEYS[more])
    frames = [pl.DataFrame(columns)]
    for offset, dataset in enumerate(against):
        reference = duplicate_search.keys_of(dataset, len(sources) + offset, -1, config)
        frames.append(reference.select(list(columns)))
    return [pl.concat(frames)]
