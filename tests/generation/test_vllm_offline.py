"""vLLM without a server: inside our process (`backend: vllm`), and on batch files (`run_batch`). Each starts an engine of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from vllm_server import ENVIRONMENT

from columnar import store
from generation import batch, preferences

ENGINE = {"dtype": "float32", "enforce_eager": True, "max_model_len": 8192}


def run(vllm: dict[str, str], root: Path, *command: str) -> None:
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(root)}
    try:
        done = subprocess.run([vllm["python"], *command], env=environment, cwd=root, capture_output=True, text=True, timeout=400)
    except subprocess.TimeoutExpired:
        pytest.skip("an engine of its own takes more than 400 s to start on this machine")
    assert done.returncode == 0, done.stderr[-3000:]


def write_config(folder: Path, models: list[dict], **more: object) -> Path:
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Question {i}"}) + "\n" for i in range(4)))
    config = {
        "prompts": str(folder / "prompts.jsonl"),
        "models": models,
        "per_prompt": 1,
        "samples": 4,
        "params": {"temperature": 1.0, "max_tokens": 24},
        "judge": {"mode": "additive", "model": "judge", "params": {"temperature": 1.0, "max_tokens": 2000}, "max_unparsable": 1},
        "pairs": {"rule": "best_vs_worst", "chosen_may_be": ["truncated"], "rejected_may_be": ["truncated"]},
        **more,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def test_one_process_answers_judges_and_pairs_with_one_engine(vllm, root, tmp_path) -> None:
    models = [{"name": n, "model": vllm["model"], "backend": "vllm", "engine": ENGINE} for n in ("policy", "judge")]
    path, out = write_config(tmp_path, models), tmp_path / "out"
    behind = sysconfig.get_paths()["purelib"]  # what Caravan needs and vLLM's environment lacks
    code = "import sys; sys.path.append(sys.argv.pop(1)); from generation.preferences import main; sys.exit(main(sys.argv[1:]))"
    run(vllm, root, "-c", code, behind, str(path), "--out", str(out))
    judgements = pq.read_table(out / "candidates" / "hits" / "judgements.parquet").to_pylist()
    assert len(judgements) == 16 and sum(j["outcome"] == "ok" for j in judgements) > 8
    assert store.open_dataset(out).rows > 0
    (row, *_) = [r for b in store.read_batches(store.open_dataset(out / "candidates")) for r in b.to_pylist()]
    assert len({c["content"] for c in row["candidates"]}) == 4 and {c["finish_reason"] for c in row["candidates"]} <= {"length", "stop"}


def test_batch_files_are_what_run_batch_reads_and_writes(vllm, root, tmp_path) -> None:
    models = [{"name": n, "model": vllm["model"], "base_url": "http://localhost:9/v1"} for n in ("policy", "judge")]
    path, out, folder = write_config(tmp_path, models), tmp_path / "out", tmp_path / "batch"
    assert preferences.main([str(path), "--out", str(out), "--batch", str(folder)]) == 0
    (file,) = folder.glob("*.jsonl")
    assert len(file.read_text().splitlines()) == 16
    flags = ["--model", vllm["model"], "--dtype", "float32", "--enforce-eager", "--max-model-len", "8192"]
    answers = file.with_suffix(".out.jsonl")
    run(vllm, root, "-m", "vllm.entrypoints.openai.run_batch", "-i", str(file), "-o", str(answers), *flags)
    assert batch.main(["collect", str(folder), "--cache", str(out / "replies.sqlite")]) == 0
    answers.unlink()
    assert preferences.main([str(path), "--out", str(out), "--batch", str(folder)]) == 0  # answered, and the judge's questions written
    counts = store.open_dataset(out / "candidates").manifest["identity"]["counts"]
    assert counts["answers"] == 16 and counts["lost"] == {"judge: pending": 16}
