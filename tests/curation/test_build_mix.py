"""The main job as a user runs it: rows accounted for, the same bytes every time, nothing half-written, clear refusals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORDS = [
    "amber", "river", "stone", "cloud", "paper", "lantern", "garden", "winter", "copper", "violin", "harbour", "meadow", "silver", "candle",
]  # fmt: skip


def sentence(rng: random.Random, n: int = 12) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n))


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def chats(seed: int, n: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            "messages": [{"role": "user", "content": f"{sentence(rng)}?"}, {"role": "assistant", "content": sentence(rng, 30)}],
            "topic": i % 3,
        }
        for i in range(n)
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "a.jsonl", chats(1, 120))
    write_jsonl(tmp_path / "b.jsonl", chats(2, 80))
    (tmp_path / "c.json").write_text(json.dumps([{"instruction": f"Say {w}", "input": "", "output": w.upper()} for w in WORDS]))
    return tmp_path


def config(data: Path, **more: Any) -> Path:
    made = {
        "name": "m",
        "kind": "sft",
        "seed": 5,
        "sources": [
            {"name": "a", "path": "a.jsonl", "rows": 60},
            {"name": "b", "path": "b.jsonl", "repeat": 2},
            {"name": "c", "path": "c.json"},
        ],
        "validation": {"rows": 10},
        **more,
    }
    path = data / "mix.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


def run(*args: Any, code: int = 0, module: str = "curation.build_mix", **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, args)], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **env}, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def build(path: Path, out: Path, *args: Any, **env: str) -> dict[str, Any]:
    return json.loads(run(path, "--out", out, "--json", *args, **env).stdout)


def rows_of(out: Path, columns: list[str]) -> list[dict[str, Any]]:
    return [row for file in sorted((out / "rows").glob("*.parquet")) for row in pq.read_table(file, columns=columns).to_pylist()]


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a mix; of the manifest only its identity, for the rest tells when it was made."""
    files = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file() and p.name != "manifest.json"}
    return files | {"identity": json.dumps(json.loads((out / "manifest.json").read_text())["identity"]).encode()}


def test_every_row_is_accounted_for(data: Path) -> None:
    manifest = build(
        config(data, select={"topic": "json_extract(meta, '$.topic') IS NULL OR json_extract(meta, '$.topic')::INT < 2"}), data / "out"
    )
    counts = manifest["identity"]["counts"]
    assert counts["in"] == 200 + len(WORDS)
    for source in counts["by_source"].values():
        assert source["in"] == source["kept"] + source["rejected"] + sum(source["dropped"].values())
    assert counts["by_source"]["a"]["kept"] == 60
    assert counts["by_source"]["a"]["dropped"] == {"topic": 40, "sampled_out": 20}
    rows = rows_of(data / "out", ["id", "source", "messages", "parents", "origin"])
    dropped = pq.read_table(data / "out/dropped").to_pylist()
    assert len(rows) == counts["out"] == manifest["identity"]["rows"]
    assert len({r["id"] for r in rows}) == len(rows)
    originals = {r["id"] for r in rows if not r["parents"]}
    assert not originals & {d["id"] for d in dropped}
    assert len(originals) + len(dropped) == 200 + len(WORDS)
    assert all(set(r["parents"] or []) <= originals for r in rows)
    assert {d["reason"] for d in dropped if d["messages"] is None} == {"sampled_out"}
    told = {d["detail"] for d in dropped if d["reason"] == "topic"}
    assert told == {"not: json_extract(meta, '$.topic') IS NULL OR json_extract(meta, '$.topic')::INT < 2"}


def test_text_is_what_the_files_say(data: Path) -> None:
    build(config(data), data / "out")
    originals = {m["messages"][0]["content"]: m["messages"] for m in chats(1, 120)}
    for row in rows_of(data / "out", ["source", "messages"]):
        if row["source"] == "a":
            assert row["messages"] == originals[row["messages"][0]["content"]]


def test_columns_stand_beside_their_rows(data: Path) -> None:
    build(config(data), data / "out")
    rows = rows_of(data / "out", ["id", "messages"])
    for stage in ("signals", "select"):
        assert pq.read_table(data / f"out/cols/{stage}.parquet")["id"].to_pylist() == [r["id"] for r in rows]
    chars = pq.read_table(data / "out/cols/signals.parquet")["n_chars"].to_pylist()
    assert chars == [sum(len(m["content"]) for m in r["messages"]) for r in rows]


