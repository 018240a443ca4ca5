"""The client against a server that misbehaves: every request ends in one typed outcome, and no answer is paid for twice."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from columnar.errors import CaravanError, ConfigError, InputError
from generation.cache import Cache
from generation.client import Client, ask
from generation.models import ModelConfig, Price
from generation.wire import Reply, Request


def requests(n: int, model: str = "m", **params: object) -> list[Request]:
    return [Request(model, [{"role": "user", "content": f"prompt {i}"}], params) for i in range(n)]


def model(url: str | list[str], **more: object) -> ModelConfig:
    return ModelConfig(name="m", base_url=url, **{"timeout": 60.0, **more})  # type: ignore[arg-type]


def say(text: str, **params: object) -> Request:
    return Request("m", [{"role": "user", "content": text}], params)


def outcomes(replies: list[Reply]) -> Counter[str]:
    return Counter(r.outcome for r in replies)


def test_exactly_the_poisoned_fail_each_with_its_reason(serve, tmp_path):
    shares = {"poison": 0.01, "flaky_429": 0.05, "flaky_500": 0.05, "cut": 0.02, "malformed": 0.02, "schema": 0.02, "empty": 0.02}
    server = serve(shares=shares, retry_after=0.01)
    replies = ask([model(server.url)], requests(600), tmp_path / "c.sqlite")
    poisoned = {i for i in range(600) if server.fake.has("poison", f"prompt {i}")}
    assert poisoned and {i for i, r in enumerate(replies) if not r.ok} == poisoned
    assert {replies[i].reason for i in poisoned} == {"HTTP 400: this prompt cannot be processed"}
    calls = server.fake.calls["all"]
    assert ask([model(server.url)], requests(600), tmp_path / "c.sqlite")[0].cached
    assert server.fake.calls["all"] == calls, "a second run asked again"


def test_larger_max_tokens_asks_again_for_the_truncated_only(serve, tmp_path):
    server = serve(shares={"truncate": 0.2})
    first = ask([model(server.url)], requests(100, max_tokens=50), tmp_path / "c.sqlite")
    cut = outcomes(first)["truncated"]
    assert 5 < cut < 50 and all(r.finish_reason == "length" for r in first if r.outcome == "truncated")
    second = ask([model(server.url)], requests(100, max_tokens=2000), tmp_path / "c.sqlite")
    assert outcomes(second) == {"ok": 100}
    assert server.fake.calls["all"] == 100 + cut
    assert [a.content == b.content for a, b in zip(first, second, strict=True)].count(False) == cut


def test_every_failure_has_its_type(serve):
    server = serve()
    texts = ["<<poison>>", "<<refuse>>", "<<truncate>>", "fine", "\ud800 lone surrogate"]
    replies = ask([model(server.url, retries=1)], [say(t, max_tokens=9) for t in texts])
    replies += ask([model(server.url, timeout=0.3, retries=1)], [say("<<hang>>", max_tokens=9)])
    assert [r.outcome for r in replies] == ["failed", "refused", "truncated", "ok", "failed", "timeout"]
    assert all(r.reason for r in replies if not r.ok)


def test_a_reply_that_is_never_the_protocols_is_unparsable():
    async def always_broken(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"choices": []})

    replies = asyncio.run(_with_transport(always_broken, retries=1))
    assert replies[0].outcome == "unparsable" and "found 0 choices" in replies[0].reason


async def _with_transport(handler, **more) -> list[Reply]:
    transport = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    async with Client([model("http://mock/v1", **more)], http_client=transport) as client:
        return [await client.complete(say("hello"))]


def test_retry_after_is_honoured():
    arrivals: list[float] = []

    async def busy_once(_: httpx2.Request) -> httpx2.Response:
        arrivals.append(time.monotonic())
        if len(arrivals) == 1:
            return httpx2.Response(429, headers={"Retry-After": "0.4"}, json={"error": {"message": "later"}})
        return httpx2.Response(200, json={"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})

    assert asyncio.run(_with_transport(busy_once))[0].ok
    assert len(arrivals) == 2 and arrivals[1] - arrivals[0] >= 0.4


def test_a_server_with_room_for_few_gets_few(serve):
    server = serve(capacity=20, latency=0.005, retry_after=0)
    replies = ask([model(server.url)], requests(1500))
    assert outcomes(replies) == {"ok": 1500}
    assert server.fake.calls["429"] < 600, "the level was not found"


def test_equal_requests_at_once_are_one_call(serve):
    server = serve(latency=0.05)
    replies = ask([model(server.url)], [say("the same")] * 50)
    assert server.fake.calls["all"] == 1 and len({r.content for r in replies}) == 1


def test_samples_share_a_call_and_only_missing_ones_are_asked(serve):
    server = serve()
    server.fake.keep_bodies = True

    async def go() -> list[list[Reply]]:
        async with Client([model(server.url)]) as client:
            request = say("several", seed=7)
            return [[await client.complete(request)], await client.samples(request, 4), await client.samples(request, 4)]

    one, four, again = asyncio.run(go())
    assert [b.get("n") for b in server.fake.bodies] == [None, 3] and [b["seed"] for b in server.fake.bodies] == [7, 8]
    assert four[0].content == one[0].content and len({r.content for r in four}) == 4
    assert [r.content for r in four] == [r.content for r in again]
    assert sum(r.completion_tokens for r in four[1:]) > 0 and four[2].prompt_tokens == 0, "the shared prompt is counted once"


def test_replicas_share_the_work(serve):
    servers = [serve(latency=0.1) for _ in range(3)]  # so long that a busy machine makes none of them much faster than the others
    ask([model([s.url for s in servers])], requests(300))
    assert all(80 <= s.fake.calls["all"] <= 120 for s in servers)


def test_a_dead_replica_costs_nothing_but_its_share(serve):
    server = serve(latency=0.002)
    replies = ask([model([server.url, "http://127.0.0.1:9/v1"])], requests(100))
    assert outcomes(replies) == {"ok": 100}


def test_max_cost_is_never_exceeded(serve, tmp_path):
    server = serve(latency=0.002)
    config = model(server.url, price=Price(input=10, output=100))

    async def go(most: float) -> tuple[Counter[str], float, str]:
        async with Client([config], tmp_path / "c.sqlite", max_cost=most) as client:
            replies = [r async for r in client.stream(requests(200, max_tokens=400))]
            return outcomes(replies), client.meter.dollars, client.stopped

    first, spent, why = asyncio.run(go(0.5))
    assert 0.3 < spent <= 0.5 and "max_cost" in why and first["budget"] == 200 - first["ok"] > 0
    second, _, _ = asyncio.run(go(50.0))
    assert second == {"ok": 200} and server.fake.calls["all"] == 200


def test_a_budget_needs_prices():
    with pytest.raises(ConfigError, match="price of m is not known"):
        Client([model("https://example.com/v1")], max_cost=1)


def test_the_source_is_read_no_faster_than_it_is_answered(serve):
    server = serve()
    taken, ahead = 0, 0

    def source():
        nonlocal taken
        for request in requests(2000):
            taken += 1
            yield request

    async def go() -> None:
        nonlocal ahead
        async with Client([model(server.url, concurrency=16)]) as client:
            done = 0
            async for _ in client.stream(source()):
                done += 1
                ahead = max(ahead, taken - done)

    asyncio.run(go())
    assert taken == 2000 and ahead <= 32


def test_a_wrong_key_stops_the_run_and_is_shown_nowhere(serve, tmp_path, monkeypatch, capsys):
    secret = "sk-very-secret-0123456789"
    monkeypatch.setenv("TEST_KEY", secret)
    server = serve(key="another")
    with pytest.raises(ConfigError, match="does not accept the key") as caught:
        ask([model(server.url, api_key_env="TEST_KEY")], requests(5), tmp_path / "c.sqlite")
    told = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint) + repr(model(server.url, api_key_env="TEST_KEY"))
    assert "TEST_KEY" in told and secret not in told
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())
    assert secret not in "".join(capsys.readouterr())


def test_a_key_never_reaches_the_cache(serve, tmp_path, monkeypatch):
    secret = "sk-very-secret-0123456789"
    monkeypatch.setenv("TEST_KEY", secret)
    server = serve(key=secret)
    replies = ask([model(server.url, api_key_env="TEST_KEY")], [*requests(5), say("<<poison>>")], tmp_path / "c.sqlite")
    assert outcomes(replies) == {"ok": 5, "failed": 1}
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "bad", [{"api_key_env": "sk-abc-123"}, {"base_url": "https://me:secret@host/v1"}, {"base_url": "https://h/v1?key=secret"}]
)
def test_secrets_in_a_config_are_refused_without_being_repeated(bad):
    from columnar.config import parse

    with pytest.raises(ConfigError) as caught:
        parse(ModelConfig, {"name": "m", **bad}, "config")
    assert "secret" not in str(caught.value).replace("may hold a secret", "") and "sk-abc" not in str(caught.value)


def test_what_no_request_survives_is_an_error_that_says_what_to_do(serve, monkeypatch):
    server = serve(models=("a", "b"))
    with pytest.raises(ConfigError, match="no model 'm'") as caught:
        ask([model(server.url)], requests(3))
    assert caught.value.hint == "models there: a, b"
    with pytest.raises(InputError, match=r"nobody answers at http://127\.0\.0\.1:9/v1"):
        ask([model("http://127.0.0.1:9/v1")], requests(3))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        ask([ModelConfig(name="m")], requests(1))
    with pytest.raises(ConfigError, match="no model is called 'x'"):
        ask([model(server.url)], [Request("x", [])])
    with pytest.raises(ConfigError, match="used more than once"):
        Client([model(server.url), model(server.url)])


def test_a_config_that_no_request_survives_stops_after_twenty(serve):
    server = serve(shares={"poison": 1.0})
    with pytest.raises(ConfigError, match="refused each of the first 20 requests: HTTP 400"):
        ask([model(server.url, concurrency=4)], requests(500))
    assert server.fake.calls["all"] < 60


def test_a_full_disk_stops_the_run_and_keeps_what_was_paid(serve, tmp_path):
    server = serve()
    with Cache(tmp_path / "c.sqlite") as cache:
        cache._db.execute("PRAGMA max_page_count=40")
        with pytest.raises(CaravanError, match=r"full; the \d+ replies before it are kept"):
            ask([model(server.url, concurrency=8)], requests(1000), cache)
        kept = len(cache)
    asked = server.fake.calls["all"]
    assert kept > 0 and asked <= kept + 16, "it went on asking"
    assert outcomes(ask([model(server.url)], requests(1000), tmp_path / "c.sqlite")) == {"ok": 1000}
    assert server.fake.calls["all"] == asked + 1000 - kept


def test_retry_failed_asks_invalid_requests_again(serve, tmp_path):
    server = serve(context=20)
    texts = [say("short"), say("a prompt that is longer than the context")]
    assert [r.outcome for r in ask([model(server.url)], texts, tmp_path / "c.sqlite")] == ["ok", "failed"]
    server.fake.faults.context = 0

    async def again(retry: bool) -> list[str]:
        async with Client([model(server.url)], tmp_path / "c.sqlite", retry_failed=retry) as client:
            return [(await client.complete(t)).outcome for t in texts]

    assert asyncio.run(again(False)) == ["ok", "failed"]
    assert asyncio.run(again(True)) == ["ok", "ok"] == asyncio.run(again(False))


def test_structured_requests_speak_each_servers_dialect(serve, monkeypatch):
    server = serve()
    server.fake.keep_bodies = True
    schema = {"type": "object", "properties": {"rating": {"type": "integer", "minimum": 1, "maximum": 5}}, "required": ["rating"]}
    one, two = ask([model(server.url)], [say("rate", json_schema=schema), say("choose", choices=["A", "B"])])
    assert 1 <= json.loads(one.content)["rating"] <= 5 and two.content in ("A", "B")
    plain = ask([model(server.url, structured=False)], [say("rate", json_schema=schema, extra={"top_k": 5})])[0]
    assert plain.ok and "response_format" not in server.fake.bodies[-1] and server.fake.bodies[-1]["top_k"] == 5
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-key-for-nothing")
    openai = Client([ModelConfig(name="m")]).body(say("x", max_tokens=5, choices=["A"]))
    assert openai["max_completion_tokens"] == 5 and openai["response_format"]["json_schema"]["schema"] == {"type": "string", "enum": ["A"]}


def test_thinking_is_kept_apart():
    async def thinks(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"choices": [{"message": {"content": "<think>hm</think>\n\n42"}, "finish_reason": "stop"}]})

    reply = asyncio.run(_with_transport(thinks))[0]
    assert (reply.thinking, reply.content) == ("hm", "42")


def test_the_same_name_with_other_weights_is_another_model(serve, tmp_path: Path):
    server = serve()
    for revision in ("step-100", "step-200", "step-100"):
        ask([model(server.url, revision=revision)], requests(3), tmp_path / "c.sqlite")
    assert server.fake.calls["all"] == 6
