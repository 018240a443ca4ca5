"""Chat templates: which one renders a conversation, and which of its tokens the assistant wrote.

The tokenizer's own template when it marks what the assistant wrote (`{% generation %}`), TRL's marked twin of it for the families TRL
knows, or one of ours for base models: `tulu` (Tülu's role lines, every answer closed by the end-of-text token) and `chatml`.
In ours the end of an answer lies inside the marks: a model that never learns it never stops.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]

_BOS = "{%- if bos_token and bos_token != eos_token -%}{{- bos_token -}}{%- endif -%}"
_ANSWER = (
    "{%- if m.get('thinking') -%}{{- '<think>\n' + m['thinking'] + '\n</think>\n\n' -}}{%- endif -%}"
    "{{- m['content'] or '' -}}"
    "{%- for call in m.get('tool_calls') or [] -%}{{- '\n<tool_call>\n' + (call['function'] | tojson) + '\n</tool_call>' -}}{%- endfor -%}"
)
_TOOLS = (
    "{%- if tools -%}{{- OPEN + 'Tools, one JSON a line:\n' -}}{%- for t in tools -%}{{- (t | tojson) + '\n' -}}{%- endfor -%}{%- endif -%}"
)
TEMPLATES = {
    # arXiv 2306.04751, figure 1, as the released models of 2023-2025 write it; system and tool lines follow the same shape
    "tulu": _BOS
    + _TOOLS.replace("OPEN", "'<|system|>\n'")
    + "{%- for m in messages -%}{{- '<|' + m['role'] + '|>\n' -}}"
    + "{%- if m['role'] == 'assistant' -%}{%- generation -%}"
    + _ANSWER
    + "{{- eos_token -}}{%- endgeneration -%}{%- if not loop.last -%}{{- '\n' -}}{%- endif -%}"
    + "{%- else -%}{{- (m['content'] or '') + '\n' -}}{%- endif -%}{%- endfor -%}"
    + "{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}",
    "chatml": _BOS
    + _TOOLS.replace("OPEN", "'<|im_start|>system\n'").replace("{%- endif -%}", "{{- '<|im_end|>\n' -}}{%- endif -%}")
    + "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' -}}"
    + "{%- if m['role'] == 'assistant' -%}{%- generation -%}"
    + _ANSWER
    + "{{- '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}"
    + "{%- else -%}{{- (m['content'] or '') + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
    + "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}",
}
_RESERVED = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub id.

    Raises:
        ConfigError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"--model {model}: no tokenizer found ({first[:200]})",
            "expected a model directory, the id of a model on the hub, or a size to make one of: tiny, mini, small, base, large",
        ) from error


def prepare(tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> tuple[str, list[str]]:
    """Make a tokenizer fit to train: it ends, it pads, and it has a template; changes it in place.

    Args:
        name: `auto` (the tokenizer's own, else tulu), `own`, `tulu`, `chatml`, or the path of a Jinja file.

    Returns:
        The template for training, with generation marks (the tokenizer keeps its own for use), and what was decided, in sentences.

    Raises:
        ConfigError: no end-of-text token, no template, or one without generation marks.
    """
    if name == "auto":
        name = "own" if tokenizer.chat_template else "tulu"
    notes: list[str] = []
    if name == "chatml":
        if len(tokenizer.encode("<|im_end|>", add_special_tokens=False)) != 1:
            raise ConfigError(
                "template chatml: the tokenizer has no token <|im_end|>, so a model could not learn to stop", "use template=tulu"
            )
        tokenizer.eos_token = "<|im_end|>"
    if tokenizer.eos_token is None:
        raise ConfigError(
            "the tokenizer has no end-of-text token, so a model could not learn to stop", "set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next((token for token in _RESERVED if token in vocabulary), tokenizer.eos_token)
        notes.append(f"the tokenizer has no padding token: {tokenizer.pad_token} is used (padding is never learnt)")
    if name == "own":
        return _own(tokenizer, notes), notes
    if name in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[name]
    elif Path(name).is_file():
        tokenizer.chat_template = Path(name).read_text(encoding="utf-8")
    else:
        raise ConfigError(f"template {name!r}: no such template or file", "known: auto, own, tulu, chatml, or the path of a Jinja file")
    notes.append(f"chat template: {name}")
    return _own(tokenizer, notes), notes


def _own(tokenizer: PreTrainedTokenizerBase, notes: list[str]) -> str:
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers, is_chat_template_stop_token_trained

    own = tokenizer.chat_template
    if not own:
        raise ConfigError("the tokenizer has no chat template", "use template=tulu or template=chatml")
    if isinstance(own, dict):
        own = own["default"]
    if not has_generation_markers(own):
        try:
            own = get_training_chat_template(tokenizer) or own
        except ValueError as error:
            raise ConfigError(
                "the chat template does not mark what the assistant wrote, so nobody could say which tokens to learn",
                "put {% generation %} and {% endgeneration %} around it (the end of the answer inside), or use template=tulu or chatml",
            ) from error
        notes.append("chat template: the tokenizer's own, with generation marks by TRL")
    if not is_chat_template_stop_token_trained(tokenizer, own):
        notes.append("warning: the template leaves the end of an answer outside its generation marks: the model will not learn to stop")
    return own


def plain(messages: list[Message]) -> list[Message]:
    """Messages as templates expect them: no empty keys, tool calls as objects."""
    out = []
    for message in messages:
        made = {key: value for key, value in message.items() if value is not None}
        made.setdefault("content", "")
        if "tool_calls" in made:
            made["tool_calls"] = [_call(call) for call in json.loads(made["tool_calls"])]
        if "thinking" in made:
            made["reasoning_content"] = made["thinking"]  # the name that Qwen's and DeepSeek's templates know
        out.append(made)
    return out


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    if isinstance(function.get("arguments"), str):
        with contextlib.suppress(ValueError):  # arguments that are no JSON stay as the model wrote them
            function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}


def encode(
    tokenizer: PreTrainedTokenizerBase, template: str, conversations: list[list[Message]], tools: list[str | None]
) -> list[tuple[list[int], list[int]]]:
    """Token ids of each conversation and, token by token, whether the assistant wrote it (1) or not (0)."""
    groups: dict[str | None, list[int]] = {}
    for i, tool in enumerate(tools):
        groups.setdefault(tool, []).append(i)
    out: list[tuple[list[int], list[int]]] = [([], [])] * len(conversations)
    for tool, places in groups.items():
        done: Any = tokenizer.apply_chat_template(
            [plain(conversations[i]) for i in places],
            tools=json.loads(tool) if tool else None,
            chat_template=template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        for i, ids, mask in zip(places, done["input_ids"], done["assistant_masks"], strict=True):
            out[i] = (list(ids), list(mask))
    return out


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, template: str, prompts: list[list[Message]], tools: list[str | None]
) -> list[list[int]]:
    """Token ids of each prompt, up to where the assistant begins."""
    out: list[list[int]] = []
    for prompt, tool in zip(prompts, tools, strict=True):
        done: Any = tokenizer.apply_chat_template(
            plain(prompt),
            tools=json.loads(tool) if tool else None,
            chat_template=template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        out.append(list(done["input_ids"]))
    return out