def test_same_bytes_again_in_any_order_of_sources_and_with_any_number_of_threads(data: Path) -> None:
    path = config(data)
    build(path, data / "one", POLARS_MAX_THREADS="1")
    made = yaml.safe_load(path.read_text())
    again = data / "again.yaml"
    again.write_text(yaml.safe_dump({**made, "sources": made["sources"][::-1]}))
    build(again, data / "two", "--cache", data / "other-cache", POLARS_MAX_THREADS="4")
    one, two = contents(data / "one"), contents(data / "two")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name] and name != "config.yaml"] == []


def test_adding_a_source_moves_no_other_row(data: Path) -> None:
    path = config(data, validation={"fraction": 0.2})
    build(path, data / "one")
    before = {r["id"] for r in rows_of(data / "one", ["id"])}
    write_jsonl(data / "d.jsonl", chats(9, 30))
    made = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**made, "sources": [{"name": "d", "path": "d.jsonl"}, *made["sources"]]}))
    build(path, data / "two")
    after = [r for r in rows_of(data / "two", ["id", "source"]) if r["source"] != "d"]
    assert {r["id"] for r in after} == before


def test_nothing_to_do_twice_and_an_edit_in_place_is_noticed(data: Path) -> None:
    path, out = config(data), data / "out"
    first = build(path, out)
    made = (out / "manifest.json").stat().st_mtime_ns
    assert "nothing changed, nothing done" in run(path, "--out", out).stderr
    assert (out / "manifest.json").stat().st_mtime_ns == made
    loads = {p.name: p.stat().st_mtime_ns for p in (data / ".cache/load").iterdir()}
    stat = (data / "b.jsonl").stat()
    text = (data / "b.jsonl").read_text()
    (data / "b.jsonl").write_text(text.replace("amber", "AMBER"))
    os.utime(data / "b.jsonl", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = build(path, out)
    assert second["identity"]["rows_sha256"] != first["identity"]["rows_sha256"]
    now = {p.name: p.stat().st_mtime_ns for p in (data / ".cache/load").iterdir()}
    assert {name for name, when in now.items() if loads.get(name) != when} == {n for n in now if n.startswith("b-") and n not in loads}


def test_flagged_rows_are_left_out_and_flags_outlive_a_rebuild(data: Path) -> None:
    path, out = config(data, exclude_flags=["bad"]), data / "out"
    build(path, out)
    chosen = [r for r in rows_of(out, ["id", "source", "parents"]) if r["source"] == "b"]
    copy = next(r for r in chosen if r["parents"])
    flags = [
        {"id": chosen[0]["id"], "flag": "bad", "note": "wrong"},
        {"id": copy["id"], "flag": "bad"},
        {"id": chosen[5]["id"], "flag": "fine"},
    ]
    write_jsonl(out / "flags.jsonl", flags)
    counts = build(path, out)["identity"]["counts"]
    left = {r["id"] for r in rows_of(out, ["id"])}
    assert counts["by_reason"]["flagged"] == 2
    assert not left & {chosen[0]["id"], copy["id"], *copy["parents"]}
    assert chosen[5]["id"] in left
    assert (out / "flags.jsonl").is_file()


def test_killed_at_any_instant_then_finished_gives_the_same_bytes(data: Path) -> None:
    path = config(data)
    build(path, data / "whole", "--cache", data / "cache-whole")
    rng = random.Random(0)
    for _ in range(20):
        job = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "curation.build_mix",
                str(path),
                "--out",
                str(data / "killed"),
                "--cache",
                str(data / "cache-killed"),
                "--force",
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.5, 2.2))
        job.send_signal(signal.SIGKILL)
        job.wait()
    build(path, data / "killed", "--cache", data / "cache-killed")
    whole, killed = contents(data / "whole"), contents(data / "killed")
    assert [name for name in {*whole, *killed} if whole.get(name) != killed.get(name)] == []


def test_the_written_config_rebuilds_the_mix(data: Path) -> None:
    first = build(config(data, limits={"max_chars": 400}), data / "deep/er/out")
    again = build(data / "deep/er/out/config.yaml", data / "again")
    for key in ("ids_sha256", "rows_sha256", "counts"):
        assert again["identity"][key] == first["identity"][key]


def test_dry_run_tells_and_does_nothing(data: Path) -> None:
    path, out = config(data), data / "out"
    plan = json.loads(run(path, "--out", out, "--dry-run", "--json").stdout)
    assert not out.exists() and not (data / ".cache").exists()
    assert (plan["state"], [s["load"] for s in plan["sources"]]) == ("to build", ["to do"] * 3)
    build(path, out)
    assert "up to date" in json.loads(run(path, "--out", out, "--dry-run", "--json").stdout)["state"]
    changed = json.loads(run(path, "--out", out, "--dry-run", "--json", "--set", "seed=6").stdout)
    assert changed["state"] == "stale: the config changed: seed"
    (data / "a.jsonl").write_text((data / "a.jsonl").read_text() + json.dumps(chats(7, 1)[0]) + "\n")
    text = run(path, "--out", out, "--dry-run").stdout
    assert "stale: the files or the settings changed" in text


