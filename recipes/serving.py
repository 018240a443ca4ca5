"""The model under training as a server: any command that starts an OpenAI-compatible one, or this small one for tiny models.

    python -m recipes.serving out/sft --port 8200 --name policy        # transformers, for models of a few million parameters

    policy_server: "vllm serve {model} --port {port} --served-model-name {name} --tensor-parallel-size 8"      # in a recipe's config

Requests that wait together are decoded together. A reply depends on the model, the request, its seed and its sample's number.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from columnar import cli
from columnar.errors import CaravanError, ConfigError

SMALL = "{python} -m recipes.serving {model} --port {port} --name {name}"
BATCH = 128  # sequences decoded together
WAIT = 0.005  # seconds: those that come together are decoded together


class Sampling(NamedTuple):
    """One sequence to make."""

    prompt: list[int]
    most: int
    temperature: float
    top_p: float
    seed: int


def decode(model: Any, wanted: list[Sampling], end: set[int]) -> list[list[int]]:
    """The new tokens of each sequence, its end token included where it was reached."""
    import torch

    width = max(len(s.prompt) for s in wanted)
    ids = torch.tensor([[0] * (width - len(s.prompt)) + s.prompt for s in wanted])
    mask = torch.tensor([[0] * (width - len(s.prompt)) + [1] * len(s.prompt) for s in wanted])
    chance = [random.Random(s.seed) for s in wanted]
    made: list[list[int]] = [[] for _ in wanted]
    going = [True] * len(wanted)
    cache = None
    with torch.inference_mode():
        for _ in range(max(s.most for s in wanted)):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            out = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            token = _choose(out.logits[:, -1].float(), wanted, chance)
            for i, t in enumerate(token):
                if going[i]:
                    made[i].append(t)
                    going[i] = t not in end and len(made[i]) < wanted[i].most
            if not any(going):
                break
            ids = torch.tensor(token)[:, None]
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
    return made


def _choose(logits: Any, wanted: list[Sampling], chance: list[random.Random]) -> list[int]:
    """The next token of each row: the likeliest at temperature 0, else drawn from the nucleus by the row's own numbers."""
    import torch

    heat = torch.tensor([s.temperature for s in wanted])
    probability, token = torch.softmax(logits / heat.clamp(min=1e-4)[:, None], -1).sort(dim=-1, descending=True)
    total = probability.cumsum(-1)
    nucleus = torch.tensor([s.top_p for s in wanted])[:, None]
    kept = (total - probability < nucleus) | (torch.arange(total.shape[1]) == 0)
    mass = (probability * kept).cumsum(-1)
    at = torch.tensor([0.0 if s.temperature == 0 else c.random() for s, c in zip(wanted, chance, strict=True)])[:, None]
    place = (mass <= at * mass[:, -1:]).sum(-1).clamp(max=total.shape[1] - 1)
    return token.gather(1, place[:, None])[:, 0].tolist()


class Policy:
    """A model and the requests that wait for it."""

    def __init__(self, directory: str, name: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = name
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = AutoModelForCausalLM.from_pretrained(directory).eval()
        stop = self.model.generation_config.eos_token_id
        self.end = {self.tokenizer.eos_token_id, *(stop if isinstance(stop, list) else [stop])} - {None}
        self.context = int(self.model.config.max_position_embeddings)
        self.waiting: list[tuple[Sampling, asyncio.Future[list[int]]]] = []
        self.runner: asyncio.Task[None] | None = None

    async def one(self, sampling: Sampling) -> list[int]:
        """Decode one sequence, beside whatever else waits."""
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.waiting.append((sampling, future))
        if self.runner is None or self.runner.done():
            self.runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self.waiting:
            await asyncio.sleep(WAIT)
            batch, self.waiting = self.waiting[:BATCH], self.waiting[BATCH:]
            made = await asyncio.to_thread(decode, self.model, [s for s, _ in batch], self.end)
            for (_, future), tokens in zip(batch, made, strict=True):
                if not future.done():
                    future.set_result(tokens)

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat completion.

        Raises:
            ValueError: the prompt does not fit.
        """
        prompt: Any = self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
        most = min(int(body.get("max_completion_tokens") or body.get("max_tokens") or 256), self.context - len(prompt))
        if most < 1:
            raise ValueError(f"maximum context length is {self.context} tokens, the prompt has {len(prompt)}")
        heat = 1.0 if body.get("temperature") is None else float(body["temperature"])
        nucleus = 1.0 if body.get("top_p") is None else float(body["top_p"])
        key = json.dumps([body["messages"], body.get("seed")], sort_keys=True)
        wanted = [Sampling(prompt, most, heat, nucleus, _seed(key, i)) for i in range(int(body.get("n") or 1))]
        made = await asyncio.gather(*map(self.one, wanted))
        choices = [
            {
                "index": i,
                "finish_reason": "stop" if tokens[-1] in self.end else "length",
                "message": {"role": "assistant", "content": str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()},
            }
            for i, tokens in enumerate(made)
        ]
        usage = {"prompt_tokens": len(prompt), "completion_tokens": sum(map(len, made))}
        return {"object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage}


def _seed(key: str, sample: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{key}\x1f{sample}".encode("utf-8", "replace"), digest_size=8).digest())


def application(policy: Policy) -> Any:
    """The aiohttp application."""
    from aiohttp import web

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("model") != policy.name:
            problem = {"message": f"The model `{body.get('model')}` does not exist.", "type": "not_found", "code": "model_not_found"}
            return web.json_response({"error": problem}, status=404)
        try:
            return web.json_response(await policy.complete(body))
        except ValueError as error:
            return web.json_response({"error": {"message": str(error), "code": "context_length_exceeded"}}, status=400)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": policy.name, "object": "model"}]})

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    return app


@contextmanager
def served(model: Path, command: str | None, log: Path, name: str = "policy", wait: float = 600.0) -> Iterator[str]:
    """Start a server for a model, wait until it answers, stop it at the end; gives its base URL.

    Raises:
        ConfigError: the command is not one.
        CaravanError: the server ended or did not answer in `wait` seconds.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        argv = [part.format(python=sys.executable, model=model, port=port, name=name) for part in shlex.split(command or SMALL)]
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(f"policy_server: {command!r}: {error}", "known fields: {python} {model} {port} {name}") from error
    url = f"http://127.0.0.1:{port}/v1"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(argv, stdout=file, stderr=file)
        except OSError as error:
            raise ConfigError(f"policy_server: {argv[0]}: {error.strerror}", "expected a command that starts a server") from error
        try:
            _wait(process, url, log, wait)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/models", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    state = f"ended with {process.returncode}" if process.poll() is not None else f"did not answer in {seconds:.0f} seconds"
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

    web.run_app(application(Policy(args.model, args.name)), host="127.0.0.1", port=args.port, print=None, handle_signals=True)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
