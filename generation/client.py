"""Ask models and pay once: cache, budget, retries and a level of concurrency for each server, behind one call.

    async with Client([ModelConfig(name="tulu", base_url="http://localhost:8000/v1")], "out/replies.sqlite") as client:
        reply = await client.complete(Request("tulu", [{"role": "user", "content": "Hello"}], {"max_tokens": 64}))
        async for reply in client.stream(requests): ...        # as they come, however many requests there are

A request is the unit of failure, retry, cache and payment: whatever happens to one touches no other, and its Reply says what
happened (`outcome`, see wire.py). What no request can survive is raised: a wrong key, an unknown model, a server that is not
there, a full disk. Everything answered before is in the cache; the same command goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar.errors import CaravanError, ConfigError
from generation.asking import Caller, NoAnswer
from generation.cache import Cache
from generation.flow import each
from generation.meter import Meter, estimate
from generation.models import OPENAI, ModelConfig, Price, by_name
from generation.wire import Choice, Reply, Request, body_of, key_of, length_limit, read_reply

if TYPE_CHECKING:
    import httpx2

    from generation.batch import BatchFile


class Client:
    """Asks the models of a config; use as an async context manager.

    Args:
        models: every model that requests will name.
        cache: the file of replies (or an open Cache); None keeps them in memory.
        max_cost: dollars this process may spend; calls that could go over it are not sent (outcome `budget`).
        retry_failed: ask again also what the server called invalid.
        replay: never ask: answer from the cache, or say why there is no answer.
        batch: collect what would be asked in this batch file instead of asking (outcome `pending`).
        http_client: another transport, for tests.
    """

    def __init__(
        self,
        models: Iterable[ModelConfig],
        cache: Cache | Path | str | None = None,
        max_cost: float | None = None,
        retry_failed: bool = False,
        replay: bool = False,
        batch: BatchFile | None = None,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        self.models = by_name(list(models))
        self.cache = Cache(cache) if cache is None or isinstance(cache, str | Path) else cache
        self.meter = Meter()
        self.max_cost, self.retry_failed, self.replay, self.batch = max_cost, retry_failed, replay, batch
        self.stopped = ""  # why nothing more is asked; empty while running
        self._caller = Caller(self.meter, http_client)
        self._flying: dict[tuple[str, int], asyncio.Future[Reply]] = {}
        self._failed_before: set[str] = set()
        self._reserved, self._reserving = 0.0, 0  # dollars and calls that are under way
        self._returned = asyncio.Event()
        self._fatal: CaravanError | None = None
        if max_cost is not None:
            unknown = [m.name for m in self.models.values() if m.rate is None]
            if unknown:
                raise ConfigError(
                    f"max_cost: the price of {', '.join(unknown)} is not known", "give the model `price: {input: .., output: ..}`"
                )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._caller.close()

    def stop(self, reason: str) -> None:
        """Ask nothing more; calls under way are finished and kept."""
        self.stopped = self.stopped or reason
        self._returned.set()  # those who wait for room in the budget need not wait any longer

    @property
    def width(self) -> int:
        """The most calls that can be in flight to one model: how much work is worth having begun."""
        return max((m.concurrency * len(m.urls) for m in self.models.values()), default=1)

    def body(self, request: Request) -> dict[str, Any]:
        """What a request looks like on the wire."""
        config = self.config(request.model)
        return body_of(request, config.served, config.params, config.structured, any(u.startswith(OPENAI) for u in config.urls))

    def config(self, name: str) -> ModelConfig:
        """A model's config.

        Raises:
            ConfigError: no such model.
        """
        if name not in self.models:
            raise ConfigError(f"no model is called {name!r}", f"models of this config: {', '.join(self.models)}")
        return self.models[name]

    async def complete(self, request: Request) -> Reply:
        """One answer: from the cache, or asked and cached.

        Raises:
            CaravanError: no request can work (key, model, server, disk); see the module's text.
        """
        return (await self._samples([request]))[0]

    async def samples(self, request: Request, n: int) -> list[Reply]:
        """n answers to one request (samples request.sample, +1, ...): those missing asked in one call where the server can."""
        requests = [Request(request.model, request.messages, request.params, request.sample + i, request.tag) for i in range(n)]
        if self.config(request.model).samples_at_once:
            return await self._samples(requests)
        return list(await asyncio.gather(*(self.complete(r) for r in requests)))

    async def stream(self, requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Reply]:
        """The replies as they come; as many requests are taken from the source as can be in flight, twice over."""
        async for reply in each(self.complete, requests, limit=2 * self.width):
            yield reply

    async def _samples(self, requests: list[Request]) -> list[Reply]:
        """Answers to requests that differ in nothing but the sample."""
        config = self.config(requests[0].model)
        body = self.body(requests[0])
        limit = length_limit(body)
        keys = [key_of(body, request.sample, config.revision) for request in requests]
        found: dict[str, Reply] = {}
        flying: dict[str, asyncio.Future[Reply]] = {}
        missing: list[tuple[str, Request]] = []
        for key, request in zip(keys, requests, strict=True):
            reply = self._known(request, config, key, limit)
            if reply is not None:
                found[key] = reply
            elif (key, limit or 0) in self._flying:
                flying[key] = self._flying[key, limit or 0]
            elif key not in flying:
                missing.append((key, request))
                flying[key] = self._flying[key, limit or 0] = asyncio.get_running_loop().create_future()
        if missing:
            try:
                for key, reply in zip((key for key, _ in missing), await self._pay(config, body, missing), strict=True):
                    flying[key].set_result(reply)
            except BaseException as error:
                for key, _ in missing:
                    flying[key].set_exception(error)
                    flying[key].exception()  # retrieved: whoever else waits for it gets it, and nobody is warned
                raise
            finally:
                for key, _ in missing:
                    del self._flying[key, limit or 0]
        for key, future in flying.items():
            found[key] = await asyncio.shield(future)
        return [found[key] for key in keys]

    def _known(self, request: Request, config: ModelConfig, key: str, limit: int | None) -> Reply | None:
        """The reply as far as it is known without asking; None = ask."""
        stored = self.cache.get(key, limit)
        if stored is not None:
            self._caller.works(request.model)
            choice = read_reply(stored.raw)[0]
            self.meter.note(request.model, choice.outcome, 0, 0, None, cached=True)
            return _reply(request, choice, stored.raw, cached=True, tokens=(stored.prompt_tokens, stored.completion_tokens))
        failure = self.cache.failure(key)
        if failure is not None:
            self._failed_before.add(key)
        if failure is not None and (self.replay or (failure.final and not self.retry_failed)):
            self.meter.note(request.model, failure.outcome, 0, 0, None, cached=True)
            return Reply(request, failure.outcome, reason=failure.reason, cached=True)
        if self.replay:
            return Reply(request, "budget" if self.stopped else "pending", reason=self.stopped or "never asked")
        if self._fatal is not None:
            raise self._fatal
        if self.stopped:
            return Reply(request, "budget", reason=self.stopped)
        if self.batch is not None:
            self.batch.add(key, request.sample, self.body(request))
            return Reply(request, "pending", reason=f"waits in {self.batch.path}")
        return None

    async def _pay(self, config: ModelConfig, body: dict[str, Any], missing: list[tuple[str, Request]]) -> list[Reply]:
        """Ask within the budget; keep every answer, and every reason why there is none."""
        n, first = len(missing), missing[0][1]
        reserved = await self._reserve(config, body, n)
        if reserved is None:
            return [Reply(request, "budget", reason=self.stopped) for _, request in missing]
        if n > 1:
            body = {**body, "n": n}
        if first.sample and body.get("seed") is not None:
            body = {**body, "seed": body["seed"] + first.sample}
        try:
            answer = await self._caller.ask(config, body, n)
        except CaravanError as error:
            self._fatal = self._fatal or error
            raise
        finally:
            self._reserved -= reserved
            self._reserving -= 1
            self._returned.set()
        replies = []
        for i, (key, request) in enumerate(missing):
            if isinstance(answer, NoAnswer):
                self.cache.put_failure(key, request.model, request.tag, answer.outcome, answer.reason, answer.final)
                self.meter.note(request.model, answer.outcome, 0, 0, None, cached=False)
                replies.append(Reply(request, answer.outcome, reason=answer.reason))
                continue
            choice, raw = answer.choices[i], answer.raw_of(i)
            tokens = (choice.prompt_tokens, choice.completion_tokens)
            self.cache.put(key, length_limit(body), config.served, request.tag, choice.outcome, *tokens, answer.seconds, raw)
            if key in self._failed_before:
                self.cache.forget_failure(key)
            self.meter.note(request.model, choice.outcome, *tokens, config.rate, cached=False)
            replies.append(_reply(request, choice, raw, cached=False, tokens=tokens, seconds=answer.seconds))
        return replies

    async def _reserve(self, config: ModelConfig, body: dict[str, Any], n: int) -> float | None:
        """Set aside what a call may cost; wait while that could only fit once others have come back; None = the budget is used up."""
        if self.max_cost is None:
            self._reserving += 1
            return 0.0
        prompt, answer, _ = estimate(config, body)
        most = (config.rate or Price()).cost(prompt, answer * n)
        while self.meter.dollars + self._reserved + most > self.max_cost:
            if self.stopped or not self._reserving:
                self.stop(f"max_cost: ${self.meter.dollars:.2f} of ${self.max_cost:.2f} spent")
                return None
            self._returned.clear()
            await self._returned.wait()
        self._reserved += most
        self._reserving += 1
        return most


def _reply(request: Request, choice: Choice, raw: str, cached: bool, tokens: tuple[int, int], seconds: float = 0.0) -> Reply:
    return Reply(
        request,
        choice.outcome,
        choice.content,
        choice.thinking,
        choice.finish_reason,
        *tokens,
        raw,
        choice.reason,
        cached,
        round(seconds, 4),
    )


def ask(models: Iterable[ModelConfig], requests: Iterable[Request], cache: Cache | Path | str | None = None) -> list[Reply]:
    """For scripts without asyncio: the replies in the order of the requests, all in memory."""

    async def all_of_them() -> list[Reply]:
        async with Client(models, cache) as client:
            numbered = list(enumerate(requests))
            replies: dict[int, Reply] = {}

            async def one(item: tuple[int, Request]) -> None:
                replies[item[0]] = await client.complete(item[1])

            async for _ in each(one, numbered, limit=2 * client.width):
                pass
            return [replies[i] for i, _ in numbered]

    return asyncio.run(all_of_them())
