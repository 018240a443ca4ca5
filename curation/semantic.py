"""The optional tier for paraphrases, which share no n-grams: embeddings propose pairs, and drop nothing unless told to.

In:   the rows still kept after exact and near-duplicates, and their vectors: from a Parquet file (`id`, `embedding`), or from an
      OpenAI-compatible server, one vector a row, stored as cols/embedding.parquet and not asked for again.
Out:  (row, kept row, cosine) for every row that is at least `threshold` alike to one before it in keep order: the most alike one.

All pairs are compared, in blocks: a minute a core for 50,000 rows of 400 dimensions, four times that for twice the rows.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from columnar.annotate import annotate
from columnar.errors import CaravanError, ConfigError
from columnar.store import Dataset
from curation.dedup import NearConfig, SemanticConfig
from curation.minhash import text_columns, turns_of

VERSION = 1
BLOCK = 2048  # rows compared with all earlier ones at a time
REQUEST_TEXTS = 128
TIMEOUT_S = 120


class Proposed(NamedTuple):
    """Pairs: numbers of the rows and of those that would be kept for them, and their cosines."""

    row: np.ndarray
    keeper: np.ndarray
    cosine: np.ndarray


NOTHING = Proposed(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def propose(vectors: np.ndarray, threshold: float, drop: bool, fixed: np.ndarray, scopes: np.ndarray) -> Proposed:
    """Pairs among vectors that are given in keep order.

    Args:
        drop: a proposed row is gone: it cannot be what a later one is alike to, so that every row is compared with one that stays.
        fixed: rows that are never proposed (those of a reference dataset).
        scopes: only rows of equal numbers are compared.
    """
    count = len(vectors)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.nan_to_num(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    stands = np.ones(count, np.bool_)
    found: list[tuple[int, int, float]] = []
    for start in range(0, count, BLOCK):
        stop = min(count, start + BLOCK)
        alike = unit[start:stop] @ unit[:stop].T
        alike[:, ~stands[:stop]] = -1
        alike[np.arange(start, stop)[:, None] <= np.arange(stop)[None, :]] = -1
        alike[scopes[start:stop, None] != scopes[None, :stop]] = -1
        alike[fixed[start:stop]] = -1
        for i in np.flatnonzero(alike.max(axis=1, initial=-1) >= threshold).tolist():
            best = int(alike[i].argmax())
            if alike[i, best] >= threshold:  # may have changed: an earlier row of this block may be gone
                found.append((start + i, best, float(alike[i, best])))
                if drop:
                    stands[start + i] = False
                    alike[:, start + i] = -1
    if not found:
        return NOTHING
    rows, keepers, cosines = zip(*found, strict=True)
    return Proposed(np.array(rows), np.array(keepers), np.array(cosines))


def vectors_of(config: SemanticConfig, by: str, keys: pl.DataFrame, datasets: Sequence[Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """(whether each key row has a vector, the vectors of those that have one).

    Raises:
        ConfigError: the file of embeddings has other columns, or vectors of different lengths.
        CaravanError: the server cannot be reached or refuses.
    """
    if config.endpoint:
        how = {"endpoint": config.endpoint, "model": config.model, "by": by}
        make = partial(embed, endpoint=config.endpoint, model=str(config.model), by=by)
        tables = []
        for number in keys["dataset"].unique().sort():
            dataset = datasets[number]
            annotate([dataset], "embedding", VERSION, how, make, text_columns(_turns(by)))
            column = pl.from_arrow(pq.read_table(dataset.sidecar("embedding"), columns=["embedding"]))
            assert isinstance(column, pl.DataFrame)
            tables.append(column.with_columns(dataset=pl.lit(number, pl.Int32), row=pl.int_range(pl.len(), dtype=pl.Int64)))
        joined = keys.select("dataset", "row").join(pl.concat(tables), on=["dataset", "row"], how="left", maintain_order="left")
    else:
        table = pl.read_parquet(str(config.embeddings))
        if not {"id", "embedding"} <= set(table.columns):
            raise ConfigError(f"{config.embeddings}: columns {', '.join(table.columns)}; expected id and embedding")
        ids = [pq.read_table(file, columns=["id"])["id"] for dataset in datasets for file in dataset.row_files]
        place = [(number, row) for number, dataset in enumerate(datasets) for row in range(dataset.rows)]
        known = pl.DataFrame(place, schema={"dataset": pl.Int32, "row": pl.Int64}, orient="row")
        known = known.with_columns(id=pl.Series([i for column in ids for i in column.to_pylist()], dtype=pl.String))
        joined = keys.select("dataset", "row").join(known, on=["dataset", "row"], how="left", maintain_order="left")
        joined = joined.join(table.select("id", "embedding").unique("id"), on="id", how="left", maintain_order="left")
    present = joined["embedding"].is_not_null().to_numpy()
    listed = joined["embedding"].drop_nulls().to_list()
    if len({len(vector) for vector in listed}) > 1:
        raise ConfigError(f"{config.embeddings or config.endpoint}: vectors of different lengths")
    return present, np.array(listed, np.float32).reshape(len(listed), -1)


def embed(batch: pa.RecordBatch, endpoint: str, model: str, by: str) -> pa.RecordBatch:
    """One column `embedding` (list of float32) from a server; null where a row has no text."""
    texts = [""] * batch.num_rows
    for turns in turns_of(batch, _turns(by)):
        for i in np.flatnonzero(turns.chosen).tolist():
            text = turns.data[turns.offsets[i] : turns.offsets[i + 1]].tobytes().decode("utf-8", "replace")
            texts[turns.owner[i]] += f"\n{text}" if texts[turns.owner[i]] else text
    asked = [i for i, text in enumerate(texts) if text.strip()]
    values: list[list[float] | None] = [None] * len(texts)
    for start in range(0, len(asked), REQUEST_TEXTS):
        part = asked[start : start + REQUEST_TEXTS]
        for i, vector in zip(part, _request(endpoint, model, [texts[i] for i in part]), strict=True):
            values[i] = vector
    return pa.RecordBatch.from_arrays([pa.array(values, pa.list_(pa.float32()))], ["embedding"])


def _turns(by: str) -> NearConfig:
    return NearConfig(by="prompt" if by == "prompt" else "row")


def _request(endpoint: str, model: str, texts: list[str]) -> list[list[float]]:
    body = json.dumps({"model": model, "input": texts}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
    request = urllib.request.Request(f"{endpoint.rstrip('/')}/embeddings", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            data = json.load(answer)["data"]
        vectors = [item["embedding"] for item in sorted(data, key=lambda item: item["index"])]
    except urllib.error.HTTPError as error:
        raise CaravanError(f"{endpoint}: {error.code}: {error.read(300).decode(errors='replace')}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CaravanError(f"{endpoint}: no embeddings: {error}", "check the address (it ends in /v1) and the model") from error
    if len(vectors) != len(texts):
        raise CaravanError(f"{endpoint}: {len(vectors)} embeddings for {len(texts)} texts")
    return vectors
