"""Self-Instruct over real HTTP: the published filters, whole conservation, resumption without a repeated call."""

from __future__ import annotations

import json
import random
import re

import pytest
import yaml
from scripted import content_of, counts_of, killed, make, model, rejected_of, rows_of, serve

from columnar.record import validate
from generation import self_instruct
from generation.candidate import Dropped
from generation.rouge import RougePool
from generation.self_instruct import MAKER, good_instances, read_examples, split_tasks, why_not

VERBS = ["Explain", "Describe", "List", "Compare", "Summarize", "Rewrite", "Translate", "Invent", "Classify", "Correct"]
NOUNS = [
    f"{a}{b}"
    for a in ("tidal", "glass", "paper", "winter", "copper", "river", "market", "garden")
    for b in ("work", "law", "song", "ware", "clock")
]


def teacher(body, prompt: str) -> str:
    """A model that writes mostly good tasks, some that every filter must catch, and instances."""
    draw = random.Random(prompt + str(body.get("seed")))
    if prompt.startswith("You are adding"):
        first = int(re.search(r"numbered from (\d+)", prompt).group(1))
        made = []
        for _ in range(5):
            number = f"{draw.randrange(10**9)} {draw.randrange(10**9)}"
            made.append(f"{draw.choice(VERBS)} {draw.choice(NOUNS)} and {draw.choice(NOUNS)} to SQL expert Anna {number}")
        shown = re.findall(r"^\d+\. (.*)$", prompt, re.MULTILINE)
        made.append(draw.choice(shown))  # a copy
        made.append(
            draw.choice(["Draw a picture of a cat please", "Too short", "Write a program that adds two numbers", "!What is it about now"])
        )
        return "\n".join(f"{first + i}. {text}" for i, text in enumerate(made))
    if prompt.startswith("Some tasks"):
        return "yes" if "Classify" in prompt else "no"
    if "classification task" in prompt:
        return json.dumps({"examples": [{"output": "good", "input": f"fine {draw.random()}"}, {"output": "bad", "input": "poor"}]})
    return json.dumps({"examples": [{"input": "", "output": f"An answer. {draw.random()}"}]})


def config_of(server, shared, **more):
    seeds = {"path": str(shared / "raw/self_instruct_seed_tasks.jsonl"), "license": "apache-2.0"}
    return {"name": "self", "models": [model(server)], "seeds": seeds, "until": {"rows": 60}, "requests": 4, **more}


def test_makes_new_tasks(shared, tmp_path) -> None:
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, shared), tmp_path / "out") == 0
        server.fake.keep_bodies = True
    rows, rejected, counts = rows_of(tmp_path / "out"), rejected_of(tmp_path / "out"), counts_of(tmp_path / "out")
    assert len(rows) == 60 and len({r["id"] for r in rows}) == 60
    assert all(not validate(r) for r in rows)
    assert counts["candidates"] == counts["rows"] + sum(counts["rejected"].values()) and len(rejected) == sum(counts["rejected"].values())
    assert {"not_new", "keyword"} <= set(counts["rejected"])
    assert all(r["license"] == "apache-2.0" and len(r["parents"]) == 8 for r in rows)
    texts = [r["prompt"][-1]["content"] for r in rows]
    assert all("SQL expert Anna" in t for t in texts)  # the published script would have written "sql expert anna"
    seeds = [json.loads(line)["instruction"] for line in (shared / "raw/self_instruct_seed_tasks.jsonl").open(encoding="utf-8")]
    pool = RougePool(seeds)
    assert all(pool.accept(json.loads(r["meta"])["instruction"]) is None for r in rows)
    copies = [r for r in rejected if r["reason"] == "not_new"]
    assert copies and all(r["rouge_l"] > 0.7 and r["resembles"] for r in copies)
    meta = json.loads(rows[0]["meta"])
    assert meta["model"] == "tiny" and meta["prompts"][0].startswith("self_instruct_tasks@")


def test_six_by_people_and_two_by_the_model(shared, tmp_path) -> None:
    with serve(teacher) as server:
        server.fake.keep_bodies = True
        assert make(MAKER, config_of(server, shared, instances=0, until={"rows": 80}), tmp_path / "out") == 0
        asked = [b["messages"][-1]["content"] for b in server.fake.bodies]
    rounds = [sum("SQL expert Anna" in line for line in a.split("still", 1)[-1].splitlines()) for a in asked]
    assert rounds[:4] == [0, 0, 0, 0] and set(rounds[4:]) == {2}
    assert all(len(re.findall(r"^\d+\. ", a, re.MULTILINE)) == 8 for a in asked)


def test_answers_are_output_first_for_classification(shared, tmp_path) -> None:
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, shared, make="answers", instances=2), tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert {r["kind"] for r in rows} == {"sft"}
    labelled = [r for r in rows if json.loads(r["meta"])["is_classification"]]
    assert labelled and all(r["messages"][-1]["content"] == "good" and "\n\nfine" in r["messages"][0]["content"] for r in labelled)


