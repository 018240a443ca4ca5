"""What each source of a mix is worth: train and evaluate every member of the family that curation.ablate makes, over several seeds.

    python -m curation.ablate recipes/mixes/tiny.yaml --out out/ablate
    python -m training.ablate out/ablate --model out/base --out out/ablate_runs --task gsm8k::tulu3 --task ifeval::tulu3 --seeds 3 \\
        --config recipes/training/tulu3_8b_sft.yaml --data benchmarks

Prints the layout of Tülu 3's table 10 (arXiv 2411.15124): a line for each member, a column for each task, their average, and the
difference from the whole mix. Each score is a mean over seeds with its spread, and a difference is starred only when the seeds do not
explain it (Welch's interval, 95 %). Runs that are finished are not made again: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from columnar import cli
from columnar.errors import ConfigError, InputError
from columnar.store import write_json
from training import evaluate, sft
from training.run import arguments as trainer_arguments
from training.scores import band, beyond_noise
from training.tasks import find_task

Scores = dict[str, dict[str, list[float]]]  # member -> task -> a score for each seed


def members(directory: Path, wanted: list[str] | None) -> list[str]:
    """The members of the family, the whole mix first.

    Raises:
        InputError: no family.json.
        ConfigError: a member that there is not.
    """
    file = directory / "family.json"
    if not file.is_file():
        raise InputError(f"{directory}: no family.json", "make the family: python -m curation.ablate MIX.yaml --out DIR")
    names = [str(line["member"]) for line in json.loads(file.read_text(encoding="utf-8"))["members"]]
    unknown = sorted(set(wanted or ()) - set(names))
    if unknown:
        raise ConfigError(f"no member {', '.join(unknown)}", f"members: {', '.join(names)}")
    return [name for name in names if wanted is None or name in wanted or name == "all"]


def run_member(member: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train on one member with one seed and evaluate it; what is finished is read."""
    out = args.out / member / f"seed{seed}"
    settings = [part for text in [*args.settings, f"seed={seed}"] for part in ("--set", text)]
    config = ["--config", str(args.config)] if args.config else []
    given = [str(args.family / member), "--model", str(args.model), "--out", str(out / "model"), *config, *settings]
    sft.main(trainer_arguments("training.sft", None).parse_args(given))
    scores = {}
    for name in args.task:
        place = out / "eval" / find_task(name).name.replace("::", "-").replace("/", "-")
        more = [f"--{key}={value}" for key, value in (("data", args.data), ("limit", args.limit)) if value is not None]
        scanned = (args.family / member / "hits" / "decontam.parquet").is_file() and find_task(name).benchmarks
        more += [f"--mix={args.family / member}"] if scanned and args.clean else []
        told = evaluate.arguments().parse_args(["--task", name, "--model", str(out / "model"), "--out", str(place), *more])
        identity = evaluate.run_task(find_task(name), told, place)
        metrics, metric = identity["scores"]["metrics"], identity["task"]["metric"]
        scores[name] = metrics.get(f"{metric} (clean)", metrics[metric])["value"]
    return scores


def table(scores: Scores) -> list[dict[str, Any]]:
    """Table 10: member, average, difference from the whole mix, every task; `*` = more than the seeds explain."""
    whole = scores["all"]
    lines = []
    for member, by_task in scores.items():
        averages = _averages(by_task)
        line: dict[str, Any] = {"member": member, "average": _shown(averages)}
        line["difference"] = "" if member == "all" else _difference(averages, _averages(whole))
        for task, values in by_task.items():
            line[task] = _shown(values) + ("" if member == "all" else f" ({_difference(values, whole[task])})")
        lines.append(line)
    return lines


def _averages(by_task: dict[str, list[float]]) -> list[float]:
    """The mean over tasks, seed by seed."""
    return [fmean(values) for values in zip(*by_task.values(), strict=True)]


def _shown(values: list[float]) -> str:
    found = band(values)
    return f"{100 * found.mean:.1f}" + ("" if math.isnan(found.spread) else f" ± {100 * found.spread:.1f}")


def _difference(values: list[float], whole: list[float]) -> str:
    beyond = beyond_noise(values, whole)
    return f"{100 * (fmean(values) - fmean(whole)):+.1f}" + ("*" if beyond else "" if beyond is False else "?")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    names = members(args.family, args.member)
    for name in args.task:
        find_task(name)
    scores: Scores = {}
    for member in names:
        found = [run_member(member, seed, args) for seed in range(args.seeds)]
        scores[member] = {task: [one[task] for one in found] for task in args.task}
        lines = table(scores)
        write_json(args.out / "table.json", {"scores": scores, "table": lines, "seeds": args.seeds, "tasks": args.task})
    cli.emit({"scores": scores, "table": lines}) if args.json else print(cli.table(lines))
    if args.seeds < 2:
        cli.say("one seed says nothing about noise (?): give --seeds 3")
    else:
        cli.say("mean ± standard deviation over seeds; * = the difference from `all` is more than the seeds explain (95 %)")
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("training.ablate", __doc__)
    made.add_argument("family", type=Path, help="the directory that curation.ablate wrote")
    made.add_argument(
        "--model", required=True, help="the base model of every member (the same one: a size such as tiny is made per member)"
    )
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="runs, evaluations and table.json")
    made.add_argument("--task", action="append", required=True, metavar="NAME", help="a task of training.evaluate; repeat")
    made.add_argument("--member", action="append", metavar="NAME", help="only these (the whole mix always); repeat")
    made.add_argument("--seeds", type=int, default=3, help="runs of each member (default: 3)")
    made.add_argument("--config", type=Path, help="the SFT config of every run")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting of it")
    made.add_argument("--data", type=Path, metavar="DIR", help="a folder of benchmark files; without it the Hub is asked")
    made.add_argument("--limit", type=int, metavar="N", help="only the first N items of each task")
    made.add_argument("--clean", action="store_true", help="score without the items that the member holds (needs its decontamination scan)")
    return made


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
