"""Two models head to head: their answers to the same prompts, compared in both orders; orders that disagree are a tie.

    duel(rooms, {"m1": out / "exam_m1", "m2": out / "exam_m2"}, "referee", out / "duel")     # {"wins": .., "ties": .., "losses": ..}

The counts are the second model's against the first. `lc` is its win rate with the length taken out (generation.winrate).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from columnar.store import open_dataset, read_batches, whole_file
from generation.rubrics import flatten
from recipes.rooms import Rooms


def side_by_side(answers: dict[str, Path], to: Path) -> int:
    """Write prompts that every model answered, with the first answer of each, as JSON lines; how many there are."""
    found: dict[str, dict[str, str]] = {}
    for name, directory in answers.items():
        for batch in read_batches(open_dataset(directory), ["prompt", "candidates"]):
            for row in batch.to_pylist():
                if row["candidates"]:
                    found.setdefault(flatten(row["prompt"]), {})[name] = row["candidates"][0]["content"]
    whole = {prompt: said for prompt, said in sorted(found.items()) if len(said) == len(answers)}
    with whole_file(to) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for prompt, said in whole.items():
            responses = [{"model": name, "response": said[name]} for name in answers]
            file.write(json.dumps({"prompt": prompt, "responses": responses}, ensure_ascii=False) + "\n")
    return len(whole)


def duel(rooms: Rooms, answers: dict[str, Path], judge: str, place: Path) -> dict[str, Any]:
    """Judge two models' answers (directories of candidates) in both orders, by one of the config's models."""
    first, second = answers
    side_by_side(answers, place.with_name(f"{place.name}.jsonl"))
    both = place / "answers"
    rooms.mix({"name": "duel", "kind": "candidates", "sources": [{"name": "duel", "path": f"{place}.jsonl", "all": True}]}, both)
    rule = {"mode": "pairwise", "model": judge, "swap": True}
    rooms.generate("judge", {"candidates": str(both), "models": rooms.models(judge), "judge": rule, "seed": rooms.config.seed}, place)
    scores: Counter[float | None] = Counter()
    for batch in read_batches(open_dataset(place), ["candidates"]):
        for row in batch.to_pylist():
            scores[next(c["score"] for c in row["candidates"] if c["model"] == second)] += 1
    rate = next(m for m in rooms.run("generation.winrate", place, "--reference", first)["models"] if m["model"] == second)
    lc = rate["lc"] and round(rate["lc"], 1)
    return {
        "wins": scores[1.0],
        "ties": scores[0.5],
        "losses": scores[0.0],
        "unjudged": scores[None],
        "rate": round(rate["win_rate"], 1),
        "lc": lc,
    }
