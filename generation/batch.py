"""Batch files: write what would be asked, leave, and collect the answers days later into the same cache.

    python -m generation.respond CONFIG.yaml --out out/x --batch out/x-batch     # writes MODEL-000.jsonl, ... and asks nothing
    python -m generation.batch submit out/x-batch                                # OpenAI's Batch API, at half the price
    python -m vllm.entrypoints.openai.run_batch -i F.jsonl -o F.out.jsonl ...    # or vLLM, on the same files
    python -m generation.batch collect out/x-batch --cache out/replies.sqlite    # now, or next week
    python -m generation.respond CONFIG.yaml --out out/x                         # finds everything in the cache

Comes in: the requests that the cache does not answer. Goes out: JSONL in OpenAI's batch format, one model a file, with the cache
key as `custom_id`, so that an answer finds its place whatever happened in between. Collecting twice changes nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from columnar.cli import emit, parser, run, say
from columnar.errors import CaravanError, InputError
from columnar.store import write_json
from generation.cache import Cache
from generation.models import OPENAI, ModelConfig
from generation.wire import BrokenReply, length_limit, read_reply

MOST_REQUESTS = 50_000  # per file, as the Batch API has it
MOST_BYTES = 190_000_000


class BatchFile:
    """A folder of batch files that a Client fills instead of asking; written afresh by every run."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self.requests = 0
        self._keys: set[str] = set()
        self._open: dict[str, tuple[TextIO, int, int, int]] = {}  # model -> file, its number, requests, bytes
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.glob("*.submitted.json")):
            raise CaravanError(f"{directory}: holds batches that were submitted", "collect them, or name another folder")
        for old in directory.glob("*.jsonl"):
            if not old.name.endswith(".out.jsonl"):
                old.unlink()

    def add(self, key: str, sample: int, body: dict[str, Any]) -> None:
        """Write one request, once."""
        if key in self._keys:
            return
        self._keys.add(key)
        if sample and body.get("seed") is not None:
            body = {**body, "seed": body["seed"] + sample}
        line = json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}, ensure_ascii=False) + "\n"
        model, size = str(body["model"]), len(line.encode("utf-8", "replace"))
        file, number, requests, written = self._open.get(model) or (self._file(model, 0), 0, 0, 0)
        if requests >= MOST_REQUESTS or written + size > MOST_BYTES:
            file.close()
            file, number, requests, written = self._file(model, number + 1), number + 1, 0, 0
        file.write(line)
        self._open[model] = (file, number, requests + 1, written + size)
        self.requests += 1

    def _file(self, model: str, number: int) -> TextIO:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", model)
        return (self.path / f"{name}-{number:03d}.jsonl").open("w", encoding="utf-8", errors="replace")

    def close(self) -> None:
        """Finish the files."""
        for file, *_ in self._open.values():
            file.close()


def request_files(directory: Path) -> list[Path]:
    """The request files of a folder, or the one file given.

    Raises:
        InputError: there are none.
    """
    if directory.is_file():
        return [directory]
    files = sorted(p for p in directory.glob("*.jsonl") if not p.name.endswith((".out.jsonl", ".errors.jsonl")))
    if not files:
        raise InputError(f"{directory}: no batch files (*.jsonl) there", "write them with --batch DIR of respond, judge or preferences")
    return files


def submit(directory: Path, model: ModelConfig) -> list[dict[str, str]]:
    """Hand every file that was not submitted yet to a Batch API; what was submitted is noted beside it, so it never goes twice."""
    import openai

    client = openai.OpenAI(base_url=model.urls[0], api_key=model.api_key())
    out = []
    for file in request_files(directory):
        note = file.with_suffix(".submitted.json")
        if not note.exists():
            try:
                with file.open("rb") as opened:
                    uploaded = client.files.create(file=opened, purpose="batch")
                made = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
            except openai.OpenAIError as error:
                raise CaravanError(f"{file}: the batch was not accepted: {str(error).replace(model.api_key(), '***')}") from None
            write_json(note, {"batch": made.id, "base_url": model.urls[0]})
        out.append({"file": file.name, "batch": json.loads(note.read_text(encoding="utf-8"))["batch"]})
    return out


