"""The whole chain against a server that misbehaves: from prompts to pairs with one command, killed and run again, nothing asked twice."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from scripted import killed

from columnar import store
from columnar.config import load
from columnar.record import validate
from generation import commands, judge, pairs, preferences, respond


def prompts(path: Path, n: int, text: str = "Explain topic {i} to a child") -> str:
    path.write_text("".join(json.dumps({"prompt": text.format(i=i)}) + "\n" for i in range(n)))
    return str(path)


def config(tmp_path: Path, url: str, n: int = 40, models: str = "abcde", **more: object) -> Path:
    made = {
        "prompts": prompts(tmp_path / "prompts.jsonl", n),
        "models": [{"name": m, "base_url": url, "concurrency": 32} for m in (*models, "judge")],
        "params": {"max_tokens": 200},
        "judge": {"mode": "aspects", "model": "judge"},
        **more,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


def rows_of(directory: Path) -> list[dict]:
    return [row for batch in store.read_batches(store.open_dataset(directory)) for row in batch.to_pylist()]


def digests(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.rglob("*.parquet"))}


def test_one_command_from_prompts_to_pairs(serve, tmp_path, capsys):
    server = serve(shares={"poison": 0.02, "flaky_500": 0.05, "truncate": 0.05, "refuse": 0.03})
    out = tmp_path / "out"
    assert preferences.main([str(config(tmp_path, server.url, 60)), "--out", str(out)]) == 0
    candidates, made = rows_of(out / "candidates"), rows_of(out)
    assert made and all(validate(r) == [] for r in candidates + made)
    assert all(r["chosen_score"] > r["rejected_score"] and r["chosen"] != r["rejected"] for r in made)
    by_id = {r["id"]: r for r in candidates}
    for pair in made:
        texts = {c["content"]: c for c in by_id[pair["parents"][0]]["candidates"]}
        for side in ("chosen", "rejected"):
            candidate = texts[pair[side][0]["content"]]
            assert candidate["model"] == pair[f"{side}_model"] and candidate["finish_reason"] == "stop"
            assert pair["prompt"][-1]["content"] in by_id[pair["parents"][0]]["prompt"][-1]["content"]
    ledger = pq.read_table(out / "candidates" / "hits" / "ledger.parquet").to_pylist()
    counts = store.open_dataset(out / "candidates").manifest["identity"]["counts"]
    wanted, got = 60 * 4, sum(len(r["candidates"]) for r in candidates)
    assert got + sum(line["stage"] == "respond" for line in ledger) == wanted and counts["in"] == 60
    assert all(line["reason"] for line in ledger)
    judgements = pq.read_table(out / "candidates" / "hits" / "judgements.parquet").to_pylist()
    assert len(judgements) == 4 * got and all(j["raw"] and j["rationale"] for j in judgements if j["outcome"] == "ok")
    unpaired = pq.read_table(out / "hits" / "unpaired.parquet").num_rows
    assert len(made) + unpaired == len(candidates)
    told = capsys.readouterr().err
    assert "yield" in told and "spent: $0.00" in told


def test_datasets_and_trl_read_the_folder_as_it_is(serve, tmp_path):
    datasets = pytest.importorskip("datasets")
    data_utils = pytest.importorskip("trl.data_utils")
    out = tmp_path / "out"
    assert preferences.main([str(config(tmp_path, serve().url, 12)), "--out", str(out)]) == 0
    pairs = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "hf"))
    assert len(pairs) == store.open_dataset(out).rows and data_utils.is_conversational(pairs[0])
    assert pairs[0]["prompt"][-1]["role"] == "user" and pairs[0]["chosen"][0]["role"] == pairs[0]["rejected"][0]["role"] == "assistant"
    candidates = datasets.load_dataset(str(out / "candidates"), split="train", cache_dir=str(tmp_path / "hf"))
    assert len(candidates) == 12 and len(candidates[0]["candidates"]) == 4


def test_another_rule_or_a_changed_parser_costs_no_call_and_a_finished_run_does_nothing(serve, tmp_path):
    server, out = serve(), tmp_path / "out"
    path = str(config(tmp_path, server.url))
    preferences.main([path, "--out", str(out)])
    calls, before = server.fake.calls["all"], digests(out)
    preferences.main([path, "--out", str(out)])
    assert digests(out) == before
    preferences.main([path, "--out", str(out), "--set", "pairs.rule=best_vs_worst"])
    assert digests(out) != before and digests(out)["candidates/hits/judgements.parquet"] == before["candidates/hits/judgements.parquet"]
    preferences.main([path, "--out", str(out), "--force"])  # as after a change in how replies are read
    assert server.fake.calls["all"] == calls


def test_killed_at_any_instant_it_goes_on_asks_nothing_again_and_ends_the_same(serve, tmp_path):
    server = serve(latency=0.02, shares={"flaky_500": 0.05})
    path = config(tmp_path, server.url, 40, models="abcd")
    for answers, kept in ((60, 60), (100, 160)):
        assert killed(server, "generation.preferences", path, tmp_path / "killed", answers) == kept
        assert not (tmp_path / "killed" / "candidates" / "manifest.json").exists()
    server.fake.calls.clear()
    assert preferences.main([str(path), "--out", str(tmp_path / "killed")]) == 0
    assert server.fake.calls["ok"] == 40 * 8 - kept, "an answer that had been kept was asked for again"
    assert preferences.main([str(path), "--out", str(tmp_path / "whole")]) == 0
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


def test_judging_begins_with_the_first_prompt_whose_answers_are_in(serve, tmp_path):
    server = serve(latency=0.001, slow_seconds=60, slow_until="judge")
    path = config(tmp_path, server.url, 30, models="abcd")
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "<<slow>> one"}) + "\n")
    preferences.main([str(path), "--out", str(tmp_path / "out")])
    order = [model for model, prompt, _ in server.fake.answered if "<<slow>>" not in prompt or model == "judge"]
    slow = [i for i, (model, prompt, _) in enumerate(server.fake.answered) if "<<slow>>" in prompt and model != "judge"]
    assert order.count("judge") == 31 * 4
    assert slow[0] > 30 * 4, "others are judged while the slow one is still being answered"


def test_models_are_assigned_up_front_evenly_and_for_good():
    made = {"prompts": {"path": "x"}, "models": [{"name": n} for n in "abcdefgh"], "per_prompt": 4}
    rules = respond.RespondConfig(**made)
    ids = [f"{i:016x}" for i in range(4000)]
    chosen = {i: [s.model for s in respond.assign(i, rules, list("abcdefgh"))] for i in ids}
    count = Counter(m for models in chosen.values() for m in models)
    assert all(len(set(models)) == 4 for models in chosen.values())
    assert all(abs(n - 2000) < 150 for n in count.values()), count
    places = Counter((m, i) for models in chosen.values() for i, m in enumerate(models))
    assert all(abs(n - 500) < 110 for n in places.values()), "the order tells something about the model"
    assert {i: [s.model for s in respond.assign(i, rules, list("hgfedcba"))] for i in reversed(ids)} == chosen
    mine = respond.RespondConfig(**made, on_policy="c")
    assert all("c" in [s.model for s in respond.assign(i, mine, list("abcdefgh"))] for i in ids[:100])
    other = respond.RespondConfig(**made, seed=1)
    assert any([s.model for s in respond.assign(i, other, list("abcdefgh"))] != chosen[i] for i in ids[:10])


def test_samples_principles_reserves_and_tools(serve, tmp_path):
    server = serve(models=("a", "b", "spare"), shares={"poison": 0.0})
    server.fake.keep_bodies = True
    path = config(tmp_path, server.url, 6, models="", judge=None)
    made = yaml.safe_load(path.read_text())
    made["models"] = [{"name": n, "base_url": server.url} for n in ("a", "b", "spare")]
    made["models"][1]["model"] = "a"
    made["models"][1]["params"] = {"temperature": 0.5}
    del made["judge"]
    made |= {"per_prompt": 2, "samples": 3, "reserve": ["spare"], "principles": {"honesty": 1, "helpfulness": 2}, "seed": 5}
    prompts(Path(made["prompts"]), 6, "Question {i} <<poison>>" if False else "Question {i}")
    path.write_text(yaml.safe_dump(made))
    assert respond.main([str(path), "--out", str(tmp_path / "out")]) == 0
    for row in rows_of(tmp_path / "out"):
        assert [c["model"] for c in row["candidates"]].count("a") == 3 == [c["model"] for c in row["candidates"]].count("b")
        told = [json.loads(c["params"]) for c in row["candidates"]]
        assert {t["principle"] for t in told} <= {"honesty", "helpfulness"} and all(t["system"] for t in told)
        assert len({c["content"] for c in row["candidates"]}) == 6
    assert all(b["messages"][0]["role"] == "system" and b["n"] == 3 for b in server.fake.bodies)


def test_a_failed_model_is_replaced_by_its_reserve_and_that_is_recorded(serve, tmp_path):
    good, bad = serve(), serve(shares={"poison": 0.3})
    path = config(tmp_path, good.url, 30, models="ab")
    made = yaml.safe_load(path.read_text())
    made["models"] = [{"name": "a", "base_url": good.url}, {"name": "b", "base_url": bad.url}, {"name": "spare", "base_url": good.url}]
    del made["judge"]
    path.write_text(yaml.safe_dump({**made, "per_prompt": 2, "reserve": ["spare"]}))
    assert respond.main([str(path), "--out", str(tmp_path / "out")]) == 0
    found = [c for row in rows_of(tmp_path / "out") for c in row["candidates"]]
    spare = [json.loads(c["params"])["instead_of"] for c in found if c["model"] == "spare"]
    assert len(found) == 60 and 3 < len(spare) < 20 and all(s.startswith("b: failed: HTTP 400") for s in spare)


def test_until_stops_at_enough_and_is_the_same_however_it_was_timed(serve, tmp_path):
    found = []
    for latency in (0.0, 0.02):
        server = serve(latency=latency, shares={"truncate": 0.2})
        out = tmp_path / f"out{latency}"
        path = config(tmp_path, server.url, 300, until={"rows": 20, "pass": "score >= 4"})
        assert preferences.main([str(path), "--out", str(out)]) == 0
        rows = rows_of(out / "candidates")
        assert sum(max((c["score"] or 0) for c in r["candidates"]) >= 4 for r in rows) == 20
        assert server.fake.calls["all"] < 300 * 8, "it asked for everything"
        found.append(digests(out / "candidates"))
    assert found[0] == found[1]
    path = config(tmp_path, serve().url, 50, until={"rows": 1000, "pass": "pair", "candidates": 10})
    preferences.main([str(path), "--out", str(tmp_path / "few")])
    assert len(rows_of(tmp_path / "few" / "candidates")) == 10


def test_max_cost_stops_cleanly_and_a_second_run_goes_on(serve, tmp_path, capsys):
    server, out = serve(latency=0.002), tmp_path / "out"
    path = config(tmp_path, server.url, 40)
    made = yaml.safe_load(path.read_text())
    for model in made["models"]:
        model["price"] = {"input": 1, "output": 100}
    path.write_text(yaml.safe_dump(made))
    assert preferences.main([str(path), "--out", str(out), "--max-cost", "1.5"]) in (0, 1)
    first = [json.loads(line) for line in (out / "candidates" / "costs.jsonl").read_text().splitlines()]
    assert 0 < first[0]["dollars"] <= 1.5 and "max_cost" in capsys.readouterr().err
    ledger = pq.read_table(out / "candidates" / "hits" / "ledger.parquet").to_pylist()
    assert {line["outcome"] for line in ledger} == {"budget"}
    calls = server.fake.calls["all"]
    assert preferences.main([str(path), "--out", str(out), "--max-cost", "1000"]) == 0
    assert server.fake.calls["all"] == 40 * 8 > calls and len(rows_of(out / "candidates")) == 40


def test_dry_run_asks_nothing_and_counts_right(serve, tmp_path, capsys):
    server, out = serve(), tmp_path / "out"
    path = str(config(tmp_path, server.url, 40))
    assert preferences.main([path, "--out", str(out), "--dry-run", "--json"]) == 0
    plan = {line["model"]: line for line in json.loads(capsys.readouterr().out)}
    assert server.fake.calls["all"] == 0 and (plan["all"]["calls"], plan["judge"]["calls"]) == (320, 160)
    assert 0.5 < plan["judge"]["prompt tokens"] / (160 * 900) < 2
    preferences.main([path, "--out", str(out)])
    preferences.main([path, "--out", str(out), "--dry-run", "--json"])
    after = json.loads(capsys.readouterr().out)[-1]
    assert (after["calls"], after["cached"]) == (0, 320)


def test_batch_files_are_written_collected_and_used(serve, tmp_path):
    """Write, leave, collect: what respond asks and, once that is collected, what the judge asks; then the run calls nobody."""
    from generation import batch

    server, out, folder = serve(), tmp_path / "out", tmp_path / "batch"
    path = str(config(tmp_path, server.url, 10))
    for _ in range(2):
        preferences.main([path, "--out", str(out), "--batch", str(folder)])
        for file in folder.glob("*.jsonl"):
            answer_batch(server.url, file)
        assert batch.main(["collect", str(folder), "--cache", str(out / "replies.sqlite")]) == 0
        for file in folder.iterdir():
            file.unlink()
    calls = server.fake.calls["all"]
    assert calls == 80
    assert preferences.main([path, "--out", str(out)]) == 0
    assert server.fake.calls["all"] == calls
    preferences.main([path, "--out", str(tmp_path / "direct")])
    assert digests(out)["rows/part-00000.parquet"] == digests(tmp_path / "direct")["rows/part-00000.parquet"]


def answer_batch(url: str, file: Path) -> None:
    """What a Batch API does with a file, against the fake server."""
    import urllib.request

    lines = []
    for line in map(json.loads, file.read_text().splitlines()):
        assert line["method"] == "POST" and line["url"] == "/v1/chat/completions"
        request = urllib.request.Request(f"{url}/chat/completions", json.dumps(line["body"]).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            lines.append(
                {"id": "x", "custom_id": line["custom_id"], "response": {"status_code": 200, "body": json.load(reply)}, "error": None}
            )
    file.with_suffix(".out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))


def test_no_key_in_any_file(serve, tmp_path, monkeypatch, capsys):
    secret = "sk-very-secret-0123456789"
    monkeypatch.setenv("MY_KEY", secret)
    server = serve(key=secret)
    path = config(tmp_path, server.url, 5)
    made = yaml.safe_load(path.read_text())
    for model in made["models"]:
        model["api_key_env"] = "MY_KEY"
    path.write_text(yaml.safe_dump(made))
    preferences.main([str(path), "--out", str(tmp_path / "out")])
    assert all(secret.encode() not in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert secret not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_prompt": 9}, "9 models for each prompt, but only 5"),
        ({"judge": {"mode": "aspects", "model": "nobody"}}, "no model is called 'nobody'"),
        ({"judge": {"mode": "aspects"}}, "needs a name of `models`"),
        ({"judge": {"mode": "aspects", "model": "judge", "aspects": ["charm"]}}, "charm unknown"),
        ({"reserve": ["ghost"]}, "no model is called 'ghost'"),
        ({"principles": {"kindness": 1}}, "kindness unknown"),
        ({"prompts": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"modles": []}, "did you mean 'models'"),
        ({"until": {"rows": 3, "pass": "good"}}, "expected pair, answers"),
    ],
)
def test_mistakes_in_a_config_are_told(tmp_path, capsys, change, message):
    path = config(tmp_path, "http://127.0.0.1:9/v1", 3, **change)
    assert preferences.main([str(path), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_an_empty_pool_of_prompts_and_a_foreign_directory(serve, tmp_path, capsys):
    path = config(tmp_path, "http://127.0.0.1:9/v1", 0)
    assert preferences.main([str(path), "--out", str(tmp_path / "out")]) == 2
    server = serve()
    path = config(tmp_path, server.url, 3)
    respond.main([str(path), "--out", str(tmp_path / "x"), "--set", "judge=null"])
    assert "unknown key" in capsys.readouterr().err
    assert commands.CONFIGS["judge"] is judge.JudgeRun and pairs.VERSION


def test_the_configs_in_the_docs_and_the_recipes_are_configs(root):
    configs = {"preferences": preferences.PreferencesConfig, **commands.CONFIGS, "pairs": pairs.PairsRun}
    found = re.findall(r"```yaml\n# (\w+)\.yaml\n(.*?)```", (root / "docs/generation.md").read_text(encoding="utf-8"), re.DOTALL)
    assert {name for name, _ in found} == {"preferences", "respond", "judge", "pairs"}
    for name, text in found:
        configs[name].model_validate(yaml.safe_load(text))
    recipes = sorted((root / "recipes/generation").glob("*.yaml"))
    assert len(recipes) == 3
    for path in recipes:
        made = load(preferences.PreferencesConfig, path)
        assert len(made.answering((made.judge.model,))) == 4 and (root / made.prompts.path).is_file()


def test_the_tests_named_in_the_docs_are_there(root):
    """Every defect of the published pipelines is excluded by a test: this holds the table to that."""
    text = (root / "docs/generation.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+?)(?:_?\.\.\.)?)?`", text)
    assert len(named) > 20
    for file, test in named:
        (path,) = root.glob(f"tests/**/{file}")
        assert re.search(rf"def {test}", path.read_text(encoding="utf-8")), f"{file}::{test}"
