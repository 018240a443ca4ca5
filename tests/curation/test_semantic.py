"""The tier by embeddings proposes pairs and drops nothing unless told to; what it could not check it says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import polars as pl
import pytest
from duplicates import make, marks, sft

from columnar.config import parse
from columnar.errors import CaravanError, ConfigError
from curation.dedup import DedupConfig
from curation.duplicate_report import search, write
from curation.semantic import propose

ROWS = [sft("How do I boil an egg?", ""), sft("How long does one cook it in water?", ""), sft("Who wrote Faust?", ""), sft("...", "")]
ANGLES = {"egg": 0.0, "cook": 0.1, "Faust": 2.0}


def vector(text: str) -> list[float]:
    angle = next((a for word, a in ANGLES.items() if word in text), 1.0)
    return [float(np.cos(angle)), float(np.sin(angle))]


@pytest.fixture
def server() -> Iterator[tuple[str, list[int]]]:
    """An OpenAI-compatible embedding server that counts what it is asked."""
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(len(body["input"]))
            if body["model"] != "m":
                self.send_error(404, "no such model")
                return
            data = [{"index": i, "embedding": vector(text)} for i, text in enumerate(body["input"])][::-1]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": data}).encode())

        def log_message(self, *_: object) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/v1", asked
    httpd.shutdown()


def run(dataset, **config):
    checked = parse(DedupConfig, config, "test")
    found, everything = search([dataset], checked)
    write(found, everything, checked)
    return found, marks(dataset), pl.read_parquet(dataset.path / "hits" / "duplicates.parquet")


def test_a_server_proposes_and_is_asked_once(tmp_path, server):
    url, asked = server
    dataset = make(tmp_path / "d", ROWS)
    how = {"endpoint": url, "model": "m", "threshold": 0.9}
    found, table, hits = run(dataset, by="prompt", semantic=how)
    assert table["reason"].null_count() == 4, "nothing is dropped"
    assert hits.select("kind", "id", "kept_id").rows() == [("semantic", table["id"][1], table["id"][0])]
    assert hits["estimate"][0] == pytest.approx(np.cos(0.1), abs=1e-6) and hits["jaccard"][0] is None
    assert "1 pairs" in found.notes[-1]
    before = len(asked)
    _, table, hits = run(dataset, by="prompt", semantic={**how, "drop": True})
    assert table["reason"].to_list() == [None, "semantic_duplicate", None, None] and table["kept_id"][1] == table["id"][0]
    assert len(asked) == before, "stored embeddings are used again"
    with pytest.raises(CaravanError, match="404"):
        run(dataset, by="prompt", semantic={**how, "model": "other"})
    with pytest.raises(CaravanError, match="no embeddings"):
        run(dataset, semantic={"endpoint": "http://127.0.0.1:9/v1", "model": "m"})


def test_embeddings_from_a_file(tmp_path):
    dataset = make(tmp_path / "d", ROWS)
    ids = pl.read_parquet(dataset.row_files[0])["id"].to_list()
    pl.DataFrame({"id": ids[:2], "embedding": [[1.0, 0.0], [0.99, 0.01]]}).write_parquet(tmp_path / "e.parquet")
    found, _, hits = run(dataset, semantic={"embeddings": str(tmp_path / "e.parquet")})
    assert hits["id"].to_list() == [ids[1]]
    assert "2 rows have no embedding: not checked" in found.notes[-1]
    pl.DataFrame({"id": ids[:2], "vec": [[1.0], [1.0]]}).write_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(ConfigError, match="expected id and embedding"):
        run(dataset, semantic={"embeddings": str(tmp_path / "wrong.parquet")})


def test_proposals_across_blocks(monkeypatch):
    """Every proposed row is alike to one that stays, the most alike of them; blocks change nothing."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 3))
    vectors[7] = 0  # no direction: alike to nothing
    fixed, scopes = rng.random(300) < 0.1, rng.integers(0, 2, 300)
    whole = propose(vectors, 0.98, True, fixed, scopes)
    monkeypatch.setattr("curation.semantic.BLOCK", 13)
    for a, b in zip(whole, propose(vectors, 0.98, True, fixed, scopes), strict=True):
        assert np.allclose(a, b, atol=1e-6)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    gone: set[int] = set()
    expected = []
    for i in range(300):
        cosines = {j: float(unit[i] @ unit[j]) for j in range(i) if j not in gone and scopes[i] == scopes[j]}
        if not fixed[i] and cosines and max(cosines.values()) >= 0.98:
            gone.add(i)
            expected.append((i, max(cosines, key=cosines.__getitem__)))
    assert list(zip(whole.row.tolist(), whole.keeper.tolist(), strict=True)) == expected and len(expected) > 50
