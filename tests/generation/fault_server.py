"""An OpenAI-compatible server that misbehaves on command and counts every call: what tests and bench/generation.py run against.

    python tests/generation/fault_server.py --port 8199 --latency 0.05 --slow 0.02 --poison 0.01 --flaky-500 0.05

What it does depends on the request alone, never on chance or time, so that two runs see the same faults. Shares are of prompts:

    poison       HTTP 400 every time              flaky_500, flaky_429   once, then it works (429 with Retry-After)
    slow         takes slow_seconds               hang                   never answers            cut      the connection is cut once
    malformed    not JSON, once                   schema                 JSON of another shape, once       empty    no choices, once
    refuse       finish_reason content_filter     truncate               finish_reason length while max_tokens < 1000

A prompt that contains <<NAME>> has that fault whatever the share. Texts of judges (prompts with `<answer 1>` or a JSON schema) get
ratings. GET /stats tells the counts, and for every prompt how often it was answered; POST /reset forgets them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TEXT = (
    "a plain answer of ordinary words that goes on for a while so that the client has a realistic amount of text to read keep and pass "
    "along to whoever judges it later without saying anything in particular about the question"
)
WORDS = TEXT.split()
FAULTS = ("poison", "flaky_500", "flaky_429", "slow", "hang", "cut", "malformed", "schema", "empty", "refuse", "truncate")


def share(key: str, salt: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.blake2b((salt + key).encode("utf-8", "replace"), digest_size=8).digest()) / 2**64


@dataclass
class Faults:
    latency: float = 0.0
    slow_seconds: float = 2.0
    slow_until: str = ""  # when set, slow answers come as soon as this model has answered anything
    retry_after: float = 0.05
    words: int = 120
    key: str = ""  # when set, any other bearer token is refused
    models: tuple[str, ...] = ()  # when set, other models are unknown
    context: int = 0  # when set, longer prompts (in characters) are refused
    capacity: int = 0  # when set, more in flight than this gets 429
    holds_after: int = 0  # when set, answers beyond so many wait until it is 0 again: a run that is to be killed gets no further
    shares: dict[str, float] = field(default_factory=dict)


class Fake:
    """The server's state; `calls` counts arrivals, `answered` the 200s by (model, prompt)."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.reset()

    def reset(self) -> None:
        self.calls: Counter[str] = Counter()
        self.answered: Counter[tuple[str, str, str]] = Counter()
        self.once: Counter[tuple[str, str]] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.bodies: list[dict[str, Any]] = []
        self.keep_bodies = False
        self.files: list[bytes] = []  # of the Batch API: what was uploaded, and the answers
        self.looked: list[int] = []

    def has(self, fault: str, prompt: str) -> bool:
        return f"<<{fault}>>" in prompt or share(prompt, fault) < self.faults.shares.get(fault, 0.0)

    def first(self, fault: str, key: str, prompt: str) -> bool:
        """This prompt has this fault, and this is the first time it shows."""
        if not self.has(fault, prompt):
            return False
        self.once[fault, key] += 1
        return self.once[fault, key] == 1

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls["all"] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self.keep_bodies:
            self.bodies.append(body)
        try:
            return await self.reply(request, body)
        finally:
            self.in_flight -= 1

    async def slowly(self) -> None:
        faults, waited = self.faults, 0.0
        while waited < faults.slow_seconds and not any(model == faults.slow_until for model, *_ in self.answered):
            step = min(0.05, faults.slow_seconds - waited)
            await asyncio.sleep(step)
            waited += step

    async def reply(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        faults = self.faults
        prompt = "\n".join(str(m.get("content")) for m in body["messages"])
        key = hashlib.blake2b(json.dumps([body["model"], prompt, body.get("seed")]).encode(), digest_size=8).hexdigest()
        if faults.key and request.headers.get("Authorization") != f"Bearer {faults.key}":
            return self.error(401, f"Incorrect API key provided: {request.headers.get('Authorization', '')}", "invalid_api_key")
        if faults.models and body["model"] not in faults.models:
            return self.error(404, f"The model `{body['model']}` does not exist.", "model_not_found")
        if faults.capacity and self.in_flight > faults.capacity:
            return self.error(429, "too many requests", "rate_limit", {"Retry-After": str(faults.retry_after)})
        if self.first("flaky_429", key, prompt):
            return self.error(429, "slow down", "rate_limit", {"Retry-After": str(faults.retry_after)})
        if self.has("hang", prompt):
            await asyncio.sleep(3600)
        await (self.slowly() if self.has("slow", prompt) else asyncio.sleep(faults.latency))
        if self.has("poison", prompt):
            return self.error(400, "this prompt cannot be processed", "invalid_prompt")
        if faults.context and len(prompt) > faults.context:
            return self.error(400, f"maximum context length is {faults.context}, the prompt has {len(prompt)}", "context_length_exceeded")
        if self.first("flaky_500", key, prompt):
            return self.error(500, "something broke", "server_error")
        if self.first("cut", key, prompt):
            self.calls["cut"] += 1
            assert request.transport is not None
            request.transport.abort()
        if self.first("malformed", key, prompt):
            return web.Response(text='{"choices": [{"mess', content_type="application/json")
        if self.first("schema", key, prompt):
            return web.json_response({"result": "an answer in a shape of its own"})
        n = int(body.get("n") or 1)
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or 10_000
        choices = [self.choice(body, prompt, key, i, limit) for i in range(n)]
        if self.first("empty", key, prompt):
            choices = []
        while faults.holds_after and self.calls["ok"] >= faults.holds_after:
            await asyncio.sleep(0.01)
        self.calls["ok"] += 1
        self.answered[body["model"], prompt, f"{body.get('seed')}/{limit}"] += 1
        completion = sum(len(c["message"]["content"]) // 4 + 1 for c in choices)
        return web.json_response(
            {
                "id": f"chatcmpl-{key}",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": choices,
                "usage": {
                    "prompt_tokens": len(prompt) // 4,
                    "completion_tokens": completion,
                    "total_tokens": len(prompt) // 4 + completion,
                },
            }
        )

    def choice(self, body: dict[str, Any], prompt: str, key: str, i: int, limit: int) -> dict[str, Any]:
        finish = "content_filter" if self.has("refuse", prompt) else "length" if self.has("truncate", prompt) and limit < 1000 else "stop"
        answers = max((int(n) for n in re.findall(r"<answer (\d+)>", prompt)), default=0)
        schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
        chosen = (body.get("structured_outputs") or {}).get("choice")
        if chosen:
            text = chosen[int(share(f"{key}{i}", "choice") * len(chosen))]
        elif "<text 1>" in prompt:  # distilabel's UltraFeedback, in the benches
            ratings = [1 + int(share(f"{key}{i}", f"t{j}") * 5) for j in range(prompt.count("<text "))]
            text = "\n\n".join(f"Rating: {rating}\nRationale: because" for rating in ratings)
        elif schema or answers:
            text = json.dumps(_obey(schema, f"{key}{i}") if schema else _ratings(answers, f"{key}{i}"))
        else:
            start = int(share(f"{key}{i}", "start") * len(WORDS))
            length = int(self.faults.words * (0.5 + share(f"{key}{i}", "length"))) if finish != "length" else 20
            text = " ".join(WORDS[(start + j) % len(WORDS)] for j in range(length)) + f" [{body['model']} {key}{i}]"
        return {"index": i, "finish_reason": finish, "logprobs": None, "message": {"role": "assistant", "content": text}}

    def error(self, status: int, message: str, code: str, headers: dict[str, str] | None = None) -> web.Response:
        self.calls[str(status)] += 1
        return web.json_response({"error": {"message": message, "type": code, "code": code}}, status=status, headers=headers)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": m, "object": "model"} for m in self.faults.models]})

    async def stats(self, _: web.Request) -> web.Response:
        again = sum(n - 1 for n in self.answered.values())
        return web.json_response({**self.calls, "most_in_flight": self.most_in_flight, "distinct": len(self.answered), "again": again})

    async def forget(self, _: web.Request) -> web.Response:
        self.reset()
        return web.json_response({})

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        self.files.append(form["file"].file.read())  # type: ignore[union-attr]
        return web.json_response({"id": f"file-{len(self.files) - 1}", "object": "file", "bytes": 1, "created_at": 1, "filename": "f"})

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[int(request.match_info["id"].removeprefix("file-"))])

    async def batch(self, request: web.Request) -> web.Response:
        """Answers a batch at once; says so when it is looked at for the second time."""
        asked = await request.json()
        good, bad = [], []
        for line in self.files[int(asked["input_file_id"].removeprefix("file-"))].splitlines():
            entry = json.loads(line)
            body = entry["body"]
            prompt = "\n".join(str(m.get("content")) for m in body["messages"])
            if self.has("poison", prompt):
                said = {"status_code": 400, "body": {"error": {"message": "this prompt cannot be processed"}}}
                bad.append({"custom_id": entry["custom_id"], "response": said, "error": None})
                continue
            choice = self.choice(body, prompt, entry["custom_id"], 0, body.get("max_tokens") or 10_000)
            said = {"status_code": 200, "body": {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 30}}}
            good.append({"custom_id": entry["custom_id"], "response": said, "error": None})
        self.files += ["\n".join(map(json.dumps, part)).encode() for part in (good, bad)]
        self.looked.append(0)
        return web.json_response(self.told(len(self.looked) - 1, "validating"))

    def told(self, number: int, status: str) -> dict[str, Any]:
        out = {"id": f"batch-{number}", "object": "batch", "status": status, "endpoint": "/v1/chat/completions", "created_at": 1}
        done = {"output_file_id": f"file-{len(self.files) - 2}", "error_file_id": f"file-{len(self.files) - 1}"}
        return {**out, "completion_window": "24h", "input_file_id": "file-0", **(done if status == "completed" else {})}

    async def look(self, request: web.Request) -> web.Response:
        number = int(request.match_info["id"].removeprefix("batch-"))
        self.looked[number] += 1
        return web.json_response(self.told(number, "completed" if self.looked[number] > 1 else "in_progress"))

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/files", self.upload)
        app.router.add_get("/v1/files/{id}/content", self.content)
        app.router.add_post("/v1/batches", self.batch)
        app.router.add_get("/v1/batches/{id}", self.look)
        app.router.add_get("/stats", self.stats)
        app.router.add_post("/reset", self.forget)
        return app


