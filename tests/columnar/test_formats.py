"""Shapes: what a record becomes, that any conversation survives every way of writing it, and that no record can crash one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columnar.errors import InputError
from columnar.files import SourceFile, SourceSpec
from columnar.formats import NAMES, SHAPES, detect, named
from columnar.ingest import Reject, rows_of
from columnar.readers import RawRecord
from columnar.record import to_batch, validate

FILE = SourceFile(Path("p"), "p", "p", None, 0, "")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
turns = st.lists(st.tuples(text, text), min_size=1, max_size=3)


def talk(pairs: list[tuple[str, str]], system: str | None = None) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    return messages + [m for u, a in pairs for m in ({"role": "user", "content": u}, {"role": "assistant", "content": a})]


def one(record: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    (row,) = named(name or detect([record])[0]).rows(record)
    assert not validate(row), validate(row)
    return row


@settings(max_examples=150, deadline=None)
@given(turns, st.none() | text)
def test_a_conversation_survives_every_way_of_writing_it(pairs: list[tuple[str, str]], system: str | None) -> None:
    messages = talk(pairs, system)
    sharegpt = [{"from": {"user": "human", "assistant": "gpt"}.get(m["role"], m["role"]), "value": m["content"]} for m in messages]
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    written = [{"messages": messages}, {"conversations": sharegpt}, {"messages": parts}, {"conversation": json.dumps(messages)}]
    if system is None:
        history, (last, answer) = [list(pair) for pair in pairs[:-1]], pairs[-1]
        written.append({"instruction": last, "input": "", "output": answer, "history": history})
        written.append({"prompt": messages[:-1], "completion": messages[-1:]})
    for record in written:
        assert one(record)["messages"] == messages


@settings(max_examples=100, deadline=None)
@given(turns, text, text)
def test_hh_strings_give_the_conversation_and_the_string_back(pairs: list[tuple[str, str]], good: str, bad: str) -> None:
    if any(mark in t for pair in [*pairs, (good, bad)] for t in pair for mark in ("\n\nHuman:", "\n\nAssistant:")):
        return
    before = "".join(f"\n\nHuman: {u}\n\nAssistant: {a}" for u, a in pairs[:-1]) + f"\n\nHuman: {pairs[-1][0]}\n\nAssistant: "
    row = one({"chosen": before + good, "rejected": before + bad}, "chosen_rejected")
    assert row["prompt"] == talk(pairs)[:-1]
    assert (row["chosen"], row["rejected"]) == ([{"role": "assistant", "content": good}], [{"role": "assistant", "content": bad}])


def test_flat_shapes() -> None:
    asked = {"instruction": "Translate", "input": " Good day ", "output": "Bonjour\n", "lang": "fr"}
    assert one(asked)["messages"] == talk([("Translate\n\n Good day ", "Bonjour\n")])
    assert one(asked)["meta"] == {"lang": "fr"}
    assert one({"question": "2+2", "answer": "4", "cot": "so"})["messages"] == talk([("2+2", "so\n\n4")])
    assert one({"instruction": "a", "context": "", "response": "b", "category": None})["messages"] == talk([("a", "b")])
    assert one({"system_prompt": "s", "question": "a", "response": "b"})["messages"] == talk([("a", "b")], "s")


def test_tool_calls_keep_the_very_text_of_their_arguments() -> None:
    call = '{"name": "f", "arguments": {"b": 1.0, "a": "é"}}'
    turns = [("human", "go"), ("function_call", call), ("observation", '{"ok": true}'), ("gpt", "done")]
    row = one({"conversations": [{"from": who, "value": said} for who, said in turns], "tools": '[{"name": "f"}]'})
    assert [m["role"] for m in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert row["messages"][1] == {"role": "assistant", "content": None, "tool_calls": f'[{{"type": "function", "function": {call}}}]'}
    assert row["tools"] == '[{"name": "f"}]'


def test_pairs_with_scores_models_and_whole_conversations() -> None:
    start = [*talk([("a", "b")]), {"role": "user", "content": "c"}]
    good, bad = ([*start, {"role": "assistant", "content": said}] for said in ("good", "bad"))
    record = {"prompt": "c", "chosen": good, "rejected": bad}
    row = one({**record, "score_chosen": 9, "score_rejected": "2.5", "chosen_model": "m", "rejected_model": ""})
    assert row["prompt"] == start
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("good", "bad")
    assert (row["chosen_score"], row["rejected_score"], row["chosen_model"], row["rejected_model"]) == (9.0, 2.5, "m", None)
    assert one({**record, "prompt": "something else"})["meta"] == {"prompt": "something else"}


def test_a_bad_answer_with_a_label_is_never_trained_on() -> None:
    row = one({"messages": talk([("a", "b")]), "label": False})
    assert (row["kind"], row["candidates"][0]["score"]) == ("candidates", 0.0)


def test_rlvr_prompts_keep_their_verifier() -> None:
    record = {"messages": [{"role": "user", "content": "2+2?"}], "ground_truth": "4", "dataset": "MATH", "constraint": None}
    row = one(record)
    assert (row["kind"], row["verifier"], row["ground_truth"]) == ("prompt", "math", "4")
    assert row["meta"] == {"dataset": "MATH", "constraint": None}


def test_oasst_takes_the_best_path_and_the_ranked_pairs() -> None:
    def node(text: str, role: str, rank: int | None = None, *replies: dict[str, Any], deleted: bool = False) -> dict[str, Any]:
        return {"message_id": text, "text": text, "role": role, "rank": rank, "deleted": deleted, "replies": list(replies)}

    tree = node(
        "q", "prompter", None, node("worse", "assistant", 1), node("gone", "assistant", 0, deleted=True),
        node("best", "assistant", 0, node("and?", "prompter", None, node("end", "assistant", None))), node("worst", "assistant", 2),
    )  # fmt: skip
    record = {"message_tree_id": "t", "prompt": tree}
    assert one(record, "oasst")["messages"] == talk([("q", "best"), ("and?", "end")])
    pair = one(record, "oasst_pairs")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("best", "worst")
    ranked = one(record, "oasst_ranked")
    assert [(c["content"], c["score"]) for c in ranked["candidates"]] == [("best", 0.0), ("worse", -1.0), ("worst", -2.0)]


def test_own_rows_keep_their_identity() -> None:
    row = {"id": "0" * 16, "hash": "x", "kind": "sft", "source": "old", "origin": {"uri": "u", "revision": None, "split": None, "row": 3}}
    back = one({**row, "messages": talk([("a", "b")]), "meta": '{"k": 1}', "chosen": None})
    assert (back["id"], back["origin"]["row"], back["meta"]) == ("0" * 16, 3, {"k": 1})


def test_a_record_of_no_shape_is_told_what_to_do() -> None:
    with pytest.raises(InputError, match="the fields Frage, Zahl") as error:
        detect([{"Frage": "x", "Zahl": 1}])
    assert "--columns" in str(error.value.hint)


def test_a_stray_record_does_not_choose_the_shape() -> None:
    assert detect([{"prompt": "a", "completion": "b"}] * 9 + [{"messages": []}])[0] == "prompt_completion"


def _samples() -> list[tuple[str, dict[str, Any]]]:
    """A record for every shape."""
    m = talk([("a", "b")])
    tree = {"text": "q", "role": "prompter", "replies": [{"text": "a", "role": "assistant", "rank": r, "replies": []} for r in (0, 1)]}
    origin = {"uri": "u", "revision": None, "split": None, "row": 0}
    return [
        ("rows", {"id": "0" * 16, "hash": "h", "kind": "sft", "source": "s", "origin": origin, "messages": m, "meta": "{}"}),
        ("oasst", {"message_tree_id": "t", "prompt": tree}),
        ("oasst_pairs", {"message_tree_id": "t", "prompt": tree}),
        ("oasst_ranked", {"message_tree_id": "t", "prompt": tree}),
        ("chosen_rejected", {"prompt": "a", "chosen": m, "rejected": m, "score_chosen": 1, "metadata": {"score_rejected": 2}}),
        ("unpaired", {"prompt": "a", "completion": "b", "label": True}),
        ("comparison", {"instruction": "a", "input": "b", "output_1": "c", "output_2": "d", "label": 1, "model_a": "x", "model_b": "y"}),
        (
            "candidates",
            {"prompt": "a", "completions": [{"response": "r", "annotations": {"h": {"Rating": 4}}, "rank": 1}], "models": ["m"]},
        ),
        ("solutions", {"question": "a", "m": {"solution": "s", "is_correct": True}}),
        ("ranked", {"instruction": "a", "output": ["b", "c"], "history": []}),
        ("rlvr", {"messages": m[:1], "ground_truth": "4", "dataset": "x"}),
        ("baize", {"topic": "t", "input": "x\n[|Human|] a\n[|AI|] b"}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": "[]"}),
        ("messages", {"messages": [*m, {"role": "tool", "content": [{"type": "text", "text": "x"}], "tool_calls": [{}]}], "system": "s"}),
        ("natural_instructions", {"Definition": ["d"], "Instances": [{"input": "a", "output": ["b", "c"]}]}),
        ("self_instruct", {"instruction": "a", "instances": [{"input": "", "output": "b"}]}),
        ("natural_instructions_flat", {"definition": "d", "input": "a", "output": ["b"]}),
        ("model_outputs", {"input": "a", "output_cand": "b", "generator_cand": "m", "parsed_result": {"s": {"score": 1}}}),
        ("persona", {"user 1 personas": "a", "user 2 personas": "b"}),
        ("benchmark", {"question": "q", "choices": ["a", "b"], "answer": 1}),
        ("alpaca", {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]}),
        ("dolly", {"instruction": "a", "context": "b", "response": "c"}),
        ("unnamed_columns", {"c0": "a", "c1": "b", "c2": "c"}),
        ("prompt_completion", {"system": "s", "question": "a", "answer": "b", "cot": "c"}),
        ("prompt", {"prompt": "a"}),
    ]


def test_every_shape_has_a_sample_here() -> None:
    assert [name for name, _ in _samples()] == NAMES == [shape.name for shape in SHAPES]
    for name, record in _samples():
        if name not in ("oasst_pairs", "oasst_ranked"):
            assert detect([record])[0] == name


words = st.sampled_from(["", "x", "[1]", "{", '{"a": 1}', "tie"])
junk = st.none() | st.booleans() | st.integers(-3, 3) | st.just(10**400) | st.floats(allow_nan=False) | words
keys = st.sampled_from(["role", "content", "text", "input"])
wild = st.recursive(junk, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a record."""
    inside = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [(value, key) for key, _ in inside] + [place for _, held in inside for place in _places(held)]


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(_samples()), st.data())
def test_no_record_crashes_a_shape(sample: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    """Fields taken away or replaced by anything: rows, or a problem with its path; never another exception."""
    name, record = sample[0], copy.deepcopy(sample[1])
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(record)
        if not places:
            break
        container, key = data.draw(st.sampled_from(range(len(places))).map(lambda i, found=places: found[i]))  # type: ignore[misc]
        if data.draw(st.booleans()) and isinstance(container, dict):
            del container[key]
        else:
            container[key] = data.draw(wild)
    for shape in (named(name), *(s for s in SHAPES if s.match(set(record), [record]) is not None)):
        made = list(rows_of(RawRecord(0, 1, b"", copy.deepcopy(record)), FILE, shape, SourceSpec(name="s", path="p")))
        assert made
        to_batch([row for row in made if not isinstance(row, Reject)])


def test_every_format_is_documented(root: Path) -> None:
    said = (root / "docs/loading.md").read_text(encoding="utf-8")
    assert not [name for name in NAMES if f"`{name}`" not in said]
