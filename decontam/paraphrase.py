"""The second tier, for what n-grams cannot see: embeddings propose rows that say the same as an item, a judge model confirms.

    python -m decontam.paraphrase out/tiny --benchmarks gsm8k --embed-url http://localhost:8000/v1 --embed-model BAAI/bge-m3 \\
        --judge-url http://localhost:8001/v1 --judge-model Qwen/Qwen3-8B

Reads the prompts (user turns) of a dataset and the deciding fields of the items; writes hits/paraphrase.parquet (id, benchmark, item_id,
similarity, verdict, reply) and says so in report.json. Nothing is dropped by it. Without --judge-url the pairs are proposed
only. With `--embed-url local` sentence-transformers runs in this process. Any OpenAI-compatible server does; the key is OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from columnar import cli
from columnar.errors import CaravanError, InputError

if TYPE_CHECKING:
    import numpy as np

    from columnar.store import Dataset
    from decontam.benchmarks import Benchmark

Embed = Callable[[list[str]], "np.ndarray"]  # texts -> one vector of length 1 each
Judge = Callable[[str, str], str]  # item, row -> the model's reply

BLOCK = 2048  # rows compared at once
CHARACTERS = 4000  # of a text are embedded and judged
QUESTION = """Here are a test question and a text from training data.

<test_question>
{item}
</test_question>

<training_text>
{row}
</training_text>

