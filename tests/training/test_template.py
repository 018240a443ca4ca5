"""Templates: what a conversation looks like as text, and which of its tokens the assistant wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from columnar.errors import ConfigError
from training import template, tiny

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi?"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "So long!"},
]


@pytest.fixture
def tokenizer() -> Any:
    return tiny.make_tokenizer(iter(["Be brief. Hi? Hello. Bye So long!"] * 3), 400)


def learnt(tokenizer: Any, text: str, talk: list[dict[str, Any]], tools: str | None = None) -> tuple[str, str]:
    ids, mask = template.encode(tokenizer, text, [talk], [tools])[0]
    return tokenizer.decode(ids), "|".join(
        tokenizer.decode([t for t, run in zip(ids, runs(mask), strict=True) if run == n]) for n in range(1, max(runs(mask)) + 1)
    )


def runs(mask: list[int]) -> list[int]:
    """0 where nothing is learnt, else the number of the run."""
    out, number = [], 0
    for i, on in enumerate(mask):
        number += bool(on and (i == 0 or not mask[i - 1]))
        out.append(number if on else 0)
    return out


def test_tulus_shape(tokenizer: Any) -> None:
    text, _ = template.prepare(tokenizer, "tulu")
    rendered, answers = learnt(tokenizer, text, TALK)
    assert (
        rendered
        == "<|system|>\nBe brief.\n<|user|>\nHi?\n<|assistant|>\nHello.<|im_end|>\n<|user|>\nBye\n<|assistant|>\nSo long!<|im_end|>"
    )
    assert answers == "Hello.<|im_end|>|So long!<|im_end|>"


def test_chatmls_shape(tokenizer: Any) -> None:
    text, _ = template.prepare(tokenizer, "chatml")
    rendered, answers = learnt(tokenizer, text, TALK[1:3])
    assert rendered == "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
    assert answers == "Hello.<|im_end|>"


@pytest.mark.parametrize("name", ["tulu", "chatml"])
def test_a_prompt_is_the_beginning_of_its_conversation(tokenizer: Any, name: str) -> None:
    text, _ = template.prepare(tokenizer, name)
    prompt = template.encode_prompts(tokenizer, text, [TALK[:4]], [None])[0]
    whole, mask = template.encode(tokenizer, text, [TALK], [None])[0]
    assert whole[: len(prompt)] == prompt
    assert mask[len(prompt)] == 1


@pytest.mark.parametrize("name", ["tulu", "chatml"])
def test_thinking_and_calls_are_the_assistants_and_tool_results_are_not(tokenizer: Any, name: str) -> None:
    call = json.dumps([{"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}])
    talk = [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": None, "thinking": "ask it", "tool_calls": call},
        {"role": "tool", "content": "two", "tool_call_id": "1"},
        {"role": "assistant", "content": "2"},
    ]
    tools = json.dumps([{"type": "function", "function": {"name": "add"}}])
    text, _ = template.prepare(tokenizer, name)
    rendered, answers = learnt(tokenizer, text, talk, tools)
    assert '"name": "add"' in rendered.split("1+1")[0]
    assert answers.startswith("<think>\nask it\n</think>") and '"arguments": {"a": 1}' in answers
    assert "two" not in answers and "two" in rendered
    assert answers.endswith("|2<|im_end|>")


def test_a_tokenizer_that_cannot_end_is_refused(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-text token"):
        template.prepare(tokenizer, "tulu")


def test_a_tokenizer_without_padding_takes_a_reserved_token_and_says_so(tokenizer: Any) -> None:
    tokenizer.pad_token = None
    _, notes = template.prepare(tokenizer, "tulu")
    assert tokenizer.pad_token == "<|pad|>"
    assert "no padding token" in notes[0]


def test_chatml_needs_its_end_as_one_token() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({c: i for i, c in enumerate("<|im_end>")}, [])), eos_token="<")
    with pytest.raises(ConfigError, match="has no token"):
        template.prepare(plain, "chatml")


def test_a_template_without_marks_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"
    with pytest.raises(ConfigError, match="does not mark what the assistant wrote") as error:
        template.prepare(tokenizer, "own")
    assert "template=tulu" in str(error.value.hint)


def test_a_known_template_without_marks_gets_them(tokenizer: Any) -> None:
    from trl.chat_template_utils import qwen2_5_chat_template

    tokenizer.chat_template = qwen2_5_chat_template
    text, notes = template.prepare(tokenizer)
    assert "generation marks by TRL" in notes[0]
    assert learnt(tokenizer, text, TALK)[1].replace("\n", "") == "Hello.<|im_end|>|So long!<|im_end|>"
    assert tokenizer.chat_template == qwen2_5_chat_template  # what the model is used with stays


def test_an_end_outside_the_marks_is_told(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}{{ eos_token }}"
        "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    _, notes = template.prepare(tokenizer)
    assert any("will not learn to stop" in note for note in notes)


def test_no_tokenizer_is_told_with_what_to_do(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="no tokenizer found") as error:
        template.load_tokenizer(str(tmp_path / "nothing"))
    assert "tiny" in str(error.value.hint)
