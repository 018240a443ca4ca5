"""What all trainers share: strict settings, one run a directory, resuming, errors, the manifest.

    OUT/config.yaml     every setting, also those left at their defaults        OUT/run.json   what this run is, written first
    OUT/metrics.jsonl   one JSON a logging step (step, loss, learning_rate, tokens, seconds, ...)
    OUT/checkpoints/    where a killed run goes on                               OUT/tokens/    the tokenised rows
    OUT/                the model, its tokenizer, README.md and, last of all, manifest.json

A config is flat YAML: our keys (`Settings` and each method's own) beside any key of the TRL config of the method. A key that neither
knows is an error. The same run again does nothing when it is finished, and goes on from its last whole checkpoint when it is not.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from columnar import cli, store
from columnar.config import override, parse, read_yaml
from columnar.errors import CaravanError, ConfigError, StoreError
from columnar.filesystem import place
from training import data, tiny
from training.settings import Settings, accumulation, settings_model
from training.template import load_tokenizer

if TYPE_CHECKING:
    from transformers import TrainerCallback

VERSION = 1


def arguments(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """The command line of a trainer."""
    made = cli.parser(prog, doc)
    made.add_argument("directory", type=place, help="a dataset directory")
    made.add_argument(
        "--model", required=True, help="a model directory, a hub id, or a size to make one of: tiny, mini, small, base, large"
    )
    made.add_argument("--out", type=Path, required=True, help="the run's directory")
    made.add_argument("--config", type=Path, help="a YAML file, for example one of recipes/training/")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting")
    made.add_argument("--report-to", help="also tensorboard or wandb (metrics.jsonl is always written)")
    made.add_argument("--dry-run", action="store_true", help="say steps, tokens and memory, and train nothing")
    return made


@dataclass
class Job:
    """One run: what is trained on what, with which settings, and where it goes."""

    method: str
    dataset: store.Dataset
    model: str
    out: Path
    ours: type[Settings]
    settings: Any  # a model made by `settings_model`: our keys and TRL's
    coder: data.Coder
    notes: list[str]
    dry: bool = False
    started: float = field(default_factory=time.time)

    def trl(self) -> dict[str, Any]:
        """TRL's keys that the config sets."""
        return {k: v for k, v in self.settings.model_dump(exclude_unset=True).items() if k not in self.ours.model_fields}

    @property
    def key(self) -> str:
        """Changes with everything that could change the result."""
        config = self.settings.model_dump(exclude={"about", "report_to"})
        return store.stage_key(self.method, VERSION, config, [self.dataset.content, model_key(self.model)])

    def prepared(self, split: str, purpose: str, **more: Any) -> data.Prepared:
        """The columns of a split, with what was counted said once."""
        found = data.prepare(self.dataset, split, purpose, self.coder, self.out / "tokens", **more)
        if found.counts.rows and main_process():
            cli.say(found.counts.line(split))
        return found

    def model_kwargs(self) -> dict[str, Any]:
        """How the weights are loaded."""
        more = {"attn_implementation": self.settings.attention} if self.settings.attention else {}
        return {"dtype": self.settings.dtype, **more}

    def peft(self, task: str = "CAUSAL_LM") -> Any:
        """The LoRA config, or None."""
        if self.settings.lora is None:
            return None
        from peft import LoraConfig

        lora = self.settings.lora
        return LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets, task_type=task)

    def trainer_arguments(self, theirs: type, evaluates: bool, defaults: dict[str, Any] | None = None, **forced: Any) -> Any:
        """TRL's config object: our defaults, then the method's, then what the user set, then what must be so."""
        import torch

        gpu = torch.cuda.is_available()
        ours = {
            "output_dir": str(self.out / "checkpoints"),
            "logging_steps": 1,
            "logging_nan_inf_filter": False,  # a NaN must be seen
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": not gpu,
            "bf16": gpu and torch.cuda.is_bf16_supported(),
            "gradient_checkpointing": gpu,
            "dataloader_pin_memory": gpu,
            "save_strategy": "steps",
            "save_steps": 500,
            "save_total_limit": 2,
            "eval_strategy": "epoch" if evaluates else "no",
            "eval_on_start": evaluates and self.checkpoint() is None,
            "model_init_kwargs": self.model_kwargs(),
        }
        known = {f.name for f in fields(theirs)}
        wanted = {k: v for k, v in {**ours, **(defaults or {})}.items() if k in known} | self.trl() | forced
        if not evaluates:
            wanted["eval_strategy"] = "no"
        if self.settings.warmup_ratio is not None:
            wanted["warmup_steps"] = self.settings.warmup_ratio  # below one it is read as a share
        if self.settings.batch:
            wanted |= accumulation(self.settings.batch, int(os.environ.get("WORLD_SIZE", "1")), wanted.get("per_device_train_batch_size"))
        if not gpu and max_parameters(self.model) < 20_000_000:
            torch.set_num_threads(1)  # small steps wait for their threads longer than they compute
        try:
            return theirs(**wanted)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self.method}: {error}") from error

    def checkpoint(self) -> Path | None:
        """The last checkpoint that is whole."""
        whole = [p for p in (self.out / "checkpoints").glob("checkpoint-*") if _is_whole(p)]
        return max(whole, key=lambda p: int(p.name.rpartition("-")[2]), default=None)

    def callbacks(self, steps: int | None = None) -> list[TrainerCallback]:
        """What watches a run: metrics, NaN, progress."""
        from training.watch import Watch

        return [Watch(self.out, steps)]

    def begin(self) -> bool:
        """Claim OUT for this run. False when the run is finished already.

        Raises:
            StoreError: OUT holds another run.
        """
        known = self.out / "run.json"
        other = known.is_file() and json.loads(known.read_text(encoding="utf-8")).get("key") != self.key
        if other and ((self.out / "manifest.json").is_file() or self.checkpoint()):
            raise StoreError(
                f"{self.out}: holds a run with other data, another model or other settings", "choose another --out, or delete it"
            )
        if (self.out / "manifest.json").is_file():
            cli.say(f"{self.out}: finished already, nothing to do")
            return False
        if main_process():
            for path in (self.out / "checkpoints").glob("checkpoint-*"):
                if not _is_whole(path):
                    shutil.rmtree(path)
            dumped = self.settings.model_dump(exclude_none=True)
            with store.whole_file(self.out / "config.yaml") as temporary:
                temporary.write_text(yaml.safe_dump(dumped, sort_keys=False, allow_unicode=True), encoding="utf-8")
            store.write_json(known, {"key": self.key, "method": self.method, "model": self.model, "data": str(self.dataset.path)})
        for note in self.notes if main_process() else ():
            cli.say(note)
        return True

    def train(self, trainer: Any) -> dict[str, Any]:
        """Train, from the last checkpoint if there is one, and save the model; returns the last value of every metric."""
        from transformers import PrinterCallback

        checkpoint = self.checkpoint()
        if checkpoint and main_process():
            cli.say(f"going on from {checkpoint.name}")
        trainer.remove_callback(PrinterCallback)
        align(trainer.model, self.coder.tokenizer)
        with failures(self):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            save(trainer, self)
        skip = ("step", "epoch", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
        last: dict[str, Any] = {}
        for line in trainer.state.log_history:
            last |= {k: v for k, v in line.items() if k not in skip and not k.endswith(("_runtime", "_per_second"))}
        return last

    def finish(self, reduction: str, counts: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
        """Model card and, last, the manifest."""
        from training.card import write_card

        identity = {
            "method": self.method,
            "key": self.key,
            "config": self.settings.model_dump(exclude_unset=True),
            "loss_reduction": reduction,
            "data": {"name": self.dataset.manifest["identity"].get("name"), "rows_sha256": self.dataset.content, "rows": self.dataset.rows},
            "model": {"name": self.model, "key": model_key(self.model)},
            "counts": counts,
            "metrics": metrics,
        }
        if main_process():
            write_card(self, identity)
            write_manifest(self.out, identity, self.started)
        return identity


def open_job(args: argparse.Namespace, method: str, ours: type[Settings], theirs: type) -> Job:
    """Read and check everything that can be wrong before anything heavy starts."""
    quiet()
    values = read_yaml(args.config) if args.config else {}
    values = override(values, args.settings)
    if args.report_to:
        values["report_to"] = args.report_to
        if args.report_to != "none" and importlib.util.find_spec(args.report_to) is None:
            raise ConfigError(
                f"--report-to {args.report_to}: not installed", f"pip install {args.report_to}; metrics.jsonl is always written"
            )
    settings = parse(settings_model(ours, theirs), values, str(args.config or "--set"))
    dataset = store.open_dataset(args.directory)
    model = args.model
    if model in tiny.SIZES:
        tiny.make(args.directory, args.out / "start", model, int(values.get("seed") or 0))
        model = str(args.out / "start")
    tokenizer = load_tokenizer(model)
    default = {f.name: f.default for f in fields(theirs)}.get("max_length", 1024)
    view = data.View(
        template=settings.template,
        loss_on=settings.loss_on,
        overlong=settings.overlong,
        control_tokens=settings.control_tokens,
        max_length=values.get("max_length", values.get("max_prompt_length", default)),
    )
    coder, notes = data.Coder.of(tokenizer, view)
    return Job(method, dataset, model, args.out, ours, settings, coder, notes, args.dry_run)


def quiet() -> None:
    """Only our own lines on the terminal."""
    import datasets
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    os.environ.setdefault("TQDM_DISABLE", "1")
    # the new name, activation_checkpointing, is not known to the oldest transformers that works
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing. is deprecated")


def main_process() -> bool:
    """Is this the process that speaks and writes?"""
    return os.environ.get("RANK", "0") == "0"


def model_key(model: str) -> str:
    """What a model is: the key of the run that made it, else a hash of its small files and of its weights' sizes, heads and tails."""
    path = Path(model)
    if not path.is_dir():
        return model
    if (path / "manifest.json").is_file():
        return str(json.loads((path / "manifest.json").read_text(encoding="utf-8"))["identity"]["key"])
    parts: list[Any] = []
    for file in sorted(path.iterdir()):
        if file.suffix in {".safetensors", ".bin"}:
            with file.open("rb") as weights:
                head = weights.read(1 << 16)
                weights.seek(max(0, file.stat().st_size - (1 << 16)))
                parts.append([file.name, file.stat().st_size, head.hex(), weights.read().hex()])
        elif file.name in {"config.json", "tokenizer.json", "adapter_config.json"}:
            parts.append([file.name, store.file_sha256(file)])
    return store.stage_key("model", 1, None, parts)


def max_parameters(model: str) -> int:
    """A quick guess at a model's size from its files; 0 for a hub id."""
    path = Path(model)
    sizes = [f.stat().st_size for f in path.glob("*.safetensors")] if path.is_dir() else [1 << 40]
    return sum(sizes) // 2


def align(model: Any, tokenizer: Any) -> None:
    """The model ends and pads with the tokens of its tokenizer: a base model that learns ChatML must stop at ChatML's end."""
    for config in (model.config, getattr(model, "generation_config", None)):
        if config is not None:
            config.pad_token_id = tokenizer.pad_token_id
            known = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
            if tokenizer.eos_token_id not in known:
                config.eos_token_id = tokenizer.eos_token_id


def save(trainer: Any, job: Job) -> None:
    """The final model and its tokenizer in OUT; a LoRA run's as an ordinary model unless told otherwise."""
    lora = job.settings.lora
    if lora is not None and lora.merge and not trainer.is_fsdp_enabled and not trainer.is_deepspeed_enabled:
        if main_process():
            trainer.accelerator.unwrap_model(trainer.model).merge_and_unload().save_pretrained(job.out)
            job.coder.tokenizer.save_pretrained(job.out)
    else:
        trainer.save_model(str(job.out))


@contextlib.contextmanager
def failures(job: Job) -> Iterator[None]:
    """Failures of the machine as sentences: a full disk, a full GPU."""
    try:
        yield
    except CaravanError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, ValueError | NotImplementedError) and "/trl/" in _innermost(error):
            raise ConfigError(f"{job.method}: {error}", "TRL refuses these settings; --traceback shows where") from error
        kept = job.checkpoint()
        after = (
            f"the run goes on from {kept.name} when the same command is given"
            if kept
            else "the run begins anew when the same command is given"
        )
        if any(sign in text for sign in ("No space left", "os error 28", "Errno 28", "File too large", "os error 27", "file write failed")):
            free = shutil.disk_usage(job.out).free >> 20
            raise CaravanError(
                f"{job.out}: no room to write a checkpoint or the model ({free:,} MB free)", f"free some disk; {after}"
            ) from error
        if type(error).__name__ == "OutOfMemoryError" or "out of memory" in text:
            raise CaravanError(
                f"{job.method}: the GPU's memory is full",
                "lower per_device_train_batch_size (batch stays) or max_length, or use gradient_checkpointing=true, lora or FSDP",
            ) from error
        raise


def _innermost(error: BaseException) -> str:
    """The file in which an error was raised."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].filename if frames else ""


def _is_whole(checkpoint: Path) -> bool:
    """Was it written to the end? The trainer's state comes last."""
    try:
        return bool(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def write_manifest(out: Path, identity: dict[str, Any], started: float) -> None:
    """manifest.json: what the run is, apart from where and how long it ran."""
    import platform
    from importlib.metadata import version

    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    store.write_json(
        out / "manifest.json",
        {
            "identity": identity,
            "circumstance": {
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": round(time.time() - started, 2),
                "peak_rss_mb": store.peak_rss_mb(),
                "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
                "gpus": gpus,
                "versions": {
                    "python": platform.python_version(),
                    **{name: version(name) for name in ("torch", "transformers", "trl", "peft")},
                },
            },
        },
    )
