"""Which rows duplicate which kept row: exact ones by hash, near ones by signatures and then exact n-gram Jaccard. Marks, never deletes.

In:   narrow keys of all rows that compete (`KEYS`, no text), the dataset directories they come from (signed: `minhash.sign`).
Out:  `Found`: for every key row the number of the row that is kept for it (itself where it is kept), why, and how alike they are.

    found = find_duplicates(pl.concat(keys_of(d, number, number, config) for number, d in enumerate(datasets)), datasets, config)
    found.columns(ids), found.hits(ids)

Exact comes first: one row of each key stays, the first in keep order. Those rows go to the near-duplicate search; whoever an
exact duplicate's kept row is found near to, keeps both. Only candidates' texts are read, in batches; the result depends on
the rows, their order and the config alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from columnar.errors import ConfigError, StoreError
from columnar.record import text_hash
from columnar.store import Dataset, read_batches
from curation import semantic
from curation.dedup import DedupConfig, NearConfig, SemanticConfig
from curation.lsh import IN_MEMORY, Batch, find_buckets, recall
from curation.minhash import TEXT_COLUMNS, batches_with, records, stored, text_columns
from curation.verify import REMEMBERED, Sets, decide

KEYS = {
    "dataset": pl.Int32,  # number of the row's dataset
    "row": pl.Int64,  # position in it; keys are sorted by dataset and row
    "rank": pl.Int32,  # order of its source: lower keeps higher; below zero: a reference row, which is never marked
    "key": pl.UInt128,  # equal where rows are exact duplicates: `hash` or `prompt_hash`; null: duplicates nothing
    "kind": pl.String,  # rows of different kinds are never near-duplicates by row
    "source": pl.String,  # for `scope: source` and the evidence (kind and source may be Categorical)
    "n_chars": pl.Int64,  # for `keep: longest`, else null
    "score": pl.Float64,  # for `keep: highest_score`, else null
}
REASONS = (None, "exact_duplicate", "near_duplicate", "semantic_duplicate")
KEPT, EXACT, NEAR, SEMANTIC = range(4)
PIECE = 1 << 20  # rows looked up at once
NOTHING = text_hash([])  # the prompt_hash of rows that ask nothing: they are not duplicates of each other


class Found(NamedTuple):
    """One entry for each row of `keys`, in its order."""

    keys: pl.DataFrame  # dataset, row, rank, kind, source
    keeper: np.ndarray  # int64: number of the kept row; its own where kept
    kind: np.ndarray  # int8: KEPT, EXACT, NEAR, SEMANTIC
    jaccard: np.ndarray  # float64: of the n-gram sets of the row and its kept row; of an exact duplicate 1
    agreement: np.ndarray  # float32: share of equal signature slots, an estimate of the same
    band: np.ndarray  # int16: the first band they share, -1 where none
    notes: list[str]  # what a reader should know: what was not checked, what may have been missed
    proposed: semantic.Proposed = semantic.NOTHING  # pairs that embeddings find alike and that are not marked

    def columns(self, ids: pa.Array, start: int = 0, stop: int | None = None) -> pa.Table:
        """The columns of `cols/dedup.parquet` for key rows start..stop; `ids` are those of all key rows."""
        part = slice(start, len(self.keeper) if stop is None else stop)
        kind, keeper = self.kind[part], self.keeper[part]
        gone = kind != KEPT
        keeps = np.zeros(len(self.keeper), np.bool_)
        keeps[self.keeper[self.kind != KEPT]] = True
        kept_id = ids.take(pa.array(keeper, mask=~gone))
        clustered = gone | keeps[part]
        return pa.table(
            {
                "id": ids.slice(part.start, len(kind)),
                "cluster": ids.take(pa.array(keeper, mask=~clustered)),
                "kept_id": kept_id,
                "jaccard": pa.array(self.jaccard[part], mask=~gone | (kind == SEMANTIC)),
                "reason": pa.DictionaryArray.from_arrays(pa.array(kind, mask=~gone), list(REASONS)).cast(pa.string()),
            }
        )

    def hits(self, ids: pa.Array) -> pa.Table:
        """The rows of `hits/duplicates.parquet`: one for each removed row in key order, then the proposed pairs.

        `estimate` is the share of equal signature slots of a near pair, the cosine of a semantic one.
        """
        gone = np.flatnonzero(self.kind != KEPT)
        row, keeper = np.concatenate([gone, self.proposed.row]), np.concatenate([self.keeper[gone], self.proposed.keeper])
        kind = np.concatenate([self.kind[gone], np.full(len(self.proposed.row), SEMANTIC)])
        jaccard = np.concatenate([self.jaccard[gone], self.proposed.cosine])
        estimate = np.concatenate([self.agreement[gone], self.proposed.cosine])
        source = self.keys["source"].cast(pl.String).to_arrow().cast(pa.string())
        return pa.table(
            {
                "id": ids.take(pa.array(row)),
                "source": source.take(pa.array(row)),
                "kept_id": ids.take(pa.array(keeper)),
                "kept_source": source.take(pa.array(keeper)),
                "jaccard": pa.array(jaccard, mask=kind == SEMANTIC),
                "estimate": pa.array(estimate.astype(np.float64), mask=kind == EXACT),
                "band": pa.array(self.band[row], mask=kind != NEAR),
                "kind": pa.array(np.array(["", "exact", "near", "semantic"])[kind], pa.string()),
            }
        )


def keys_of(dataset: Dataset, number: int, rank: int, config: DedupConfig) -> pl.DataFrame:
    """The keys of all rows of a dataset; n_chars and score are read only where the keep policy needs them.

    Raises:
        ConfigError: the score column does not exist.
    """
    key = "hash" if config.by == "row" else "prompt_hash"
    longest = config.keep == "longest"
    wanted = ["id", key, "kind", "source", *(TEXT_COLUMNS if longest else ())]
    frames = []
    for batch in read_batches(dataset, wanted):
        frame = pl.DataFrame({name: batch.column(name) for name in (key, "kind", "source")}).select(
            key=pl.when(pl.col(key) != NOTHING).then(key).str.to_integer(base=16, dtype=pl.UInt128),
            kind=pl.col("kind").cast(pl.Categorical),
            source=pl.col("source").cast(pl.Categorical),
            n_chars=pl.Series(_characters(batch)) if longest else pl.lit(None, pl.Int64),
        )
        frames.append(frame)
    empty = {"key": pl.UInt128, "kind": pl.Categorical, "source": pl.Categorical, "n_chars": pl.Int64}
    keys = pl.concat(frames) if frames else pl.DataFrame(schema=empty)
    return keys.select(
        dataset=pl.lit(number, pl.Int32),
        row=pl.int_range(pl.len(), dtype=pl.Int64),
        rank=pl.lit(rank, pl.Int32),
        key="key",
        kind="kind",
        source="source",
        n_chars="n_chars",
        score=pl.Series(_scores(dataset, config), dtype=pl.Float64) if config.keep == "highest_score" else pl.lit(None, pl.Float64),
    )


def _characters(batch: pa.RecordBatch) -> np.ndarray:
    total = np.zeros(batch.num_rows, np.int64)
    for name in TEXT_COLUMNS:
        if name in batch.schema.names:
            column = batch.column(name)
            owner = np.repeat(np.arange(batch.num_rows), pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False))
            lengths = pc.fill_null(pc.utf8_length(column.flatten().field("content")), 0).to_numpy(zero_copy_only=False)
            total += np.bincount(owner, weights=lengths, minlength=batch.num_rows).astype(np.int64)
    return total


def _scores(dataset: Dataset, config: DedupConfig) -> list[float | None]:
    name = config.score or "chosen_score"
    stage, _, column = name.rpartition(".")
    files = [dataset.sidecar(stage)] if stage else dataset.row_files
    if not all(file.is_file() and column in pq.read_schema(file).names for file in files):
        raise ConfigError(f"keep: highest_score: {dataset.path} has no column {name}: set score to a column of the rows or to STAGE.COLUMN")
    read = [value for file in files for value in pq.read_table(file, columns=[column])[column].to_pylist()]
    return [None if value is None else float(value) for value in read]


def find_duplicates(keys: pl.DataFrame, datasets: Sequence[Dataset], config: DedupConfig) -> Found:
    """Search all rows of `keys` for duplicates of each other; the datasets must be signed for `config.near`.

    Raises:
        StoreError: keys out of order, or a dataset without signatures.
    """
    keys = keys.select([name if name in keys.columns else pl.lit(None, kind).alias(name) for name, kind in KEYS.items()])
    place = keys["dataset"].to_numpy().astype(np.int64) << 40 | keys["row"].to_numpy()
    if not (place[1:] > place[:-1]).all():
        raise StoreError("duplicate search: the keys are not sorted by dataset and row")
    count = len(keys)
    order = keep_order(keys, config)
    keeper = np.arange(count)
    if config.exact:
        keeper = exact(keys, order, config)
    keys = keys.drop("key", "n_chars", "score")  # 32 bytes a row that nothing needs any more
    reference = keys["rank"].to_numpy() < 0
    distinct = keeper == np.arange(count)
    keeper[reference] = np.flatnonzero(reference)
    kind = np.where(keeper != np.arange(count), EXACT, KEPT).astype(np.int8)
    jaccard = np.where(kind == EXACT, 1.0, np.nan)
    found = Found(keys, keeper, kind, jaccard, np.zeros(count, np.float32), np.full(count, -1, np.int16), [])
    if config.near:
        near(found, distinct, order, datasets, config, config.near)
    if config.semantic is None:
        found.notes.append("semantic: not checked")
        return found
    return alike(found, order, datasets, config, config.semantic)


def keep_order(keys: pl.DataFrame, config: DedupConfig) -> np.ndarray:
    """The numbers of all rows, the one that keeps the others first. Reference rows come before all; ties go by source order."""
    rank = keys["rank"].to_numpy()
    levels = [] if config.keep == "first" else [rank]
    if config.keep == "longest":
        levels.append(-keys["n_chars"].fill_null(-1).to_numpy())
    if config.keep == "highest_score":
        levels.append(-keys["score"].fill_nan(None).fill_null(-np.inf).to_numpy())
    levels.append(rank >= 0)
    return np.lexsort(tuple(levels))  # stable: what ties in every level stays in key order


def exact(keys: pl.DataFrame, order: np.ndarray, config: DedupConfig) -> np.ndarray:
    """For each row the number of the first row in keep order that has the same key (within its source if the scope says so)."""
    hashed = keys["key"].hash().to_numpy()  # only keys whose hash appears twice go on: the table of all keys would not fit in memory
    ordered = np.sort(hashed)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    suspects = np.concatenate(
        [start + np.flatnonzero(_among(hashed[start : start + PIECE], twice)) for start in range(0, max(1, len(hashed)), PIECE)]
    )
    del hashed
    position = np.empty(len(keys), np.int64)
    position[order] = np.arange(len(keys))
    same = ["key", "source"] if config.scope == "source" else ["key"]
    frame = keys[suspects].select(*same, position=pl.Series(position[suspects]), number=pl.Series(suspects, dtype=pl.Int64))
    frame = frame.filter(pl.col("key").is_not_null())
    first = frame.group_by(same).agg(first=pl.col("position").min())
    frame = frame.join(first, on=same)
    keeper = np.arange(len(keys))
    keeper[frame["number"].to_numpy()] = order[frame["first"].to_numpy()]
    return keeper


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of the values are known; `known` is ascending."""
    at = np.searchsorted(known, values)
    return known[np.minimum(at, len(known) - 1)] == values if len(known) else np.zeros(len(values), np.bool_)


