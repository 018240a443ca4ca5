"""Asking on a cluster: the rows that one process would have made, every call paid once, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from columnar import store
from columnar.cluster import Cluster
from columnar.errors import ConfigError
from generation import respond
from tests.generation.fault_server import Faults, Running
from tests.scale.conftest import files_of


def config(folder: Path, urls: list[str], rows: int = 96) -> str:
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Explain topic {i} to a child"}) + "\n" for i in range(rows)))
    models = [{"name": "a", "base_url": urls, "concurrency": 8}]
    made = {"prompts": str(prompts), "models": models, "params": {"max_tokens": 50}, "per_prompt": 1}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(made))
    return str(path)


@pytest.fixture
def servers():
    running = [Running(Faults(latency=0.05, holds_after=10)) for _ in range(2)]  # till a worker has been killed
    yield running
    for server in running:
        server.close()


def test_replicas_answer_once_and_a_killed_worker_asks_nothing_again(cluster, servers, tmp_path, capsys):
    path = config(tmp_path, [server.url for server in servers])
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            time.sleep(0.02)
            if sum(server.fake.calls["ok"] for server in servers) < 20:
                continue
            for tries in (tmp_path / "ray").rglob("*.tries"):
                said = tries.read_text()
                if said.endswith("\n") and not tries.with_suffix(".result").exists():
                    os.kill(worker := int(said.split()[1]), signal.SIGKILL)
                    killed.append(worker)
                    break
        for server in servers:
            server.fake.faults.holds_after = 0

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert respond.main([path, "--out", str(tmp_path / "ray"), "--engine", "ray"]) == 0
    assert killed and "1 begun again after a worker was lost" in capsys.readouterr().err
    assert all(server.fake.calls["all"] > 0 for server in servers), "both replicas are asked"
    asked = sum(server.fake.calls["all"] for server in servers)
    assert 96 <= asked <= 96 + 8 * len(servers), "only what was in flight is asked again"
    assert respond.main([path, "--out", str(tmp_path / "local"), "--cache", str(tmp_path / "ray" / "replies.sqlite")]) == 0
    assert sum(server.fake.calls["all"] for server in servers) == asked, "the cache of the cluster answers this process too"
    ours, theirs = (files_of(tmp_path / name / "rows") | files_of(tmp_path / name / "hits") for name in ("ray", "local"))
    assert ours == theirs and store.open_dataset(tmp_path / "ray").rows == 96


def test_a_run_that_was_cut_off_goes_on_with_another_number_of_workers(cluster, tmp_path, monkeypatch):
    server = Running(Faults())
    path = config(tmp_path, [server.url])
    monkeypatch.setattr("generation.replicas.FEWEST", 2)
    with monkeypatch.context() as first:
        whole = Cluster.map

        def cut_off(*args, **named):
            for number, result in enumerate(whole(*args, **named)):
                yield result
                if number == 4:
                    raise KeyboardInterrupt

        first.setattr(Cluster, "map", cut_off)
        first.setattr(Cluster, "width", lambda self, gpus=0: 6)
        assert respond.main([path, "--out", str(tmp_path / "out"), "--engine", "ray"]) == 130
    assert respond.main([path, "--out", str(tmp_path / "out"), "--engine", "ray"]) == 0
    server.close()
    made = store.open_dataset(tmp_path / "out")
    assert made.rows == 96 and not made.manifest["identity"]["counts"].get("unfinished")
    assert not list((tmp_path / "out").glob(".asked-*"))


def test_replicas_without_gpus_are_refused_at_once(cluster):
    with Cluster(None) as engine, pytest.raises(ConfigError, match=r"a worker wants 2 GPUs .* the cluster has 0"):
        engine.width(2)
