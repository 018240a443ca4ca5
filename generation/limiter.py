"""How many calls a server gets at once: a level that each server's own behaviour sets, between 1 and a ceiling.

    lane = await lanes.take()          # waits for a free place on any of a model's servers
    ...
    lane.succeeded(seconds); lanes.give(lane)

The level doubles every round trip until answers take twice as long or something says stop; then it rises by one per round trip.
What says stop: 429 and 503 (the level falls by the share of a round trip's calls that got one, at most by half, so it lands near
what the server accepts, and a stray 429 costs little; nobody is sent before Retry-After is over); connections that fail (the
server rests, longer every time); and answers that take four times as long as on the idle server while no more of them come per
second, which is how vLLM looks when it queues (it never sends 429).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from statistics import median

START, QUEUEING = 32, 4.0


class Lane:
    """One server: what is in flight there and how much it may be."""

    def __init__(self, url: str, ceiling: int) -> None:
        self.url, self.ceiling = url, ceiling
        self.level = float(min(START, ceiling))
        self.in_flight = 0
        self.rests_until = 0.0
        self.failing_since: float | None = None
        self.failures = 0
        self.answered = 0
        self._doubling = True
        self._returned = self._overloads = 0  # since the level was last looked at
        self._window: list[float] = []
        self._window_size = START  # fixed when a window begins: while doubling, the level runs ahead of it
        self._window_began = time.monotonic()
        self._idle_latency = float("inf")
        self._best_rate = 0.0

    @property
    def free(self) -> bool:
        """Another call may be sent now."""
        return self.in_flight < int(self.level) and self.rests_until <= time.monotonic()

    def succeeded(self, seconds: float) -> None:
        """An answer came: the level may rise."""
        self.answered += 1
        self.failing_since, self.failures = None, 0
        if self.in_flight >= self.level * 0.8:
            self.level = min(self.ceiling, self.level + (1.0 if self._doubling else 1.0 / self.level))
        self._round_trip()
        self._window.append(seconds)
        if len(self._window) >= self._window_size:
            self._judge_window()

    def overloaded(self, retry_after: float | None) -> None:
        """429 or 503: fewer at once, and none before the server wants to hear from us again."""
        if retry_after:
            self.rests_until = max(self.rests_until, time.monotonic() + retry_after)
        self._doubling = False
        self._overloads += 1
        self._round_trip()

    def _round_trip(self) -> None:
        self._returned += 1
        if self._returned >= self.level:
            kept = 1 - self._overloads / self._returned
            self.level = max(1.0, self.level * max(kept, 0.5))  # 429s come back first, so a window can hold nothing else
            self._returned = self._overloads = 0

    def _judge_window(self) -> None:
        now = time.monotonic()
        latency, rate = median(self._window), len(self._window) / max(now - self._window_began, 1e-9)
        self._window, self._window_began, self._window_size = [], now, max(START, int(self.level))
        self._idle_latency = min(self._idle_latency, latency)
        if latency > 2 * self._idle_latency:
            self._doubling = False
        if latency > QUEUEING * self._idle_latency and rate < 1.05 * self._best_rate:
            self._doubling = False
            self.level = max(1.0, min(float(START), self.level), self.level * 0.9)
        self._best_rate = max(self._best_rate * 0.99, rate)

    def unreachable(self) -> None:
        """No connection: let the server rest, longer every time."""
        now = time.monotonic()
        if self.rests_until <= now:
            self.failing_since = self.failing_since or now
            self.failures += 1
            self.rests_until = now + min(0.1 * 2**self.failures, 10.0)


class Lanes:
    """The servers of one model; callers wait in line for the first free place, servers are taken in turn."""

    def __init__(self, lanes: list[Lane]) -> None:
        self.lanes = lanes
        self._next = 0
        self._waiting: deque[asyncio.Future[Lane]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> Lane:
        """A place on a server; give it back with `give`."""
        if not self._waiting and (lane := self._pick()):
            return lane
        future: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake_later()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(future.result())
            raise

    def give(self, lane: Lane) -> None:
        """Free a place and hand it on."""
        lane.in_flight -= 1
        self._serve()

    def _pick(self) -> Lane | None:
        for i in range(len(self.lanes)):
            lane = self.lanes[(self._next + i) % len(self.lanes)]
            if lane.free:
                self._next = (self._next + i + 1) % len(self.lanes)
                lane.in_flight += 1
                return lane
        return None

    def _serve(self) -> None:
        while self._waiting:
            if self._waiting[0].done():  # cancelled while waiting
                self._waiting.popleft()
                continue
            lane = self._pick()
            if lane is None:
                self._wake_later()
                return
            self._waiting.popleft().set_result(lane)

    def _wake_later(self) -> None:
        """Nobody gives a place back while every server rests: set an alarm for the first that wakes."""
        now = time.monotonic()
        resting = [lane.rests_until for lane in self.lanes if lane.rests_until > now]
        if resting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(min(resting) - now + 0.001, self._alarm)

    def _alarm(self) -> None:
        self._timer = None
        self._serve()
