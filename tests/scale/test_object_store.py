"""Object stores as a user meets them: a real S3 server, whole commands; what is half-way is never taken for whole."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from object_store import ROOT, SECRET, Machine, Server, clean, google

from columnar.flags import add_flags
from columnar.store import open_dataset

WORDS = ["amber", "river", "stone", "cloud", "paper", "lantern", "garden", "winter", "copper", "violin", "harbour", "meadow", "silver"]

NUMBER = itertools.count()


def chats(seed: int, n: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)

    def said(words: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(words))

    return [{"messages": [{"role": "user", "content": f"{said(12)}?"}, {"role": "assistant", "content": said(30)}]} for _ in range(n)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    made = Server()
    yield made
    made.close()


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Machine:
    return Machine(server, tmp_path)


@pytest.fixture
def bucket(server: Server) -> str:
    name = f"bucket-{next(NUMBER)}"
    server.client().create_bucket(Bucket=name)
    return name


def mix(folder: Path, base: str, **changes: object) -> Path:
    """The config of a mix of two sources below `base`."""
    config = {
        "name": "two",
        "kind": "sft",
        "sources": [{"name": "a", "path": f"{base}/a/*.jsonl", "rows": 40}, {"name": "b", "path": f"{base}/b.jsonl", "all": True}],
        "signals": {"language": False},
        "dedup": {"near": None},
        **changes,
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(config))
    return folder / "mix.yaml"


@pytest.fixture
def raw(server: Server, bucket: str, tmp_path: Path) -> str:
    """The same sources in the bucket and in a folder."""
    (tmp_path / "raw" / "a").mkdir(parents=True)
    for key, rows in {"a/1.jsonl": chats(1, 30), "a/2.jsonl": chats(2, 30), "b.jsonl": chats(3, 20)}.items():
        server.put(bucket, f"raw/{key}", rows)
        (tmp_path / "raw" / key).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"s3://{bucket}/raw"


def manifest(server: Server, bucket: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.client().get_object(Bucket=bucket, Key=f"{name}/manifest.json")["Body"].read())
    return found


def test_a_mix_from_a_bucket_into_a_bucket(server: Server, machine: Machine, bucket: str, raw: str, tmp_path: Path) -> None:
    out, config = f"s3://{bucket}/mix", mix(tmp_path, raw)
    assert "to fetch 2 files" in machine.run("curation.build_mix", config, "--out", out, "--dry-run")
    assert server.changes() == []
    machine.run("curation.build_mix", config, "--out", out)
    assert [path for method, path in server.asked if method == "PUT"][-1] == f"/{bucket}/mix/manifest.json"

    # the same rows as from files, under the same ids
    identity = manifest(server, bucket, "mix")["identity"]
    machine.run("curation.build_mix", mix(tmp_path, "raw"), "--out", tmp_path / "local")
    assert json.loads((tmp_path / "local/manifest.json").read_text())["identity"]["ids_sha256"] == identity["ids_sha256"]
    assert [source["uri"] for source in identity["inputs"]] == [f"{raw}/a/*.jsonl", f"{raw}/b.jsonl"]

    # nothing changed: nothing is done, here and on a machine that has never seen it, which does not even fetch the rows
    mix(tmp_path, raw)
    for where in (machine, Machine(server, tmp_path / "other")):
        assert "nothing changed, nothing done" in where.run("curation.build_mix", config, "--out", out)
        assert server.changes() == []
        assert not [path for method, path in server.asked if method == "GET" and "/mix/rows/" in path]

    rooted = machine.run("curation.build_mix", mix(tmp_path, ".", root=raw), "--out", out, "--dry-run", "--json")
    assert [source["load"] for source in json.loads(rooted)["sources"]] == ["cached", "cached"]

    # another machine reads it
    other = Machine(server, tmp_path / "third")
    assert "60" in other.run("columnar.query", out, "SELECT count(*) AS n FROM rows")
    fetched = [path for method, path in server.asked if method == "GET" and "/rows/" in path]
    row = json.loads(other.run("columnar.query", out, "SELECT id FROM rows LIMIT 1", "--json").partition("]")[0] + "]")[0]["id"]
    assert fetched
    assert not [path for method, path in server.asked if method == "GET" and "/rows/" in path]  # only what changed comes again
    assert row in other.run("columnar.explain", out, row)
    compared = other.run("columnar.compare", out, tmp_path / "local")
    assert out in compared
    assert str(other.home / "cache") not in compared


def test_a_changed_object_redoes_what_depends_on_it(server: Server, machine: Machine, bucket: str, raw: str, tmp_path: Path) -> None:
    out, config = f"s3://{bucket}/mix", mix(tmp_path, raw)
    machine.run("curation.build_mix", config, "--out", out)
    before = {path: path.stat().st_mtime_ns for path in machine.home.glob("cache/caravan/mixes/**/rows/*.parquet")}
    assert len(before) == 2
    rows = chats(3, 20)
    rows[0]["messages"][1]["content"] = rows[0]["messages"][1]["content"].replace("amber", "umber")  # of the same size
    server.put(bucket, "raw/b.jsonl", rows)
    planned = machine.run("curation.build_mix", config, "--out", out, "--dry-run")
    assert "to fetch 1 files" in planned
    assert "stale: a source changed" in planned
    machine.run("curation.build_mix", config, "--out", out)
    assert {path for method, path in server.asked if method == "GET" and "/raw/" in path} == {f"/{bucket}/raw/b.jsonl"}
    after = {path: path.stat().st_mtime_ns for path in machine.home.glob("cache/caravan/mixes/**/rows/*.parquet")}
    assert {path for path in before if after[path] == before[path]} == set(before)  # both loads stay
    assert len(set(after) - set(before)) == 1  # and one is new

    # uploaded again without a change: fetched, found to be the same, nothing to do
    server.put(bucket, "raw/b.jsonl", rows)
    assert "nothing changed, nothing done" in machine.run("curation.build_mix", config, "--out", out)
    assert server.changes() == []


def test_killed_before_the_manifest_it_is_incomplete_and_goes_on(
    server: Server, machine: Machine, bucket: str, raw: str, tmp_path: Path
) -> None:
    out, config = f"s3://{bucket}/mix", mix(tmp_path, raw)
    machine.run("curation.build_mix", config, "--out", out)
    kept = manifest(server, bucket, "mix")["identity"]

    def kill(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/mix/manifest.json"):
            os.kill(process.pid, signal.SIGKILL)
            raise ConnectionAbortedError  # nor does what it had sent arrive

    server.before = kill
    words = [sys.executable, "-m", "curation.build_mix", str(config), "--out", out, "--set", "sources.a.rows=30"]
    process = subprocess.Popen(words, cwd=ROOT, env=clean(machine.env), stderr=subprocess.DEVNULL)
    process.wait(timeout=120)
    server.before = lambda method, path: None
    assert process.returncode == -signal.SIGKILL
    assert any(name.startswith("mix/rows/") for name in server.names(bucket))

    other = Machine(server, tmp_path / "other")
    for where in (machine, other):
        said = where.run("columnar.query", out, "SELECT 1", rc=1)
        assert f"error: {out}: no manifest.json: the dataset is incomplete" in said
    assert "incomplete" in other.run("columnar.load", out, "--out", tmp_path / "loaded", rc=2)  # nor is it a source

    machine.run("curation.build_mix", config, "--out", out, "--set", "sources.a.rows=30")  # sends what is missing
    assert [path for method, path in server.asked if method == "PUT" and "/rows/" in path] == []
    assert manifest(server, bucket, "mix")["identity"]["rows"] == 50
    assert "50" in other.run("columnar.query", out, "SELECT count(*) AS n FROM rows")
    machine.run("curation.build_mix", config, "--out", out)
    assert manifest(server, bucket, "mix")["identity"] == kept  # the same bytes as undisturbed


def test_a_query_waits_for_a_build_of_the_same_machine(server: Server, machine: Machine, bucket: str, raw: str, tmp_path: Path) -> None:
    out, config = f"s3://{bucket}/mix", mix(tmp_path, raw)
    machine.run("curation.build_mix", config, "--out", out)
    asked: list[subprocess.Popen[str]] = []

    def ask(method: str, path: str) -> None:
        if method == "PUT" and "/mix/rows/" in path and not asked:
            words = [sys.executable, "-m", "columnar.query", out, "SELECT count(*) AS n FROM rows", "--json"]
            asked.append(
                subprocess.Popen(words, cwd=ROOT, env=clean(machine.env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            assert asked[0].stderr is not None
            assert f"waiting for another command that uses {out}" in asked[0].stderr.readline()

    server.before = ask
    machine.run("curation.build_mix", config, "--out", out, "--set", "sources.a.rows=30")
    server.before = lambda method, path: None
    assert json.loads(asked[0].communicate(timeout=300)[0]) == [{"n": 50}]


def test_rows_of_another_build_are_not_read_under_this_manifest(server: Server, machine: Machine, bucket: str, raw: str) -> None:
    out = f"s3://{bucket}/loaded"
    machine.run("columnar.load", f"{raw}/b.jsonl", "--out", out)
    client = server.client()
    client.copy_object(Bucket=bucket, Key="loaded/rows/part-00000.parquet", CopySource=f"{bucket}/raw/b.jsonl")
    said = machine.run("columnar.query", out, "SELECT 1", rc=1)
    assert f"{out}/rows/part-00000.parquet: missing, or not as its manifest says" in said
    client.delete_object(Bucket=bucket, Key="loaded/rows/part-00000.parquet")
    assert "missing" in machine.run("columnar.query", out, "SELECT 1", rc=1)


def test_two_who_build_into_one_place_do_not_end_as_one(server: Server, machine: Machine, bucket: str, raw: str, tmp_path: Path) -> None:
    out = f"s3://{bucket}/mix"

    def another(method: str, path: str) -> None:
        if method == "PUT" and "/mix/rows/" in path:
            server.before = lambda method, path: None
            server.client().put_object(Bucket=bucket, Key="mix/manifest.json", Body=b"{}")

    server.before = another
    said = machine.run("curation.build_mix", mix(tmp_path, raw), "--out", out, rc=1)
    assert f"{out}: something else writes there at the same time" in said
    assert f"{out}/manifest.json: damaged, or not a manifest of ours" in machine.run("columnar.query", out, "SELECT 1", rc=1)


def test_keys_that_lead_elsewhere_are_refused(server: Server, machine: Machine, bucket: str, tmp_path: Path) -> None:
    server.put(bucket, "raw/../../../../escaped.jsonl", chats(1, 3))
    machine.run("columnar.load", f"s3://{bucket}", "--out", tmp_path / "out", rc=2)
    assert not list(tmp_path.parent.rglob("escaped.jsonl"))
    for place in (f"s3://{bucket}/raw/../x", "s3://../x", f"s3://{bucket}/raw//x"):
        assert "a part of the path is empty, . or .." in machine.run("columnar.load", place, "--out", tmp_path / "out", rc=2)


def test_loading_takes_folders_patterns_and_lists_as_files_do(
    server: Server, machine: Machine, bucket: str, raw: str, tmp_path: Path
) -> None:
    for path, rows in [(raw, 80), (f"{raw}/**/*.jsonl", 80), (f"{raw}/a/[1].jsonl", 30), (f"{raw}/a", 60)]:
        machine.run("columnar.load", path, "--out", tmp_path / "out", "--source", "x", "--force")
        local = str(tmp_path / "raw") + path.removeprefix(raw)
        machine.run("columnar.load", local, "--out", tmp_path / "same", "--source", "x", "--force")
        ours, theirs = (json.loads((tmp_path / name / "manifest.json").read_text())["identity"] for name in ("out", "same"))
        assert ours["rows"] == rows
        assert ours["ids_sha256"] == theirs["ids_sha256"]
        assert all(item["uri"].startswith(raw) for item in ours["inputs"])
    said = machine.run("columnar.load", f"{raw}/b.jsnl", "--out", tmp_path / "none", rc=2)
    assert f"{raw}/b.jsnl: nothing there" in said
    assert f"did you mean {raw}/b.jsonl?" in said
    assert "no data file matches" in machine.run("columnar.load", f"{raw}/*.csv", "--out", tmp_path / "none", rc=2)


def test_a_scan_writes_its_columns_beside_the_rows(server: Server, machine: Machine, bucket: str, tmp_path: Path) -> None:
    out, rows = f"s3://{bucket}/chats", chats(5, 20)
    server.put(bucket, "raw/chats.jsonl", rows)
    server.put(bucket, "bench/exam.jsonl", [{"id": "q7", "question": rows[3]["messages"][0]["content"]}])
    machine.run("columnar.load", f"s3://{bucket}/raw/chats.jsonl", "--out", out)
    complete = manifest(server, bucket, "chats")
    said = machine.run("decontam.scan", out, "--benchmarks", f"s3://{bucket}/bench", "--fail-on", "any", rc=4)
    assert f"{out}/hits/decontam.parquet" in said
    assert {"chats/cols/decontam.parquet", "chats/hits/decontam.parquet", "chats/report.json"} <= set(server.names(bucket))
    assert manifest(server, bucket, "chats") == complete
    reader = server.reader()
    server.enforce(True)
    try:  # what was worked out and may not be sent is kept, and sent when it may
        again = ["decontam.scan", out, "--benchmarks", f"s3://{bucket}/bench", "--ngram", "7"]
        assert "access denied" in machine.run(*again, rc=1, **reader)
    finally:
        server.enforce(False)
    before = {path: path.stat().st_mtime_ns for path in machine.home.rglob("decontam*.parquet")}
    machine.run(*again)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert f"/{bucket}/chats/cols/decontam.parquet" in {path for _, path in server.changes()}
    machine.run("decontam.scan", out, "--benchmarks", f"s3://{bucket}/bench")
    other = Machine(server, tmp_path / "other")
    assert "exam" in other.run("columnar.query", out, "SELECT benchmark, count(*) FROM rows WHERE contaminated GROUP BY 1")
    machine.run("decontam.scan", out, "--benchmarks", f"s3://{bucket}/bench")
    assert server.changes() == []


def test_flags_of_two_machines_are_both_kept(server: Server, bucket: str, raw: str, tmp_path: Path) -> None:
    out = f"s3://{bucket}/loaded"
    first, second = Machine(server, tmp_path / "1"), Machine(server, tmp_path / "2")
    first.run("columnar.load", f"{raw}/b.jsonl", "--out", out)
    for number, where in enumerate([first, second, first]):
        with where.here():
            add_flags(open_dataset(out).path, [{"id": f"row{number}", "flag": "bad"}])
    assert "row0,row1,row2" in second.run("columnar.query", out, "SELECT string_agg(id, ',' ORDER BY id) AS ids FROM flags")


def test_refusals_are_named_before_any_work(server: Server, machine: Machine, bucket: str, raw: str, tmp_path: Path) -> None:
    config, reader = mix(tmp_path, raw), server.reader()
    out = f"s3://{bucket}/mix"
    said = machine.run("curation.build_mix", config, "--out", "s3://no-such-bucket/mix", rc=1)
    assert "s3://no-such-bucket/mix: no bucket 'no-such-bucket' at 127.0.0.1" in said
    assert "no bucket 'no-such-bucket'" in machine.run("columnar.load", "s3://no-such-bucket/x", "--out", tmp_path / "x", rc=2)
    said = machine.run("columnar.query", out, "SELECT 1", rc=1, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert "127.0.0.1 does not answer" in said
    assert "AWS_ENDPOINT_URL" in said
    said = machine.run("curation.build_mix", config, "--out", raw, rc=1)
    assert f"{raw}: not empty and not a dataset (found a, b.jsonl)" in said
    said = machine.run("columnar.load", f"s3://AKIA:{SECRET.partition('/')[2]}@{bucket}/x", "--out", tmp_path / "x", rc=2)
    assert "a key or a password in a path" in said
    assert SECRET.partition("/")[2] not in said
    server.enforce(True)
    try:
        said = machine.run("curation.build_mix", config, "--out", out, rc=1, **reader)
        assert f"{out}/.probe: cannot be written: 127.0.0.1 refuses (access denied)" in said
        assert "s3:PutObject" in said
        assert not [path for _, path in server.asked if "/raw/" in path]  # before anything was read
        machine.run("columnar.load", f"{raw}/b.jsonl", "--out", tmp_path / "read", **reader)
        said = machine.run("columnar.load", raw, "--out", tmp_path / "x", rc=2, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
        assert "no credentials found: set AWS_ACCESS_KEY_ID" in said
        assert "access denied" in machine.run("columnar.load", raw, "--out", tmp_path / "x", rc=2, AWS_ACCESS_KEY_ID="wrong")
    finally:
        server.enforce(False)
    assert not (tmp_path / "x").exists()


def test_an_object_that_is_refused_or_gone_is_a_bad_file(server: Server, machine: Machine, bucket: str, raw: str, tmp_path: Path) -> None:
    server.denied = {f"/{bucket}/raw/a/2.jsonl"}
    out, paths = tmp_path / "out", [f"{raw}/a/*.jsonl", f"{raw}/b.jsonl", f"{raw}/gone.jsonl"]
    said = machine.run("columnar.load", *paths[:2], "--out", out, rc=2)
    assert f"error: {raw}/a/2.jsonl: cannot be read: 127.0.0.1 refuses (access denied)" in said
    assert "on_bad_file: skip" in said
    command = ["columnar.load", *paths, "--out", out, "--on-bad-file", "skip"]
    said = machine.run(*command)
    assert "50 rows" in said and "2 files could not be read" in said
    assert f"{raw}/gone.jsonl: nothing there" in said and f"{raw}/a/2.jsonl: cannot be read: 127.0.0.1 refuses" in said
    server.denied = set()
    server.put(bucket, "raw/gone.jsonl", chats(4, 5))
    said = machine.run(*command)
    assert "85 rows" in said and "could not be read" not in said
    assert "does not answer" in machine.run(*command, rc=2, AWS_ENDPOINT_URL="http://127.0.0.1:9"), "a store that is away is no bad file"


def test_secrets_are_nowhere(server: Server, machine: Machine, bucket: str, raw: str, tmp_path: Path) -> None:
    machine.run("curation.build_mix", mix(tmp_path, raw), "--out", f"s3://{bucket}/mix")
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    client = server.client()
    written += [client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in server.names(bucket)]
    assert len(written) > 20
    for secret in (SECRET, machine.env["AWS_ACCESS_KEY_ID"], server.url):
        assert not [text for text in written if secret.encode() in text]


def test_what_takes_only_local_paths_says_so(machine: Machine, bucket: str) -> None:
    said = machine.run("curation.ablate", "recipes/mixes/tiny.yaml", "--out", f"s3://{bucket}/ablate", rc=2)
    assert f"s3://{bucket}/ablate: this command takes only local paths here (out)" in said
    assert not (ROOT / "s3:").exists()


def test_google_cloud_storage(machine: Machine, tmp_path: Path) -> None:
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats(3, 20)))
    with google("there") as url:
        env = {"STORAGE_EMULATOR_HOST": url}
        machine.run("columnar.load", tmp_path / "b.jsonl", "--out", "gs://there/b", **env)
        assert "up to date, nothing to do" in machine.run("columnar.load", tmp_path / "b.jsonl", "--out", "gs://there/b", **env)
        other = Machine(machine.server, tmp_path / "other")
        assert "20" in other.run("columnar.query", "gs://there/b", "SELECT count(*) AS n FROM rows", **env)
        other.run("columnar.load", "gs://there/b", "--out", "gs://there/again", **env)
        assert "20" in machine.run("columnar.query", "gs://there/again", "SELECT count(*) AS n FROM rows", **env)
        said = machine.run("columnar.load", tmp_path / "b.jsonl", "--out", "gs://nowhere/b", rc=1, **env)
        assert "no bucket 'nowhere' at 127.0.0.1" in said
