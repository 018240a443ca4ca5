"""A judge's taste: win rates of many models against one reference, and how far they go with length rather than with skill.

    figures = taste(rooms, {"alpaca": out / "exam_alpaca", ...}, out / "reference", ["judge"], out / "taste")
    correlations(figures["models"], ["judge"])     # [{"judge": "judge", "true quality": 0.9, "words": 0.1, "unique words": 0.2}]

Answers are those of `rooms.exam`; every one is shown beside the reference model's, in both orders (generation.judge, mode pairwise), and
the rates are generation.winrate's: plain, and with the length taken out. Unique words are counted an answer, as in section 5 of
arXiv 2306.04751 (there: tokens).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from columnar.store import open_dataset, read_batches, whole_file
from generation.annotations import read_judged
from generation.rubrics import flatten
from generation.statistics import spearman
from generation.winrate import win_rates
from recipes.rooms import Rooms

REFERENCE = "reference"


def answers_by_prompt(directory: Path) -> dict[str, str]:
    """The first answer to every prompt of a directory of candidates."""
    out: dict[str, str] = {}
    for batch in read_batches(open_dataset(directory), ["prompt", "candidates"]):
        for row in batch.to_pylist():
            if row["candidates"]:
                out[flatten(row["prompt"])] = row["candidates"][0]["content"] or ""
    return out


def taste(rooms: Rooms, answers: Mapping[str, Path], reference: Path, judges: Sequence[str], place: Path) -> dict[str, Any]:
    """Win rates in percent by judge, mean words and unique words of the answers, model by model.

    Args:
        answers: directories of candidates by model. reference: the one of the model that they are compared with.
        judges: names of the config's models.
    """
    said, beside = {name: answers_by_prompt(directory) for name, directory in answers.items()}, answers_by_prompt(reference)
    both = place / "both.jsonl"
    place.mkdir(parents=True, exist_ok=True)
    with whole_file(both) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for name, own in said.items():
            for prompt in sorted(own.keys() & beside.keys()):
                responses = [{"model": REFERENCE, "response": beside[prompt]}, {"model": name, "response": own[prompt]}]
                file.write(json.dumps({"prompt": prompt, "responses": responses}, ensure_ascii=False) + "\n")
    rooms.mix({"name": "both", "kind": "candidates", "sources": [{"name": "both", "path": str(both), "all": True}]}, place / "both")
    asked = [{"mode": "pairwise", "name": judge, "model": judge, "swap": True} for judge in judges]
    told = {"candidates": str(place / "both"), "models": rooms.models(*judges), "judge": asked, "seed": rooms.config.seed}
    rooms.generate("judge", told, place / "judged")
    lines = {name: _lengths(list(own.values())) for name, own in said.items()}
    for judge in judges:
        for rate in _rates(place / "judged", judge):
            lines[rate.model] |= {
                f"wins, {judge}": round(rate.win_rate, 1),
                f"at equal length, {judge}": None if rate.lc is None else round(rate.lc, 1),
            }
    return {"models": [{"model": name, **line} for name, line in lines.items()]}


def _rates(judged: Path, judge: str) -> list[Any]:
    """Rates with the prompt, not the row, as the instruction: all models were asked the same."""
    prompts: dict[str, str] = {}
    for batch in read_batches(open_dataset(judged), ["id", "prompt"]):
        prompts |= {row["id"]: flatten(row["prompt"]) for row in batch.to_pylist()}
    comparisons, missing = read_judged(judged, REFERENCE, judge)
    return win_rates([c._replace(instruction=prompts[c.instruction]) for c in comparisons], missing)


def _lengths(texts: list[str]) -> dict[str, Any]:
    words = [text.split() for text in texts]
    return {"words": round(fmean(map(len, words)), 2), "unique words": round(fmean(len(set(w)) for w in words), 2)}


def correlations(lines: Sequence[Mapping[str, Any]], judges: Sequence[str], skill: str) -> list[dict[str, Any]]:
    """Spearman's rank correlation over the models of each judge's win rate, plain and at equal length, with skill, words, unique words."""
    out = []
    for judge in judges:
        for kind in ("wins", "at equal length"):
            known = [line for line in lines if line.get(f"{kind}, {judge}") is not None]
            found = {
                to: spearman([x[f"{kind}, {judge}"] for x in known], [x[to] for x in known]) for to in (skill, "words", "unique words")
            }
            shown = {f"with {to}": None if math.isnan(value) else round(value, 2) for to, value in found.items()}
            out.append({"judge": judge, "rate": kind, "models": len(known), **shown})
    return out
