"""hf:// sources against a small Hub of our own: the real client, a real server, no mocks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"# a dataset\n",
    "data/train-00000-of-00002.jsonl": b'{"prompt": "a", "completion": "b"}\n',
    "data/train-00001-of-00002.jsonl": b'{"prompt": "c", "completion": "d"}\n',
    "data/test-00000-of-00001.jsonl": b'{"prompt": "secret", "completion": "e"}\n',
}
REPOSITORIES: dict[str, dict[str, bytes]] = {"owner/name": FILES, "owner/mix": {}}


class Hub(BaseHTTPRequestHandler):
    def _answer(self, body: bool) -> None:
        repository = next((name for name in REPOSITORIES if f"datasets/{name}/" in self.path), "owner/name")
        if self.path.startswith(f"/api/datasets/{repository}/revision/"):
            revision = self.path.split("?")[0].rsplit("/", 1)[1]
            if revision not in ("main", COMMIT):
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
            siblings = [{"rfilename": name} for name in REPOSITORIES[repository]]
            info = {"id": repository, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
        prefix = f"/datasets/{repository}/resolve/{COMMIT}/"
        if self.path.startswith(prefix):
            data = REPOSITORIES[repository][self.path.removeprefix(prefix)]
            return self._send(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, body)
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def load(uri: str, home: Path, endpoint: str, *flags: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the Hub client reads its settings once."""
    env = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "HF_HUB_OFFLINE": str(int(offline)),
    }
    command = [sys.executable, "-m", "columnar.load", uri, "--out", str(home / "out"), "--source", "hub", "--force", "--json", *flags]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_a_pattern_is_pinned_to_its_commit_and_works_offline_afterwards(hub: str, tmp_path: Path) -> None:
    done = load("hf://datasets/owner/name@main/data/train-*.jsonl", tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 2
    identity = json.loads((tmp_path / "out/manifest.json").read_text())["identity"]
    assert [i["uri"] for i in identity["inputs"]] == [
        f"hf://datasets/owner/name@{COMMIT}/data/train-0000{i}-of-00002.jsonl" for i in (0, 1)
    ]
    assert {i["revision"] for i in identity["inputs"]} == {COMMIT}
    again = load("hf://datasets/owner/name@main/data/train-*.jsonl", tmp_path, "http://127.0.0.1:9", offline=True)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "out/manifest.json").read_text())["identity"]["ids_sha256"] == identity["ids_sha256"]
    # the pattern means three files; a cache that holds two of them must not pass for the whole
    whole = load("hf://datasets/owner/name@main/data/*.jsonl", tmp_path, "http://127.0.0.1:9", offline=True)
    assert whole.returncode == 2
    assert "test-00000-of-00001.jsonl is not in the local cache" in whole.stderr


def test_splits_are_never_mixed_by_accident(hub: str, tmp_path: Path) -> None:
    mixed = load("hf://datasets/owner/name", tmp_path, hub)
    assert mixed.returncode == 2
    assert "several splits (test, train)" in mixed.stderr
    train = load("hf://datasets/owner/name", tmp_path, hub, "--split", "train")
    assert json.loads(train.stdout)["rows"] == 2


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hf://datasets/owner/name@nowhere/data/*.jsonl", "no revision 'nowhere'"),
        ("hf://datasets/owner/other", "no dataset owner/other"),
        ("hf://owner/name", "not a Hub source"),
        ("hf://datasets/owner/name/data/*.parquet", "no data file matches"),
    ],
)
def test_what_is_wrong_with_a_hub_source_is_said(hub: str, tmp_path: Path, uri: str, words: str) -> None:
    done = load(uri, tmp_path, hub)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_cannot_be_reached_is_said_in_a_line(tmp_path: Path) -> None:
    done = load("hf://datasets/owner/name", tmp_path, "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "the Hub cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_uploaded_mix_is_opened_where_it_is(hub: str, tmp_path: Path) -> None:
    done = load("hf://datasets/owner/name@main/data/train-*.jsonl", tmp_path, hub)
    assert done.returncode == 0, done.stderr
    files = (path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "rejects.jsonl")
    REPOSITORIES["owner/mix"] = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in files}
    query = [sys.executable, "-m", "columnar.query", "hf://datasets/owner/mix", "SELECT count(*) AS n FROM rows", "--json"]
    for endpoint, offline in [(hub, "0"), ("http://127.0.0.1:9", "1")]:
        caches = {"HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline, **caches}
        asked = subprocess.run(query, env=env, capture_output=True, text=True, timeout=120)
        assert asked.returncode == 0, asked.stderr
        assert json.loads(asked.stdout) == [{"n": 2}]
    query[3] = "hf://datasets/owner/name"
    asked = subprocess.run(query, env=env | {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}, capture_output=True, text=True, timeout=120)
    assert asked.returncode == 1
    assert "hf://datasets/owner/name: no manifest.json: not a dataset directory" in asked.stderr
