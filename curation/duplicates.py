"""The duplicate search as a stage of a mix: among the rows that passed the rules, which are dropped for which kept row.

sign(config, sources)                      signatures, one sidecar a source, reused by every later mix
drop_duplicates(config, sources, ...)      gives duplicates their fate; returns the evidence
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from columnar import cli
from columnar.engine import LOCAL, Engine
from columnar.errors import ConfigError
from columnar.filesystem import under
from columnar.store import Dataset, file_sha256, open_dataset
from curation import duplicate_search, minhash
from curation.decide import EXACT, NEAR, SEMANTIC, Decisions, Loaded
from curation.dedup import DedupConfig
from curation.duplicate_keys import Keys, append
from curation.duplicate_search import Found, find_duplicates


def references(config: DedupConfig, root: Path) -> list[Dataset]:
    """The datasets of `against:`; relative paths start at `root`."""
    return [open_dataset(under(root, path)) for path in config.against]


def embeddings_of(config: DedupConfig) -> str | None:
    """The hash of the file of embeddings.

    Raises:
        ConfigError: there is no such file.
    """
    path = config.semantic.embeddings if config.semantic else None
    if path and not Path(path).is_file():
        raise ConfigError(f"dedup.semantic.embeddings: {path}: no such file", "a relative path starts where those of sources do")
    return file_sha256(Path(path)) if path else None


def sign(config: DedupConfig, sources: list[Loaded], against: list[Dataset], engine: Engine = LOCAL) -> None:
    """Write the signatures of every source that has none yet."""
    if config.near is None:
        return
    datasets = [*(source.dataset for source in sources), *against]
    with cli.Progress("sign", sum(dataset.rows for dataset in datasets)) as bar:
        minhash.sign(datasets, config.near, bar.add, engine)


def drop_duplicates(config: DedupConfig, sources: list[Loaded], against: list[Dataset], decisions: Decisions) -> Found:
    """Give exact and near duplicates among the rows that stand their fate."""
    keys = _keys(config, sources, against, decisions)
    found = find_duplicates(keys, [s.dataset for s in sources] + against, config)
    for kind, fate in ((duplicate_search.EXACT, EXACT), (duplicate_search.NEAR, NEAR), (duplicate_search.SEMANTIC, SEMANTIC)):
        decisions.give(found.line[found.kind == kind], fate)
    return found


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
