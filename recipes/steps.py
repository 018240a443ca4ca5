"""How a recipe runs: a list of steps in the order of the paper's method section, each done once, each in a directory of its own.

    steps = [Step("sft_mix", "the twelve datasets in one format", build), Step("sft", "...", train, after=("sft_mix",)), ...]
    figures = perform(steps, out, args)

    OUT/NAME/...            what step NAME made (a dataset, a model, evaluations)
    OUT/steps/NAME.json     its key, its figures, its seconds; written when it is done
    OUT/report.md           written by the recipe from the figures

A step's key hashes its settings and the keys of the steps that it comes after: the same key is not done again, and a killed run goes
on with the first step that is not done (whose own command goes on where it was). A changed config is said before anything is done.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from columnar.cli import emit, parser, say, table
from columnar.errors import ConfigError
from columnar.store import stage_key, write_json

Figures = dict[str, Any]


class Enough(Exception):
    """Raised by a step whose figures say that going on makes no sense: the run ends well, and the report says why."""

    def __init__(self, why: str, figures: Figures) -> None:
        super().__init__(why)
        self.figures = figures


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: of its directory.
        does: what it does, in one line.
        work: does it, into the directory that it is given, and returns its figures (JSON).
        after: the steps whose output it reads.
        settings: everything else that its output depends on.
        size: what the plan shows: rows, calls, dollars, gpu_hours, as far as they are known beforehand.
        asks: the config's models that it talks to, for the check before the run.
    """

    name: str
    does: str
    work: Callable[[Path], Figures]
    after: tuple[str, ...] = ()
    settings: Any = None
    size: Mapping[str, float | None] | None = None
    asks: tuple[str, ...] = ()


def keys(steps: Sequence[Step]) -> dict[str, str]:
    """The key of every step.

    Raises:
        ConfigError: a step comes after one that is not before it in the list, or a name appears twice.
    """
    out: dict[str, str] = {}
    for step in steps:
        missing = [name for name in step.after if name not in out]
        if missing or step.name in out:
            raise ConfigError(f"step {step.name}: " + (f"comes after {', '.join(missing)}, not done before" if missing else "named twice"))
        out[step.name] = stage_key(step.name, 1, step.settings, [out[name] for name in step.after])
    return out


def record(out: Path, name: str) -> dict[str, Any]:
    """What is known of a step's last run: empty when it never began."""
    path = out / "steps" / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def plan(steps: Sequence[Step], out: Path) -> list[dict[str, Any]]:
    """Each step with its state (done, to do, changed, begun) and its size."""
    lines = []
    for name, key in keys(steps).items():
        step, known = next(s for s in steps if s.name == name), record(out, name)
        state = "to do" if not known else "changed" if known["key"] != key else "done" if known.get("done") else "begun"
        size = {unit: (step.size or {}).get(unit) for unit in ("rows", "calls", "dollars", "gpu_hours")}
        lines.append({"step": name, "state": state, **size, "does": step.does})
    return lines


def perform(steps: Sequence[Step], out: Path, redo: bool = False) -> dict[str, Figures]:
    """Do what is not done; the figures of all steps. After a step that ended the run (`Enough`), whose figures have `stopped`, none is.

    Raises:
        ConfigError: the directory holds steps made with other settings, and `redo` does not say to make them again.
    """
    changed = [line["step"] for line in plan(steps, out) if line["state"] == "changed"]
    if changed and not redo:
        raise ConfigError(
            f"{out}: made with other settings; these steps would be done again: {', '.join(changed)}",
            "give another --out, or --redo (answers of models are in the cache and cost nothing again)",
        )
    figures: dict[str, Figures] = {}
    wanted = keys(steps)
    for number, step in enumerate(steps, 1):
        known, key, place = record(out, step.name), wanted[step.name], out / step.name
        if known.get("key") == key and known.get("done"):
            figures[step.name] = known["figures"]
            if figures[step.name].get("stopped"):  # a stage of generation has an empty one
                break
            continue
        if known.get("key") != key:
            shutil.rmtree(place, ignore_errors=True)
        say(f"[{number}/{len(steps)}] {step.name}: {step.does}")
        place.mkdir(parents=True, exist_ok=True)
        write_json(out / "steps" / f"{step.name}.json", {"key": key, "done": False})
        started = time.time()
        try:
            made = step.work(place)
        except Enough as enough:
            made = {**enough.figures, "stopped": str(enough)}
        figures[step.name] = json.loads(json.dumps(made, sort_keys=True))  # as they will be read back: a report depends on the order
        finished = {"key": key, "done": True, "after": step.after, "does": step.does, "figures": figures[step.name]}
        write_json(out / "steps" / f"{step.name}.json", {**finished, "seconds": round(time.time() - started, 1)})
        if figures[step.name].get("stopped"):  # a stage of generation has an empty one
            say(f"the run ends here: {figures[step.name]['stopped']}")
            break
    return figures


def arguments(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The command line of a recipe."""
    made = parser(f"recipes.{name}", doc)
    made.add_argument("config", type=Path, help=f"YAML: recipes/{name}.toy.yaml, recipes/{name}.paper.yaml, or one of your own")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's directory; the same command goes on where it was")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting")
    made.add_argument("--dry-run", action="store_true", help="show every step with rows, calls, dollars and GPU hours, and do nothing")
    made.add_argument("--redo", action="store_true", help="do again what was made with other settings")
    return made


def show(steps: Sequence[Step], out: Path, as_json: bool) -> int:
    """The plan, for people or programs."""
    lines = plan(steps, out)
    emit({"steps": lines}) if as_json else print(table(lines))
    return 0
