"""The cache: what answers what, several writers at once, nothing lost; and the level of concurrency."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from columnar.errors import StoreError
from generation.cache import Cache
from generation.limiter import Lane, Lanes
from generation.models import ModelConfig, Price
from generation.wire import Request, body_of, key_of, length_limit, read_reply


def put(cache: Cache, key: str, max_tokens: int | None, outcome: str = "ok", tokens: int = 10, raw: str = "{}") -> None:
    cache.put(key, max_tokens, "m", "respond x", outcome, 5, tokens, 0.1, raw)


@pytest.mark.parametrize(
    ("stored", "outcome", "tokens", "wanted", "answers"),
    [
        (100, "ok", 10, 100, True),
        (100, "ok", 10, 500, True),
        (100, "ok", 10, None, True),
        (None, "ok", 10, 500, True),
        (500, "ok", 300, 100, False),
        (500, "ok", 80, 100, True),
        (100, "truncated", 100, 100, True),
        (100, "truncated", 100, 500, False),
        (100, "truncated", 100, None, False),
        (100, "truncated", 100, 50, False),
        (None, "truncated", 900, 500, False),
    ],
)
def test_a_complete_answer_holds_for_every_limit_it_fits_and_a_cut_one_for_its_own(stored, outcome, tokens, wanted, answers):
    with Cache(None) as cache:
        put(cache, "k", stored, outcome, tokens)
        assert (cache.get("k", wanted) is not None) == answers and cache.get("other", wanted) is None


def test_the_first_answer_stays(tmp_path):
    with Cache(tmp_path / "c.sqlite") as cache:
        put(cache, "k", 100, raw="first")
        put(cache, "k", 100, raw="second")
        assert cache.get("k", 100).raw == "first" and len(cache) == 1  # type: ignore[union-attr]


def write_many(path: Path, start: int) -> None:
    with Cache(path) as cache:
        for i in range(start, start + 300):
            put(cache, f"k{i}", 100)


def test_several_processes_write_at_once(tmp_path):
    path = tmp_path / "c.sqlite"
    processes = [multiprocessing.get_context("spawn").Process(target=write_many, args=(path, start)) for start in (0, 200, 400)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    with Cache(path) as cache:
        assert len(cache) == 700
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "c.sqlite").write_text("this is a text file, and long enough not to be taken for an empty database" * 20)
    with pytest.raises(StoreError, match="cannot be used as a cache"):
        Cache(tmp_path / "c.sqlite")


BASE = Request("m", [{"role": "user", "content": "x"}], {"temperature": 0.5, "max_tokens": 10})


def key(request: Request, revision: str | None = None, served: str = "m") -> str:
    return key_of(body_of(request, served, {}, True, False), request.sample, revision)


def test_everything_that_changes_the_answer_changes_the_key_and_the_length_limit_does_not():
    schema = {"type": "object", "properties": {}}
    others = [
        Request("m", [{"role": "user", "content": "y"}], BASE.params),
        Request("m", [{"role": "system", "content": "s"}, *BASE.messages], BASE.params),
        Request("m", BASE.messages, {"temperature": 0.6, "max_tokens": 10}),
        Request("m", BASE.messages, {**BASE.params, "seed": 1}),
        Request("m", BASE.messages, {**BASE.params, "json_schema": schema}),
        Request("m", BASE.messages, {**BASE.params, "extra": {"top_k": 3}}),
        Request("m", BASE.messages, BASE.params, sample=1),
    ]
    keys = [key(BASE), *map(key, others), key(BASE, "step-2"), key(BASE, None, "another")]
    assert len(set(keys)) == len(keys)
    assert key(BASE) == key(Request("m", BASE.messages, {"max_tokens": 99, "temperature": 0.5}, tag="another purpose"))


@given(st.text(), st.text())
def test_any_text_has_a_key_of_its_own(a, b):
    one, two = (key(Request("m", [{"role": "user", "content": text}])) for text in (a, b))
    assert (one == two) == (a == b)


def test_hidden_thinking_is_not_sent_and_tool_calls_are_objects():
    messages = [{"role": "assistant", "content": None, "thinking": "secret", "tool_calls": '[{"id": "1"}]', "name": None}]
    assert body_of(Request("m", messages), "m", {}, True, False)["messages"] == [{"role": "assistant", "tool_calls": [{"id": "1"}]}]


def test_usage_of_several_samples_adds_up():
    choice = {"message": {"content": "abcd"}, "finish_reason": "stop"}
    import json

    raw = json.dumps({"choices": [choice, choice], "usage": {"prompt_tokens": 7, "completion_tokens": 20}})
    assert [(c.prompt_tokens, c.completion_tokens) for c in read_reply(raw, 2)] == [(7, 10), (0, 10)]


def test_prices():
    assert ModelConfig(name="x", model="gpt-4o-mini").rate == Price(input=0.15, output=0.6)
    assert ModelConfig(name="x", base_url="http://localhost:1/v1").rate == Price()
    assert ModelConfig(name="x", base_url="https://elsewhere.com/v1").rate is None
    assert Price(input=2, output=10).cost(1_000_000, 500_000) == 7.0
    assert length_limit({"max_completion_tokens": 5}) == 5


def round_trip(lane: Lane, latency: float, capacity: int = 10**9, now: list[float] | None = None) -> None:
    """As many calls as the level allows, of which the server takes `capacity`; `now` is moved on by the latency."""
    calls = int(lane.level)
    for i in range(calls):
        lane.in_flight = int(lane.level)  # somebody is always waiting
        if now is not None:
            now[0] += latency / calls
        if i < calls - capacity:
            lane.overloaded(None)
        else:
            lane.succeeded(latency)


def test_the_level_doubles_up_to_the_ceiling_and_lands_on_what_a_server_accepts():
    lane = Lane("u", 256)
    for _ in range(4):
        round_trip(lane, 0.1)
    assert lane.level == 256
    levels = []
    for _ in range(100):
        round_trip(lane, 0.1, capacity=100)
        levels.append(lane.level)
    assert all(60 <= level <= 125 for level in levels[50:]), levels
    lane.overloaded(5.0)
    assert not lane.free


def test_a_server_that_queues_is_not_pushed_further(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("generation.limiter.time.monotonic", lambda: now[0])
    lane = Lane("u", 512)
    for _ in range(300):
        latency = max(0.1, 0.1 * lane.level / 40)  # it works on 40 calls at once, the others wait
        round_trip(lane, latency, now=now)
    assert 40 <= lane.level <= 200


def test_places_are_handed_on_and_none_is_lost_when_a_caller_gives_up():
    async def go() -> int:
        lanes = Lanes([Lane("u", 1)])
        held = await lanes.take()
        waiting = [asyncio.create_task(lanes.take()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        lanes.give(held)
        lanes.give(await waiting[1])
        lanes.give(await waiting[2])
        return lanes.lanes[0].in_flight

    assert asyncio.run(go()) == 0
