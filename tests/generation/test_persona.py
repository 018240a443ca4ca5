"""Personas: every skill, rows that a program can check, pairs whose rejected answer really fails, licences and the train/test split."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest
import yaml
from scripted import content_of, counts_of, killed, make, model, rejected_of, rows_of, serve

from columnar import store
from columnar.errors import InputError
from columnar.record import validate
from generation.material import PersonaFile, read_personas
from generation.persona import MAKER, bare
from generation.requirements import BOUND, Requirements, draw, lost
from generation.verifiers.constraints import CONSTRAINTS
from generation.verifiers.dispatch import verify
from generation.verifiers.ifeval import parse
from generation.verifiers.sampling import Chosen, witness

SEEN: dict[str, tuple[str, dict]] = {}


def teacher(body, prompt: str) -> str:
    """States requirements word for word; obeys what it can read in the request, as `known` says."""
    if "Write one request that this person" in prompt:
        stated = re.findall(r"^- (.*)$", prompt, re.MULTILINE)
        if "forgetful" in prompt:
            return "Tell me about my work."
        return "User instruction: Please tell me about my work. " + " ".join(stated)
    if prompt.startswith("Below is a request, and one requirement"):
        gone = prompt.split("Requirement to remove:\n")[1].split("\n\nWrite")[0]
        return prompt.split("Request:\n")[1].split("\n\nRequirement")[0].replace(gone, "").strip()
    if "mathematics problem" in prompt or "word problem" in prompt or "algebra" in prompt:
        return f"Problem: What is 6 times 7 for {prompt[23:45]}?"
    if "Put the final answer" in prompt:
        return f"Because. \\boxed{{{random.random() if 'split' in prompt else 42}}}"
    if "Python function" in prompt:
        return "Question: write a python function f(x) that returns x."
    if "one Python code block" in prompt:
        return "```python\ndef f(x):\n    return x\n```" if "bad coder" not in prompt else "def f(x) return"
    if body["messages"][0]["role"] == "system":  # an answer that must obey
        return obey(prompt)
    return "Tell me something about it, please."


def obey(request: str) -> str:
    """An answer that meets the requirements whose sentences are in the request."""
    chosen = [(name, params) for sentence, (name, params) in SEEN.items() if sentence in request]
    return witness(chosen, random.Random(0), request) or "no idea"


@pytest.fixture
def personas(tmp_path):
    path = tmp_path / "personas.jsonl"
    lines = [{"persona": f"A keeper of lighthouse number {i} on the coast"} for i in range(40)] + [
        {"persona": "A keeper of lighthouse number 3 on the coast"}
    ]
    path.write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    return str(path)


def config_of(server, personas, skills, **more):
    SEEN.clear()
    people, _ = read_personas(PersonaFile(path=personas))
    for person in people:
        for spec in (s.get("requirements", {}) for s in skills):
            for c in draw(Requirements(**spec), 1, f"instruction_following\x1f{person.id}"):
                SEEN[c.description] = (c.id, c.params)
    return {"name": "persona", "models": [model(server)], "personas": {"path": personas, "license": "cc-by-4.0"}, "skills": skills, **more}


def test_every_skill(personas, tmp_path) -> None:
    names = ["instruction_following", "hard_math", "grade_math", "algebra", "code", "knowledge", "chat"]
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, personas, [{"skill": n, "until": {"rows": 5}} for n in names]), tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert Counter(json.loads(r["meta"])["skill"] for r in rows) == dict.fromkeys(names, 5)
    assert all(not validate(r) and r["license"] == "cc-by-4.0" and len(r["parents"]) == 1 for r in rows)
    assert len({r["id"] for r in rows}) == 35
    assert not any(r["prompt"][0]["content"].startswith(("User instruction", "Problem", "Question")) for r in rows)
    counts = counts_of(tmp_path / "out")
    assert counts["candidates"] == counts["rows"] + sum(counts["rejected"].values())


def test_requirements_can_be_checked_and_are_of_the_training_kinds(personas, tmp_path) -> None:
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, personas, [{"skill": "instruction_following"}]), tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 40  # one persona is there twice
    for row in rows:
        pairs = parse(json.loads(row["ground_truth"]))
        assert row["verifier"] == "ifeval" and 1 <= len(pairs) <= 3
        assert {c.group for c, _ in pairs} == {"train"} and not {c.id for c, _ in pairs} & BOUND
        assert verify(row, obey(row["prompt"][0]["content"])).passed
    assert sum(verify(row, "A short answer.").passed for row in rows) < len(rows) / 4
    assert len({json.loads(r["meta"])["requirements"][0] for r in rows}) > 8
    notes = store.open_dataset(tmp_path / "out").manifest["identity"]["notes"]
    assert notes == ["verifiable requirements drawn from the groups: train"]


def test_ifevals_own_kinds_only_when_asked_for_and_told(personas, tmp_path, capsys) -> None:
    skills = [{"skill": "instruction_following", "until": {"rows": 10}, "requirements": {"groups": ["ifeval"], "most": 2}}]
    with serve(teacher) as server:
        assert make(MAKER, config_of(server, personas, skills), tmp_path / "out") == 0
    groups = {CONSTRAINTS[name].group for r in rows_of(tmp_path / "out") for name in json.loads(r["meta"])["requirements"]}
    assert groups == {"ifeval"}
    assert "must not report IFEval" in " ".join(store.open_dataset(tmp_path / "out").manifest["identity"]["notes"])
    assert "must not report IFEval" in capsys.readouterr().err


def test_answers_pass_their_checks(personas, tmp_path) -> None:
    with serve(teacher) as server:
        config = config_of(server, personas, [{"skill": "instruction_following", "until": {"rows": 12}}], make="answers")
        some = sorted(SEEN)[::4]
        for sentence in some:  # the teacher does not know these: its answers fail
            del SEEN[sentence]
        assert make(MAKER, config, tmp_path / "out") == 0
    rows, rejected = rows_of(tmp_path / "out"), rejected_of(tmp_path / "out")
    assert rows and all(verify({**json.loads(r["meta"]), "messages": r["messages"]}, r["messages"][-1]["content"]).passed for r in rows)
    failed = [r for r in rejected if r["reason"] == "answer_fails"]
    assert failed and all(r["why"] and r["answer"] and r["persona"] for r in failed)


def test_pairs_differ_by_one_requirement(personas, tmp_path) -> None:
    with serve(teacher) as server:
        config = config_of(server, personas, [{"skill": "instruction_following"}], make="pairs")
        assert make(MAKER, config, tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) > 10 and {r["kind"] for r in rows} == {"pair"}
    for row in rows:
        meta = json.loads(row["meta"])
        checkable = {"prompt": row["prompt"], "verifier": meta["verifier"], "ground_truth": meta["ground_truth"]}
        assert verify(checkable, row["chosen"][0]["content"]).passed
        rejected = verify(checkable, row["rejected"][0]["content"])
        assert not rejected.passed and row["rejected_score"] == rejected.score < row["chosen_score"] == 1.0
        assert meta["relaxed"] in meta["requirements"] and meta["relaxed_request"] != row["prompt"][0]["content"]


def test_votes_give_a_ground_truth(tmp_path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"persona": "A cook who counts"}\n{"persona": "A split mind of a baker"}\n', encoding="utf-8")
    with serve(lambda body, prompt: teacher(body, prompt)) as server:
        config = config_of(server, str(path), [{"skill": "grade_math", "votes": 3}])
        assert make(MAKER, config, tmp_path / "out") == 0
        calls = server.fake.calls["ok"]
    (row,) = rows_of(tmp_path / "out")
    assert (row["verifier"], row["ground_truth"]) == ("math", "42") and verify(row, "It is \\boxed{42}").passed
    assert json.loads(row["meta"])["agreement"] == 1.0
    assert [r["reason"] for r in rejected_of(tmp_path / "out")] == ["no_majority"]
    assert calls <= 8


def test_code_that_does_not_compile_is_rejected(tmp_path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"persona": "A cook"}\n', encoding="utf-8")

    def coder(body, prompt: str) -> str:
        return "```python\ndef f(x) return x\n```" if "one Python code block" in prompt else "Write f."

    with serve(coder) as server:
        assert make(MAKER, config_of(server, str(path), [{"skill": "code"}], make="answers"), tmp_path / "out") == 1
    assert [r["reason"] for r in rejected_of(tmp_path / "out")] == ["does_not_compile"]


def test_a_request_that_forgot_a_requirement_is_rejected(tmp_path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"persona": f"A forgetful cook {i}"}) + "\n" for i in range(20)), encoding="utf-8")
    with serve(teacher) as server:
        make(MAKER, config_of(server, str(path), [{"skill": "instruction_following", "requirements": {"least": 3}}]), tmp_path / "out")
    assert counts_of(tmp_path / "out")["rejected"].get("requirement_lost", 0) > 15


def test_killed_and_run_again(personas, tmp_path) -> None:
    with serve(teacher, latency=0.03) as server:
        skills = [{"skill": "instruction_following"}, {"skill": "grade_math", "votes": 3}]
        config = config_of(server, personas, skills)
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        kept = killed(server, "generation.persona", path, tmp_path / "killed", 60)
        server.fake.reset()
        assert make(MAKER, config, tmp_path / "killed") == 0
        second = server.fake.calls["ok"]
        server.fake.reset()
        assert make(MAKER, config, tmp_path / "whole") == 0
        assert kept == 60 and kept + second == server.fake.calls["ok"]
    assert content_of(tmp_path / "killed") == content_of(tmp_path / "whole")


def test_real_persona_files(shared) -> None:
    hub, counts = read_personas(PersonaFile(path=str(shared / "personas/persona_hub_tool_5k.parquet")))
    assert counts["records"] == 5000 == len(hub) + counts["repeated"] + counts["empty"]
    assert hub[0].text == 'A die-hard fan of "Chasing Life" who supports renewal of the show.'
    chat = shared / "personas/synthetic_persona_chat_valid.parquet"
    with pytest.raises(InputError, match="several fields speak of personas"):
        read_personas(PersonaFile(path=str(chat)))
    people, _ = read_personas(PersonaFile(path=str(chat), field="user 1 personas"))
    assert "\n" not in people[0].text
    with pytest.raises(InputError, match="no field speaks of personas") as caught:
        read_personas(PersonaFile(path=str(shared / "personas/awesome_chatgpt_prompts_2023.parquet")))
    assert "act, prompt" in str(caught.value)
    with pytest.raises(InputError, match="no field 'persona'"):
        read_personas(PersonaFile(path=str(chat), field="persona"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"make": "pairs"}, "pairs are made of instruction_following alone"),
        ({"skills": []}, "skills: empty"),
        ({"skills": [{"skill": "chat"}, {"skill": "chat"}]}, "more than once"),
        ({"skills": [{"skill": "poetry"}]}, "skill"),
        ({"answerer": "nobody"}, "nobody"),
    ],
)
def test_bad_configs(personas, tmp_path, capsys, change, said) -> None:
    with serve(teacher) as server:
        assert make(MAKER, {**config_of(server, personas, [{"skill": "chat"}]), **change}, tmp_path / "out") == 2
    assert said in capsys.readouterr().err


def test_requirements_are_drawn_by_persona_and_hold_together() -> None:
    spec = Requirements(least=2, most=3)
    sets = [draw(spec, 1, f"p{i}") for i in range(60)]
    assert sets == [draw(spec, 1, f"p{i}") for i in range(60)]
    assert {len(s) for s in sets} == {2, 3} and not {c.id for s in sets for c in s} & BOUND
    assert {CONSTRAINTS[c.id].group for s in sets for c in s} == {"train"}


def test_what_is_stated() -> None:
    once = Chosen("keywords:word_once", {"keyword": "lantern", "frequency": 3}, 'Use the word "lantern" 3 times.')
    assert lost("Tell me of it and use Lantern three times", [once]) is None
    assert lost("Tell me of it and use lantern 3 times", [once]) is None
    assert lost("Tell me of it and use lantern often", [once]) == once
    assert lost("Tell me of it, 3 times the light", [once]) == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("User instruction: Do it.", "Do it."),
        ("**Math Problem:** Add 2.", "Add 2."),
        ('"Say hello."', "Say hello."),
        ('"Say" and "do"', '"Say" and "do"'),
        ("My question: why?", "My question: why?"),
    ],
)
def test_headings_are_taken_off(text, expected) -> None:
    assert bare(text) == expected
