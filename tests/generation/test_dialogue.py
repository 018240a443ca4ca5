"""Dialogues: turns alternate, nothing cut off gets in, refinement keeps the last pair alone."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from scripted import content_of, counts_of, make, model, rejected_of, rows_of, serve, write_prompts

from columnar.record import validate
from generation.dialogue import DONE, MAKER, transcript


def teacher(body, prompt: str) -> str:
    """Both models; what the user does is written in the conversation."""
    if prompt.startswith("Below is a conversation"):
        turns = prompt.count("Person:")
        if "[short]" in prompt:
            return DONE
        if "[loop]" in prompt:
            return "Person: Tell me again"
        return f"Person: And what about point {turns}?" + (" <<truncate>>" if "[cut]" in prompt and turns == 2 else "")
    if prompt.startswith("An assistant was asked"):
        return prompt.split("was asked this:")[1].split("and answered")[0].strip() + " in detail"
    return f"Answer to: {body['messages'][-1]['content']}".replace("<<truncate>>", "")


def config_of(server, path, **more):
    user = {"name": "user", "model": "tiny-user", "base_url": server.url}
    return {"name": "talk", "models": [model(server), user], "user": "user", "prompts": {"path": path}, "turns": [2, 4], **more}


def test_conversations(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", [f"Tell me about number {i}" for i in range(60)])
    with serve(teacher) as server:
        server.fake.keep_bodies = True
        assert make(MAKER, config_of(server, path, system="You are brief."), tmp_path / "out") == 0
        by_user = [b for b in server.fake.bodies if b["model"] == "tiny-user"]
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 60 and not any(validate(r) for r in rows)
    turns = Counter(sum(m["role"] == "assistant" for m in r["messages"]) for r in rows)
    assert set(turns) == {2, 3, 4} and min(turns.values()) > 8
    assert len(by_user) == sum((n - 1) * count for n, count in turns.items())  # the user speaks between answers, never after the last
    for row in rows:
        assert row["messages"][0] == {**row["messages"][0], "role": "system", "content": "You are brief."}
        assert row["messages"][-1]["role"] == "assistant" and not any((m["content"] or "").startswith("Person:") for m in row["messages"])
        assert json.loads(row["meta"])["user"] == "tiny-user" and len(row["parents"]) == 1


@pytest.mark.parametrize(("mark", "answers", "ended"), [("[cut]", 2, "truncated"), ("[loop]", 2, "repeated"), ("<<truncate>>", 0, "")])
def test_ends_before_what_is_not_good(tmp_path, mark, answers, ended) -> None:
    path = write_prompts(tmp_path / "p.jsonl", [f"Tell me about {mark}", "Tell me about the sea"])
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, path, turns=[1, 4], seed=5), tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    odd = [r for r in rows if mark in r["messages"][0]["content"]]
    assert not any("<<truncate>>" in m["content"] for r in rows for m in r["messages"])
    if not answers:
        assert counts_of(tmp_path / "out")["rejected"] == {"truncated": 1} and not odd
        return
    (row,) = odd
    assert row["messages"][-1]["role"] == "assistant"
    assert sum(m["role"] == "assistant" for m in row["messages"]) <= answers
    assert ended in json.loads(row["meta"])["ended"] or json.loads(row["meta"])["ended"] == "turns"


def test_a_conversation_that_ends_too_soon_is_rejected(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", ["Tell me [short]", "Tell me about the sea"])
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, path), tmp_path / "out") == 0
    (rejected,) = rejected_of(tmp_path / "out")
    assert rejected["reason"] == "too_short" and rejected["answers"] == 1


def test_refinement(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", ["Tell me about the sea", "Tell me <<poison>>"])
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, path, mode="refine", refinements=2), tmp_path / "out") == 0
        first = content_of(tmp_path / "out")
        calls = server.fake.calls["all"]
        assert make(MAKER, config_of(server, path, mode="refine", refinements=2), tmp_path / "out", "--force") == 0
        assert server.fake.calls["all"] == calls and content_of(tmp_path / "out") == first
    (row,) = rows_of(tmp_path / "out")
    request = "Tell me about the sea in detail in detail"
    assert [m["content"] for m in row["messages"]] == [request, f"Answer to: {request}"]
    assert json.loads(row["meta"])["earlier"] == ["Tell me about the sea", "Tell me about the sea in detail"]
    assert counts_of(tmp_path / "out")["rejected"] == {"failed": 1}


def test_max_cost_stops_cleanly_and_goes_on(tmp_path, capsys) -> None:
    path = write_prompts(tmp_path / "p.jsonl", [f"Tell me about number {i}" for i in range(40)])
    price = {"price": {"input": 100.0, "output": 100.0}, "params": {"max_tokens": 50}}
    with serve(teacher) as server:
        config = config_of(server, path, mode="refine")
        for m in config["models"]:
            m.update(price)
        assert make(MAKER, config, tmp_path / "out", "--max-cost", "0.15") == 1
        assert "max_cost" in capsys.readouterr().err
        counts = counts_of(tmp_path / "out")
        assert 0 < counts["rows"] < 40 and counts["rejected"]["budget"] > 0
        asked = server.fake.calls["ok"]
        assert make(MAKER, config, tmp_path / "out") == 0
        assert counts_of(tmp_path / "out")["rows"] == 40 and server.fake.calls["ok"] == 120 and asked < 120
        assert max(server.fake.answered.values()) == 1


def test_transcripts_name_the_speakers() -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    assert transcript(turns) == "Person: u\n\nAssistant: a"
