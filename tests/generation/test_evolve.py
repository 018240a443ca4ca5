"""Evol-Instruct: chains of parents, an eliminator that catches every kind of failure, resumption."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import yaml
from scripted import content_of, counts_of, killed, make, model, rejected_of, rows_of, serve, write_prompts

from columnar.record import validate
from generation.evolve import MAKER, OPERATIONS, EvolveConfig, is_apology, leaked, operation, says_nothing
from generation.models import ModelConfig


def teacher(body, prompt: str) -> str:
    """Evolves by appending; what to do wrong is written in the prompt."""
    request = prompt.split("The request:")[-1].split("The old")[-1].strip()
    if prompt.startswith("Two requests"):
        return "same" if "[echo]" in prompt else "different"
    if "The request:" in prompt:
        if "[empty]" in request:
            return "What is it, and how?"
        if "[leak]" in request:
            return f"New request: {request} more"
        if "[copy]" in request:
            return request
        return f"{request} and then some"
    if "[sorry]" in prompt:
        return "I am sorry, I cannot."
    return f"Answer to {prompt[:40]}"


def config_of(server, path, **more):
    return {"name": "evolved", "models": [model(server)], "prompts": {"path": path, "license": "mit"}, "rounds": 3, **more}


def test_chains_lead_back_to_the_prompt(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", [f"Tell me about number {i}" for i in range(20)])
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, path), tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 60 and all(not validate(r) for r in rows)
    by_id = {r["id"]: r for r in rows}
    roots = {r["id"] for r in rows_of(tmp_path / "out/inputs/p")}
    for row in rows:
        meta, (parent,) = json.loads(row["meta"]), row["parents"]
        assert meta["root"] in roots and row["license"] == "mit"
        if meta["depth"] == 1:
            assert parent in roots
        else:
            assert json.loads(by_id[parent]["meta"])["depth"] == meta["depth"] - 1
            assert row["prompt"][0]["content"].startswith(by_id[parent]["prompt"][0]["content"])


@pytest.mark.parametrize(
    ("mark", "reason"),
    [("[echo]", "no_gain"), ("[empty]", "says_nothing"), ("[leak]", "leaked"), ("[copy]", "unchanged"), ("[sorry]", "apology")],
)
def test_the_eliminator(tmp_path, mark, reason) -> None:
    path = write_prompts(tmp_path / "p.jsonl", [f"Tell me about {mark}", "Tell me about the sea"])
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, path), tmp_path / "out") == 0
    assert counts_of(tmp_path / "out")["rejected"] == {reason: 3}
    assert len(rows_of(tmp_path / "out")) == 3
    assert all(r["parents"] and r["operation"] in OPERATIONS for r in rejected_of(tmp_path / "out"))


def test_answers_are_those_the_eliminator_saw(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", ["Tell me about the sea"])
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, path, make="answers"), tmp_path / "out") == 0
        calls = server.fake.calls["ok"]
        # prompts alone from the same replies: nothing is asked again
        assert make(MAKER, config_of(server, path), tmp_path / "out", "--force") == 0
        assert server.fake.calls["ok"] == calls
    assert rows_of(tmp_path / "out")[0]["kind"] == "prompt"


def test_stops_at_the_goal(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", [f"Tell me about number {i}" for i in range(500)])
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, path, until={"rows": 10}), tmp_path / "out") == 0
        assert server.fake.calls["ok"] < 500  # of 4,500 that all prompts would take
    assert counts_of(tmp_path / "out")["rows"] == 10


def test_killed_and_run_again(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", [f"Tell me about number {i}" for i in range(30)])
    with serve(teacher, latency=0.03, shares={"flaky_500": 0.1, "poison": 0.05}) as server:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(config_of(server, path)), encoding="utf-8")
        kept = killed(server, "generation.evolve", config, tmp_path / "killed", 60)
        server.fake.reset()
        assert make(MAKER, config_of(server, path), tmp_path / "killed") == 0
        second = server.fake.calls["ok"]
        server.fake.reset()
        assert make(MAKER, config_of(server, path), tmp_path / "whole") == 0
        assert kept == 60 and kept + second == server.fake.calls["ok"]
    assert content_of(tmp_path / "killed") == content_of(tmp_path / "whole")


def test_operations_are_drawn_evenly_and_the_same_every_time() -> None:
    config = EvolveConfig(name="e", models=[ModelConfig(name="m")], prompts={"path": "p"})
    drawn = Counter(operation(config, f"{i:x}", 0) for i in range(3000))
    assert set(drawn) == set(OPERATIONS) and all(400 < n < 600 for n in drawn.values())
    assert operation(config, "a", 1) == operation(config, "a", 1)
    only = EvolveConfig(name="e", models=[ModelConfig(name="m")], prompts={"path": "p"}, weights={"breadth": 1})
    assert {operation(only, str(i), 0) for i in range(20)} == {"breadth"}


def test_the_rules_of_the_eliminator() -> None:
    assert (
        says_nothing("... ?!") and says_nothing("what is it and why") and not says_nothing("what is rust") and not says_nothing("什么是锈")
    )
    assert is_apology("I'm sorry, I can't") and not is_apology("sorry " + "word " * 80)
    assert leaked("Here is the rewritten prompt: x", "x") and not leaked("Improve the given prompt for me", "What is the given prompt?")


def test_bad_weights(tmp_path, capsys) -> None:
    path = write_prompts(tmp_path / "p.jsonl", ["Tell me"])
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, path, weights={"deeper": 1}), tmp_path / "out") == 2
    assert "'deeper'" in capsys.readouterr().err


def test_what_it_reads_is_never_overwritten(tmp_path, capsys) -> None:
    path = write_prompts(tmp_path / "p.jsonl", ["Tell me about the sea"])
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, path), tmp_path / "out") == 0
        before = content_of(tmp_path / "out")
        again = {**config_of(server, path), "prompts": {"path": str(tmp_path / "out")}}
        assert make(MAKER, again, tmp_path / "out", "--force") == 2
        assert "would be overwritten" in capsys.readouterr().err
        assert make(MAKER, again, tmp_path / "further") == 0  # evolved further, from there
        assert make(MAKER, again, tmp_path / "out/inputs/p") == 1  # holds a loaded dataset
        assert "holds another dataset" in capsys.readouterr().err
    assert content_of(tmp_path / "out") == before
    assert json.loads(rows_of(tmp_path / "further")[0]["meta"])["depth"] == 1


def test_what_failed_can_be_asked_again(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", [f"Tell me about number {i}" for i in range(10)])
    with serve(teacher, shares={"poison": 0.3}) as server:
        assert make(MAKER, config_of(server, path), tmp_path / "out") == 0
        failed = counts_of(tmp_path / "out")["rejected"]["failed"]
        calls = server.fake.calls["all"]
        server.fake.faults.shares.clear()  # the server is mended
        assert make(MAKER, config_of(server, path), tmp_path / "out") == 0
        assert server.fake.calls["all"] == calls and failed > 0
        assert make(MAKER, config_of(server, path), tmp_path / "out", "--retry-failed") == 0
    assert counts_of(tmp_path / "out") == {"candidates": 30, "rows": 30, "rejected": {}, "stopped": ""}


def test_a_server_without_schemas_is_read_strictly(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", ["Tell me about the sea", "Tell me about [echo]"])
    with serve(teacher) as server:
        server.fake.keep_bodies = True
        config = config_of(server, path)
        config["models"][0]["structured"] = False
        assert make(MAKER, config, tmp_path / "out") == 0
        assert not any("structured_outputs" in b or "response_format" in b for b in server.fake.bodies)
    assert counts_of(tmp_path / "out")["rejected"] == {"no_gain": 3}
