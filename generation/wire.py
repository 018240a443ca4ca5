"""What goes over the wire and what comes back: pure functions between our requests and replies and OpenAI's chat format.

    >>> reply = read_reply(b'{"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}')[0]
    >>> reply.outcome, reply.content
    ('ok', '4')

The cache key of a call is a hash of everything that reaches the server except the limit on the answer's length (see cache.py),
plus the number of the sample and the revision of the weights. What an outcome means:

    ok          a complete answer
    truncated   the server stopped at max_tokens or at the end of its context (finish_reason: length)
    refused     the provider's filter, or the model's own refusal field
    empty       a complete answer without text and without tool calls
    unparsable  the reply is not what the protocol promises, on every attempt
    timeout     no reply within the deadline
    failed      the server said no (an invalid request) or broke on every attempt
    budget      not asked, because the money or the run was stopped before it
    pending     not answered yet: it waits in a batch file, or nobody asked
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

OUTCOMES = ("ok", "truncated", "refused", "empty", "unparsable", "timeout", "failed", "budget", "pending")
ANSWERED = ("ok", "truncated", "refused", "empty")  # the server answered and was paid: these are cached
LENGTHS = ("max_tokens", "max_completion_tokens")
Kind = Literal["overload", "transient", "unreachable", "timeout", "invalid", "refused", "fatal"]


@dataclass(frozen=True, slots=True)
class Request:
    """One answer wanted from one model.

    Attributes:
        model: the model's name in the config.
        messages: as in a row (role, content, tool_calls as JSON text, ...).
        params: overrides the model's params: temperature, top_p, max_tokens, seed, stop, logprobs, top_logprobs,
            json_schema (a schema the answer must obey), choices (texts of which one must be the answer), extra (more of the body).
        sample: which of several answers to the same request; asked with seed + sample when a seed is set.
        tag: what it is for, told in the ledger; not part of the key.
    """

    model: str
    messages: list[dict[str, Any]]
    params: dict[str, Any] = field(default_factory=dict)
    sample: int = 0
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request; `outcome` says how to read the rest, `reason` why it is not ok."""

    request: Request
    outcome: str
    content: str = ""
    thinking: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    raw: str = ""
    reason: str = ""
    cached: bool = False
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """A complete answer."""
        return self.outcome == "ok"

    @property
    def choice(self) -> dict[str, Any]:
        """The server's own choice object: logprobs, tool_calls, and fields of its own."""
        return dict(msgspec.json.decode(self.raw)["choices"][0]) if self.raw else {}

    @property
    def usage(self) -> dict[str, int]:
        """Tokens as the server counted them."""
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer as read from a server's reply."""

    outcome: str
    content: str
    thinking: str | None
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    reason: str = ""


class BrokenReply(ValueError):
    """A reply that is not what the protocol promises; the text says how."""


