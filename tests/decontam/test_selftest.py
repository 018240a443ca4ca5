"""The self-test counts what is found, and the second tier asks real servers."""

from __future__ import annotations

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hand_made import benchmark

from columnar.load import SourceSpec, load_source
from decontam import paraphrase
from decontam.index import build_index
from decontam.rules import PRESETS
from decontam.selftest import EDITS, VERBATIM_FAMILY, main, recall, replace_words


def test_recall_of_verbatim_copies_is_whole_and_of_other_texts_nothing() -> None:
    dice = random.Random(1)
    words = [f"word{i}" for i in range(300)]
    items = benchmark([" ".join(dice.choices(words, k=30)) + "?" for _ in range(40)] + ["( [ {"])
    (line,) = recall(build_index([items], PRESETS["caravan"]), 40)
    assert line["unseeable"] == 1
    assert all(line[name] >= 39 / 40 for name in VERBATIM_FAMILY)  # all but the item of symbols
    assert line["1 word in 10"] >= 0.95
    (exact,) = recall(build_index([items], PRESETS["exact"]), 40)
    assert exact["1 word in 10"] < 0.1 < exact["verbatim"]


def test_edits_do_what_they_say() -> None:
    text = " ".join(str(i) for i in range(100))
    edited = replace_words(10)(text, random.Random(0), ["x"]).split()
    assert edited.count("x") == 10
    for name in ("case, punctuation", "unicode", "rewrapped"):
        assert EDITS[name]("It's - well, odd: or not?", random.Random(0), []) != "It's - well, odd: or not?"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps({"question": "How many roads must a man walk down before he is called one?"}) + "\n")
    (tmp_path / "clean.jsonl").write_text(json.dumps({"instruction": "Say hello to the world.", "output": "Hello."}) + "\n")
    given = ["--benchmarks", str(tmp_path / "mine.jsonl"), "--preset", "caravan", "--clean", str(tmp_path / "clean.jsonl"), "--json"]
    assert main(given) == 0
    result = json.loads(capsys.readouterr().out)["caravan"]
    assert result["recall"]["verbatim"] == 1.0
    assert [(line["rows"], line["flagged"]) for line in result["flags"]] == [(1, 0)]


class Server(BaseHTTPRequestHandler):
    """Embeds a text as its letters, and judges that texts about sheep are the same."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/embeddings"):
            vectors = [[text.lower().count(c) + 0.1 for c in "abcdefghijklmnopqrstuvwxyz"] for text in body["input"]]
            reply: dict[str, object] = {"data": [{"index": i, "embedding": v} for i, v in enumerate(vectors)]}
        else:
            asked = body["messages"][0]["content"]
            answer = "**Yes.**" if "ewes" in asked else "No" if "cows" in asked else "I cannot say"
            reply = {"choices": [{"message": {"content": answer}}]}
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def test_paraphrases_are_proposed_judged_and_reported_but_never_dropped(tmp_path: Path) -> None:
    prompts = [
        "Count the ewes left on this farm after nine sheep run away",
        "Count the cows left on the farm after nine go away",
        "zzz qqq xxx",
    ]
    prompts.append("Count the goats left on the farm after nine sheep ran away")
    rows = "".join(json.dumps({"instruction": p, "output": "9"}) + "\n" for p in prompts)
    (tmp_path / "rows.jsonl").write_text(rows)
    load_source(SourceSpec(name="s", path=str(tmp_path / "rows.jsonl")), tmp_path / "ds")
    (tmp_path / "ds/report.json").write_text(json.dumps({"paraphrase": "not checked", "key": "k"}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"question": "Count the sheep left on the farm after nine of them run away"}) + "\n")
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    given = [str(tmp_path / "ds"), "--benchmarks", str(tmp_path / "b.jsonl"), "--embed-url", url, "--embed-model", "letters"]
    assert paraphrase.main([*given, "--judge-url", url, "--judge-model", "rules"]) == 0
    server.shutdown()
    import polars as pl

    hits = pl.read_parquet(tmp_path / "ds/hits/paraphrase.parquet")
    assert sorted(hits["verdict"].to_list()) == ["different", "same", "unclear"]
    report = json.loads((tmp_path / "ds/report.json").read_text())
    assert report["paraphrase"] == "checked (letters, rules): 1 different, 1 same, 1 unclear"
    assert not (tmp_path / "ds/cols/decontam.parquet").exists()


def test_a_server_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": "a", "output": "b"}) + "\n")
    load_source(SourceSpec(name="s", path=str(tmp_path / "rows.jsonl")), tmp_path / "ds")
    (tmp_path / "b.jsonl").write_text(json.dumps({"question": "what"}) + "\n")
    given = [str(tmp_path / "ds"), "--benchmarks", str(tmp_path / "b.jsonl"), "--embed-url", "http://127.0.0.1:9/v1", "--embed-model", "m"]
    assert paraphrase.main(given) == 1
    assert "is the server running" in capsys.readouterr().err
