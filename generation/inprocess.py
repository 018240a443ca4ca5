"""vLLM inside this process (`backend: vllm`): the same requests, without a server. Needs the extra `vllm`.

Comes in: chat completion bodies, one by one. Goes out: replies in the server's format. Bodies that wait together are generated
together, so that vLLM batches them; the engine starts with the first one.

    >>> sampling({"max_tokens": 64, "temperature": 0.7, "n": 2, "messages": [], "model": "x"})
    {'max_tokens': 64, 'temperature': 0.7, 'n': 2}
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from generation.wire import CallError

_NOT_SAMPLING = ("model", "messages", "response_format", "structured_outputs", "tools", "top_logprobs", "logprobs", "max_completion_tokens")


class InProcess:
    """One vLLM engine; `engine` holds the arguments of `vllm.LLM` (dtype, max_model_len, tensor_parallel_size, ...)."""

    def __init__(self, model: str, engine: dict[str, Any]) -> None:
        self.model, self.engine = model, engine
        self._llm: Any = None
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[bytes]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def send(self, body: dict[str, Any], timeout: float) -> bytes:
        """One chat completion.

        Raises:
            CallError: vLLM is not installed, the engine does not start, or it refuses the request.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(0.005)  # let those that come together be generated together
            batch, self._waiting = self._waiting, []
            try:
                replies: list[bytes | CallError] = await asyncio.to_thread(self._generate, [body for body, _ in batch])
            except CallError as error:
                replies = [error] * len(batch)
            except Exception as error:
                replies = [CallError("invalid", f"{type(error).__name__}: {error}")] * len(batch)
            for (_, future), reply in zip(batch, replies, strict=True):
                if future.done():
                    continue
                if isinstance(reply, CallError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)

    def _generate(self, bodies: list[dict[str, Any]]) -> list[bytes | CallError]:
        llm = self._start()
        try:
            outputs = llm.chat([b["messages"] for b in bodies], [_sampling_params(b) for b in bodies], use_tqdm=False)
            return [_as_server(body, output) for body, output in zip(bodies, outputs, strict=True)]
        except Exception as error:
            if len(bodies) == 1:
                return [CallError("invalid", f"{type(error).__name__}: {error}")]
        return [self._generate([body])[0] for body in bodies]  # one of them is poisoned: it must fail alone

    def _start(self) -> Any:
        if self._llm is None:
            try:
                import vllm
            except ImportError as error:
                raise CallError(
                    "fatal", "backend: vllm needs vLLM in this environment", hint="in the folder of the project: pip install '.[vllm]'"
                ) from error
            try:
                self._llm = vllm.LLM(self.model, **self.engine)
            except Exception as error:
                raise CallError("fatal", f"vLLM cannot start {self.model}: {type(error).__name__}: {error}") from error
        return self._llm

    async def models(self) -> list[str]:
        """The one model there is."""
        return [self.model]

    async def close(self) -> None:
        """Let the engine go."""
        self._llm = None


def sampling(body: dict[str, Any]) -> dict[str, Any]:
    """The arguments of vLLM's SamplingParams in a chat completion body."""
    out = {k: v for k, v in body.items() if k not in _NOT_SAMPLING}
    if body.get("max_completion_tokens") is not None:
        out["max_tokens"] = body["max_completion_tokens"]
    if body.get("logprobs"):
        out["logprobs"] = body.get("top_logprobs") or 1
    return out


def _sampling_params(body: dict[str, Any]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    arguments = sampling(body)
    if body.get("response_format"):
        arguments["structured_outputs"] = StructuredOutputsParams(json=body["response_format"]["json_schema"]["schema"])
    elif body.get("structured_outputs"):
        arguments["structured_outputs"] = StructuredOutputsParams(**body["structured_outputs"])
    return SamplingParams(**arguments)


def _as_server(body: dict[str, Any], output: Any) -> bytes:
    choices = [
        {"index": i, "finish_reason": o.finish_reason, "message": {"role": "assistant", "content": o.text}}
        for i, o in enumerate(output.outputs)
    ]
    completion = sum(len(o.token_ids) for o in output.outputs)
    usage = {"prompt_tokens": len(output.prompt_token_ids or ()), "completion_tokens": completion}
    return msgspec.json.encode({"object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage})
