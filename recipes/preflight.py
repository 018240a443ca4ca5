"""What can be known to fail before a recipe begins: every problem at once, before any work or money.

    problems(config, base, steps_left, ...)      # ["model judge: the environment variable JUDGE_KEY is not set", ...]

Names and files are looked at always; keys, servers and commands (`live`) only when there is something to do with them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from columnar.errors import CaravanError
from generation.models import ModelConfig
from training.tasks import find_task
from training.tiny import SIZES

FIELDS = {"python": "", "model": "", "port": 0, "name": ""}
PATIENCE = 10.0  # seconds for a server's list of models


def of_names(asked: dict[str, set[str]], known: Iterable[str]) -> list[str]:
    """Models that are asked (by the steps named) and that the config does not have."""
    out = []
    for name in sorted(set(asked) - set(known)):
        close = get_close_matches(name, list(known), 1)
        hint = f"did you mean {close[0]!r}?" if close else f"models: {', '.join(known) or 'none'}"
        out.append(f"no model is called {name!r} (asked by {', '.join(sorted(asked[name]))}); {hint}")
    return out


def of_files(entries: Iterable[str]) -> list[str]:
    """Local paths that are not there; hf:// and other URLs are looked at when they are read."""
    return [f"{entry}: no such file or directory" for entry in dict.fromkeys(entries) if "://" not in entry and not _there(entry)]


def _there(entry: str) -> bool:
    path = Path(entry)
    return path.exists() or any(sign in path.name and any(path.parent.glob(path.name)) for sign in "*?[")


def of_base(base: str) -> list[str]:
    """The model that training starts from, where it is a path: a hub id is looked at when it is fetched."""
    local = base.startswith((".", "/", "~")) or base.count("/") > 1
    if base in SIZES or not local or Path(base).expanduser().exists():
        return []
    return [f"base: {base}: no such directory; expected a model directory, a hub id, or a size: {', '.join(SIZES)}"]


def of_tasks(names: Iterable[str]) -> list[str]:
    """Evaluations that do not exist."""
    out = []
    for name in names:
        try:
            find_task(name)
        except CaravanError as error:
            out.append(f"tasks: {error}")
    return out


def of_command(command: str | None, live: bool) -> list[str]:
    """The command that serves a checkpoint: its fields, and that there is such a program."""
    if command is None:
        return []
    try:
        argv = [part.format(**FIELDS) for part in shlex.split(command)]
    except (KeyError, ValueError, IndexError) as error:
        return [f"policy_server: {command!r}: {error}; known fields: " + " ".join(f"{{{f}}}" for f in FIELDS)]
    if not argv or "{model}" not in command or "{port}" not in command:
        return [f"policy_server: {command!r}: expected a command with {{model}} and {{port}}"]
    if live and argv[0] and shutil.which(argv[0]) is None:
        return [f"policy_server: {argv[0]}: no such command on this machine"]
    return []


def of_model(model: ModelConfig) -> list[str]:
    """A model's key, and that its servers answer, take the key and know the model."""
    if model.backend == "vllm":
        return [] if find_spec("vllm") else [f"model {model.name}: backend vllm, but vllm is not installed"]
    if "api_key_env" in model.model_fields_set and not os.environ.get(model.api_key_env):
        return [f"model {model.name}: the environment variable {model.api_key_env} is not set"]
    try:
        key = model.api_key()
    except CaravanError as error:
        return [str(error)]
    return [problem for url in model.urls if (problem := _of_server(model, url, key))]


def _of_server(model: ModelConfig, url: str, key: str) -> str:
    request = urllib.request.Request(f"{url.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            listed = json.loads(reply.read())["data"]
            names = [str(entry["id"]) for entry in listed]
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403)
        return f"model {model.name}: {url} refuses the key in {model.api_key_env} ({error.code})" if refused else ""
    except OSError as error:  # no route, refused, timed out
        return f"model {model.name}: {url} does not answer ({getattr(error, 'reason', error)}); start the server, or correct base_url"
    except (ValueError, KeyError, TypeError):
        return ""  # a server without a list of models: what it knows shows when it is asked
    if names and model.served not in names:
        return f"model {model.name}: {url} does not serve {model.served!r}; it serves {', '.join(names[:8])}"
    return ""