def near(found: Found, distinct: np.ndarray, order: np.ndarray, datasets: Sequence[Dataset], config: DedupConfig, how: NearConfig) -> None:
    """Add near-duplicates among the `distinct` rows to what was found, in place."""
    bands, rows = how.banding
    buckets = find_buckets(_signed(found.keys, distinct, datasets, config, how), len(found.keys), bands, rows, IN_MEMORY)
    candidates = buckets.rows
    is_candidate = np.zeros(len(found.keys), np.bool_)
    is_candidate[candidates] = True
    local = np.cumsum(is_candidate, dtype=np.int32) - 1
    with Sets(how.num_perm) as sets:
        _fill(sets, found.keys[candidates], datasets, how)
        fixed = found.keys["rank"].to_numpy()[candidates] < 0
        decided = decide(buckets, local[order[is_candidate[order]]], sets, how.threshold, fixed)
    gone = np.flatnonzero(decided.keeper >= 0)
    numbers = candidates[gone]
    found.keeper[numbers] = candidates[decided.keeper[gone]]
    found.kind[numbers] = NEAR
    found.jaccard[numbers], found.agreement[numbers], found.band[numbers] = (
        decided.jaccard[gone],
        decided.agreement[gone],
        decided.band[gone],
    )
    follow = np.flatnonzero((found.kind == EXACT) & (found.kind[found.keeper] == NEAR))  # whose kept row was dropped in turn
    for values in (found.jaccard, found.agreement, found.band, found.kind):
        values[follow] = values[found.keeper[follow]]
    found.keeper[follow] = found.keeper[found.keeper[follow]]
    middle = (1 + how.threshold) / 2
    chances = ", ".join(f"{j:g} with probability {recall(j, bands, rows):.3g}" for j in (how.threshold, middle))
    found.notes.append(f"near-duplicates by {how.by}: {how.ngram}-grams, {bands} bands of {rows}: finds pairs of Jaccard {chances}")
    found.notes.append(f"{len(candidates):,} of {int(distinct.sum()):,} distinct rows shared a band with another and were compared")
    if decided.forgotten:
        found.notes.append(
            f"{decided.forgotten:,} times a bucket held more than {REMEMBERED} kept rows and the rest were not compared with later ones"
        )


