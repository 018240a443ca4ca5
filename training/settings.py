"""The config of a trainer: our keys beside those of the TRL config of the method, checked strictly."""

from __future__ import annotations

import typing
from dataclasses import fields
from typing import Any, Literal

from pydantic import ConfigDict, create_model

from columnar.config import Config
from columnar.errors import ConfigError

# what a run decides itself: these keys of TRL's are not for the config
OURS = {
    "output_dir", "model_init_kwargs", "chat_template_path", "dataset_text_field", "dataset_kwargs", "eos_token", "pad_token", "use_cpu",
    "completion_only_loss", "assistant_only_loss", "truncation_mode", "resume_from_checkpoint", "push_to_hub", "logging_nan_inf_filter",
    "teacher_model_name_or_path", "disable_tqdm", "do_train", "do_eval", "do_predict", "remove_unused_columns", "run_name",
}  # fmt: skip


class Lora(Config):
    """Train a low-rank addition (arXiv 2106.09685) instead of every weight."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"
    merge: bool = True  # add it to the weights at the end, so that the result is an ordinary model


class Settings(Config):
    """Our keys, the same for every method."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=())

    about: str | None = None  # where the values come from
    template: str = "auto"
    loss_on: Literal["all", "last"] = "all"
    overlong: Literal["cut", "drop"] = "cut"
    control_tokens: Literal["drop", "keep"] = "drop"
    batch: int | None = None  # sequences (pairs, prompts) a step, over all devices: the steps to accumulate follow from it
    warmup_ratio: float | None = None  # share of the steps; TRL's warmup_steps takes a number
    lora: Lora | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights; bf16 (TRL's) is that of the arithmetic
    attention: str | None = None  # sdpa, flash_attention_2, ...


def settings_model(ours: type[Settings], theirs: type) -> type[Settings]:
    """One strict model of our keys and TRL's (whose defaults stay TRL's: `None` here means left alone)."""
    hints = typing.get_type_hints(theirs)
    taken = OURS | set(ours.model_fields)
    # int before float: YAML's 5e-6 is a string, which float accepts and which no trainer would
    extra = {
        f.name: (_plain(hints[f.name]) | None, None) for f in fields(theirs) if f.init and f.name not in taken and f.name[:4] != "hub_"
    }
    return create_model(ours.__name__, __base__=ours, **extra)  # type: ignore[call-overload]


def _plain(hint: Any) -> Any:
    """The type of a TRL key as a YAML value: enumerations and objects of theirs may be written as text."""
    simple = {int, float, bool, str, dict, list, type(None)}
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, type(int | str)) else (hint,)
    if all((typing.get_origin(part) or part) in simple for part in parts):
        return hint
    return typing.Any if any((typing.get_origin(p) or p) in {dict, list} for p in parts) else str | float | bool


def accumulation(batch: int, world: int, per_device: int | None) -> dict[str, int]:
    """TRL's two keys for a batch of so many sequences over all devices.

    Raises:
        ConfigError: the batch cannot be divided so.
    """
    if batch % world:
        raise ConfigError(f"batch {batch}: cannot be shared by {world} processes", "choose a multiple")
    share = batch // world
    size = per_device or max(n for n in range(1, 9) if share % n == 0)
    if share % size:
        raise ConfigError(f"batch {batch}: not a multiple of {world} processes x per_device_train_batch_size {size}")
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": share // size}