def _ratings(n: int, key: str) -> dict[str, Any]:
    return {f"answer_{i + 1}": {"rationale": "because", "rating": 1 + int(share(key, f"r{i}") * 5)} for i in range(n)}


def _obey(schema: dict[str, Any], key: str) -> Any:
    """Something that a JSON schema allows (the part of JSON Schema that our judges use)."""
    if "enum" in schema:
        return schema["enum"][int(share(key, "enum") * len(schema["enum"]))]
    if "anyOf" in schema:
        return _obey(schema["anyOf"][0], key)
    kind = schema.get("type")
    if kind == "object":
        return {name: _obey(part, key + name) for name, part in schema["properties"].items()}
    if kind == "array":
        return [_obey(schema["items"], f"{key}{i}") for i in range(schema.get("minItems", 1))]
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 1), schema.get("maximum", 5)
        return low + int(share(key, "number") * (high - low + 1))
    return "because"


class Running:
    """The fake server in a thread of this process, for tests: `url`, and `fake` with its counts."""

    def __init__(self, faults: Faults) -> None:
        self.fake = Fake(faults)
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(120)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        runner = web.AppRunner(self.fake.app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"  # type: ignore[union-attr]
        self._runner = runner

    def settle(self) -> None:
        """Wait until all that was asked is done with: ten looks in a row find nothing in flight and nobody connected."""

        async def settled() -> None:
            quiet = 0
            while quiet < 10:
                await asyncio.sleep(0.01)
                assert self._runner.server is not None
                quiet = 0 if self.fake.in_flight or self._runner.server.connections else quiet + 1

        asyncio.run_coroutine_threadsafe(settled(), self._loop).result(120)

    def close(self) -> None:
        future = asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop)
        try:
            future.result(60)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8199)
    for name, default in (("latency", 0.05), ("slow-seconds", 2.0), ("retry-after", 0.05)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--words", type=int, default=120)
    for name in FAULTS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=0.0)
    args = parser.parse_args()
    faults = Faults(args.latency, args.slow_seconds, args.retry_after, args.words, shares={name: getattr(args, name) for name in FAULTS})
    web.run_app(Fake(faults).app(), host="127.0.0.1", port=args.port, access_log=None, print=None, backlog=4096)


if __name__ == "__main__":
    started = time.time()
    main()
