"""MinHash signatures of rows, in datasketch's own hash families, and the n-gram sets they stand for.

In:   a batch of rows. Out: the column `minhash` (fixed-size list of uint32; null where a row has no token), row for row.
Why:  stored once per dataset as `cols/minhash.parquet` (`sign`), a later run, another mix or a new source reuses them.

A row's n-grams: those of each of its turns (tokens: decontam.ngrams); none crosses turns; a turn shorter than n tokens is
one n-gram. `by: row` takes every turn, `by: prompt` the user turns of the prompt. System turns are left out unless
`system: true`: one long system prompt shared by a whole source would make all its conversations look alike.
An n-gram's base hash is the upper half of its 64-bit hash; from there on the values are datasketch's, bit for bit, so
`datasketch.MinHash(hashvalues=..., scheme=...)` continues with them (`scheme: legacy` is datasketch 1's family).

    .venv/bin/python -m curation.dedup out/tiny        # signs what is not signed yet
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from columnar.annotate import annotate
from columnar.engine import LOCAL, Engine
from columnar.errors import StoreError
from columnar.store import ROW_GROUP, Dataset, sidecar_key, stage_key
from curation.dedup import NearConfig

VERSION = 2
PROMPT_COLUMNS = ("messages", "prompt")
TEXT_COLUMNS = (*PROMPT_COLUMNS, "chosen", "rejected", "candidates")


class Turns(NamedTuple):
    """The texts of one column: text i is `data[offsets[i]:offsets[i+1]]`, of row `owner[i]` (ascending), and counts if `chosen[i]`."""

    data: np.ndarray
    offsets: np.ndarray
    owner: np.ndarray
    chosen: np.ndarray


def sign(
    datasets: Sequence[Dataset], near: NearConfig, on_batch: Callable[[int], None] | None = None, engine: Engine = LOCAL
) -> list[Dataset]:
    """Write the signature column of datasets that have none yet; gives those."""
    make = partial(signatures, near=near)
    return annotate(datasets, near.stage, VERSION, near.signature, make, text_columns(near), on_batch=on_batch, engine=engine)


def text_columns(near: NearConfig) -> list[str]:
    """The columns that signatures and n-gram sets are made of."""
    return list(PROMPT_COLUMNS if near.by == "prompt" else TEXT_COLUMNS)


def signatures(batch: pa.RecordBatch, near: NearConfig) -> pa.RecordBatch:
    """One column `minhash`, as many rows as the batch."""
    from curation.kernels import sign_texts
    from decontam.compiled import worth
    from decontam.ngrams import fold_table, room_for

    a, b = permutations(near)
    values = np.full((batch.num_rows, near.num_perm), 0xFFFFFFFF, np.uint32)
    seen = np.zeros(batch.num_rows, np.bool_)
    for turns in turns_of(batch, near):
        room = room_for(int(np.diff(turns.offsets).max()))
        worth(sign_texts, len(turns.owner))(*turns, fold_table(), room, near.ngram, a, b, near.scheme == "legacy", values, seen)
    kind = pa.list_(pa.field("element", pa.uint32(), nullable=False), near.num_perm)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=kind, mask=pa.array(~seen))
    return pa.RecordBatch.from_arrays([column], ["minhash"])


def permutations(near: NearConfig) -> tuple[np.ndarray, np.ndarray]:
    """datasketch's coefficients (uint64) for this number of permutations, seed and scheme."""
    from datasketch import MinHash

    a, b = MinHash(num_perm=near.num_perm, seed=near.seed, scheme=near.scheme).permutations
    return a.astype(np.uint64), b.astype(np.uint64)


