"""The model under training as a server: any command that starts an OpenAI-compatible one, or this small one for tiny models.

    python -m recipes.serving out/sft --port 8200 --name policy        # transformers, for models of a few million parameters

    policy_server: "vllm serve {model} --port {port} --served-model-name {name} --tensor-parallel-size 8"      # in a recipe's config

The small one is `training.local_model` behind HTTP: a reply depends on the model, the request, its seed and its sample's number.
"""

from __future__ import annotations

import argparse
import secrets
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from columnar import cli
from columnar.errors import CaravanError, ConfigError

BATCH = 128  # sequences decoded together


def application(directory: str, name: str) -> Any:
    """The aiohttp application that answers for one model."""
    from aiohttp import web

    from training.local_model import Local

    model = Local(directory, BATCH)

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("model") != name:
            problem = {"message": f"The model `{body.get('model')}` does not exist.", "type": "not_found", "code": "model_not_found"}
            return web.json_response({"error": problem}, status=404)
        try:
            made = await model.answer(body)
        except ValueError as error:
            return web.json_response({"error": {"message": str(error), "code": "context_length_exceeded"}}, status=400)
        choices = [{"index": i, "finish_reason": c["finish_reason"], "message": c["message"]} for i, c in enumerate(made)]
        usage = {"prompt_tokens": made[0]["usage"][0], "completion_tokens": sum(c["usage"][1] for c in made)}
        return web.json_response({"object": "chat.completion", "model": name, "choices": choices, "usage": usage})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"}]})

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    return app


@contextmanager
def served(
    model: Path, command: str | None, log: Path, name: str = "policy", wait: float = 600.0, threads: int | None = None
) -> Iterator[str]:
    """Start a server for a model, wait until it answers, stop it at the end; gives its base URL. `threads` are the small server's.

    Raises:
        ConfigError: the command is not one.
        CaravanError: the server ended or did not answer in `wait` seconds.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = _small(model, port, name, log, threads) if command is None else _other(command, model, port, name, log)
    try:
        _wait(process, url, log, wait)
        yield url
    finally:
        process.terminate()
        if process.wait(30.0) is None:
            process.kill()
            process.wait(None)


def free_port() -> int:
    """A port below those that systems hand out by themselves, so that nobody is given it before the server asks for it."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server(NamedTuple):
    """A process by what one does to it; `wait` gives its exit code, None when it has not ended after so many seconds."""

    wait: Callable[[float | None], int | None]
    terminate: Callable[[], None]
    kill: Callable[[], None]


def _small(model: Path, port: int, name: str, log: Path, threads: int | None) -> Server:
    """This module's own server, in a process that has torch loaded already."""
    from recipes import workers

    process = workers.begin("recipes.serving", [str(model), "--port", str(port), "--name", name], log, threads)

    def wait(seconds: float | None) -> int | None:
        process.join(seconds)
        return process.exitcode

    return Server(wait, process.terminate, process.kill)


def _other(command: str, model: Path, port: int, name: str, log: Path) -> Server:
    try:
        argv = [part.format(python=sys.executable, model=model, port=port, name=name) for part in shlex.split(command)]
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(f"policy_server: {command!r}: {error}", "known fields: {python} {model} {port} {name}") from error
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(argv, stdout=file, stderr=file)
    except OSError as error:
        raise ConfigError(f"policy_server: {argv[0]}: {error.strerror}", "expected a command that starts a server") from error

    def wait(seconds: float | None) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.returncode

    return Server(wait, process.terminate, process.kill)


def _wait(process: Server, url: str, log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.wait(0.05) is None:
        try:
            with urllib.request.urlopen(f"{url}/models", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            continue
    code = process.wait(0.0)
    state = f"ended with {code}" if code is not None else f"did not answer in {seconds:.0f} seconds"
    last = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
    raise CaravanError(f"the policy's server {state}: {last[-500:]}", f"its output is in {log}")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("recipes.serving", __doc__)
    made.add_argument("model", help="a model directory")
    made.add_argument("--port", type=int, default=8200)
    made.add_argument("--name", default="policy", help="what it is called on the wire")
    return made


def main(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from aiohttp import web

    web.run_app(application(args.model, args.name), host="127.0.0.1", port=args.port, print=None, handle_signals=True)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