def test_limit_reads_the_first_records_only(data: Path) -> None:
    counts = build(config(data), data / "out", "--limit", 20, "--set", "sources.a.rows=5")["identity"]["counts"]
    assert counts["by_source"]["a"]["in"] == 20
    assert counts["by_source"]["a"]["kept"] == 5


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"sources": [{"name": "a", "path": "a.jsonl", "rows": 121}]}, 2, "a: rows: 121 asked, 120 available"),
        ({"sources": [{"name": "a", "path": "nowhere.jsonl"}]}, 2, "nowhere.jsonl: no such file"),
        ({"sources": [{"name": "a", "path": "a.jsonl", "where": "n_turn < 3"}]}, 2, "sources[a]: rule 'where': n_turn < 3"),
        ({"select": {"x": "1 = 1; DROP TABLE rows"}}, 2, "rule 'x'"),
        ({"select": {"x": "n_chars > 3), (1 = 1"}}, 2, "expected one SQL expression"),
        ({"select": {"x": "EXISTS (SELECT * FROM read_text('/etc/passwd'))"}}, 2, "rule 'x'"),
        ({"validation": {"rows": 500}}, 2, "validation: rows: 500 asked, the mix has 154"),
        ({"sources": [{"name": "a", "path": "a.jsonl", "where": "false", "rows": 5}]}, 2, "loosen the rules, or leave the source out"),
        ({"kinds": "sft"}, 2, "kinds: unknown key; did you mean 'kind'?"),
        ({"signals": {"tokenizer": "no.json"}}, 2, "signals.tokenizer"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(data: Path, more: dict[str, Any], code: int, said: str) -> None:
    done = run(config(data, **more), "--out", data / "out", code=code)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (data / "out/manifest.json").exists()


def test_malformed_rows_fail_the_build_unless_allowed(data: Path) -> None:
    with (data / "a.jsonl").open("a") as file:
        file.write('{"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]}\n')
    done = run(config(data), "--out", data / "out", code=3)
    assert "a.jsonl:121: messages[1]: found two user messages in a row, expected assistant after user" in done.stderr
    counts = build(config(data, max_reject=0.05), data / "out")["identity"]["counts"]
    assert (counts["rejected"], counts["by_source"]["a"]["in"]) == (1, 121)
    (reject,) = [json.loads(line) for line in (data / "out/rejects.jsonl").read_text().splitlines()]
    assert (reject["source"], reject["line"]) == ("a", 121)


def test_a_full_disk_is_said_and_what_was_whole_is_kept(data: Path) -> None:
    path = config(data)
    build(path, data / "whole")
    for kilobytes in (1, 4, 8):  # the size at which every write fails, as on a full disk
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes << 10},) * 2)"
        start = (
            f"{code}; import runpy, sys; sys.argv = {['build_mix', str(path), '--out', str(data / 'full'), '--cache', str(data / 'c')]!r}"
        )
        command = [sys.executable, "-c", f"{start}; runpy.run_module('curation.build_mix', run_name='__main__')"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        assert "error: " in done.stderr and "Traceback" not in done.stderr
        assert not (data / "full/manifest.json").exists()
    build(path, data / "full", "--cache", data / "c")
    whole, full = contents(data / "whole"), contents(data / "full")
    assert [name for name in {*whole, *full} if whole.get(name) != full.get(name)] == []


def test_other_peoples_directories_are_safe(data: Path) -> None:
    path = config(data)
    (data / "mine").mkdir()
    (data / "mine/thesis.tex").write_text("x")
    assert "not empty and not a mix (found thesis.tex)" in run(path, "--out", data / "mine", code=1).stderr
    build(path, data / "out")
    assert "belongs to 'm', this is 'other'" in run(path, "--out", data / "out", "--set", "name=other", code=1).stderr
    build(path, data / "out", "--set", "name=other", "--force")
    (data / "file").write_text("x")
    assert "is a file" in run(path, "--out", data / "file", code=1).stderr


def test_what_a_source_is_called_does_not_matter_to_the_disk(data: Path) -> None:
    names = ["../../outside", "b 'c\" é*", "x" * 300]
    counts = build(
        config(data, sources=[{"name": n, "path": f} for n, f in zip(names, ("a.jsonl", "b.jsonl", "c.json"), strict=True)]),
        data / "o/o/out",
    )
    assert list(counts["identity"]["counts"]["by_source"]) == sorted(names)
    assert sorted(p.name for p in data.iterdir()) == ["a.jsonl", "b.jsonl", "c.json", "mix.yaml", "o"]
    assert "up to date" in run(data / "mix.yaml", "--out", data / "o/o/out", "--dry-run").stdout


def test_a_source_of_which_nothing_is_left_is_said(data: Path) -> None:
    said = run(config(data, sources=[{"name": "b", "path": "b.jsonl", "where": "false"}]), "--out", data / "out").stderr
    assert "warning: nothing is left of b: 80 where" in said


def test_a_mix_of_nothing_can_still_be_opened(data: Path) -> None:
    manifest = build(config(data, select={"never": "false"}, sources=[{"name": "b", "path": "b.jsonl"}]), data / "out")
    assert manifest["identity"]["counts"]["by_reason"] == {"never": 80}
    done = run(data / "out", "SELECT count(*) AS n FROM dropped", "--format", "csv", module="columnar.query")
    assert done.stdout.split() == ["n", "80"]


def test_ablation_family_shares_the_cache_and_nests(data: Path) -> None:
    path = config(data, validation={"fraction": 0.1})
    lines = json.loads(run(path, "--out", data / "family", "--json", "--alone", module="curation.ablate").stdout)
    names = [line["member"] for line in lines]
    assert names == ["all", "without-a", "without-b", "without-c", "only-a", "only-b", "only-c", "size-0.25", "size-0.5"]
    assert len(list((data / "family/.cache/load").iterdir())) == 3
    ids = {name: {r["id"] for r in rows_of(data / "family" / name, ["id"])} for name in names}
    assert ids["without-a"] | ids["only-a"] == ids["all"]
    assert not ids["without-a"] & ids["only-a"]
    own = {name: {r["id"] for r in rows_of(data / "family" / name, ["id", "parents"]) if not r["parents"]} for name in names}
    assert own["size-0.25"] < own["size-0.5"] < own["all"]


def test_datasets_reads_a_rebuilt_mix_anew(data: Path) -> None:
    """Its cache goes by the folder's last name and the card, not by the files."""
    pytest.importorskip("datasets", reason="the train extra is not installed")
    read = "import sys, datasets; d = datasets.load_dataset(sys.argv[1]); print(d['train'].num_rows + d['validation'].num_rows)"
    found = []
    for seed, out, more in ((5, "out", []), (6, "out", ["--set", "sources.a.rows=30"]), (5, "other/out", ["--set", "sources.b.repeat=1"])):
        wanted = build(config(data, seed=seed), data / out, *more)["identity"]["rows"]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(data / "hf")}
        done = subprocess.run([sys.executable, "-c", read, str(data / out)], capture_output=True, text=True, env=env, check=True)
        found.append((int(done.stdout.split()[-1]), wanted))
    assert all(rows == wanted for rows, wanted in found)
    assert len(set(found)) == 3


