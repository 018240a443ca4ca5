"""Batch files through a Batch API: submitted once, collected when done, failures with their reasons, the key nowhere."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from columnar import store
from generation import batch, respond


@pytest.fixture
def folder(serve, tmp_path: Path):
    """Requests of one model as batch files, the server, and the command that wrote them."""
    server = serve(shares={"poison": 0.1})
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": f"Question {i}"}) + "\n" for i in range(60)))
    config = {"prompts": str(tmp_path / "p.jsonl"), "models": [{"name": "m", "base_url": server.url}], "per_prompt": 1, "samples": 2}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**config, "params": {"seed": 3, "max_tokens": 50}}))
    command = [str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")]
    assert respond.main([*command, "--batch", str(tmp_path / "batch")]) == 0
    return tmp_path / "batch", server, command


def test_submit_once_collect_when_done_and_go_on(folder, tmp_path, monkeypatch, capsys) -> None:
    directory, server, command = folder
    secret = "sk-very-secret-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    where = ["--base-url", server.url]
    for _ in range(2):
        assert batch.main(["submit", str(directory), *where]) == 0
    assert len(server.fake.looked) == 1, "a file went twice"
    (request,) = directory.glob("*-000.jsonl")
    seeds = Counter(json.loads(line)["body"]["seed"] for line in request.read_text().splitlines())
    assert seeds == {3: 60, 4: 60}
    collect = ["collect", str(directory), "--cache", str(tmp_path / "out/replies.sqlite"), *where, "--json"]
    assert batch.main(collect) == 0
    waiting = json.loads(capsys.readouterr().out)
    assert [(line["status"], line["answers"]) for line in waiting] == [("in_progress", 0)]
    for _ in range(2):  # collecting twice changes nothing
        assert batch.main(collect) == 0
        (line,) = json.loads(capsys.readouterr().out)
        assert line["status"] == "collected" and line["answers"] + line["failed"] == 120 and line["failed"] > 0
    assert respond.main(command) == 0 and server.fake.calls["all"] == 0
    counts = store.open_dataset(tmp_path / "out").manifest["identity"]["counts"]
    assert counts["answers"] == line["answers"]
    ledger = pq.read_table(tmp_path / "out/hits/ledger.parquet").to_pylist()
    assert {entry["reason"] for entry in ledger} == {"HTTP 400: this prompt cannot be processed"} and len(ledger) == line["failed"]
    assert all(secret.encode() not in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_what_was_submitted_is_not_written_over(folder, monkeypatch, capsys) -> None:
    directory, server, command = folder
    monkeypatch.setenv("OPENAI_API_KEY", "sk-something-0123456789")
    assert batch.main(["submit", str(directory), "--base-url", server.url]) == 0
    assert respond.main([*command, "--batch", str(directory)]) == 1
    assert "holds batches that were submitted" in capsys.readouterr().err


def test_answers_that_cannot_be_read(folder, tmp_path, capsys) -> None:
    directory, *_ = folder
    (request,) = directory.glob("*-000.jsonl")
    first = json.loads(request.read_text().splitlines()[0])["custom_id"]
    odd = {"custom_id": "somebody-else", "response": {"status_code": 200, "body": {}}}
    broken = {"custom_id": first, "response": {"status_code": 200, "body": {"choices": []}}}
    request.with_suffix(".out.jsonl").write_text(json.dumps(odd) + "\n" + json.dumps(broken) + "\n")
    cache = str(tmp_path / "out/replies.sqlite")
    assert batch.main(["collect", str(directory), "--cache", cache, "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["answers"], line["failed"], line["unknown"]) == (0, 1, 1)
    request.with_suffix(".out.jsonl").write_text("not json\n")
    assert batch.main(["collect", str(directory), "--cache", cache]) == 2
    assert ".out.jsonl:1: not JSON" in capsys.readouterr().err
    assert batch.main(["collect", str(tmp_path / "nothing"), "--cache", cache]) == 2
    assert "no batch files" in capsys.readouterr().err