Does the training text contain the same question in other words or another language: would somebody who has seen the training text and \
its answer know the answer to the test question? The same kind of question about other numbers, names or facts is not the same question. \
Answer with one word, YES or NO."""


def find_paraphrases(
    dataset: Dataset, benchmarks: list[Benchmark], embed: Embed, judge: Judge | None, threshold: float, workers: int = 16
) -> Iterator[dict[str, Any]]:
    """For each prompt the nearest item of each benchmark, where their cosine reaches `threshold`; with the judge's verdict.

    Yields:
        {id, benchmark, item_id, similarity, verdict (same, different, unclear, proposed), reply}.
    """
    import numpy as np

    sides = []
    for benchmark in benchmarks:
        from decontam.selftest import injected

        texts = [injected(benchmark, i)[:CHARACTERS] for i in range(len(benchmark.ids))]
        filled = [i for i, text in enumerate(texts) if text.strip()]
        sides.append((benchmark, filled, texts, embed([texts[i] for i in filled])))
    with ThreadPoolExecutor(workers) as pool:
        for ids, prompts in prompt_blocks(dataset):
            vectors = embed(prompts)
            pairs = []
            for benchmark, filled, texts, items in sides:
                if not filled:
                    continue
                near = vectors @ items.T
                best = near.argmax(axis=1)
                score = near[np.arange(len(prompts)), best]
                pairs += [
                    (ids[r], prompts[r], benchmark, filled[best[r]], texts, float(score[r])) for r in np.flatnonzero(score >= threshold)
                ]
            replies = pool.map(lambda p: judge(p[4][p[3]], p[1]), pairs) if judge else [""] * len(pairs)
            for (ident, _, benchmark, item, _, score), reply in zip(pairs, replies, strict=True):
                verdict = read_verdict(reply) if judge else "proposed"
                yield {
                    "id": ident,
                    "benchmark": benchmark.name,
                    "item_id": benchmark.ids[item],
                    "similarity": score,
                    "verdict": verdict,
                    "reply": reply,
                }


def read_verdict(reply: str) -> str:
    """YES: same. NO: different. Anything else is unclear: it is counted, never taken for a NO."""
    word = reply.strip().strip("*\"'.").upper().split(maxsplit=1)[:1]
    answer = word[0].strip("*\"'.,:;") if word else ""
    return {"YES": "same", "NO": "different"}.get(answer, "unclear")


def prompt_blocks(dataset: Dataset) -> Iterator[tuple[list[str], list[str]]]:
    """Ids and user turns (all of a row as one text), a block at a time; rows without a user turn are left out."""
    from columnar.store import read_batches

    for batch in read_batches(dataset, ["id", "messages", "prompt"], BLOCK):
        ids, prompts = [], []
        for row in batch.to_pylist():
            asked = "\n\n".join(m["content"] or "" for m in (row.get("messages") or row.get("prompt") or ()) if m["role"] == "user")
            if asked.strip():
                ids.append(row["id"])
                prompts.append(asked[:CHARACTERS])
        if ids:
            yield ids, prompts


def post(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One call of an OpenAI-compatible server.

    Raises:
        CaravanError: the server does not answer, or refuses.
    """
    key = os.environ.get("OPENAI_API_KEY", "none")
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url.rstrip('/')}/{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as reply:
            return dict(json.load(reply))
    except urllib.error.HTTPError as error:
        raise CaravanError(f"{url}: {error.code} {error.read()[:300].decode('utf-8', 'replace')}") from error
    except (OSError, ValueError) as error:
        raise CaravanError(f"{url}: {error}", "is the server running, and does the URL end in /v1?") from error


def embedder(url: str, model: str) -> Embed:
    """Embeddings from a server, or from sentence-transformers in this process (`local`)."""
    import numpy as np

    if url == "local":
        try:
            from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise InputError("sentence-transformers is not installed", "pip install sentence-transformers, or give --embed-url") from error
        made = SentenceTransformer(model)
        return lambda texts: np.asarray(made.encode(texts, normalize_embeddings=True), np.float32)

    def embed(texts: list[str]) -> np.ndarray:
        vectors: list[list[float]] = []
        for start in range(0, len(texts), 64):
            data = post(url, "embeddings", {"model": model, "input": texts[start : start + 64]})["data"]
            vectors += [line["embedding"] for line in sorted(data, key=lambda line: line["index"])]
        found = np.asarray(vectors, np.float32).reshape(len(texts), -1)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    return embed


def judge_by(url: str, model: str) -> Judge:
    """A chat model that answers YES or NO."""

    def judge(item: str, row: str) -> str:
        message = {"role": "user", "content": QUESTION.format(item=item, row=row)}
        reply = post(url, "chat/completions", {"model": model, "messages": [message], "temperature": 0, "max_tokens": 16})
        return str(reply["choices"][0]["message"]["content"] or "")

    return judge


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    made = cli.parser("decontam.paraphrase", __doc__)
    made.add_argument("dataset", help="a dataset directory")
    made.add_argument("--benchmarks", action="append", required=True)
    made.add_argument("--root")
    made.add_argument("--embed-url", required=True, help="base URL of an embedding server, or `local`")
    made.add_argument("--embed-model", required=True)
    made.add_argument("--judge-url", help="base URL of a chat server; without it pairs are proposed only")
    made.add_argument("--judge-model")
    made.add_argument("--threshold", type=float, default=0.7, help="cosine from which a pair is proposed (default: 0.7)")
    return cli.run(_command, made, argv)


def _command(args: argparse.Namespace) -> int:
    from collections import Counter

    import pyarrow as pa

    from columnar.remote import output
    from columnar.store import open_dataset, write_json, write_table
    from decontam.benchmarks import load_benchmarks

    dataset = open_dataset(args.dataset)
    judge = judge_by(args.judge_url, args.judge_model or "") if args.judge_url else None
    embed = embedder(args.embed_url, args.embed_model)
    hits = list(find_paraphrases(dataset, load_benchmarks(args.benchmarks, args.root), embed, judge, args.threshold))
    text = [(name, pa.string()) for name in ("id", "benchmark", "item_id")]
    schema = pa.schema([*text, ("similarity", pa.float64()), ("verdict", pa.string()), ("reply", pa.string())])
    counts = Counter((hit["benchmark"], hit["verdict"]) for hit in hits)
    found = [{"benchmark": b, "verdict": v, "rows": n} for (b, v), n in sorted(counts.items())]
    summary = {"embedder": args.embed_model, "judge": args.judge_model, "threshold": args.threshold, "found": found}
    with output(dataset.path) as out:
        write_table(out / "hits" / "paraphrase.parquet", pa.Table.from_pylist(hits, schema))
        report = out / "report.json"
        if report.is_file():
            said = ", ".join(f"{n} {verdict}" for verdict, n in sorted(Counter(hit["verdict"] for hit in hits).items())) or "nothing found"
            said = f"checked ({args.embed_model}, {args.judge_model or 'no judge'}): {said}"
            write_json(report, json.loads(report.read_text(encoding="utf-8")) | {"paraphrase": said, "paraphrases": summary})
    if args.json:
        cli.emit(summary)
    else:
        print(cli.table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