def collect(directory: Path, cache: Cache, model: ModelConfig | None = None) -> list[dict[str, Any]]:
    """Put the answers that are there into the cache: `F.out.jsonl` beside `F.jsonl`, fetched first when F was submitted."""
    report = []
    for file in request_files(directory):
        answers = file.with_suffix(".out.jsonl")
        status = "no answers yet"
        if not answers.exists() and file.with_suffix(".submitted.json").exists() and model is not None:
            status = _fetch(file, model)
        line: dict[str, Any] = {"file": file.name, "status": status, "answers": 0, "failed": 0, "unknown": 0}
        if answers.exists():
            line["status"] = "collected"
            asked = {entry["custom_id"]: entry["body"] for entry in _lines(file)}
            for path in (answers, file.with_suffix(".errors.jsonl")):
                for entry in _lines(path) if path.exists() else ():
                    body = asked.get(str(entry.get("custom_id")))
                    line["unknown" if body is None else "answers" if _keep(entry, body, cache) else "failed"] += 1
        report.append(line)
    return report


def _fetch(file: Path, model: ModelConfig) -> str:
    import openai

    client = openai.OpenAI(base_url=model.urls[0], api_key=model.api_key())
    note = json.loads(file.with_suffix(".submitted.json").read_text(encoding="utf-8"))
    try:
        made = client.batches.retrieve(note["batch"])
        if made.status not in ("completed", "expired", "cancelled"):
            return str(made.status)
        if made.error_file_id:
            file.with_suffix(".errors.jsonl").write_bytes(client.files.content(made.error_file_id).content)
        if made.output_file_id:
            file.with_suffix(".out.jsonl").write_bytes(client.files.content(made.output_file_id).content)
    except openai.OpenAIError as error:
        raise CaravanError(f"{file}: the batch cannot be fetched: {str(error).replace(model.api_key(), '***')}") from None
    return str(made.status)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                try:
                    entry = json.loads(text)
                except ValueError as error:
                    raise InputError(f"{path}:{number}: not JSON ({error})") from error
                if isinstance(entry, dict):
                    yield entry


def _keep(entry: dict[str, Any], body: dict[str, Any], cache: Cache) -> bool:
    key, model = str(entry["custom_id"]), str(body["model"])
    response = entry.get("response") or {}
    if response.get("status_code", 200) == 200 and response.get("body"):
        raw = json.dumps(response["body"], ensure_ascii=False)
        try:
            choice = read_reply(raw)[0]
        except BrokenReply as error:
            cache.put_failure(key, model, "batch", "unparsable", str(error), final=False)
            return False
        cache.put(key, length_limit(body), model, "batch", choice.outcome, choice.prompt_tokens, choice.completion_tokens, 0.0, raw)
        cache.forget_failure(key)
        return True
    problem = entry.get("error") or (response.get("body") or {}).get("error") or {}
    reason = str(problem.get("message") or problem) if isinstance(problem, dict) else str(problem)
    cache.put_failure(
        key, model, "batch", "failed", f"HTTP {response.get('status_code', '?')}: {reason}"[:500], final=response.get("status_code") == 400
    )
    return False


def _main(args: argparse.Namespace) -> int:
    model = ModelConfig(name="batch", base_url=args.base_url, api_key_env=args.api_key_env)
    if args.action == "submit":
        report: list[Any] = submit(args.directory, model)
    else:
        with Cache(args.cache) as cache:
            report = collect(args.directory, cache, model)
    if args.json:
        emit(report)
    for line in report:
        say("  ".join(f"{k}: {v}" for k, v in line.items()))
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    made = parser("generation.batch", __doc__)
    made.add_argument("action", choices=["submit", "collect"])
    made.add_argument("directory", type=Path, help="the folder written by --batch, or one file of it")
    made.add_argument("--cache", type=Path, default=Path("replies.sqlite"), help="the cache to put the answers into (default %(default)s)")
    made.add_argument("--base-url", default=OPENAI, help="the Batch API (default %(default)s)")
    made.add_argument("--api-key-env", default="OPENAI_API_KEY", help="the environment variable that holds the key (default %(default)s)")
    return run(_main, made, argv)


if __name__ == "__main__":
    sys.exit(main())