def matrix(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(rows that have a signature, their signatures uint32): what `signatures` wrote, as numpy."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    return rows, column.flatten().to_numpy().reshape(-1, column.type.list_size)


def stored(dataset: Dataset, near: NearConfig) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The stored signatures, a row group at a time: (number of its first row, rows that have one, counted from there, signatures).

    Raises:
        StoreError: there are none, or they were made with other settings or of other rows.
    """
    path = dataset.sidecar(near.stage)
    if sidecar_key(path) != stage_key(near.stage, VERSION, near.signature, dataset.content):
        raise StoreError(f"{path}: no signatures with these settings", f"make them with: python -m curation.dedup {dataset.path}")
    parquet = pq.ParquetFile(path)
    first = 0
    for group in range(parquet.num_row_groups):
        column = parquet.read_row_group(group, columns=["minhash"])["minhash"]
        yield first, *matrix(column)
        first += len(column)


def batches_with(dataset: Dataset, columns: list[str], rows: np.ndarray) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of its first row, batch) over the row groups that hold one of these rows (ascending)."""
    first = 0
    for file in dataset.row_files:
        parquet = pq.ParquetFile(file)
        names = [name for name in columns if name in parquet.schema_arrow.names]
        for group in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(group).num_rows
            if np.searchsorted(rows, first) < np.searchsorted(rows, first + size):
                at = first
                for batch in parquet.iter_batches(batch_size=ROW_GROUP, row_groups=[group], columns=names):
                    yield at, batch
                    at += batch.num_rows
            first += size


def records(batch: pa.RecordBatch, near: NearConfig, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `verify.Sets` keeps of the wanted rows (ascending numbers): signatures and distinct n-grams (uint64), and each row's words."""
    from curation.kernels import grams_of_texts, pack
    from decontam.compiled import worth
    from decontam.ngrams import fold_table, room_for

    place = np.full(batch.num_rows, -1, np.int64)
    place[wanted] = np.arange(len(wanted))
    pieces, counts = [np.zeros(0, np.uint64)], [np.zeros(len(wanted), np.int64)]
    for turns in turns_of(batch, near):
        owner = place[turns.owner]
        chosen = turns.chosen & (owner >= 0)
        grams = np.empty(int(np.diff(turns.offsets)[chosen].sum()), np.uint64)  # never more tokens than bytes
        count = np.zeros(len(wanted), np.int64)
        collect = worth(grams_of_texts, len(owner))
        room = room_for(int(np.diff(turns.offsets).max()))
        total = collect(turns.data, turns.offsets, owner, chosen, fold_table(), room, near.ngram, grams, count)
        if total:
            pieces.append(grams[:total])
            counts.append(count)
    if len(pieces) <= 2:
        grams = pieces[-1]
    else:  # several columns: bring each row's n-grams together
        order = np.argsort(np.concatenate([np.repeat(np.arange(len(wanted)), count) for count in counts]), kind="stable")
        grams = np.concatenate(pieces)[order]
    words, sizes = worth(pack, len(grams))(grams, np.sum(counts, axis=0), *permutations(near), near.scheme == "legacy")
    return words, sizes


def turns_of(batch: pa.RecordBatch, near: NearConfig) -> Iterator[Turns]:
    """The texts that count, column by column, without copying them."""
    from decontam.ngrams import texts_of_column

    for name in text_columns(near):
        if name not in batch.schema.names:
            continue
        column = batch.column(name)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        turns = column.flatten()
        if not len(turns):
            continue
        chosen = np.ones(len(turns), np.bool_)
        if name != "candidates":
            role = turns.field("role")
            refused = pc.not_equal(role, "user") if near.by == "prompt" else pc.equal(role, "system")
            if near.by == "prompt" and near.system:
                refused = pc.and_(refused, pc.not_equal(role, "system"))
            elif near.system:
                refused = pa.array(np.zeros(len(turns), np.bool_))
            chosen = ~pc.fill_null(refused, True).to_numpy(zero_copy_only=False)
        texts = texts_of_column(turns.field("content"))
        yield Turns(texts.data, texts.offsets, np.repeat(np.arange(batch.num_rows), lengths), chosen)
