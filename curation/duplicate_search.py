"""Which rows duplicate which kept row: exact ones by hash, near ones by signatures and then exact n-gram Jaccard. Marks, never deletes.

In:   narrow keys of all rows (`duplicate_keys.Keys`, no text), the dataset directories they come from (signed: `minhash.sign`).
Out:  `Found`: for every row that is a duplicate the row that is kept for it, why, and how alike they are.

    found = find_duplicates(keys_of(datasets, ranks, config), datasets, config)
    found.columns(0), found.hits()

Exact comes first: one row of each key stays, the first in keep order. Those rows go to the near-duplicate search; whoever an
exact duplicate's kept row is found near to, keeps both. Only candidates' texts are read, in batches; the result depends on
the rows, their order and the config alone. Memory grows with the candidates and duplicates; of other rows it holds a byte or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from columnar.store import Dataset, write_table
from curation import semantic, shelf
from curation.dedup import DedupConfig, NearConfig, SemanticConfig
from curation.duplicate_keys import Keys
from curation.lsh import IN_MEMORY, Batch, find_buckets, recall
from curation.minhash import batches_with, records, stored, text_columns
from curation.narrow import hex_ids, spans
from curation.verify import REMEMBERED, Sets, decide

REASONS = (None, "exact_duplicate", "near_duplicate", "semantic_duplicate")
EXACT, NEAR, SEMANTIC = 1, 2, 3


class Found(NamedTuple):
    """The rows that are duplicates, in ascending order: parallel arrays. All other rows are kept."""

    keys: Keys
    line: np.ndarray  # int64
    keeper: np.ndarray  # int64: the line of the kept row
    kind: np.ndarray  # int8: EXACT, NEAR, SEMANTIC
    jaccard: np.ndarray  # float64: of the n-gram sets of the row and its kept row; of an exact duplicate 1
    agreement: np.ndarray  # float32: share of equal signature slots, an estimate of the same
    band: np.ndarray  # int16: the first band they share, -1 where none
    notes: list[str]  # what a reader should know: what was not checked, what may have been missed
    proposed: semantic.Proposed = semantic.NOTHING  # pairs that embeddings find alike and that are not marked

    def columns(self, dataset: int) -> Iterator[pa.Table]:
        """The columns of `cols/dedup.parquet` for all rows of one dataset, a piece at a time."""
        keepers = np.unique(self.keeper)
        start, stop = self.keys.starts[dataset : dataset + 2]
        for part in spans(start, stop) if stop > start else [slice(start, start)]:
            mine = slice(*np.searchsorted(self.line, [part.start, part.stop]).tolist())
            own = self.keys.rows.read("id", part)
            keeps = keepers[slice(*np.searchsorted(keepers, [part.start, part.stop]).tolist())] - part.start
            at = self.line[mine] - part.start
            kept, cluster = np.zeros_like(own), np.zeros_like(own)
            kept[at] = self.keys.rows.take("id", self.keeper[mine])
            cluster[at], cluster[keeps] = kept[at], own[keeps]
            jaccard, kind = np.zeros(len(own)), np.zeros(len(own), np.int8)
            jaccard[at], kind[at] = self.jaccard[mine], self.kind[mine]
            gone, clustered = kind != 0, kind != 0
            clustered[keeps] = True
            yield pa.table(
                {
                    "id": hex_ids(own),
                    "cluster": pc.if_else(pa.array(clustered), hex_ids(cluster), pa.scalar(None, pa.string())),
                    "kept_id": pc.if_else(pa.array(gone), hex_ids(kept), pa.scalar(None, pa.string())),
                    "jaccard": pa.array(jaccard, mask=~gone | (kind == SEMANTIC)),
                    "reason": pa.DictionaryArray.from_arrays(pa.array(kind, mask=~gone), list(REASONS)).cast(pa.string()),
                }
            )

    def hits(self, dataset: int | None = None) -> Iterator[pa.Table]:
        """The rows of `hits/duplicates.parquet` (of one dataset), a piece at a time: the removed rows in order, then the proposed pairs.

        `estimate` is the share of equal signature slots of a near pair, the cosine of a semantic one.
        """
        line, keeper = np.concatenate([self.line, self.proposed.row]), np.concatenate([self.keeper, self.proposed.keeper])
        kind = np.concatenate([self.kind, np.full(len(self.proposed.row), SEMANTIC, np.int8)])
        jaccard = np.concatenate([self.jaccard, self.proposed.cosine])
        estimate = np.concatenate([self.agreement, self.proposed.cosine])
        band = np.concatenate([self.band, np.full(len(self.proposed.row), -1, np.int16)])
        wanted = np.arange(len(line)) if dataset is None else np.flatnonzero(self.keys.dataset(line) == dataset)
        for part in spans(0, len(wanted)) if len(wanted) else [slice(0, 0)]:
            at = wanted[part]
            yield pa.table(
                {
                    "id": hex_ids(self.keys.rows.take("id", line[at])),
                    "source": self.keys.source(line[at]),
                    "kept_id": hex_ids(self.keys.rows.take("id", keeper[at])),
                    "kept_source": self.keys.source(keeper[at]),
                    "jaccard": pa.array(jaccard[at], mask=kind[at] == SEMANTIC),
                    "estimate": pa.array(estimate[at].astype(np.float64), mask=kind[at] == EXACT),
                    "band": pa.array(band[at], mask=kind[at] != NEAR),
                    "kind": pa.array(np.array(["", "exact", "near", "semantic"])[kind[at]], pa.string()),
                }
            )

    def details(self, lines: np.ndarray) -> list[str]:
        """What to tell of these removed rows."""
        at = np.searchsorted(self.line, lines)
        kept = hex_ids(self.keys.rows.take("id", self.keeper[at])).to_pylist()
        sources = self.keys.source(self.keeper[at]).to_pylist()
        alike = np.where(self.kind[at] == SEMANTIC, self.agreement[at], self.jaccard[at])
        said = {EXACT: "says what {row} of {source} says", NEAR: "Jaccard {alike:.3f} with {row} of {source}"}
        said[SEMANTIC] = "cosine {alike:.3f} with {row} of {source}"
        return [
            said[kind].format(alike=number, row=row, source=source)
            for kind, number, row, source in zip(self.kind[at].tolist(), alike.tolist(), kept, sources, strict=True)
        ]

    def write(self, out: Path) -> None:
        """Write hits/duplicates.parquet."""
        write_table(out / "hits" / "duplicates.parquet", self.hits())

    def standing(self) -> np.ndarray:
        """The lines that take part and are not duplicates of another."""
        stands = self.keys.competes.copy()
        stands[self.line] = False
        return np.flatnonzero(stands)

    def and_also(self, more: Found) -> Found:
        """These and more duplicates among the rows that were kept: whoever's kept row is now gone is a duplicate of that one's kept row."""
        at = np.searchsorted(more.line, self.keeper)
        follows = np.flatnonzero(np.append(more.line, -1)[at] == self.keeper)
        at = at[follows]
        lines = np.concatenate([self.line, more.line])
        order = np.argsort(lines)

        def joined(name: str) -> np.ndarray:
            mine, theirs = getattr(self, name).copy(), getattr(more, name)
            mine[follows] = theirs[at]
            return np.concatenate([mine, theirs])[order]

        kind, jaccard, agreement, band = (joined(name) for name in ("kind", "jaccard", "agreement", "band"))
        return Found(self.keys, lines[order], joined("keeper"), kind, jaccard, agreement, band, self.notes + more.notes)


def find_duplicates(keys: Keys, datasets: Sequence[Dataset], config: DedupConfig) -> Found:
    """Search all rows of `keys` for duplicates of each other; the datasets must be signed for `config.near`.

    Raises:
        StoreError: a dataset without signatures.
    """
    found, distinct = exact(keys, config)
    if config.near:
        found = found.and_also(near(keys, distinct, datasets, config, config.near))
    else:
        found.notes.append("near-duplicates: not checked")
    if config.semantic is None:
        found.notes.append("semantic: not checked")
        return found
    return alike(found, datasets, config, config.semantic)


def exact(keys: Keys, config: DedupConfig) -> tuple[Found, np.ndarray]:
    """The rows whose key another row before them in keep order has too (within its source if the scope says so).

    Returns:
        what was found, and which lines are distinct (bool): take part and are no such rows, not even in a reference.
    """
    lines = shelf.sharing(_hashes(keys, config), keys.starts[-1]) if config.exact else np.zeros(0, np.int64)
    same = ["high", "low", "source"] if config.scope == "source" else ["high", "low"]
    ordered = keys.in_keep_order(lines, config)
    frame = pl.DataFrame({**{name: keys.rows.take(name, ordered) for name in same}, "line": ordered})
    frame = frame.with_columns(keeper=pl.col("line").first().over(same)).filter(pl.col("line") != pl.col("keeper")).sort("line")
    line, keeper = frame["line"].to_numpy(), frame["keeper"].to_numpy()
    distinct = keys.competes.copy()
    distinct[line] = False
    marked = ~keys.reference(line)
    line, keeper = line[marked], keeper[marked]
    kind, jaccard = np.full(len(line), EXACT, np.int8), np.ones(len(line))
    return Found(keys, line, keeper, kind, jaccard, np.zeros(len(line), np.float32), np.full(len(line), -1, np.int16), []), distinct


def _hashes(keys: Keys, config: DedupConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(hashes, lines) of the rows that take part and have a key."""
    for part in spans(0, keys.starts[-1]):
        hashes, low = keys.rows.read("high", part), keys.rows.read("low", part)
        wanted = keys.competes[part] & ((hashes | low) != 0)
        if config.scope == "source":
            hashes = hashes ^ keys.rows.read("source", part) * np.uint64(0x9E3779B97F4A7C15)
        yield hashes[wanted], part.start + np.flatnonzero(wanted)


