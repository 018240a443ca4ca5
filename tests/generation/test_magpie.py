"""Magpie: the template goes with the request, copies and fragments are rejected in a fixed order."""

from __future__ import annotations

import itertools
import json

from scripted import content_of, counts_of, make, model, rejected_of, rows_of, serve

from columnar.record import validate
from generation.magpie import MAKER


def test_user_turns(tmp_path) -> None:
    texts = itertools.cycle(
        [f"How do I bake bread number {i}?" for i in range(40)] + ["Rewrite this text:", "...", "how do i bake  bread number 3?"]
    )
    with serve(lambda body, prompt: next(texts)) as server:
        server.fake.keep_bodies = True
        config = {"name": "magpie", "models": [model(server)], "template": "llama3", "until": {"rows": 60, "candidates": 96}}
        assert make(MAKER, config, tmp_path / "out") == 0
        body = server.fake.bodies[0]
        calls = server.fake.calls["all"]
        assert make(MAKER, config, tmp_path / "two", "--cache", str(tmp_path / "out/replies.sqlite")) == 0
        assert server.fake.calls["all"] == calls
    assert content_of(tmp_path / "out") == content_of(tmp_path / "two")
    assert "<|start_header_id|>user" in body["chat_template"] and body["add_generation_prompt"] is False and body["stop"] == ["<|eot_id|>"]
    assert body["n"] == 16 and body["messages"] == [{"role": "user", "content": ""}]
    rows, counts = rows_of(tmp_path / "out"), counts_of(tmp_path / "out")
    assert len(rows) == 40 == len({r["hash"] for r in rows}) and not any(validate(r) for r in rows)
    assert counts["candidates"] == 96 and {"repeated", "ends_with_colon", "says_nothing"} == set(counts["rejected"])
    assert all("text" in r for r in rejected_of(tmp_path / "out"))


def test_answers(tmp_path) -> None:
    numbers = itertools.count()

    def both(body, prompt: str) -> str:
        return f"How is number {next(numbers)} made?" if "chat_template" in body else f"Answer to {prompt}"

    with serve(both) as server:
        config = {
            "name": "m",
            "models": [model(server)],
            "template": "<u>",
            "stop": "</u>",
            "make": "answers",
            "until": {"rows": 20},
            "at_once": 4,
        }
        assert make(MAKER, config, tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 20
    assert all(r["messages"][1]["content"] == f"Answer to {r['messages'][0]['content']}" for r in rows)
    assert json.loads(rows[0]["meta"])["template"] == "<u>"


def test_a_template_of_ones_own_needs_its_end(tmp_path, capsys) -> None:
    with serve(lambda body, prompt: "") as server:
        config = {"name": "m", "models": [model(server)], "template": "<u>", "until": {"rows": 2}}
        assert make(MAKER, config, tmp_path / "out") == 2
    assert "stop: missing" in capsys.readouterr().err
