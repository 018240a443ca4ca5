"""What goes wrong on a cluster: a block that nobody can work on, a worker that is killed, machines that are not as they should be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import columnar
from columnar.cluster import PACKAGES, Cluster
from columnar.cluster_errors import failure
from columnar.engine import chosen, places_in
from columnar.errors import CaravanError, ConfigError, InputError, StoreError
from columnar.load import SourceSpec, load_source
from columnar.store import open_dataset
from curation import signals
from tests.scale.conftest import TINY
from tests.scale.doubling import Doubling


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.mark.parametrize("held", [False, True])
def test_a_killed_worker_loses_nothing_and_repeats_its_block_alone(
    cluster: str, tmp_path: Path, marks: Path, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("columnar.cluster.ACTORS_FROM", 2)
    work = Doubling(marks, deadly=(7, 20))
    with Cluster(None) as engine:
        made = list(engine.map(work, range(30), places_in(tmp_path / "blocks", 30), held=held))
    assert made == [2 * n for n in range(30)]
    assert engine.blocks == 30 and engine.repeated >= 2
    assert sum(work.times()) <= 30 + 2 * 2, "no more than what the two killed workers had in hand"


def test_bad_shards_are_named_the_others_are_kept_and_the_next_run_does_those_alone(cluster: str, tmp_path: Path, marks: Path) -> None:
    places = places_in(tmp_path / "blocks", 200)
    with pytest.raises(StoreError) as told, Cluster(None) as engine:
        list(engine.map(Doubling(marks, unreadable=(3, 150)), range(200), places))
    assert "2 of 200 blocks" in str(told.value) and "3: OSError: shard 3 is cut short" in str(told.value) and "150:" in str(told.value)
    with Cluster(None) as engine:
        made = list(engine.map(Doubling(marks), range(200), places))
    assert made == [2 * n for n in range(200)]
    assert (engine.kept, engine.blocks) == (198, 2)
    assert sorted(Doubling(marks).times())[-2:] == [2, 2] and sum(Doubling(marks).times()) == 202


def test_a_block_that_kills_every_worker_is_named(cluster: str, tmp_path: Path, marks: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"1 of 4 blocks(.|\n)*2: MemoryError: its worker was killed 3 times") as told,
        Cluster(None) as engine,
    ):
        list(engine.map(Doubling(marks, deadly=(2,), once=False), range(4), places_in(tmp_path / "blocks", 4)))
    assert "memory" in str(told.value.hint)


def test_a_damaged_row_file_is_named_and_nothing_half_is_taken_for_whole(cluster: str, tmp_path: Path, capsys) -> None:
    source = tmp_path / "chats.jsonl"
    source.write_text("".join(f'{{"instruction": "Say {i}", "output": "{i}"}}\n' for i in range(50)))
    load_source(SourceSpec(name="chats", path=str(source)), tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    (file,) = dataset.row_files
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + b"\0" * 2000 + whole[2004:])
    with pytest.raises(CaravanError, match=r"part-00000\.parquet"), chosen("ray") as engine:
        signals.measure([dataset], signals.SignalsConfig(), tmp_path, engine)
    assert not dataset.sidecar("signals").exists()
    file.write_bytes(whole)
    with chosen("ray") as engine:
        assert signals.measure([dataset], signals.SignalsConfig(), tmp_path, engine) == [dataset]


def test_a_cluster_that_is_not_there_is_said_at_once(cluster: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "curation.build_mix", str(TINY), "--out", str(tmp_path / "out"), "--engine", "ray://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "error: --engine ray: no Ray cluster at 127.0.0.1:9" in done.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="expected local, ray or ray://HOST:PORT"), chosen("spark"):
        pass


def test_something_else_at_the_address_is_said(cluster: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        code = f"from columnar.engine import chosen\nwith chosen('ray://127.0.0.1:{other.server_port}'): pass"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        other.shutdown()
    assert f"no Ray cluster at 127.0.0.1:{other.server_port}: something else than Ray listens there" in done.stderr


def test_workers_without_the_package_are_told_of(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    @staticmethod\n"
        "    def find_spec(name, *_):\n"
        "        if name.split('.')[0] == 'columnar':\n"
        "            raise ModuleNotFoundError(\"No module named 'columnar'\", name='columnar')\n"
        "sys.meta_path.insert(0, Without)\n"
    )
    code = (
        f"import ray\nray.init(address={cluster!r}, log_to_driver=False, runtime_env={{'env_vars': {{'PYTHONPATH': {str(tmp_path)!r}}}}})\n"
        "from pathlib import Path\nfrom columnar import cli\nfrom columnar.cluster import Cluster\n"
        "def main(args):\n    with Cluster(None) as engine:\n"
        f"        list(engine.map(abs, [1, 2], [Path({str(tmp_path)!r}) / n for n in 'ab']))\n"
        "raise SystemExit(cli.run(main, cli.parser('probe', ''), []))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "the workers of the cluster have no package 'columnar'" in done.stderr


def test_workers_with_another_version_of_the_package_are_told_of(cluster: str, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(Path(columnar.__file__).parents[1] / package, tmp_path / package)
    (elsewhere := tmp_path / "elsewhere").mkdir()  # Ray's workers look for modules where the driver stands first
    changed = tmp_path / "curation" / "signals.py"
    changed.write_text(changed.read_text().replace("PREVIEW = 160", "PREVIEW = 150"))
    code = (
        f"import ray\nray.init(address={cluster!r}, log_to_driver=False, runtime_env={{'env_vars': {{'PYTHONPATH': {str(tmp_path)!r}}}}})\n"
        "from pathlib import Path\nfrom columnar import cli\nfrom columnar.cluster import Cluster\n"
        "def main(args):\n    with Cluster(None) as engine:\n"
        f"        print(*engine.map(abs, [-1, -2], [Path({str(tmp_path)!r}) / n for n in 'ab']))\n"
        "raise SystemExit(cli.run(main, cli.parser('probe', ''), []))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=elsewhere)
    assert done.returncode == 2, done.stderr
    assert re.search(r"runs version (\S+) \(([0-9a-f]{12})\), this is version \1 \((?!\2)[0-9a-f]{12}\)", done.stderr), done.stderr
    assert "install the same version" in done.stderr
    changed.write_text((Path(columnar.__file__).parents[1] / "curation" / "signals.py").read_text())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=elsewhere)
    assert (done.returncode, done.stdout.strip()) == (0, "1 2"), done.stderr


def test_a_machine_without_memory_for_any_worker_ends_the_run_and_is_named(cluster: str, tmp_path: Path) -> None:
    settings = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100", "RAY_task_oom_retries": "1"}
    code = (
        "from pathlib import Path\nfrom columnar import cli\nfrom columnar.cluster import Cluster\n"
        "def main(args):\n    with Cluster(None) as engine:\n"
        f"        list(engine.map(abs, [1, 2], [Path({str(tmp_path)!r}) / n for n in 'ab']))\n"
        "raise SystemExit(cli.run(main, cli.parser('probe', ''), []))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500, env={**os.environ, **settings})
    assert done.returncode == 1, done.stderr
    assert re.search(r"Ray ended the workers on \S+ again and again, because its memory ran short \(\S+GB used / \S+GB\)", done.stderr)
    assert "fewer CPUs" in done.stderr and not list(tmp_path.glob("[ab]"))


def test_problems_of_all_kinds_are_named_together() -> None:
    down = InputError("model a: nobody answers at http://x", "start the server")
    assert failure([("rows 0 to 16", down), ("rows 16 to 32", down)], 2, files=False) is down, "one cause is told once"
    told = failure([("rows 0 to 16", down), ("rows 16 to 32", CaravanError("MemoryError: killed"))], 9, files=False)
    assert "2 of 9 blocks" in str(told) and "rows 0 to 16: model a: nobody" in str(told) and "rows 16 to 32: MemoryError" in str(told)
    torn = InputError("raw/a.parquet: not a whole Parquet file", "make it whole")
    told = failure([("raw/a.parquet", torn), ("raw/b.json", CaravanError("MemoryError: killed"))], 2, files=True)
    assert "raw/a.parquet" in str(told) and "raw/b.json: MemoryError" in str(told)
