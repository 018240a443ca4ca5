"""Conversations: `messages` (OpenAI), ShareGPT `conversations`, typed content parts, tool calls, reasoning. Kind sft.

{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "tools": "[…]"}
"""

from __future__ import annotations

from typing import Any

import msgspec

from columnar.formats.shape import Bad, Draft, Record, Shape, decoded, first_of, rest
from columnar.record import describe

ROLE_OF = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
CALLS = ("function_call", "tool_call")
FIELDS = ("messages", "conversations", "conversation", "dialogue", "dialog")
_ROLE, _CONTENT = ("role", "from"), ("content", "value", "text")
_THINKING = ("thinking", "reasoning_content", "reasoning")


def conversation(value: Any, path: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """A list of foreign messages as ours, and for each what it held beside that (None where nothing is left)."""
    value = decoded(value)
    if not isinstance(value, list):
        raise Bad(path, describe(value), "a list of messages")
    messages, left = [], []
    for i, item in enumerate(value):
        message, extra = convert(item, f"{path}[{i}]")
        messages.append(message)
        left.append(extra or None)
    return messages, left


def convert(item: Any, path: str) -> tuple[dict[str, Any], Record]:
    """One foreign message as ours, and what is left of it."""
    if not isinstance(item, dict):
        raise Bad(path, describe(item), "a message with a role and content")
    role_key = first_of(item, _ROLE)
    if role_key is None:
        raise Bad(path, f"a message without a role (keys: {', '.join(map(str, item)) or 'none'})", "role (or from)")
    foreign = item[role_key]
    role = ROLE_OF.get(foreign) if isinstance(foreign, str) else None
    if role is None:
        raise Bad(
            f"{path}.{role_key}",
            describe(foreign),
            "a role we know: system, user, assistant, tool, human, gpt, bot, model, function_call, observation, …",
        )
    content_key = first_of(item, _CONTENT)
    content = item.get(content_key) if content_key else None
    message: dict[str, Any] = {"role": role}
    used = {role_key, content_key}
    if foreign in CALLS and isinstance(content, str):
        message["content"], message["tool_calls"] = None, calls_of(content, path)
        return message, {k: v for k, v in item.items() if k not in used}
    left: Record = {}
    if isinstance(content, list):
        content = _parts(content, f"{path}.{content_key}", message, left)
    elif content is not None and not isinstance(content, str):
        raise Bad(f"{path}.{content_key}", describe(content), "text or a list of typed parts")
    message["content"] = content
    for key in _THINKING:
        if isinstance(item.get(key), str) and "thinking" not in message:
            message["thinking"] = item[key]
            used.add(key)
    for key in ("tool_call_id", "name"):
        if isinstance(item.get(key), str):
            message[key] = item[key]
            used.add(key)
    for key in ("tool_calls", "function_call"):
        if item.get(key) and "tool_calls" not in message:
            calls = item[key]
            message["tool_calls"] = calls if isinstance(calls, str) else _json(calls if isinstance(calls, list) else [calls])
            used.add(key)
    left.update((k, v) for k, v in item.items() if k not in used and v is not None)
    return message, left


def calls_of(content: str, path: str) -> str:
    """The JSON text of a call, or of a list of calls, as our `tool_calls`; a bare {name, arguments} becomes a `function` of that text.

    The calls' own text is not re-encoded: a model is trained on the bytes the source holds.
    """
    try:
        many = content.lstrip()[:1] == "["
        calls = [bytes(call) for call in msgspec.json.decode(content, type=list[msgspec.Raw])] if many else [content.encode()]
        made = [_call(call) for call in calls]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Bad(path, describe(content), "the JSON of a tool call") from None
    return "[" + ", ".join(made) + "]"


def _call(raw: bytes) -> str:
    call, text = msgspec.json.decode(raw), raw.decode().strip()
    return f'{{"type": "function", "function": {text}}}' if isinstance(call, dict) and "name" in call and "function" not in call else text


def _parts(parts: list[Any], path: str, message: dict[str, Any], left: Record) -> str | None:
    """Typed parts: text joined, reasoning to `thinking`, calls to `tool_calls`; images and the like stay in `left`."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[str] = []
    others: list[Any] = []
    for i, part in enumerate(parts):
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise Bad(f"{path}[{i}]", describe(part), "a typed part")
        kind = part.get("type")
        value = next((part[key] for key in ("text", "value", "thinking", "content") if isinstance(part.get(key), str)), None)
        if kind in ("text", "input_text", "output_text") and value is not None:
            texts.append(value)
        elif kind in ("reasoning", "thinking") and value is not None:
            thoughts.append(value)
        elif kind in ("tool_call", "tool_calls", "function_call"):
            calls.append(calls_of(value if value is not None else _json(rest(part, "type")), f"{path}[{i}]")[1:-1])
        else:
            others.append(part)
    if thoughts:
        message["thinking"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = "[" + ", ".join(calls) + "]"
    if others:
        left["parts"] = others
    if len(texts) > 1:
        left["text_parts"] = [len(t) for t in texts]
    return "".join(texts) if texts or not calls else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def tools_of(record: Record) -> str | None:
    """The `tools` (or `functions`) of a record as JSON text; text stays the text it is."""
    value = record.get("tools", record.get("functions"))
    if value is None or value in ("", "[]", []):
        return None
    return value if isinstance(value, str) else _json(value)


def _match(fields: set[str], samples: list[Record]) -> str | None:
    field = first_of(fields, FIELDS)
    if field is None:
        return None
    for record in samples:
        value = decoded(record.get(field))
        if isinstance(value, list) and value:
            if not isinstance(value[0], dict):
                return None
            role, content = first_of(value[0], _ROLE), first_of(value[0], (*_CONTENT, "tool_calls"))
            if role is None or content is None:
                return None
            return f"{field}[].{role} -> role, {field}[].{content} -> content" + (
                ", tools -> tools" if {"tools", "functions"} & fields else ""
            )
    return f"{field} -> messages"


def _rows(record: Record) -> list[Draft]:
    field = first_of(record, FIELDS)
    if field is None:
        raise Bad("messages", f"keys {', '.join(map(str, record)) or 'none'}", "messages or conversations")
    messages, left = conversation(record[field], field)
    system = record.get("system") or record.get("system_prompt")
    used = [field, "tools", "functions"]
    if isinstance(system, str) and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
        left.insert(0, None)
        used += [key for key in ("system", "system_prompt") if record.get(key) == system]
    meta = rest(record, *used)
    if any(left):
        meta[field] = left
    return [{"kind": "sft", "messages": messages, "tools": tools_of(record), "meta": meta}]


def _is_sharegpt(fields: set[str], samples: list[Record]) -> str | None:
    found = _match(fields, samples)
    return found if found and ".from ->" in found else None


MESSAGES = Shape("messages", ("sft",), _match, _rows)
SHAREGPT = Shape("sharegpt", ("sft",), _is_sharegpt, _rows)
