"""Every command that asks a model, on vLLM's own server: each kind of request is made, understood, and ends as a row or with a reason.

The model is tiny and random; a bias on its tokens makes it say a few whole words and stop. Most of what it writes is rejected, and the
point is why: `failed` would mean that the server does not understand a request, `unparsable` that it does not obey a schema.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scripted import content_of, counts_of, make, write_prompts

from generation import constrain, dialogue, evolve, magpie, persona, self_instruct

TASKS = [f"Describe what {what} does in a {where}." for what in ("a lamp", "the rain", "bread") for where in ("house", "town", "story")]
PEOPLE = [f"a {who} from Graz who likes {what}" for who in ("baker", "pilot") for what in ("chess", "rivers")]
MATHS = {"skill": "hard_math", "votes": 3}
FOLLOWING = {"skill": "instruction_following", "requirements": {"stated": False}}
CASES = {
    "self_instruct": (self_instruct, {"make": "answers", "until": {"candidates": 12}, "requests": 1, "threshold": 1.0}),
    "persona": (persona, {"make": "answers", "skills": [MATHS, FOLLOWING, {"skill": "code"}, {"skill": "chat"}]}),
    "pairs of personas": (persona, {"make": "pairs", "skills": [FOLLOWING]}),
    "constrain": (constrain, {"make": "answers", "requirements": {"stated": False}}),
    "evolve": (evolve, {"rounds": 2}),
    "dialogue": (dialogue, {"turns": [2, 3], "user": "b"}),
    "refine": (dialogue, {"mode": "refine"}),
    "magpie": (magpie, {"template": "chatml", "until": {"candidates": 32}, "make": "answers"}),
}
ASKED = {  # the steps that every run must come to
    "self_instruct": {"self_instruct_tasks", "self_instruct_classify"},
    "persona": {"persona_chat", "persona_code", "persona_hard_math", "answer", "answer_code", "answer_math", "answer_constraints"},
    "pairs of personas": {"persona_instruction_following", "answer_constraints"},
    "constrain": {"constrain", "answer_constraints"},
    "evolve": {"evolve_same"},
    "dialogue": {"answer", "dialogue_user"},
    "refine": {"answer", "dialogue_refine"},
    "magpie": {"magpie", "answer"},
}


def words(model: str) -> dict[str, float]:
    """A bias towards the tokens that are whole words, and towards ending after about twenty of them."""
    vocabulary = json.loads((Path(model) / "tokenizer.json").read_text())["model"]["vocab"]
    whole = {str(i): 9.0 for token, i in vocabulary.items() if token.startswith("Ġ") and len(token) > 2}
    return {**whole, str(vocabulary["<|im_end|>"]): 8.0}


@pytest.mark.parametrize("case", CASES)
def test_a_real_server_understands_every_maker(vllm, tmp_path, case) -> None:
    module, more = CASES[case]
    params = {"max_tokens": 400, "logit_bias": words(vllm["model"])}
    config = {"name": "made", "models": [{"name": n, "base_url": vllm["url"], "params": params} for n in ("a", "b")], **more}
    if module is persona:
        (tmp_path / "people.jsonl").write_text("".join(json.dumps({"persona": p}) + "\n" for p in PEOPLE))
        config["personas"] = {"path": str(tmp_path / "people.jsonl")}
    elif module is not magpie:
        config["seeds" if module is self_instruct else "prompts"] = {"path": write_prompts(tmp_path / "tasks.jsonl", TASKS)}
    out = tmp_path / "out"
    assert make(module.MAKER, config, out) in (0, 1)  # 1: no row was kept
    counts = counts_of(out)
    assert counts["candidates"] == counts["rows"] + sum(counts["rejected"].values()) > 0
    assert not set(counts["rejected"]) & {"failed", "timeout", "unparsable", "budget", "invalid"}, counts
    with sqlite3.connect(out / "replies.sqlite") as cache:
        assert ASKED[case] <= {tag for (tag,) in cache.execute("SELECT DISTINCT tag FROM replies")}
        assert cache.execute("SELECT count(*) FROM failures").fetchone() == (0,)
    make(module.MAKER, config, tmp_path / "again", "--cache", str(out / "replies.sqlite"))
    assert content_of(tmp_path / "again") == content_of(out)


def test_agreement_with_people_of_a_real_judge(vllm, shared, tmp_path) -> None:
    judges = [
        {"name": "pairs", "mode": "pairwise", "model": "judge"},
        {"name": "points", "mode": "additive", "model": "judge", "samples": 3},
    ]
    params = {"max_tokens": 2000, "temperature": 1.0}
    config = {
        "data": [{"path": str(shared / "preferences/llmbar.parquet"), "limit": 6}],
        "judges": [{**j, "model": "judge", "params": params} for j in judges],
        "baselines": ["longest"],
        "models": [{"name": "judge", "base_url": vllm["url"]}],
    }
    (tmp_path / "agreement.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "generation.agreement", str(tmp_path / "agreement.yaml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept = [json.loads(line) for line in (tmp_path / "out/judgements.jsonl").open()]
    read = [line for line in kept if line["scores"] is not None and line["judge"] != "longest"]
    assert len(kept) == 18 and len(read) >= 6, "a schema makes a random model answer in the form that was asked for"
