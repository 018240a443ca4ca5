"""Requirements added to real prompts, and the texts we send: versioned, filled in, and nobody else's."""

from __future__ import annotations

import json
import random
import re

import pytest
import yaml
from scripted import counts_of, make, model, rejected_of, rows_of, serve, write_prompts

from columnar.record import validate
from generation import prompts
from generation.constrain import MAKER
from generation.requirements import Requirements, draw
from generation.verifiers.dispatch import check_rows, verify
from generation.verifiers.ifeval import parse
from generation.verifiers.sampling import witness


def config_of(path, **more):
    return {"name": "constrained", "prompts": {"path": str(path)}, **more}


def test_append_needs_no_model(shared, tmp_path) -> None:
    path = shared / "instructions/dolly_15k.parquet"
    assert (
        make(
            MAKER,
            {**config_of(path, how="append"), "prompts": {"path": str(path), "limit": 40, "license": "cc-by-sa-3.0"}},
            tmp_path / "out",
        )
        == 0
    )
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 40 and not any(validate(r) for r in rows) and check_rows(rows) == {"ifeval": 40}
    assert {r["license"] for r in rows} == {"cc-by-sa-3.0"}
    source = {r["id"]: r for r in rows_of(tmp_path / "out/inputs/dolly_15k")}
    for row in rows[:15]:
        pairs = [(c.id, params) for c, params in parse(json.loads(row["ground_truth"]))]
        text = row["prompt"][-1]["content"]
        answer = next(
            filter(None, (witness(pairs, random.Random(k), "") for k in range(20)))
        )  # a text that obeys exists, and the row's verifier says so
        assert verify(row, answer).passed
        (parent,) = row["parents"]
        assert text.startswith(source[parent]["messages"][0]["content"])
    assert (
        make(
            MAKER,
            {**config_of(path, how="append"), "prompts": {"path": str(path), "limit": 40, "license": "cc-by-sa-3.0"}},
            tmp_path / "two",
        )
        == 0
    )
    assert [r["hash"] for r in rows_of(tmp_path / "two")] == [r["hash"] for r in rows]


def test_rewrite_keeps_the_conversation_before_it(tmp_path) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tell me about the sea"}]
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": [*turns, {"role": "assistant", "content": "Blue."}]}) + "\n")

    def writer(body, prompt: str) -> str:
        request = prompt.split("Request:\n")[1].split("\n\nRequirements")[0]
        return request + ". " + " ".join(line[2:] for line in prompt.splitlines() if line.startswith("- "))

    with serve(writer) as server:
        assert make(MAKER, config_of(tmp_path / "p.jsonl", models=[model(server)]), tmp_path / "out") == 0
    (row,) = rows_of(tmp_path / "out")
    assert [m["role"] for m in row["prompt"]] == ["system", "user"] and row["prompt"][0]["content"] == "Be kind."
    assert row["prompt"][1]["content"].startswith("Tell me about the sea.")


def test_a_rewrite_that_loses_a_requirement_is_rejected(tmp_path) -> None:
    path = write_prompts(tmp_path / "p.jsonl", [f"Tell me about number {i}" for i in range(30)])
    with serve(lambda body, prompt: "Tell me about it in a special way") as server:
        make(MAKER, config_of(path, models=[model(server)], requirements={"least": 3}), tmp_path / "out")
    rejected = rejected_of(tmp_path / "out")
    assert len(rejected) > 25 and {r["reason"] for r in rejected} == {"requirement_lost"} and all(r["requirement"] for r in rejected)


def test_a_prompt_without_a_user_is_not_lost(tmp_path) -> None:
    turns = [{"role": "user", "content": " "}, {"role": "assistant", "content": "Hi"}]
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    assert make(MAKER, config_of(tmp_path / "p.jsonl", how="append"), tmp_path / "out") == 1
    assert counts_of(tmp_path / "out") == {"candidates": 1, "rows": 0, "rejected": {"no_user_turn": 1}, "stopped": ""}


