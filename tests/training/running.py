"""Runs a trainer's command in this process, and reads what it logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.run import arguments


def command(module: Any, directory: Path, model: Path | str, out: Path, **settings: Any) -> Path:
    told = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    code = module.main(arguments("x", None).parse_args([str(directory), "--model", str(model), "--out", str(out), *told]))
    assert code == 0
    return out


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
