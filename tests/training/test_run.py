"""Runs: strict settings, one run a directory, resuming after a kill, and failures that say what to do."""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from columnar import cli
from columnar.config import parse, read_yaml
from columnar.errors import ConfigError
from columnar.store import Dataset
from training import metrics, sft
from training.run import arguments
from training.settings import accumulation, settings_model

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["num_train_epochs=1", "learning_rate=3e-3", "batch=8", "max_length=64", "save_steps=2"]


def command(source: Dataset, model: Path | str, out: Path, *settings: str) -> list[str]:
    told = [part for s in (*QUICK, *settings) for part in ("--set", s)]
    return [str(source.path), "--model", str(model), "--out", str(out), *told]


def train(source: Dataset, model: Path | str, out: Path, *settings: str, more: tuple[str, ...] = ()) -> int:
    return cli.run(sft.main, arguments("training.sft", sft.__doc__), [*command(source, model, out, *settings), *more])


def curve(out: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in metrics.read(out / "metrics.jsonl") if "loss" in line]


@pytest.fixture(scope="module")
def undisturbed(colours: Dataset, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert train(colours, model, out, "num_train_epochs=4") == 0
    return out


def test_a_run_learns_and_says_what_it_was(undisturbed: Path, colours: Dataset) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lines = metrics.read(undisturbed / "metrics.jsonl")
    held_out = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert held_out[-1] < held_out[0] - 1
    assert curve(undisturbed)[0][0] == 1 and curve(undisturbed)[-1][0] == 20
    steps = [line for line in lines if "loss" in line]
    assert {"step", "loss", "learning_rate", "tokens", "seconds", "grad_norm"} <= set(steps[0])
    assert [line["tokens"] for line in steps] == sorted(line["tokens"] for line in steps)
    manifest = json.loads((undisturbed / "manifest.json").read_text())
    assert manifest["identity"]["counts"]["train"]["kept"] == 40
    assert manifest["identity"]["metrics"]["eval_loss"] == held_out[-1]
    card = (undisturbed / "README.md").read_text()
    assert colours.content in card and "mean over the learnt tokens" in card
    AutoModelForCausalLM.from_pretrained(undisturbed)
    assert AutoTokenizer.from_pretrained(undisturbed).chat_template


def test_the_same_run_again_does_nothing_and_another_is_refused(
    undisturbed: Path, colours: Dataset, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (undisturbed / "manifest.json").read_bytes()
    assert train(colours, model, undisturbed, "num_train_epochs=4") == 0
    assert "finished already" in capsys.readouterr().err
    assert (undisturbed / "manifest.json").read_bytes() == before
    assert train(colours, model, undisturbed, "num_train_epochs=5") == 1
    assert "other settings" in capsys.readouterr().err


def test_a_killed_run_goes_on_with_the_same_losses(undisturbed: Path, colours: Dataset, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    script = """
import time
from training import sft, watch
from training.run import arguments

log = watch.Watch.on_log

def until_killed(self, args, state, *more, **logs):
    log(self, args, state, *more, **logs)
    if state.global_step >= 14:
        time.sleep(3600)

watch.Watch.on_log = until_killed
"""
    script += f"sft.main(arguments('x', '').parse_args({command(colours, model, out, 'num_train_epochs=4')!r}))"
    running = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while len(curve(out)) < 9 and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert 9 <= len(curve(out)) < 20
    half = out / "checkpoints" / "checkpoint-18"  # a checkpoint that the kill cut off
    half.mkdir(exist_ok=True)
    (half / "trainer_state.json").write_text('{"global_step": 1')
    assert train(colours, model, out, "num_train_epochs=4") == 0
    assert curve(out) == curve(undisturbed)
    first, second = (json.loads((o / "manifest.json").read_text())["identity"] for o in (out, undisturbed))
    assert first["metrics"]["eval_loss"] == second["metrics"]["eval_loss"]
    tokens = [[line["tokens"] for line in metrics.read(o / "metrics.jsonl") if "loss" in line] for o in (out, undisturbed)]
    assert tokens[0] == tokens[1]


def test_a_dry_run_knows_the_steps_and_trains_nothing(undisturbed: Path, colours: Dataset, model: Path, tmp_path: Path) -> None:
    from trl import SFTConfig

    from training.run import open_job

    args = arguments("x", "").parse_args([*command(colours, model, tmp_path / "dry", "num_train_epochs=4"), "--dry-run"])
    told = sft.train(open_job(args, "sft", sft.SftSettings, SFTConfig))
    last = [line for line in metrics.read(undisturbed / "metrics.jsonl") if "loss" in line][-1]
    assert (told["steps"], told["batch"]) == (last["step"], 8)
    assert told["tokens"] <= last["tokens"] <= 1.3 * told["tokens"]  # TRL counts padding too
    assert told["gigabytes_a_device"]["total"] > 0
    assert not (tmp_path / "dry" / "run.json").exists() and not (tmp_path / "dry" / "manifest.json").exists()


def test_the_reduction_stands_beside_the_rate(colours: Dataset, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    norms, untrained = {}, {}
    for kind in ("mean", "sum"):
        assert train(colours, model, tmp_path / kind, f"loss_reduction={kind}", "max_steps=1", "per_device_train_batch_size=4") == 0
        lines = metrics.read(tmp_path / kind / "metrics.jsonl")
        untrained[kind], norms[kind] = lines[0]["eval_loss"], lines[1]
        assert re.search(rf"learning rate 0.003, loss: {kind}", capsys.readouterr().err, re.IGNORECASE)
    # two micro-batches: the sum over all learnt tokens of the step, halved
    tokens = 2 * norms["sum"]["grad_norm"] / norms["mean"]["grad_norm"]
    assert tokens == pytest.approx(round(tokens), rel=1e-3) and 8 * 5 < tokens < 8 * 15
    assert untrained["mean"] == untrained["sum"]  # evaluation stays a mean


def test_packing_keeps_every_token(colours: Dataset, model: Path, tmp_path: Path) -> None:
    assert train(colours, model, tmp_path / "packed", "packing=true", "batch=2", "max_length=128") == 0
    manifest = json.loads((tmp_path / "packed" / "manifest.json").read_text())["identity"]
    last = [line for line in metrics.read(tmp_path / "packed" / "metrics.jsonl") if "loss" in line][-1]
    assert last["tokens"] == manifest["counts"]["train"]["tokens"]


def test_lora_ends_as_an_ordinary_model(colours: Dataset, model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    assert train(colours, model, tmp_path / "lora", "lora={r: 4}", "bf16=true", "max_steps=3", "save_steps=1") == 0
    assert not (tmp_path / "lora" / "adapter_config.json").exists()
    before, after = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (model, tmp_path / "lora"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("_proj" in name for name in changed)


def test_a_loss_that_is_no_number_ends_the_run(colours: Dataset, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "nan"
    assert train(colours, model, out, "learning_rate=1e30", "max_grad_norm=0", "lr_scheduler_type=constant") == 1
    assert re.search(r"step \d: the loss is .*(nan|inf)", capsys.readouterr().err)
    assert not (out / "manifest.json").exists() and not (out / "model.safetensors").exists()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 300 kB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_at_a_checkpoint_is_told(colours: Dataset, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(colours, model, tmp_path / "full") == 1
    told = capsys.readouterr().err
    assert "no room to write" in told and "free some disk" in told
    assert not (tmp_path / "full" / "manifest.json").exists()


def test_every_mistake_in_a_config_is_told_at_once(
    colours: Dataset, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(colours, model, tmp_path / "x", "learning_rat=1", "loss_on=first", "logging_steps=often") == 2
    told = capsys.readouterr().err
    assert "learning_rat: unknown key; did you mean 'learning_rate'?" in told
    assert "loss_on" in told and "logging_steps" in told
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "settings", [("template=nothing",), ("batch=9", "per_device_train_batch_size=2"), ("packing=true", "max_length=null")]
)
def test_settings_that_cannot_work(
    colours: Dataset, model: Path, tmp_path: Path, settings: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(colours, model, tmp_path / "x", *settings) == 2
    assert capsys.readouterr().err.count("error:") == 1


def test_a_logger_that_is_not_there_is_told(colours: Dataset, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(colours, model, tmp_path / "x", more=("--report-to", "no_such_logger")) == 2
    assert "pip install no_such_logger" in capsys.readouterr().err


def test_a_batch_is_shared_by_devices() -> None:
    assert accumulation(128, 8, 1) == {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}
    assert accumulation(12, 2, None) == {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 1}
    with pytest.raises(ConfigError, match="cannot be shared by 3"):
        accumulation(128, 3, None)


RECIPES = sorted((ROOT / "recipes" / "training").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_published_settings_are_understood_and_name_their_source(path: Path) -> None:
    import trl

    text = path.read_text(encoding="utf-8")
    method = re.search(r"-m training\.(\w+)", text)
    assert method and str(path.relative_to(ROOT)) in text
    room: Any = importlib.import_module(f"training.{method[1]}")
    ours = getattr(room, f"{method[1].capitalize()}Settings")
    theirs = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig, "reward": trl.RewardConfig, "rlvr": trl.GRPOConfig}
    model = settings_model(ours, theirs[method[1]]) if method[1] in theirs else ours
    config = parse(model, read_yaml(path), str(path))
    assert re.search(r"arXiv \d{4}\.\d{5}|open-instruct", config.about or "")
    assert isinstance(config.learning_rate, float)


def test_every_promised_recipe_is_there() -> None:
    names = {p.stem for p in RECIPES}
    assert {f"tulu3_{size}_{method}" for size in ("8b", "70b") for method in ("sft", "dpo", "rm", "rlvr")} <= names
    for family in ("zephyr", "llama2_chat", "self_rewarding", "tulu1"):
        assert any(name.startswith(family) for name in names)


def test_two_processes_train_one_run(colours: Dataset, model: Path, tmp_path: Path) -> None:
    config = ROOT / "recipes/training/accelerate/cpu.yaml"
    free = ["--main_process_port", "0"]  # any free one
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), *free, "-m", "training.sft"]
    done = subprocess.run(
        [*launch, *command(colours, model, tmp_path / "two", "max_steps=2")], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [step for step, _ in curve(tmp_path / "two")] == [1, 2]
    assert done.stderr.count("learning rate") == 1
    assert (tmp_path / "two" / "manifest.json").exists()
