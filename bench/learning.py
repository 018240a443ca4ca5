"""Does training learn? Every method on a small task with a known truth, several seeds, 95 % intervals, and plots.

    python -m bench.learning                                     # all parts, five seeds, tiny models, a few minutes each on two cores
    python -m bench.learning --only sft,dpo --seeds 3 --json learning.json --plots docs/img
    python -m bench.learning --only throughput --size base       # on a GPU: tokens/s, MFU and memory at 110 M parameters

A part trains with the trainers' own commands and gives lines `part, measure, value per seed, expected, holds`. `holds` is judged on the
whole interval, not on the mean. The exit code is 1 when an expectation does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from columnar.cli import say, table
from training.scores import T


@dataclass
class Measure:
    """One figure over seeds, and what it should be."""

    part: str
    what: str
    values: list[float]
    above: float | None = None  # the whole interval should lie above / below
    below: float | None = None
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    shown: str = ""  # what the curves are, when not `what`
    over: str = "step"  # and over what

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def half_width(self) -> float:
        """Half of Student's 95 % interval of the mean."""
        n = len(self.values)
        if n < 2:
            return 0.0
        deviation = math.sqrt(sum((v - self.mean) ** 2 for v in self.values) / (n - 1))
        return T[n - 2] * deviation / math.sqrt(n)

    @property
    def holds(self) -> bool | None:
        low, high = self.mean - self.half_width, self.mean + self.half_width
        if self.above is None and self.below is None:
            return None
        return (self.above is None or low > self.above) and (self.below is None or high < self.below)

    def line(self) -> dict[str, Any]:
        limits = (("> ", self.above), ("< ", self.below))
        bounds = [f"{sign}{value:g}" for sign, value in limits if value is not None]
        bound = ", ".join(bounds) or None
        interval = f"{self.mean - self.half_width:.3g} to {self.mean + self.half_width:.3g}"
        return {
            "part": self.part,
            "measure": self.what,
            "mean": self.mean,
            "95 %": interval,
            "seeds": len(self.values),
            "expected": bound,
            "holds": self.holds,
        }


@dataclass(frozen=True)
class Bench:
    """Where the parts work, with which seeds and models."""

    work: Path
    seeds: range
    size: str = "tiny"

    def folder(self, *names: Any) -> Path:
        made = self.work.joinpath(*map(str, names))
        made.parent.mkdir(parents=True, exist_ok=True)
        return made


Part = Callable[[Bench], Iterator[Measure]]


def command(
    module: Any, parser: argparse.ArgumentParser, directory: Path, model: Path | str, out: Path, settings: dict[str, Any], *more: str
) -> Path:
    """Run a trainer's command in this process; returns OUT."""
    told = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    code = module.main(parser.parse_args([str(directory), "--model", str(model), "--out", str(out), *told, *more]))
    if code:
        raise RuntimeError(f"{module.__name__} ended with {code}")
    return out


def answers(model: Path | str, prompts: list[list[dict[str, str]]], tokens: int = 16, temperature: float = 0.0, seed: int = 0) -> list[str]:
    """One answer of a model for each prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left")
    loaded = AutoModelForCausalLM.from_pretrained(model).to(device).eval()
    torch.manual_seed(seed)
    out: list[str] = []
    for start in range(0, len(prompts), 128):
        texts = [tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts[start : start + 128]]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False).to(device)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.no_grad():
            done = loaded.generate(
                **batch, max_new_tokens=tokens, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **sampling
            )
        out += tokenizer.batch_decode(done[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return out


def curve(out: Path, key: str = "loss") -> list[tuple[float, float]]:
    """A metric over the steps of a run."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if line.get(key) is not None]


def plot(measures: list[Measure], folder: Path) -> None:
    """For each part one picture of its curves: thin lines are seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for part in dict.fromkeys(m.part for m in measures):
        shown = [m for m in measures if m.part == part and m.curves]
        if not shown:
            continue
        figure, axes = pyplot.subplots(1, len(shown), figsize=(4.5 * len(shown), 3), squeeze=False)
        for axis, measure in zip(axes[0], shown, strict=True):
            groups = list(dict.fromkeys(name.split("#")[0] for name in measure.curves))
            for name, points in measure.curves.items():
                group = name.split("#")[0]
                first = name in (group, f"{group}#0")
                axis.plot(*zip(*points, strict=True), color=f"C{groups.index(group)}", alpha=0.6, lw=1, label=group if first else None)
            axis.set_title(measure.shown or measure.what, fontsize=9)
            axis.set_xlabel(measure.over, fontsize=8)
            axis.legend(fontsize=7, frameon=False)
            axis.tick_params(labelsize=7)
        figure.tight_layout()
        figure.savefig(folder / f"learning_{part}.png", dpi=110, metadata={"Software": None})
        pyplot.close(figure)


def parts() -> dict[str, Part]:
    """Every part by name."""
    from bench import learning_preferences, learning_reinforced, learning_supervised, learning_throughput

    return {**learning_supervised.PARTS, **learning_preferences.PARTS, **learning_reinforced.PARTS, **learning_throughput.PARTS}


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--only", help="parts, separated by commas")
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--size", default="tiny", help="the size of the models (training.tiny)")
    made.add_argument("--work", type=Path, help="keep the runs there (default: a temporary folder)")
    made.add_argument("--json", type=Path, help="write the figures there")
    made.add_argument("--plots", type=Path, help="write pictures there")
    args = made.parse_args()
    known = parts()
    names = args.only.split(",") if args.only else list(known)
    if unknown := set(names) - set(known):
        made.error(f"no part {', '.join(sorted(unknown))}; parts: {', '.join(known)}")
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(args.work or Path(temporary), range(args.seeds), args.size)
        for name in names:
            for measure in known[name](bench):
                measures.append(measure)
                say(str(measure.line()))
    print(table([m.line() for m in measures]))
    if args.json:
        args.json.write_text(json.dumps([{**m.line(), **asdict(m)} for m in measures], indent=1))
    if args.plots:
        plot(measures, args.plots)
    return int(any(m.holds is False for m in measures))


if __name__ == "__main__":
    sys.exit(main())