class CallError(Exception):
    """A call without an answer.

    Attributes:
        kind: overload (429, 503: slow down), transient (5xx, cut connection: try again), unreachable (nobody listens),
            timeout, invalid (this request can never work), refused (a content policy), fatal (no request can work).
        retry_after: seconds the server wants us to wait, when it said so.
    """

    def __init__(self, kind: Kind, message: str, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.retry_after, self.hint = kind, retry_after, hint


def body_of(request: Request, served: str, defaults: dict[str, Any], structured: bool, openai: bool) -> dict[str, Any]:
    """The JSON body of a chat completion.

    Args:
        structured: send json_schema and choices as constraints (otherwise they are left to the parser).
        openai: OpenAI's own dialect: `max_completion_tokens`, and choices as an enum; everyone else's is vLLM's.

    The seed is the request's own: the sample is added when it is sent, so that all samples share one body and one key but for it.
    """
    params = {**defaults, **request.params}
    body: dict[str, Any] = {"model": served, "messages": [_message(m) for m in request.messages]}
    schema, choices, extra = params.pop("json_schema", None), params.pop("choices", None), params.pop("extra", None)
    for length in LENGTHS:
        if params.get(length) is not None:
            body["max_completion_tokens" if openai else "max_tokens"] = params[length]
        params.pop(length, None)
    body.update((k, v) for k, v in params.items() if v is not None)
    if structured and choices and openai:
        schema = {"type": "string", "enum": choices}
    if structured and schema and openai:
        schema = _without_lengths(schema)
    if structured and schema:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    elif structured and choices:
        body["structured_outputs"] = {"choice": choices}
    body.update(extra or {})
    return body


def _without_lengths(schema: Any) -> Any:
    """A schema without limits on text length, which OpenAI's strict mode does not take."""
    if isinstance(schema, dict):
        return {k: _without_lengths(v) for k, v in schema.items() if k not in ("maxLength", "minLength")}
    return [_without_lengths(v) for v in schema] if isinstance(schema, list) else schema


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A row's message as the API wants it: without nulls and without hidden thinking, tool calls as objects."""
    out = {k: v for k, v in message.items() if v is not None and k != "thinking"}
    if isinstance(out.get("tool_calls"), str):
        out["tool_calls"] = msgspec.json.decode(out["tool_calls"])
    return out


_canonical = msgspec.json.Encoder(order="deterministic")


def key_of(body: dict[str, Any], sample: int, revision: str | None) -> str:
    """32 hex that name a call: the body without its length limit, the sample, the weights."""
    rest = {k: v for k, v in body.items() if k not in LENGTHS}
    try:
        text = _canonical.encode([rest, sample, revision])
    except UnicodeEncodeError:  # a lone surrogate in hostile text: it cannot be sent either, and fails there with a reason
        text = repr([sorted(rest.items()), sample, revision]).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def length_limit(body: dict[str, Any]) -> int | None:
    """The limit on the answer's tokens, if any."""
    return body.get("max_completion_tokens", body.get("max_tokens"))


def read_reply(raw: bytes | str, n: int = 1) -> list[Choice]:
    """The answers in a server's reply.

    Raises:
        BrokenReply: not JSON, not an object, fewer than n choices, or choices without a message.
    """
    try:
        data = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenReply(f"the reply is not JSON ({error})") from None
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or len(choices) < n:
        found = f"{len(choices)} choices" if isinstance(choices, list) else "no list of choices"
        raise BrokenReply(f"expected {n} choice{'s' if n > 1 else ''} in the reply, found {found}")
    usage = data.get("usage") if isinstance(data.get("usage"), dict) else {}
    out = [_choice(choice) for choice in choices[:n]]
    sizes = [len(c.content) + len(c.thinking or "") + 1 for c in out]
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    return [
        replace(c, prompt_tokens=0 if i else prompt, completion_tokens=round(completion * sizes[i] / sum(sizes))) for i, c in enumerate(out)
    ]


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


def _choice(choice: Any) -> Choice:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise BrokenReply("a choice without a message")
    content, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    if content is not None and not isinstance(content, str):
        raise BrokenReply(f"expected text as the message's content, found {type(content).__name__}")
    thinking = message.get("reasoning_content") or message.get("reasoning")
    text = content or ""
    if not thinking and text.startswith("<think>") and "</think>" in text:
        inside, _, text = text.removeprefix("<think>").partition("</think>")
        thinking, text = inside.strip(), text.lstrip("\n")
    thinking = thinking if isinstance(thinking, str) else None
    if finish == "content_filter":
        return Choice("refused", text, thinking, finish, 0, 0, "the provider's content filter")
    if isinstance(refusal, str) and refusal:
        return Choice("refused", text or refusal, thinking, finish, 0, 0, "the model refused")
    if finish == "length":
        return Choice("truncated", text, thinking, finish, 0, 0, "cut at max_tokens")
    if not text.strip() and not message.get("tool_calls"):
        return Choice("empty", text, thinking, finish, 0, 0, "an answer without text")
    return Choice("ok", text, thinking, finish, 0, 0)