def alike(found: Found, order: np.ndarray, datasets: Sequence[Dataset], config: DedupConfig, how: SemanticConfig) -> Found:
    """Add what embeddings propose among the rows that are still kept: as pairs, or, when told to drop, as marks."""
    standing = order[found.kind[order] == KEPT]
    ascending = np.sort(standing)
    present, vectors = semantic.vectors_of(how, config.by, found.keys[ascending], datasets)
    place = np.full(len(found.keys), -1, np.int64)
    place[ascending[present]] = np.arange(len(vectors))
    numbers = standing[place[standing] >= 0]
    scope = (
        found.keys["source"].cast(pl.String).fill_null("").rank("dense").to_numpy()
        if config.scope == "source"
        else np.zeros(len(found.keys))
    )
    fixed = found.keys["rank"].to_numpy() < 0
    pairs = semantic.propose(vectors[place[numbers]], how.threshold, how.drop, fixed[numbers], scope[numbers])
    row, keeper, cosine = numbers[pairs.row], numbers[pairs.keeper], pairs.cosine
    found.notes.append(
        f"semantic: {len(row):,} pairs of cosine {how.threshold:g} or more; {int((~present).sum()):,} rows have no embedding: not checked"
    )
    if not how.drop:
        return found._replace(proposed=semantic.Proposed(row, keeper, cosine))
    found.keeper[row], found.kind[row], found.agreement[row], found.jaccard[row] = keeper, SEMANTIC, cosine, np.nan
    follow = np.flatnonzero((found.kind != KEPT) & (found.kind[found.keeper] == SEMANTIC))  # whose kept row was dropped in turn
    for values in (found.agreement, found.kind, found.jaccard):
        values[follow] = values[found.keeper[follow]]
    found.keeper[follow] = found.keeper[found.keeper[follow]]
    return found


