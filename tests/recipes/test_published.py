"""The published mixes against a small Hub of our own that serves their datasets in the published columns: real client, real server.

It shows that the pattern, format and `where` of every source fit the columns on the dataset cards. It cannot show that the Hub still has
these names.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from columnar.config import load
from curation.mix import MixConfig

ROOT = Path(__file__).resolve().parents[2]
MIXES = ROOT / "recipes" / "mixes"
NEWEST = "0123456789abcdef0123456789abcdef01234567"
PUBLISHED = sorted(p.stem for p in MIXES.glob("*.yaml") if p.stem.startswith(("tulu", "zephyr")))
ROWS = 3  # of each part
EACH = {"tulu3_sft_released": 2 * ROWS}  # else ROWS for each source


def chat(i: int, words: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Question {i} about {words}?"}, {"role": "assistant", "content": f"Answer {i} about {words}."}]


def records(repo: str) -> list[dict[str, Any]]:
    """Rows in the columns that the dataset card of this repository lists."""
    owner, name = repo.split("/")
    numbers = range(ROWS)
    if name == "tulu-v1-sft-mixture":
        parts = ("flan_v2", "cot", "dolly", "oasst1", "gpt4_alpaca", "code_alpaca", "sharegpt", "other")
        return [{"dataset": part, "id": f"{part}_{i}", "messages": chat(i, part)} for part in parts for i in numbers]
    if name == "tulu-3-sft-mixture":
        parts = ("ai2-adapt-dev/oasst1_converted", "ai2-adapt-dev/no_robots_converted")
        return [{"id": f"{part}_{i}", "messages": chat(i, part), "source": part} for part in parts for i in numbers]
    if name == "RLVR-GSM-MATH-IF-Mixed-Constraints":
        return [
            {"messages": chat(i, part)[:1], "ground_truth": str(i), "dataset": part, "constraint_type": "", "constraint": ""}
            for part in ("gsm8k", "MATH", "ifeval")
            for i in numbers
        ]
    if name == "ultrachat_200k":
        return [{"prompt": f"Question {i} about chats?", "prompt_id": str(i), "messages": chat(i, "chats")} for i in numbers]
    pair = [{"chosen": chat(i, name), "rejected": [chat(i, name)[0], {"role": "assistant", "content": "No."}]} for i in numbers]
    if name == "ultrafeedback_binarized":
        more = [{"prompt": p["chosen"][0]["content"], "prompt_id": str(i), "messages": p["chosen"]} for i, p in enumerate(pair)]
        return [{**p, **m, "score_chosen": 8.5, "score_rejected": 4.0} for p, m in zip(pair, more, strict=True)]
    if re.search("policy|pref-", name):
        return [{"id": str(i), "prompt": p["chosen"][0]["content"], **p, "source": name} for i, p in enumerate(pair)]
    return [{"id": f"{owner}_{i}", "messages": chat(i, name)} for i in numbers]


def parquet(repo: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records(repo)), sink)
    return sink.getvalue()


class Hub(BaseHTTPRequestHandler):
    """Answers for any repository, with one file of every split that a recipe may ask for; remembers which files were fetched."""

    fetched: list[str]

    def do_GET(self) -> None:
        asked = re.match(r"/api/datasets/([^/]+/[^/]+)/revision/([^/?]+)", self.path)
        if asked:
            commit = asked[2] if re.fullmatch("[0-9a-f]{40}", asked[2]) else NEWEST
            files = [
                f"data/{split}-00000-of-00001.parquet" for split in ("train", "test", "train_sft", "test_sft", "train_prefs", "test_prefs")
            ]
            info = {"id": asked[1], "sha": commit, "siblings": [{"rfilename": name} for name in files], "private": False, "tags": []}
            return self._send(json.dumps(info).encode(), {"Content-Type": "application/json"})
        return self.do_HEAD()

    def do_HEAD(self) -> None:
        asked = re.match(r"/datasets/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/data/(.+)", self.path)
        assert asked, self.path
        assert asked[3].startswith("train"), "a recipe never reads a test split"
        data = parquet(asked[1])
        if self.command == "GET":
            self.fetched.append(asked[1])
        self._send(data, {"X-Repo-Commit": asked[2], "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    def _send(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.fetched = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run(mix: str, tmp: Path, endpoint: str, *flags: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the Hub client reads its settings once."""
    env = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp / "hf"),
        "XDG_CACHE_HOME": str(tmp / "cache"),
        "HF_HUB_OFFLINE": str(int(offline)),
    }
    command = [sys.executable, "-m", "curation.build_mix", str(MIXES / f"{mix}.yaml"), "--out", str(tmp / "out"), "--json", *flags]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mix", [m for m in PUBLISHED if m != "tulu1_human"])  # its sources are among those of tulu1_human_gpt
def test_a_published_mix_fits_the_published_columns(mix: str, tmp_path: Path, hub: str) -> None:
    config = load(MixConfig, MIXES / f"{mix}.yaml")
    done = run(mix, tmp_path, hub)
    assert done.returncode == 0, done.stderr
    counts = duckdb.sql(f"SELECT source, count(*) FROM read_parquet('{tmp_path}/out/rows/*.parquet') GROUP BY 1").fetchall()
    assert dict(counts) == dict.fromkeys((s.name for s in config.sources), EACH.get(mix, ROWS))
    revisions = {i["revision"] for i in json.loads((tmp_path / "out" / "manifest.json").read_text())["identity"]["inputs"]}
    assert revisions == {s.revision or NEWEST for s in config.sources}, "what was resolved is kept"


def test_a_plan_fetches_no_data(tmp_path: Path, hub: str) -> None:
    plan = json.loads(run("zephyr_sft", tmp_path, hub, "--dry-run").stdout)
    assert [s["load"] for s in plan["sources"]] == ["to fetch 1 files"]
    assert not Hub.fetched
    assert run("zephyr_sft", tmp_path, hub).returncode == 0
    assert Hub.fetched == ["HuggingFaceH4/ultrachat_200k"]
    again = json.loads(run("zephyr_sft", tmp_path, hub, "--dry-run").stdout)
    assert [s["load"] for s in again["sources"]] == ["cached"]


def test_without_a_network_a_plan_says_what_it_cannot_know(tmp_path: Path, hub: str) -> None:
    planned = run("tulu3_rlvr", tmp_path, hub, "--dry-run", offline=True)
    assert planned.returncode == 0, planned.stderr
    assert {s["load"] for s in json.loads(planned.stdout)["sources"]} == {"to fetch; the Hub cannot be reached"}
    done = run("tulu3_rlvr", tmp_path, hub, offline=True)
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
