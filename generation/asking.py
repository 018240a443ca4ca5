"""One call with all its attempts: which failure is worth another try, when, where, and which ends the run.

answer = await Caller(meter).ask(config, body, n=1)      # Answer or NoAnswer

overload (429, 503)   the server is given less and, with Retry-After, nothing until then; as often as the deadline allows
transient (5xx, a cut connection, a reply that is not the protocol's)   again, `retries` times, waiting longer each time
timeout               again, twice at most: a server that hangs is not cured by asking
unreachable           again elsewhere or later; an error of the run when no server has ever answered, or none for GIVE_UP
invalid, refused      never again; FIRST_REFUSALS of them before any answer are an error of the config
fatal                 a wrong key, an unknown model, a used-up account: an error of the run
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from columnar.errors import CaravanError, ConfigError, InputError
from generation.limiter import Lane, Lanes
from generation.meter import Meter
from generation.models import ModelConfig
from generation.wire import BrokenReply, CallError, Choice, read_reply

if TYPE_CHECKING:
    import httpx2

    from generation.inprocess import InProcess
    from generation.server import Server

GIVE_UP = 120.0  # seconds without a connection to a server that used to answer
FIRST_REFUSALS = 20
TIMEOUT_RETRIES = 2


@dataclass(frozen=True)
class Answer:
    """What a server answered: one choice per sample."""

    choices: list[Choice]
    raw: bytes
    seconds: float

    def raw_of(self, i: int) -> str:
        """The server's JSON for one sample alone."""
        if len(self.choices) == 1:
            return self.raw.decode("utf-8", "replace")
        data = msgspec.json.decode(self.raw)
        return msgspec.json.encode({**data, "choices": [data["choices"][i]]}).decode()


@dataclass(frozen=True)
class NoAnswer:
    """Why there is none; `final` when the same request would fail again."""

    outcome: str
    reason: str
    final: bool = False


class Caller:
    """The servers of all models, each with its own level of concurrency."""

    def __init__(self, meter: Meter, http_client: httpx2.AsyncClient | None = None) -> None:
        self.meter, self._http_client = meter, http_client
        self._lanes: dict[str, Lanes] = {}
        self._servers: dict[tuple[str, str], Server | InProcess] = {}
        self._refused: dict[str, int] = {}
        self._working: set[str] = set()

    def works(self, model: str) -> None:
        """This model has given an answer, now or before."""
        self._working.add(model)

    async def close(self) -> None:
        """Close all connections."""
        for server in self._servers.values():
            await server.close()

    async def ask(self, config: ModelConfig, body: dict[str, Any], n: int) -> Answer | NoAnswer:
        """Attempts until an answer, a final no, or the deadline."""
        lanes = self._lanes_of(config)
        count = self.meter.of(config.name)
        began, tries, overloads = None, 0, 0
        reason, outcome = "", "timeout"
        while True:
            left = config.deadline - (time.monotonic() - began if began else 0.0)
            try:
                async with asyncio.timeout(left if began else None):
                    lane = await lanes.take()
            except TimeoutError:
                return NoAnswer(outcome, f"no answer within {config.deadline:.0f} s; last: {reason}")
            sent = time.monotonic()
            began = began or sent
            try:
                raw = await self._server(config, lane.url).send(body, min(config.timeout, left))
                choices = read_reply(raw, n)
                seconds = time.monotonic() - sent
                lane.succeeded(seconds)
                self._working.add(config.name)
                return Answer(choices, raw, seconds)
            except BrokenReply as error:
                kind, reason, outcome, wait = "transient", str(error), "unparsable", None
            except CallError as error:
                kind, reason, wait = error.kind, str(error), error.retry_after
                outcome = "timeout" if kind == "timeout" else "failed"
                if kind == "fatal":
                    raise await self._explain(config, lane, error) from None
                if kind in ("invalid", "refused"):
                    return self._invalid(config, "refused" if kind == "refused" else "failed", reason)
                if kind == "overload":
                    lane.overloaded(wait)
                if kind == "unreachable":
                    lane.unreachable()
                    self._check_connection(config, lanes, reason)
            finally:
                lanes.give(lane)
            count.retries += 1
            if kind in ("transient", "timeout"):
                tries += 1
                if tries > (min(2, config.retries) if kind == "timeout" else config.retries):
                    return NoAnswer(outcome, f"{reason} ({tries} attempts)")
            overloads += kind == "overload"
            await asyncio.sleep(_pause(kind, tries, overloads, wait))

    def _invalid(self, config: ModelConfig, outcome: str, reason: str) -> NoAnswer:
        """A request the server will never take; a model that takes none at all is a mistake in the config."""
        self._refused[config.name] = self._refused.get(config.name, 0) + 1
        if self._refused[config.name] >= FIRST_REFUSALS and config.name not in self._working:
            raise ConfigError(
                f"model {config.name}: the server refused each of the first {FIRST_REFUSALS} requests: {reason}",
                "check the model's params, and whether the server knows json_schema (`structured: false` does without)",
            )
        return NoAnswer(outcome, reason, final=True)

    def _check_connection(self, config: ModelConfig, lanes: Lanes, reason: str) -> None:
        now = time.monotonic()
        if any(lane.failing_since is None for lane in lanes.lanes):
            return
        if all(lane.answered == 0 and lane.failures >= 4 for lane in lanes.lanes):
            raise InputError(
                f"model {config.name}: nobody answers at {', '.join(config.urls)} ({reason})", "start the server, or correct base_url"
            )
        if all(now - (lane.failing_since or now) > GIVE_UP for lane in lanes.lanes):
            raise InputError(
                f"model {config.name}: {', '.join(config.urls)} stopped answering {GIVE_UP:.0f} s ago ({reason})",
                "what it answered is kept: start the server again, and then the same command",
            )

    async def _explain(self, config: ModelConfig, lane: Lane, error: CallError) -> CaravanError:
        served = await self._server(config, lane.url).models()
        hint = error.hint
        if served and config.served not in served:
            hint = f"models there: {', '.join(sorted(served)[:10])}"
        return ConfigError(f"model {config.name}: {error}", hint)

    def _lanes_of(self, config: ModelConfig) -> Lanes:
        if config.name not in self._lanes:
            urls = config.urls if config.backend == "server" else ("in-process",)
            self._lanes[config.name] = Lanes([Lane(url, config.concurrency) for url in urls])
        return self._lanes[config.name]

    def _server(self, config: ModelConfig, url: str) -> Server | InProcess:
        place = (config.served if config.backend == "vllm" else config.api_key(), url)  # models on one server share its connections
        if place not in self._servers:
            if config.backend == "vllm":
                from generation.inprocess import InProcess

                self._servers[place] = InProcess(config.served, config.engine)
            else:
                from generation.server import Server

                self._servers[place] = Server(url, config.api_key(), config.api_key_env, self._http_client)
        return self._servers[place]


def _pause(kind: str, tries: int, overloads: int, retry_after: float | None) -> float:
    """Seconds before the next attempt: what the server wants, else doubling from 0.2 s with a random part, so that calls spread out."""
    if retry_after is not None and kind == "overload":
        return 0.0  # the lane itself rests until then
    if kind == "unreachable":
        return 0.0
    if retry_after is not None:
        return min(retry_after, 60.0)
    return float(min(0.2 * 2 ** (tries + overloads - 1), 30.0) * random.uniform(0.5, 1.0))