def _signed(keys: pl.DataFrame, distinct: np.ndarray, datasets: Sequence[Dataset], config: DedupConfig, how: NearConfig) -> Iterator[Batch]:
    """(key numbers, signatures, scopes) of the rows that take part, one row group of a sidecar at a time."""
    parted = [name for name, counts in (("source", config.scope == "source"), ("kind", how.by == "row")) if counts]
    scope = np.zeros(len(keys), np.uint32)
    for name in parted:
        codes = keys[name].cast(pl.String).fill_null("").rank("dense").to_numpy().astype(np.uint32)
        scope = scope * (codes.max(initial=0) + 1) + codes
    for dataset, start, rows in _spans(keys):
        number = np.full(datasets[dataset].rows, -1, np.int64)
        number[rows] = np.where(distinct[start : start + len(rows)], np.arange(start, start + len(rows)), -1)
        for first, present, values in stored(datasets[dataset], how):
            numbers = number[first + present]
            taken = numbers >= 0
            numbers = numbers[taken]
            yield numbers, values if taken.all() else values[taken], scope[numbers]


def _spans(keys: pl.DataFrame) -> Iterator[tuple[int, int, np.ndarray]]:
    """(dataset, number of its first key, its rows) for each dataset in the keys."""
    dataset, row = keys["dataset"].to_numpy(), keys["row"].to_numpy()
    for number in np.unique(dataset).tolist():
        start, stop = np.searchsorted(dataset, [number, number + 1]).tolist()
        yield number, start, row[start:stop]


def _fill(sets: Sets, keys: pl.DataFrame, datasets: Sequence[Dataset], how: NearConfig) -> None:
    """The records of all candidates, in their order; row groups without a candidate are not read."""
    for number, _, rows in _spans(keys):
        for first, batch in batches_with(datasets[number], text_columns(how), rows):
            low, high = np.searchsorted(rows, [first, first + batch.num_rows])
            if low < high:
                sets.append(*records(batch, how, rows[low:high] - first))
