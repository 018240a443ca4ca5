"""Copies of remote data: what there is, and what may go."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from object_store import Machine, Server

from columnar import remote

ROWS = [{"instruction": f"Say {n}.", "output": f"{n}"} for n in range(50)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    made = Server()
    made.client().create_bucket(Bucket="lab")
    made.put("lab", "raw/chats.jsonl", ROWS)
    made.put("lab", "old/chats.jsonl", ROWS)
    yield made
    made.close()


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Machine:
    """A machine that has read two folders of a bucket, and written a dataset and a mix into it."""
    made = Machine(server, tmp_path)
    made.run("columnar.load", "s3://lab/raw", "--out", "s3://lab/data", "--source", "chats")
    made.run("columnar.load", "s3://lab/old/chats.jsonl", "--out", tmp_path / "old")
    source = {"name": "chats", "path": "s3://lab/raw/chats.jsonl"}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"name": "m", "kind": "sft", "sources": [source], "signals": {"language": False}}))
    made.run("curation.build_mix", tmp_path / "mix.yaml", "--out", "s3://lab/mix")
    return made


def cache(machine: Machine, *words: str, rc: int = 0) -> dict[str, dict[str, Any]]:
    said = machine.run("columnar.cache", "--json", *words, rc=rc)
    return {line["what"].rpartition("/caravan/")[2]: line for line in json.loads(said[: said.rindex("]") + 1])}


def test_what_is_kept_goes_on_demand_and_comes_again(machine: Machine, tmp_path: Path) -> None:
    root = machine.home / "cache/caravan"
    found = cache(machine)
    assert set(found) == {"s3://lab/raw", "s3://lab/old", "s3://lab/data", "s3://lab/mix", "mixes/lab"}
    assert found["s3://lab/raw"]["bytes"] == (root / "remote/s3/lab/raw/chats.jsonl").stat().st_size
    assert cache(machine, "--older-than", "30d", "--remove") == {}
    old, month = root / "remote/s3/lab/old/chats.jsonl", time.time() - 31 * 86_400
    os.utime(old, (month, month))
    note = root / "remote/tags/s3/lab/old/chats.jsonl.json"
    note.write_text(json.dumps({**json.loads(note.read_bytes()), "mark": remote._mark(old)}))
    removed = cache(machine, "--older-than", "30d", "--remove")
    assert set(removed) == {"s3://lab/old"} and removed["s3://lab/old"]["days unused"] == 31
    assert not old.parent.exists() and not note.exists()

    assert set(cache(machine)) == set(found) - {"s3://lab/old"}, "without --remove nothing goes"
    cache(machine, "--remove")
    assert not [path for part in ("remote/s3", "mixes") for path in (root / part).rglob("*") if path.is_file()]
    assert "nothing changed, nothing done" in machine.run("curation.build_mix", tmp_path / "mix.yaml", "--out", "s3://lab/mix")
    assert "50" in machine.run("columnar.query", "s3://lab/mix", "SELECT count(*) FROM rows")


def test_a_dataset_with_something_unsent_stays_whole(machine: Machine) -> None:
    columns = machine.home / "cache/caravan/remote/s3/lab/mix/cols/signals.parquet"
    machine.run("columnar.query", "s3://lab/mix", "SELECT 1")
    columns.write_bytes(columns.read_bytes())
    before = sorted(columns.parents[1].rglob("*"))
    assert cache(machine, "--remove")["s3://lab/mix"]["state"] == "not sent yet: stays"
    assert sorted(columns.parents[1].rglob("*")) == before


def test_nothing_goes_while_a_command_uses_copies(machine: Machine) -> None:
    copy = machine.home / "cache/caravan/remote/s3/lab/raw/chats.jsonl"
    with (machine.home / "cache/caravan/remote/in-use.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as a command does from its first copy to its end
        assert "another command uses copies" in machine.run("columnar.cache", "--remove", rc=1)
        assert copy.is_file() and cache(machine), "looking is always possible"
    machine.run("columnar.cache", "--remove")
    assert not copy.exists()


def test_an_empty_cache_and_a_wrong_age(server: Server, tmp_path: Path) -> None:
    machine = Machine(server, tmp_path)
    assert "(no rows)" in machine.run("columnar.cache", "--remove")
    assert "expected a number of hours, days or weeks" in machine.run("columnar.cache", "--older-than", "month", rc=2)
    assert not (tmp_path / "cache").exists()
