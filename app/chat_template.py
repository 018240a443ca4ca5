"""A conversation as a model will read it: rendered by a tokenizer's own chat template, with the part that is learned marked.

    template = read_template(Path("models/tulu"))     # any folder with a chat template; its tokenizer.json counts tokens
    shown = render(template, messages)                # shown.text, shown.learned: spans of the assistant's part

Templates run in Jinja's sandbox, set up as `transformers` does; neither that nor torch is imported, so a page opens at once.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.diff import Span
from columnar.errors import InputError

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

# For looking without a tokenizer: the two most common shapes, in which exactly the answer and its end are learned.
BUILT_IN = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "tulu": (
        "{% for m in messages %}<|{{ m.role }}|>\n"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}\n"
        "{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
}


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and what it is rendered with."""

    name: str
    source: str
    special: dict[str, str] = field(default_factory=dict)  # bos_token, eos_token, ...
    tokenizer: Path | None = None  # a tokenizer.json


@dataclass(frozen=True)
class Rendered:
    """The text a model sees."""

    text: str
    learned: list[Span]
    how: str  # how it is known what is learned
    tokens: int | None = None
    learned_tokens: int | None = None


def read_template(place: str) -> ChatTemplate:
    """The template of a tokenizer's folder, or one of `BUILT_IN`.

    Raises:
        InputError: no such folder, or no template in it.
    """
    if place in BUILT_IN:
        return ChatTemplate(place, BUILT_IN[place], {"bos_token": "<s>", "eos_token": "</s>"})
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise InputError(f"{place}: no such folder", f"give the folder of a tokenizer, or one of {', '.join(BUILT_IN)}")
    config = _json(folder / "tokenizer_config.json") | _json(folder / "special_tokens_map.json")
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        source: Any = alone.read_text(encoding="utf-8")
    else:
        source = config.get("chat_template") or _json(folder / "chat_template.json").get("chat_template")
    if isinstance(source, list):  # several by name
        named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default") or next(iter(named.values()), None)
    if not isinstance(source, str) or not source:
        raise InputError(
            f"{place}: no chat template (neither chat_template.jinja nor one in tokenizer_config.json)",
            "the tokenizer of a base model has none: take that of the chat model, or chatml or tulu",
        )
    special = {key: text for key, value in config.items() if key.endswith("_token") and (text := _token(value))}
    tokenizer = folder / "tokenizer.json"
    return ChatTemplate(folder.name, source, special, tokenizer if tokenizer.is_file() else None)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})", "copy the tokenizer again") from error
    return found if isinstance(found, dict) else {}


def _token(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def render(template: ChatTemplate, messages: list[dict[str, Any]], tools: str | None = None, last_only: bool = False) -> Rendered:
    """Render a conversation and mark what is learned: every assistant turn, or only the last.

    Raises:
        InputError: the template refuses the conversation, or is broken.
    """
    turns = [_for_template(message) for message in messages]
    given = {**template.special, "tools": _parsed(tools) or None}
    environment = _environment()
    marks = (f"\ue000{secrets.token_hex(8)}", f"\ue001{secrets.token_hex(8)}")  # nobody can have written these into a text

    def draw(upto: int, prompt: bool = False, marked: bool = False) -> str:
        environment.globals["_marks"] = marks if marked else ("", "")
        return str(compiled.render(messages=turns[:upto], add_generation_prompt=prompt, **given))

    import jinja2

    try:
        compiled = environment.from_string(template.source)
        text = draw(len(turns))
        learned = _between(draw(len(turns), marked=True), *marks)
        how = "by the template's own generation markers"
        if not learned:
            learned, how = _by_prefix(text, turns, draw)
    except jinja2.TemplateError as error:
        raise InputError(
            f"{template.name}: the template refuses this conversation: {error}", "look at its roles, or choose another"
        ) from error
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError, MemoryError, RecursionError) as error:
        raise InputError(f"{template.name}: the template fails: {type(error).__name__}: {error}", "choose another") from error
    if last_only:
        learned = learned[-1:]
    return Rendered(text, learned, how, *_count(template.tokenizer, text, learned))


def _for_template(message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates expect it: tool calls as objects, absent parts absent."""
    out = {key: value for key, value in message.items() if value is not None and key != "tool_calls"}
    out.setdefault("content", "")
    if "thinking" in out:
        out["reasoning_content"] = out["thinking"]
    calls = _parsed(message.get("tool_calls"))
    if isinstance(calls, list):
        for call in calls:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(arguments := _parsed(function.get("arguments")), dict):
                function["arguments"] = arguments
        out["tool_calls"] = calls
    return out


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def _by_prefix(text: str, turns: list[dict[str, Any]], draw: Any) -> tuple[list[Span], str]:
    """What each assistant turn adds to the text before it; where a template changes earlier turns later on, its text is looked for."""
    spans: list[Span] = []
    sought = False
    for number, turn in enumerate(turns):
        if turn.get("role") != "assistant":
            continue
        before, after = draw(number, True), draw(number + 1)
        if text.startswith(before) and text.startswith(after) and len(after) >= len(before):
            spans.append((len(before), len(after)))
            continue
        sought = True
        at = text.find(content := str(turn["content"]).strip(), spans[-1][1] if spans else 0)
        if content and at >= 0:
            spans.append((at, at + len(content)))
    return spans, (
        "by searching for the answers: the template changes earlier turns, so training on all of them at once differs from use"
        if sought
        else "by what each answer adds to the text (the template has no generation markers: trainers that need them will refuse it)"
    )


def _between(text: str, start: str, end: str) -> list[Span]:
    spans: list[Span] = []
    length = 0
    for number, part in enumerate(text.split(start)):
        inside, _, outside = part.partition(end) if number else ("", "", part)
        if inside:
            spans.append((length, length + len(inside)))
        length += len(inside) + len(outside)
    return spans


def _count(tokenizer: Path | None, text: str, learned: list[Span]) -> tuple[int | None, int | None]:
    if tokenizer is None:
        return None, None
    from tokenizers import Tokenizer

    try:
        offsets = Tokenizer.from_file(str(tokenizer)).encode(text, add_special_tokens=False).offsets
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"{tokenizer}: not a tokenizer ({error})", "copy it again") from error
    inside = sum(any(start <= s and e <= end for start, end in learned) for s, e in offsets if e > s)
    return len(offsets), inside


def _environment() -> ImmutableSandboxedEnvironment:
    from datetime import datetime

    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %} ... {% endgeneration %}` around what the model is to say."""

        tags = {"generation"}  # noqa: RUF012 (Jinja's own form)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("marked"), [], [], body).set_lineno(line)

        def marked(self, caller: Any) -> str:
            marks: Any = self.environment.globals["_marks"]
            return f"{marks[0]}{caller()}{marks[1]}"

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made