def test_embeddings_are_found_where_sources_are_and_a_change_of_theirs_is_noticed(data: Path) -> None:
    build(config(data), data / "out/plain")
    ids = [row["id"] for row in rows_of(data / "out/plain", ["id", "source"]) if row["source"] == "c"]
    made = config(data, dedup={"semantic": {"embeddings": "e.parquet", "drop": True}}, validation=None)
    assert "e.parquet: no such file" in run(made, "--out", data / "out/mix", code=2).stderr
    for near in ([1.0, 0.01], [0.0, 1.0]):
        pl.DataFrame({"id": ids[:2], "embedding": [[1.0, 0.0], near]}).write_parquet(data / "e.parquet")
        counts = build(made, data / "out/mix")["identity"]["counts"]
        assert counts["by_reason"].get("semantic_duplicate", 0) == (near[0] > 0)
        if near[0] > 0:
            gone = pl.read_parquet(data / "out/mix/dropped/*.parquet").filter(pl.col("reason") == "semantic_duplicate")
            assert gone["detail"].str.contains("^cosine 1.000 with [0-9a-f]{16} of ").all()
    assert "nothing changed" in run(made, "--out", data / "out/mix").stderr


def test_more_shards_than_files_that_may_be_open(data: Path) -> None:
    made = str(config(data, shard_rows=1))
    code = (
        "import resource, sys\nfrom curation import build_mix, write\nfrom columnar import cli\n"
        "write.IN_MEMORY = 1\nhard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (150, int(sys.argv[3]) or hard))\n"
        "raise SystemExit(cli.run(build_mix.main, build_mix.parser(), [sys.argv[1], '--out', sys.argv[2]]))\n"
    )
    for hard, expected in (("150", 2), ("0", 0)):
        done = subprocess.run([sys.executable, "-c", code, made, str(data / "out/many"), hard], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == expected, done.stderr
        assert ("this process may open 150 files" in done.stderr) == bool(expected)
    assert len(list((data / "out/many/rows").iterdir())) > 100