def test_faults_fail_alone(shared, tmp_path) -> None:
    shares = {"poison": 0.05, "flaky_500": 0.1, "flaky_429": 0.1, "truncate": 0.1, "refuse": 0.05}
    with serve(teacher, shares=shares, retry_after=0.01) as server:
        assert make(MAKER, config_of(server, shared), tmp_path / "out") == 0
    counts = counts_of(tmp_path / "out")
    assert counts["rows"] == 60 and {"failed", "refused", "truncated"} & set(counts["rejected"])
    assert counts["candidates"] == 60 + sum(counts["rejected"].values())


def test_killed_and_run_again_repeats_no_call(shared, tmp_path) -> None:
    """kill -9 in the middle; the second run asks only what was not answered and ends with the bytes of an undisturbed run."""
    with serve(teacher, latency=0.05) as server:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config_of(server, shared)), encoding="utf-8")
        kept = killed(server, "generation.self_instruct", path, tmp_path / "killed", 25)
        assert not (tmp_path / "killed/manifest.json").exists()
        server.fake.reset()
        assert make(MAKER, config_of(server, shared), tmp_path / "killed") == 0
        second = server.fake.calls["ok"]
        calls = server.fake.calls["ok"]
        assert make(MAKER, config_of(server, shared), tmp_path / "killed") == 0  # up to date: nothing asked
        assert server.fake.calls["ok"] == calls
        server.fake.reset()
        assert make(MAKER, config_of(server, shared), tmp_path / "whole") == 0
        assert kept == 25 and kept + second == server.fake.calls["ok"]
    assert content_of(tmp_path / "killed") == content_of(tmp_path / "whole")


def test_a_model_with_nothing_new_to_say_ends(shared, tmp_path, capsys) -> None:
    with serve(lambda body, prompt: "9. Is there a way to say it") as server:
        assert make(MAKER, config_of(server, shared, instances=0), tmp_path / "out") == 0
    assert counts_of(tmp_path / "out")["rows"] == 1
    assert "not_new" in capsys.readouterr().err


def test_the_candidate_budget_ends_a_run(shared, tmp_path) -> None:
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, shared, instances=0, until={"rows": 1000, "candidates": 50}), tmp_path / "out") == 0
    counts = counts_of(tmp_path / "out")
    assert counts["candidates"] - counts["rejected"].get("not_needed", 0) == 50


def test_dry_run_asks_nothing(shared, tmp_path, capsys) -> None:
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, shared), tmp_path / "out", "--dry-run", "--json") == 0
        assert server.fake.calls["all"] == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert [step["calls"] for step in plan] == [15, 60, 60]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"until": {}}, "until"),
        ({"models": []}, "models"),
        ({"model": "other"}, "other"),
        ({"make": "answers", "instances": 0}, "instance"),
        ({"sedes": 1}, "did you mean 'seeds'"),
        ({"seeds": {"path": "/nowhere.jsonl"}}, "no such file"),
    ],
)
def test_bad_configs_say_what_is_wrong(shared, tmp_path, capsys, change, said) -> None:
    with serve(teacher) as server:
        assert make(MAKER, {**config_of(server, shared), **change}, tmp_path / "out") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Write a haiku", "length"),
        ("word " * 151, "length"),
        ("Describe this picture of the sea", "keyword"),
        ("Please go to the next page", "keyword"),
        ("Describe the photographs of the sea", None),
        ("Write a program that sorts lists", "write_a_program"),
        ("Write a programme for a concert", "write_a_program"),  # a prefix, as published
        ("#hashtag for a bakery please", "punctuation_first"),
        ("Écris un poème sur la mer", "not_ascii_first"),
        ("Name five SQL dialects and Anna's", None),
    ],
)
def test_the_published_filters(text, reason) -> None:
    assert why_not(text) == reason
    if reason == "not_ascii_first":
        assert why_not(text, "any") is None


def test_numbered_lists_are_split_with_their_case() -> None:
    reply = "9. Explain SQL\n   to Anna.\n10) Name 3. Things\n\nTask 11: Last one"
    assert split_tasks(reply) == ["Explain SQL to Anna.", "Name 3. Things", "Last one"]
    assert split_tasks(reply, truncated=True) == ["Explain SQL to Anna.", "Name 3. Things"]
    assert split_tasks("- one\n* two") == ["one", "two"]


def test_instance_filters() -> None:
    assert good_instances([("a", "b"), ("a", "b"), ("c", "c"), ("d", ""), ("e:", "f"), ("g", "h:")]) == [("a", "b")]
    assert good_instances([("", "one"), ("x", "two")]) == [("", "one")]
    for pairs, reason in (([("a", "b"), ("a", "c")], "contradiction"), ([("a", "a")], "no_instance")):
        with pytest.raises(Dropped) as dropped:
            good_instances(pairs)
        assert dropped.value.reason == reason
    with pytest.raises(Dropped, match="unparsable"):
        read_examples("I cannot do that")
    assert read_examples('Sure!\n{"examples": [{"input": null, "output": 3}]}') == [("", "3")]
    assert self_instruct.HUMAN + self_instruct.MACHINE == 8
