"""The duplicate search as a stage of a mix: among the rows that passed the rules, which are dropped for which kept row.

sign(config, sources)                      signatures, one sidecar a source, reused by every later mix
drop_duplicates(config, sources, rows)     the rows with their fates, and the evidence for hits/duplicates.parquet
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from columnar import cli
from columnar.engine import LOCAL, Engine
from columnar.filesystem import under
from columnar.store import Dataset, open_dataset, write_table
from curation import duplicate_search, minhash
from curation.decide import EXACT, NEAR, SEMANTIC, Decisions, Loaded
from curation.dedup import DedupConfig
from curation.duplicate_keys import Keys, append


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
    keys = _keys(config, sources, against, decisions)
    found = duplicate_search.find_duplicates(keys, [s.dataset for s in sources] + against, config)
    for kind, fate in ((duplicate_search.EXACT, EXACT), (duplicate_search.NEAR, NEAR), (duplicate_search.SEMANTIC, SEMANTIC)):
        decisions.give(found.line[found.kind == kind], fate)
    return Evidence(found.hits(), found.notes, found.line)


def _keys(config: DedupConfig, sources: list[Loaded], against: list[Dataset], decisions: Decisions) -> Keys:
    """What the search goes by: of the rows that stand, and, after all rows of the sources, of the references."""
    names = [source.name for source in sources]
    for number in range(len(sources)):
        for part in decisions.parts(number):
            decisions.rows.append(source=np.full(part.stop - part.start, number, np.uint32))
    starts = list(decisions.starts)
    for dataset in against:
        append(decisions.rows, dataset, names, config)
        starts.append(starts[-1] + dataset.rows)
    ranks = [s.order if config.keep == "source_order" else 0 for s in sources] + [-1] * len(against)
    competes = np.concatenate([decisions.fate == 0, np.ones(starts[-1] - decisions.starts[-1], np.bool_)])
    return Keys(decisions.rows, starts, ranks, names, competes)
