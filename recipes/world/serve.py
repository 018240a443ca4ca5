"""The world's speakers and judges behind the HTTP interface of an OpenAI-compatible server.

    python -m recipes.world.serve models.yaml --port 8100

    teacher: {skill: 0.95}                 # answers
    weak: {skill: 0.4, wordy: 0.5}
    judge: {judge: {noise: 0.1}}           # rates, compares, scores

A reply depends on the model, the request, its `seed` and the number of the sample, never on time or order.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from columnar import cli
from columnar.errors import ConfigError
from recipes.world.speakers import LOST, Critic, Speaker, judge, say


def dials(models: dict[str, Any]) -> dict[str, Speaker | Critic]:
    """Models by name, checked.

    Raises:
        ConfigError: a dial that does not exist, or out of range.
    """
    out: dict[str, Speaker | Critic] = {}
    for name, given in models.items():
        try:
            given = given or {}
            out[name] = Critic.model_validate(given["judge"] or {}) if "judge" in given else Speaker.model_validate(given)
        except ValueError as error:
            raise ConfigError(f"world model {name}: {error}") from error
    return out


def reply(model: Speaker | Critic, body: dict[str, Any], sample: int) -> str:
    """One answer of a model to one request."""
    key = json.dumps([body["model"], body["messages"], body.get("seed"), sample], sort_keys=True)
    rng = random.Random(int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()))
    if isinstance(model, Critic):
        return judge(model, body["messages"], rng) or LOST
    return say(model, body["messages"], rng)


def application(models: dict[str, Speaker | Critic]) -> Any:
    """The aiohttp application."""
    from aiohttp import web

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        model = models.get(body.get("model"))
        if model is None:
            problem = {"message": f"The model `{body.get('model')}` does not exist.", "type": "not_found", "code": "model_not_found"}
            return web.json_response({"error": problem}, status=404)
        texts = [reply(model, body, i) for i in range(int(body.get("n") or 1))]
        usage = {
            "prompt_tokens": sum(len(str(m.get("content")).split()) for m in body["messages"]),
            "completion_tokens": sum(len(t.split()) for t in texts),
        }
        choices = [{"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": t}} for i, t in enumerate(texts)]
        return web.json_response({"object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage})

    async def names(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in models]})

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", names)
    return app


@contextmanager
def serving(models: dict[str, Speaker | Critic], port: int = 0) -> Iterator[str]:
    """A server in a thread of this process, as long as the block runs; gives its base URL."""
    from aiohttp import web

    loop = asyncio.new_event_loop()
    started: list[int] = []
    ready = threading.Event()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(application(models), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        started.append(runner.addresses[0][1])
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        try:
            runner = loop.run_until_complete(start())
        finally:
            ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ready.wait()
    if not started:
        raise ConfigError(f"the world's server cannot listen on port {port}", "give another port, or 0 for any free one")
    try:
        yield f"http://127.0.0.1:{started[0]}/v1"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("recipes.world.serve", __doc__)
    made.add_argument("models", type=Path, help="YAML: names and dials")
    made.add_argument("--port", type=int, default=8100)
    return made


def main(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        models = dials(yaml.safe_load(args.models.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise ConfigError(f"{args.models}: {error.strerror}", "expected a YAML file of models") from error
    with serving(models, args.port) as url:
        cli.say(f"{url}  models: {', '.join(models)}")
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
