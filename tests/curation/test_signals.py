"""Signals on hand-made rows: what each column says of texts a person would judge the same way."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from columnar.record import SCHEMA, to_batch
from curation.signals import SIGNALS, signals


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ["user", "assistant"] * len(texts)
    return {"kind": "sft", "messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)], **more}


def measure(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return signals(to_batch(list(rows), SCHEMA)).to_pylist()


def test_counts_of_a_conversation() -> None:
    (row,) = measure(
        {"kind": "sft", "messages": [{"role": "system", "content": "Be brief."}, *chat("One two?", "Three four five.")["messages"]]}
    )
    assert (row["n_turns"], row["n_words"], row["n_chars"]) == (2, 7, 9 + 8 + 16)
    assert (row["prompt_chars"], row["response_chars"], row["n_tokens"]) == (17, 16, 9)
    assert (row["preview"], row["rejected_chars"], row["same_answers"]) == ("One two?", None, None)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I'm sorry, but I can't help with that request.", True),
        ("I cannot provide instructions for that.", True),
        ("As an AI language model, I cannot browse the web.", True),
        ("I must decline.", True),
        ("I'm sorry for your loss. Here is how to write the letter.", False),
        ("I can't remember the last time I laughed so much.", False),
        ("The drug cannot be taken with alcohol.", False),
        ("Sure! If the server says 'I cannot help', restart it.", False),
    ],
)
def test_refusals(answer: str, refused: bool) -> None:
    assert measure(chat("Q?", answer))[0]["refusal"] is refused


@pytest.mark.parametrize(
    ("answer", "claims", "mentions"),
    [
        ("I am ChatGPT, a large language model trained by OpenAI.", True, True),
        ("I was created by OpenAI to help people.", True, True),
        ("My name is Open Assistant.", True, True),
        ("I'm an AI assistant made by Anthropic.", True, False),
        ("OpenAI released ChatGPT in November 2022, and many people use it.", False, True),
        ("I am a fan of Claude Monet.", False, False),
        ("The llama is an animal of the Andes.", False, False),
    ],
)
def test_claiming_to_be_another_assistant_is_told_from_mentioning_one(answer: str, claims: bool, mentions: bool) -> None:
    row = measure(chat("Who?", answer))[0]
    assert (row["self_id"], row["mentions_ai_brand"]) == (claims, mentions)


def test_a_users_words_are_not_the_assistants() -> None:
    row = measure(chat("I am ChatGPT. I cannot help you.", "Nice to meet you."))[0]
    assert not row["self_id"] and not row["refusal"]


def test_loops_are_repetitive_and_prose_is_not() -> None:
    loop = "the same five words again " * 30
    prose = "Bread rises because yeast turns sugar into gas, and gluten holds the bubbles in place while the crumb sets in the oven."
    looped, plain, code = measure(chat("Q", loop), chat("Q", prose), chat("Q", "    x = 1\n    y = 2\n    z = 3\n    w = 4"))
    assert looped["repetition"] > 0.9
    assert plain["repetition"] == code["repetition"] == 0


def test_cut_off_answers() -> None:
    sentence = "This explanation goes on for quite a while and says one more thing about the matter at hand. "
    whole, cut, fence, marked, short = measure(
        chat("Q", sentence * 20),
        chat("Q", sentence * 20 + "But then there is also the question of what happens when the second condition is not met and the"),
        chat("Q", "Here:\n```python\nprint(1)"),
        chat("Q", "Fine.", meta='{"finish_reason": "length"}'),
        chat("Q", "Paris"),
    )
    assert [r["truncated"] for r in (whole, cut, fence, marked, short)] == [False, True, True, True, False]


def test_languages_and_formats() -> None:
    rows = measure(
        chat("Q", "Das Wetter ist heute sehr schön und wir gehen spazieren."),
        chat("Q", "今日はとても天気がいいので、散歩に行きましょう。"),
        chat("Q", '{"a": 1}'),
        chat("Q", "- one\n- two\n- three"),
        chat("Q", "```python\nprint(1)\n```"),
    )
    assert [rows[0]["lang"], rows[1]["lang"]] == ["de", "ja"]
    assert [r["format"] for r in rows] == ["plain", "plain", "json", "list", "code"]


def test_empty_turns_are_seen_and_tool_calls_are_not_empty() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": "[]"}
    rows = measure(
        chat("Q", "  \n"),
        chat("", "A"),
        {
            "kind": "sft",
            "messages": [{"role": "user", "content": "Q"}, call, {"role": "tool", "content": ""}, {"role": "assistant", "content": "A"}],
        },
    )
    assert [r["empty"] for r in rows] == [True, True, False]
    assert rows[2]["has_tools"]


def test_pairs_are_judged_by_the_chosen_answer() -> None:
    said = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    ask = [{"role": "user", "content": "Q"}]
    rows = measure(
        {"kind": "pair", "prompt": ask, "chosen": said("Good."), "rejected": said("I cannot help with that.")},
        {"kind": "pair", "prompt": ask, "chosen": said("Same"), "rejected": said(" Same ")},
    )
    assert [r["refusal"] for r in rows] == [False, False]
    assert [r["same_answers"] for r in rows] == [False, True]
    assert rows[0]["rejected_chars"] == 24


def test_a_batch_of_nothing_and_prompts_without_answers() -> None:
    assert signals(pa.RecordBatch.from_pylist([], SCHEMA)).schema.names == list(SIGNALS)
    (row,) = measure({"kind": "prompt", "prompt": [{"role": "user", "content": "Wie spät ist es? Ich habe leider keine Uhr dabei."}]})
    assert (row["format"], row["lang"], row["refusal"], row["response_chars"]) == ("none", "de", False, 0)


def test_batches_do_not_matter() -> None:
    rows = [chat(f"Question {i}?", f"Answer number {i} " * (i % 7)) for i in range(50)]
    whole = measure(*rows)
    assert [measure(row)[0] for row in rows] == whole
