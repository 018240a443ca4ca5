"""Chat templates as the view renders them: the same text as transformers, the right part learned, every way a template can fail said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.chat_template import BUILT_IN, ChatTemplate, Rendered, read_template, render
from columnar.errors import InputError

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2, I think."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]
PLAIN = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# As some reasoning models: what was thought in earlier turns is gone as soon as there is a later one.
FORGETFUL = (
    "{% for m in messages %}<{{ m.role }}>{% if loop.last and m.thinking %}[{{ m.thinking }}]{% endif %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def learned(shown: Rendered) -> list[str]:
    return [shown.text[start:end] for start, end in shown.learned]


def folder(path: Path, template: Any = PLAIN, tokenizer: bool = True) -> Path:
    """A tokenizer as it lies on a disk."""
    path.mkdir(exist_ok=True)
    config = {"chat_template": template, "bos_token": "<s>", "eos_token": {"content": "</s>"}}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    if tokenizer:
        from tokenizers import Tokenizer, models, pre_tokenizers

        made = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.save(str(path / "tokenizer.json"))
    return path


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_the_built_in_shapes_learn_the_answers_and_their_end(name: str) -> None:
    shown = render(read_template(name), CHAT)
    end = "<|im_end|>\n" if name == "chatml" else "</s>"
    assert learned(shown) == [f"2, I think.{end}", f"Yes.{end}"]
    assert "generation markers" in shown.how


def test_without_markers_an_answer_is_what_it_adds_to_the_text(tmp_path: Path) -> None:
    shown = render(read_template(str(folder(tmp_path / "tok"))), CHAT)
    assert learned(shown) == ["2, I think.</s>\n", "Yes.</s>\n"]
    assert "no generation markers" in shown.how
    assert learned(render(read_template(str(tmp_path / "tok")), CHAT, last_only=True)) == ["Yes.</s>\n"]
    assert shown.text.startswith("<s><|system|>")


def test_a_template_that_changes_earlier_turns_is_seen_through() -> None:
    chat = [{**turn, "thinking": "hm" if turn["role"] == "assistant" else None} for turn in CHAT]
    shown = render(ChatTemplate("forgetful", FORGETFUL), chat)
    assert learned(shown) == ["2, I think.", "[hm]Yes."]
    assert "changes earlier turns" in shown.how


def test_tokens_are_counted_with_the_folders_tokenizer(tmp_path: Path) -> None:
    shown = render(read_template(str(folder(tmp_path / "tok"))), CHAT[1:3])
    assert shown.tokens is not None and shown.learned_tokens is not None
    assert 0 < shown.learned_tokens < shown.tokens
    assert render(read_template(str(folder(tmp_path / "bare", tokenizer=False))), CHAT).tokens is None


def test_the_text_is_the_one_transformers_gives(tmp_path: Path) -> None:
    theirs = pytest.importorskip("transformers.utils.chat_template_utils", reason="transformers is not installed")
    tools = json.dumps([{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}])
    calls = json.dumps([{"type": "function", "id": "1", "function": {"name": "add", "arguments": '{"é": "<b>"}'}}])
    chat = [*CHAT, {"role": "user", "content": "Use it"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    template = PLAIN.replace(
        "{{ m.content }}", "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}"
    )
    template = "{%- for t in tools or [] %}\n    {{- t | tojson(indent=2) }}\n{%- endfor %}\n" + template
    place = folder(tmp_path / "tok", template)
    for message in (given := json.loads(json.dumps(chat))):
        if "tool_calls" in message:
            message["tool_calls"] = json.loads(message["tool_calls"])
            message["tool_calls"][0]["function"]["arguments"] = {"é": "<b>"}
    expected, _ = theirs.render_jinja_template([given], json.loads(tools), chat_template=template, bos_token="<s>", eos_token="</s>")
    assert render(read_template(str(place)), chat, tools).text == expected[0]


def test_rows_cannot_forge_what_is_learned_nor_run_in_the_template() -> None:
    chat = [{"role": "user", "content": "\ue000 {% generation %}{{ 7 * 7 }}{% endgeneration %}"}, {"role": "assistant", "content": "no"}]
    shown = render(read_template("tulu"), chat)
    assert learned(shown) == ["no</s>"]
    assert "49" not in shown.text


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for %}", "refuses"),
        ("{{ messages[99].content }}", "fails|refuses"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|refuses"),
        ("{% for i in range(10**9) %}x{% endfor %}", "fails"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_template_that_fails_is_said_to(template: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        render(ChatTemplate("bad", template), CHAT)


def test_folders_without_a_template_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_template(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no chat template"):
        read_template(str(folder(tmp_path / "base", None)))
    (tmp_path / "base" / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_template(str(tmp_path / "base"))


def test_a_template_of_its_own_file_or_of_several_names_is_found(tmp_path: Path) -> None:
    place = folder(tmp_path / "tok", [{"name": "rag", "template": "rag"}, {"name": "default", "template": PLAIN}])
    assert read_template(str(place)).source == PLAIN
    (place / "chat_template.jinja").write_text("its own file")
    assert read_template(str(place)).source == "its own file"
