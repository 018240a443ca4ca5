"""The examples in the hands of others: `datasets` loads them as they are and TRL trains on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("mix", "trainer"), [("tiny", "SFT"), ("tiny_pairs", "DPO")])
def test_datasets_loads_it_and_trl_trains_on_it(tmp_path: Path, mix: str, trainer: str) -> None:
    """The examples as they are: with tool calls, reasoning, several turns, system prompts and a validation split."""
    pytest.importorskip("trl", reason="the train extra is not installed")
    made = [sys.executable, "-m", "curation.build_mix", str(ROOT / f"recipes/mixes/{mix}.yaml"), "--out", str(tmp_path / "out")]
    subprocess.run(made, cwd=ROOT, capture_output=True, check=True)
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "out"), trainer]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **QUIET, "HF_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "train validation 2"


QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
TRAIN = """
import sys, datasets, trl
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
datasets.disable_progress_bars()
data = datasets.load_dataset(sys.argv[1])
tok = Tokenizer(models.BPE())
tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tok.train_from_iterator([], trainers.BpeTrainer(special_tokens=["<pad>", "<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
tok = PreTrainedTokenizerFast(tokenizer_object=tok, pad_token="<pad>", eos_token="<end>")
tok.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<end>' }}{% endfor %}"
model = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, vocab_size=len(tok)))
model.save_pretrained("model")  # the reference model of DPO is loaded by name
model = LlamaForCausalLM.from_pretrained("model")
make, settings = getattr(trl, sys.argv[2] + "Trainer"), getattr(trl, sys.argv[2] + "Config")
args = settings(output_dir="trained", max_steps=2, per_device_train_batch_size=2, bf16=False, gradient_checkpointing=False, use_cpu=True,
                report_to="none", save_strategy="no", disable_tqdm=True, max_length=128)
trainer = make(model, args=args, train_dataset=data["train"], eval_dataset=data["validation"], processing_class=tok)
steps = trainer.train().global_step
print(*data, steps)
"""
