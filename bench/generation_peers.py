"""One client doing one task of bench/generation.py; prints one JSON line. Runs in the client's own environment.

python -m bench.generation_peers caravan --task gen --n 2000 --port 8377 --scratch /tmp/x
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

IN_FLIGHT = 256
SUBJECTS = ["rivers", "bicycles", "bread", "radio", "chess", "bridges", "weather", "glass", "maps", "clocks", "soil", "lamps", "kites"]


def prompt(i: int) -> str:
    what = f"how {SUBJECTS[i % 13]} relate to {SUBJECTS[i // 13 % 13]}"
    return f"Explain to a reader of age {8 + i % 70} {what}, in under {50 + i % 250} words (case {i})."


def judge_prompt(instruction: str, answers: list[str]) -> str:
    shown = "\n".join(f"<answer {i}>\n{text}\n</answer {i}>" for i, text in enumerate(answers, 1))
    return f"Rate each answer from 1 to 5 with a reason, as JSON.\n\n<request>\n{instruction}\n</request>\n\n{shown}"


def done(rows: int, seconds: float, **more: Any) -> None:
    print(json.dumps({"rows": rows, "seconds": round(seconds, 3), "per_second": round(rows / seconds, 1), **more}), flush=True)


def caravan(args: argparse.Namespace) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    scratch = Path(args.scratch)
    url = f"http://127.0.0.1:{args.port}/v1"
    if args.task == "gen":
        from generation.client import Client
        from generation.models import ModelConfig
        from generation.wire import Request

        async def go() -> dict[str, int]:
            outcomes: dict[str, int] = {}
            config = ModelConfig(name="mock-a", base_url=url, concurrency=IN_FLIGHT)
            async with Client([config], scratch / "replies.sqlite") as client:
                asked = (Request("mock-a", [{"role": "user", "content": prompt(i)}], {"max_tokens": 512}) for i in range(args.n))
                async for reply in client.stream(asked):
                    outcomes[reply.outcome] = outcomes.get(reply.outcome, 0) + 1
            return outcomes

        import generation.server  # the work is timed, not the import

        start = time.perf_counter()
        outcomes = asyncio.run(go())
        done(args.n, time.perf_counter() - start, **outcomes)
        return
    from generation.preferences import main

    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt(i)}) + "\n" for i in range(args.n)))
    models = [{"name": f"mock-{m}", "base_url": url} for m in ("a", "b", "c", "d", "judge")]
    judge = {"mode": "aspects", "model": "mock-judge"} if args.task == "judge4" else {"mode": "overall", "model": "mock-judge"}
    config = {"prompts": str(scratch / "prompts.jsonl"), "models": models, "params": {"max_tokens": 512}, "judge": judge}
    (scratch / "config.yaml").write_text(json.dumps(config))
    import generation.commands
    import generation.server  # noqa: F401

    start = time.perf_counter()
    sys.argv = ["preferences", str(scratch / "config.yaml"), "--out", str(scratch / "out")]
    code = main()
    seconds = time.perf_counter() - start
    pairs = json.loads((scratch / "out" / "report.json").read_text())
    done(args.n, seconds, exit=code, pairs=pairs["rows"], equal_texts=pairs["equal_texts"])


def bare(args: argparse.Namespace) -> None:
    """asyncio with a semaphore, and nothing else: no cache, no retries, no record."""
    url = f"http://127.0.0.1:{args.port}/v1"
    failed = 0

    async def go() -> float:
        nonlocal failed
        free = asyncio.Semaphore(IN_FLIGHT)
        refused: type[Exception]
        if args.client == "openai":
            import openai

            refused = openai.OpenAIError
            client = openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=3, http_client=openai.DefaultAioHttpClient())

            async def call(model: str, text: str) -> str:
                async with free:
                    reply = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], max_tokens=512)
                    return reply.choices[0].message.content or ""
        else:
            import aiohttp

            refused = aiohttp.ClientError
            session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT))

            async def call(model: str, text: str) -> str:
                body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 512}
                async with free, session.post(url + "/chat/completions", json=body) as reply:
                    reply.raise_for_status()
                    return str((await reply.json())["choices"][0]["message"]["content"])

        async def one(i: int) -> None:
            nonlocal failed
            try:
                if args.task == "gen":
                    await call("mock-a", prompt(i))
                else:
                    answers = await asyncio.gather(*(call(f"mock-{m}", prompt(i)) for m in "abcd"))
                    asks = [judge_prompt(prompt(i), answers) + f"\naspect {k}" for k in range(4 if args.task == "judge4" else 1)]
                    for ratings in await asyncio.gather(*(call("mock-judge", ask) for ask in asks)):
                        json.loads(ratings)
            except (refused, TimeoutError, ValueError, KeyError):  # or too slow, or not in the form asked for
                failed += 1

        start = time.perf_counter()
        await asyncio.gather(*(one(i) for i in range(args.n)))
        return time.perf_counter() - start

    done(args.n, asyncio.run(go()), failed=failed)
    os._exit(0)


def distilabel(args: argparse.Namespace) -> None:
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import FormatTextGenerationDPO, GroupColumns, LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration, UltraFeedback

    def llm(model: str) -> Any:
        return OpenAILLM(model=model, base_url=f"http://127.0.0.1:{args.port}/v1", api_key="x", generation_kwargs={"max_new_tokens": 512})

    rows = [{"instruction": prompt(i)} for i in range(args.n)]
    with Pipeline(name="bench", cache_dir=args.scratch) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=IN_FLIGHT)
        if args.task == "gen":
            load >> TextGeneration(name="gen", llm=llm("mock-a"), input_batch_size=IN_FLIGHT)
        else:
            writers = [TextGeneration(name=f"gen_{m}", llm=llm(f"mock-{m}"), input_batch_size=IN_FLIGHT) for m in "abcd"]
            columns = {"columns": ["generation", "model_name"], "output_columns": ["generations", "generation_models"]}
            group = GroupColumns(input_batch_size=IN_FLIGHT, **columns)
            judge = UltraFeedback(name="judge", llm=llm("mock-judge"), aspect="overall-rating", input_batch_size=IN_FLIGHT)
            load >> writers >> group >> judge >> FormatTextGenerationDPO(name="dpo", input_batch_size=IN_FLIGHT)
    start = time.perf_counter()
    train = pipeline.run(use_cache=False)["default"]["train"]
    column = train["generation" if args.task == "gen" else "chosen"]
    done(args.n, time.perf_counter() - start, none=sum(value is None for value in column))


def curator(args: argparse.Namespace) -> None:
    import importlib.util

    litellm = importlib.util.find_spec("litellm")
    assert litellm is not None and litellm.origin is not None
    tokenizers = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"  # curator fetches this file from the net otherwise
    os.environ |= {"TELEMETRY_ENABLED": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "CURATOR_DISABLE_RICH_DISPLAY": "1"}
    os.environ |= {"TIKTOKEN_CACHE_DIR": str(tokenizers), "HF_HUB_OFFLINE": "1"}
    from bespokelabs import curator as library

    class Writer(library.LLM):
        def prompt(self, row: dict[str, str]) -> str:
            return row["instruction"]

        def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
            return {"instruction": row["instruction"], "generation": response}

    limits = {"max_requests_per_minute": 10_000_000, "max_tokens_per_minute": 10_000_000_000, "max_concurrent_requests": IN_FLIGHT}
    backend = {"base_url": f"http://127.0.0.1:{args.port}/v1", "api_key": "x", "require_all_responses": False, **limits}
    writer = Writer(model_name="mock-a", backend="openai", backend_params=backend, generation_params={"max_tokens": 512})
    rows = [{"instruction": prompt(i)} for i in range(args.n)]
    start = time.perf_counter()
    writer(rows, working_dir=args.scratch)
    done(args.n, time.perf_counter() - start)


def data_designer(args: argparse.Namespace) -> None:
    os.environ |= {"NEMO_TELEMETRY_ENABLED": "false"}
    import data_designer.config as dd
    import pandas as pd
    from data_designer.interface import DataDesigner

    provider = dd.ModelProvider(name="mock", endpoint=f"http://127.0.0.1:{args.port}/v1", api_key="x")

    def model(alias: str) -> Any:
        inference = dd.ChatCompletionInferenceParams(max_tokens=512, max_parallel_requests=IN_FLIGHT)
        return dd.ModelConfig(alias=alias, model=f"mock-{alias}", provider="mock", skip_health_check=True, inference_parameters=inference)

    builder = dd.DataDesignerConfigBuilder(model_configs=[model(m) for m in ("a", "b", "c", "d", "judge")])
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"instruction": [prompt(i) for i in range(args.n)]})))
    for m in "a" if args.task == "gen" else "abcd":
        builder.add_column(dd.LLMTextColumnConfig(name=f"g_{m}", model_alias=m, prompt="{{ instruction }}"))
    if args.task != "gen":
        entry = {
            "type": "object",
            "properties": {"rationale": {"type": "string"}, "rating": {"type": "integer"}},
            "required": ["rationale", "rating"],
        }
        names = [f"answer_{i}" for i in range(1, 5)]
        schema = {"type": "object", "properties": dict.fromkeys(names, entry), "required": names}
        text = judge_prompt("{{ instruction }}", [f"{{{{ g_{m} }}}}" for m in "abcd"])
        for k in range(4 if args.task == "judge4" else 1):
            builder.add_column(
                dd.LLMStructuredColumnConfig(name=f"s{k}", model_alias="judge", prompt=f"{text}\naspect {k}", output_format=schema)
            )
    designer = DataDesigner(artifact_path=args.scratch, model_providers=[provider])
    designer.set_run_config(dd.RunConfig(buffer_size=1000, otel_metrics_port=None, disable_early_shutdown=True))
    start = time.perf_counter()
    made = designer.create(builder, num_records=args.n, dataset_name="bench").load_dataset()
    done(args.n, time.perf_counter() - start, out=len(made))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=["caravan", "openai", "aiohttp", "distilabel", "curator", "data-designer"])
    parser.add_argument("--task", choices=["gen", "judge1", "judge4"], default="gen")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--port", type=int, default=8377)
    parser.add_argument("--scratch", required=True)
    given = parser.parse_args()
    run = {
        "caravan": caravan,
        "openai": bare,
        "aiohttp": bare,
        "distilabel": distilabel,
        "curator": curator,
        "data-designer": data_designer,
    }
    run[given.client](given)