def near(keys: Keys, distinct: np.ndarray, datasets: Sequence[Dataset], config: DedupConfig, how: NearConfig) -> Found:
    """The near-duplicates among the distinct rows."""
    bands, rows = how.banding
    buckets = find_buckets(_signed(keys, distinct, datasets, config, how), keys.starts[-1], bands, rows, IN_MEMORY)
    candidates = buckets.rows
    with Sets(how.num_perm) as sets:
        _fill(sets, keys, candidates, datasets, how)
        order = np.searchsorted(candidates, keys.in_keep_order(candidates, config))
        decided = decide(buckets, order.astype(np.int32), sets, how.threshold, keys.reference(candidates))
    gone = np.flatnonzero(decided.keeper >= 0)
    middle = (1 + how.threshold) / 2
    chances = ", ".join(f"{j:g} with probability {recall(j, bands, rows):.3g}" for j in (how.threshold, middle))
    notes = [f"near-duplicates by {how.by}: {how.ngram}-grams, {bands} bands of {rows}: finds pairs of Jaccard {chances}"]
    notes.append(f"{len(candidates):,} of {int(distinct.sum()):,} distinct rows shared a band with another and were compared")
    if decided.forgotten:
        notes.append(
            f"{decided.forgotten:,} times a bucket held more than {REMEMBERED} kept rows and the rest were not compared with later ones"
        )
    kind = np.full(len(gone), NEAR, np.int8)
    alike = (decided.jaccard[gone], decided.agreement[gone], decided.band[gone])
    return Found(keys, candidates[gone], candidates[decided.keeper[gone]], kind, *alike, notes)


