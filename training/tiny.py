"""A model out of nothing: a tokenizer trained on the dataset and a random Llama of a chosen size, so that everything runs with no hub.

    python -m training.tiny out/tiny --out out/model --size tiny --seed 1

Every trainer makes one by itself when it is told `--model tiny` (or any other size). Such a model knows nothing; it is for trying
things out, for tests, and for benchmarks of speed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from columnar import store
from columnar.cli import emit, parser, run, say
from columnar.errors import ConfigError, StoreError
from training.template import TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, START, END, TEXT_END = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"


class Size(NamedTuple):
    """A Llama's shape. Heads are at least 32 wide, which vLLM's CPU attention needs."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int


SIZES = {
    "tiny": Size(64, 128, 2, 2, 1, 1024, 1024),  # 0.1 M parameters: seconds on a CPU
    "mini": Size(128, 384, 4, 4, 4, 2048, 2048),  # 1 M: what learns arithmetic in minutes
    "small": Size(384, 1024, 8, 6, 6, 8192, 2048),  # 16 M
    "base": Size(768, 2048, 12, 12, 12, 32000, 4096),  # 110 M: for a GPU
    "large": Size(2048, 5632, 22, 32, 4, 32000, 4096),  # 1.1 B
}


def texts(dataset: store.Dataset) -> Iterator[str]:
    """Every text of every turn."""
    from columnar.turns import turns

    for batch in store.read_batches(dataset, ["messages", "prompt", "chosen", "rejected", "candidates"]):
        yield from turns(batch)["text"].to_list()


def make_tokenizer(lines: Iterator[str], vocabulary: int, template: str = "chatml", context: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on these texts; digits stay single, so that sums can be learnt."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trained.decoder = decoders.ByteLevel()
    special = [PAD, START, END, TEXT_END]
    learner = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(lines, learner)
    made = PreTrainedTokenizerFast(
        tokenizer_object=trained,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = TEMPLATES[template]
    return made


def make_model(tokenizer: PreTrainedTokenizerFast, size: Size, seed: int = 0, dropout: float = 0.0) -> Any:
    """A random Llama for this tokenizer; the same seed gives the same weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        vocab_size=len(tokenizer),
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
        attention_dropout=dropout,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def make(directory: Path, out: Path, size: str = "tiny", seed: int = 0, template: str = "chatml") -> dict[str, Any]:
    """Write a tokenizer and a model for this dataset; does nothing when they are already there. Returns the manifest's identity.

    Raises:
        ConfigError: an unknown size or template.
        StoreError: another model is there.
    """
    if size not in SIZES:
        raise ConfigError(f"unknown size {size!r}", "sizes: " + ", ".join(SIZES))
    if template not in TEMPLATES:
        raise ConfigError(f"unknown template {template!r}", "templates: " + ", ".join(TEMPLATES))
    dataset = store.open_dataset(directory)
    key = store.stage_key("tiny", 1, {"size": size, "seed": seed, "template": template}, dataset.content)
    identity = {"method": "tiny", "key": key, "size": size, "seed": seed, "template": template, "data": dataset.content}
    manifest = out / "manifest.json"
    if manifest.is_file():
        if key in manifest.read_text(encoding="utf-8"):
            return identity
        raise StoreError(f"{out}: holds another model", "choose another --out, or delete it")
    tokenizer = make_tokenizer(texts(dataset), SIZES[size].vocabulary, template, SIZES[size].context)
    model = make_model(tokenizer, SIZES[size], seed)
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    identity["parameters"] = model.num_parameters()
    store.write_json(manifest, {"identity": identity})
    return identity


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    identity = make(args.directory, args.out, args.size, args.seed, args.template)
    emit(identity) if args.json else say(f"{args.out}: a random Llama of size {args.size} with a tokenizer trained on {args.directory}")
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = parser("training.tiny", __doc__)
    made.add_argument("directory", type=Path, help="a dataset directory: its text trains the tokenizer")
    made.add_argument("--out", type=Path, required=True, help="where the model goes")
    made.add_argument("--size", default="tiny", help="tiny, mini, small, base or large (0.1 M to 1.1 B parameters)")
    made.add_argument("--seed", type=int, default=0, help="of the weights")
    made.add_argument("--template", default="chatml", help="chatml or tulu")
    return made


if __name__ == "__main__":
    sys.exit(run(main, arguments()))