def test_answers_and_pairs(tmp_path) -> None:
    texts = [f"Tell me about number {i}" for i in range(20)]
    path = write_prompts(tmp_path / "p.jsonl", texts)

    def answerer(body, prompt: str) -> str:
        if prompt.startswith("Below is a request"):
            gone = prompt.split("Requirement to remove:\n")[1].split("\n\nWrite")[0]
            return prompt.split("Request:\n")[1].split("\n\nRequirement")[0].replace(gone, "")
        request = body["messages"][-1]["content"]
        known = [c for c in every if c.description in request]
        return witness([(c.id, c.params) for c in known], random.Random(len(request)), request) or "no"

    with serve(answerer) as server:
        config = config_of(path, how="append", models=[model(server)])
        assert make(MAKER, config, tmp_path / "prompts") == 0
        ids = [r["parents"][0] for r in rows_of(tmp_path / "prompts")]
        every = [c for i in ids for c in draw(Requirements(), 1, i)]
        assert make(MAKER, {**config, "make": "answers"}, tmp_path / "answers") == 0
        assert make(MAKER, {**config, "make": "pairs"}, tmp_path / "pairs") == 0
    assert len(rows_of(tmp_path / "answers")) == 20
    pairs = rows_of(tmp_path / "pairs")
    counts = counts_of(tmp_path / "pairs")
    assert len(pairs) > 8 and set(counts["rejected"]) <= {"rejected_passes"}
    assert all(p["rejected_score"] < 1.0 and p["chosen"][0]["content"] != p["rejected"][0]["content"] for p in pairs)


def test_a_rewrite_without_a_model_is_a_mistake(tmp_path, capsys) -> None:
    path = write_prompts(tmp_path / "p.jsonl", ["Tell me"])
    assert make(MAKER, config_of(path), tmp_path / "out") == 2
    assert "models: empty" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}\n", '{"zzz": "x"}\n'])
def test_prompt_files_without_prompts(tmp_path, capsys, content) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    assert make(MAKER, config_of(tmp_path / "p.jsonl", how="append"), tmp_path / "out") in (2, 3)
    assert "error:" in capsys.readouterr().err


# The texts: a change of one must change its number, so that rows of before and after can be told apart.
VERSIONS = """
self_instruct_tasks@1:c32ed9e0 self_instruct_classify@1:7febde90 self_instruct_instances@1:b24f82dd
self_instruct_labelled@1:db4ecba3 persona_instruction_following@1:6e9bfb75 persona_relax@1:88ba6ad1 persona_hard_math@1:691d47ae
persona_grade_math@1:94442520 persona_algebra@1:54a3c8e6 persona_code@1:16808b30 persona_knowledge@1:9e4fe7a9
persona_chat@1:a1905d78 answer_constraints@1:c47651ea answer_math@1:486aa711 answer_code@1:71d03ff1 answer@1:eb5f4c93
constrain@1:5ea87428 evolve_constrain@1:604c6216 evolve_deepen@1:6d534b0a evolve_concretize@1:d00b9ca8 evolve_reason@1:4ae7d40f
evolve_complicate@1:70676371 evolve_breadth@1:7074760f evolve_same@1:7815f699 dialogue_refine@1:66f6d072 dialogue_user@1:2e5cb27a
"""


def test_a_changed_text_has_a_new_number() -> None:
    assert {p.version for p in prompts.ALL} == set(VERSIONS.split()), "a prompt changed: raise its number, then put its new version here"
    assert len({p.name for p in prompts.ALL}) == len(prompts.ALL)


def test_fields_are_filled_in_and_never_expanded_again() -> None:
    (message,) = prompts.HARD_MATH.messages(persona="a $5 keeper of ${persona}")
    assert "a $5 keeper of ${persona}" in message["content"]
    with pytest.raises(KeyError):
        prompts.HARD_MATH.messages()


def test_the_configs_in_the_docs_are_configs(root) -> None:
    from generation.agreement import AgreementConfig
    from generation.constrain import ConstrainConfig
    from generation.dialogue import DialogueConfig
    from generation.evolve import EvolveConfig
    from generation.magpie import MagpieConfig
    from generation.persona import PersonaConfig
    from generation.self_instruct import SelfInstructConfig

    models = {
        "self_instruct": SelfInstructConfig, "persona": PersonaConfig, "constrain": ConstrainConfig, "evolve": EvolveConfig,
        "dialogue": DialogueConfig, "magpie": MagpieConfig, "agreement": AgreementConfig,
    }  # fmt: skip
    found = []
    for page in ("prompts", "agreement"):
        for block in re.findall(r"```yaml\n# (\w+)\.yaml\n(.*?)```", (root / f"docs/{page}.md").read_text(encoding="utf-8"), re.DOTALL):
            models[block[0]].model_validate(yaml.safe_load(block[1])).check()
            found.append(block[0])
    assert sorted(found) == sorted(models)