def alike(found: Found, datasets: Sequence[Dataset], config: DedupConfig, how: SemanticConfig) -> Found:
    """Add what embeddings propose among the rows that are still kept: as pairs, or, when told to drop, as marks."""
    keys = found.keys
    standing = found.standing()
    dataset = keys.dataset(standing)
    places = pl.DataFrame({"dataset": dataset.astype(np.int32), "row": standing - np.array(keys.starts)[dataset]})
    present, vectors = semantic.vectors_of(how, config.by, places, datasets)
    having = standing[present]
    ordered = keys.in_keep_order(having, config)
    scope = keys.rows.take("source", ordered) if config.scope == "source" else np.zeros(len(ordered))
    pairs = semantic.propose(vectors[np.searchsorted(having, ordered)], how.threshold, how.drop, keys.reference(ordered), scope)
    line, keeper, cosine = ordered[pairs.row], ordered[pairs.keeper], pairs.cosine
    note = (
        f"semantic: {len(line):,} pairs of cosine {how.threshold:g} or more; {int((~present).sum()):,} rows have no embedding: not checked"
    )
    if not how.drop:
        return found._replace(proposed=semantic.Proposed(line, keeper, cosine), notes=[*found.notes, note])
    at = np.argsort(line)
    none = (np.full(len(at), np.nan), cosine[at].astype(np.float32), np.full(len(at), -1, np.int16))
    return found.and_also(Found(keys, line[at], keeper[at], np.full(len(at), SEMANTIC, np.int8), *none, [note]))


def _signed(keys: Keys, distinct: np.ndarray, datasets: Sequence[Dataset], config: DedupConfig, how: NearConfig) -> Iterator[Batch]:
    """(lines, signatures, scopes) of the rows that take part, one row group of a sidecar at a time."""
    parted = [
        name for name, counts in (("source", config.scope == "source"), ("kind", how.by == "row" and keys.rows.has("kind"))) if counts
    ]
    for start, dataset in zip(keys.starts, datasets, strict=False):
        for first, present, values in stored(dataset, how):
            lines = start + first + present
            taken = distinct[lines]
            lines = lines[taken]
            scope = np.zeros(len(lines), np.uint32)
            for name in parted:
                scope = scope << np.uint32(8 if name == "kind" else 0) | keys.rows.take(name, lines)
            yield lines, values if taken.all() else values[taken], scope if parted else None


def _fill(sets: Sets, keys: Keys, lines: np.ndarray, datasets: Sequence[Dataset], how: NearConfig) -> None:
    """The records of all candidates, in their order; row groups without a candidate are not read."""
    for number, dataset in enumerate(datasets):
        start, stop = keys.starts[number : number + 2]
        rows = lines[slice(*np.searchsorted(lines, [start, stop]).tolist())] - start
        for first, batch in batches_with(dataset, text_columns(how), rows):
            low, high = np.searchsorted(rows, [first, first + batch.num_rows])
            if low < high:
                sets.append(*records(batch, how, rows[low:high] - first))
