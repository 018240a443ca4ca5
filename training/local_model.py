"""A model on this machine behind the generation client: the same cache, outcomes and ledger as for a server, without one.

    async with local_client({"policy": "out/sft"}, cache) as client: await client.complete(Request("policy", messages, params))

Requests that wait together are generated together. Sampling is seeded per request (prompt, sample, seed) by Gumbel's trick, so that an
answer does not depend on which others were in its batch, and a run that was killed goes on with the same answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar.errors import ConfigError
from generation.client import Client
from generation.models import ModelConfig

if TYPE_CHECKING:
    import httpx2

    from generation.cache import Cache

AT_ONCE = 64  # sequences in a batch


def served(name: str, path: str) -> ModelConfig:
    """The config of a local model; its weights are part of what its answers are cached under."""
    from training.run import model_key

    return ModelConfig(
        name=name, base_url="http://localhost/v1", revision=model_key(path), concurrency=2 * AT_ONCE, timeout=3600, deadline=7200
    )


def local_client(models: dict[str, str], cache: Cache | Path | str | None = None, at_once: int = AT_ONCE, **more: Any) -> Client:
    """A client whose models (name -> directory or hub id) run in this process.

    Raises:
        ConfigError: a model that cannot be loaded, or one without a chat template.
    """
    import httpx2

    loaded = {name: Local(path, at_once) for name, path in models.items()}
    http = httpx2.AsyncClient(transport=_transport(loaded))
    return Client([served(name, path) for name, path in models.items()], cache, http_client=http, **more)


class Local:
    """One model, and the requests that wait for it."""

    def __init__(self, path: str, at_once: int = AT_ONCE) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from training.run import max_parameters, quiet
        from training.template import load_tokenizer

        quiet()
        self.tokenizer: Any = load_tokenizer(path)
        if not self.tokenizer.chat_template:
            raise ConfigError(f"{path}: the tokenizer has no chat template", "train it with one (template: tulu), or serve it elsewhere")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        gpu = torch.cuda.is_available()
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype="auto" if gpu else torch.float32)
            self.model = loaded.to("cuda" if gpu else "cpu").eval()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: not a model that transformers can load ({error})") from error
        if not gpu and max_parameters(path) < 20_000_000:
            torch.set_num_threads(1)
        known = self.model.generation_config.eos_token_id
        self.ends = sorted({self.tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])} - {None})
        self.context = int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 30)
        self.at_once = at_once
        self._waiting: list[tuple[dict[str, Any], int, asyncio.Future[dict[str, Any]]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def answer(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The choices of one chat completion (n of them).

        Raises:
            ValueError: the prompt does not fit into the context.
        """
        futures = []
        for i in range(int(body.get("n") or 1)):
            futures.append(asyncio.get_running_loop().create_future())
            self._waiting.append((body, i, futures[-1]))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return list(await asyncio.gather(*futures))

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(0.01)  # let those that come together be generated together
            first = _kind(self._waiting[0][0])
            batch = [w for w in self._waiting if _kind(w[0]) == first][: self.at_once]
            taken = {id(w) for w in batch}
            self._waiting = [w for w in self._waiting if id(w) not in taken]
            try:
                for (_, _, future), made in zip(batch, await asyncio.to_thread(self._generate, [(b, i) for b, i, _ in batch]), strict=True):
                    future.set_exception(made) if isinstance(made, Exception) else future.set_result(made)
            except Exception as error:
                for _, _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    def _generate(self, wanted: list[tuple[dict[str, Any], int]]) -> list[dict[str, Any] | Exception]:
        """One batch with the same decoding parameters."""
        import torch

        body = wanted[0][0]
        limit, temperature = int(body.get("max_tokens") or body.get("max_completion_tokens") or 256), float(body.get("temperature", 1.0))
        prompts = [
            self.tokenizer.apply_chat_template(b["messages"], add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
            for b, _ in wanted
        ]
        good = [i for i, ids in enumerate(prompts) if len(ids) < self.context]
        out: list[dict[str, Any] | Exception] = [
            ValueError(f"a prompt of {len(ids)} tokens does not fit into a context of {self.context}") for ids in prompts
        ]
        if not good:
            return out
        padded = self.tokenizer.pad({"input_ids": [prompts[i] for i in good]}, padding_side="left", return_tensors="pt").to(
            self.model.device
        )
        width = padded["input_ids"].shape[1]
        more: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            more["logits_processor"] = [_seeded([_seed(*wanted[i]) for i in good], temperature, body.get("top_p"), self.model.device)]
        with torch.no_grad():
            ids = self.model.generate(
                **{k: padded[k] for k in ("input_ids", "attention_mask")},
                max_new_tokens=max(1, min(limit, self.context - width)),
                eos_token_id=self.ends,
                pad_token_id=self.tokenizer.pad_token_id,
                repetition_penalty=1.0,
                **more,
            )
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        for i, tokens in zip(good, ids[:, width:].tolist(), strict=True):
            out[i] = self._choice(tokens, len(prompts[i]), stops)
        return out

    def _choice(self, tokens: list[int], prompt: int, stops: list[str]) -> dict[str, Any]:
        end = next((i for i, token in enumerate(tokens) if token in self.ends), None)
        text = self.tokenizer.decode(tokens if end is None else tokens[:end], skip_special_tokens=True)
        cut = min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
        finish = "stop" if end is not None or cut is not None else "length"
        usage = (prompt, len(tokens) if end is None else end + 1)
        return {"message": {"role": "assistant", "content": text[:cut]}, "finish_reason": finish, "usage": usage}


def _kind(body: dict[str, Any]) -> str:
    """Requests that can share a batch: all but messages, seed and n are the same."""
    return json.dumps({k: v for k, v in body.items() if k not in ("messages", "seed", "n")}, sort_keys=True)


def _seed(body: dict[str, Any], number: int) -> int:
    text = json.dumps([body["messages"], int(body.get("seed") or 0) + number], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _seeded(seeds: list[int], temperature: float, top_p: float | None, device: Any) -> Any:
    """Adds Gumbel noise of each sequence's own generator to logits / temperature: the largest is then a sample (Gumbel 1954)."""
    import torch
    from transformers import LogitsProcessor, TopPLogitsWarper

    class Seeded(LogitsProcessor):
        def __init__(self) -> None:
            self.generators = [torch.Generator(device="cpu").manual_seed(seed) for seed in seeds]
            self.nucleus = TopPLogitsWarper(top_p) if top_p is not None and top_p < 1 else None

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            scores = scores.float() / temperature
            if self.nucleus is not None:
                scores = self.nucleus(input_ids, scores)
            noise = torch.stack([torch.rand(scores.shape[1], generator=g, dtype=torch.float64) for g in self.generators])
            return scores - (-noise.clamp(1e-300).log()).log().float().to(device)

    return Seeded()


def _transport(models: dict[str, Local]) -> httpx2.AsyncBaseTransport:
    """What stands where the network would: chat completions answered by the models."""
    import httpx2

    class Transport(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            if request.url.path.endswith("/models"):
                return httpx2.Response(200, json={"object": "list", "data": [{"id": name, "object": "model"} for name in models]})
            body = json.loads(await request.aread())
            model = models.get(body["model"])
            if model is None:
                return httpx2.Response(404, json={"error": {"message": f"no model {body['model']}"}})
            try:
                made = await model.answer(body)
            except ValueError as error:
                return httpx2.Response(400, json={"error": {"message": str(error)}})
            choices = [{"index": i, "message": c["message"], "finish_reason": c["finish_reason"]} for i, c in enumerate(made)]
            usage = {"prompt_tokens": made[0]["usage"][0], "completion_tokens": sum(c["usage"][1] for c in made)}
            return httpx2.Response(200, json={"object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage})

    return Transport()
