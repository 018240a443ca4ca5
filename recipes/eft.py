"""Evaluation fine-tuning rows (Self-Rewarding, arXiv 2401.10020, section 3.1.1): what a judge said where it agrees with people.

    figures = write_rows(out / "rankings", out / "eft_judged", out / "eft.jsonl", seed=1)

In: prompts whose answers people ranked (score = -rank), and the same judged with the additive rubric. A prompt's judgements are kept when
the judge's order, ties included, is that of the people. Scores pile up on one mark, and a model trained on that gives this mark to
everything: judgements with the most common score are thinned, by lot, to the number of the second most common. Out: a row a judgement.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from columnar.store import open_dataset, read_batches, whole_file
from generation.respond import draw
from generation.rubrics import ask_score


def agrees(judged: list[float], people: list[float]) -> bool:
    """Both put the answers into one order, with the same ties.

    >>> agrees([5, 3, 1], [0, -1, -2]), agrees([5, 5, 1], [0, -1, -2])
    (True, False)
    """
    return all((a > b) == (x > y) for a, x in zip(judged, people, strict=True) for b, y in zip(judged, people, strict=True))


def thinned(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The rows without the surplus of the most common score."""
    counts = Counter(row["score"] for row in rows).most_common()
    if len(counts) < 2:
        return rows
    common, most = counts[0][0], counts[1][1]
    drawn = sorted((row for row in rows if row["score"] == common), key=lambda row: draw(seed, "eft", row["key"]))
    kept = {row["key"] for row in drawn[:most]}
    return [row for row in rows if row["score"] != common or row["key"] in kept]


def write_rows(rankings: Path, judged: Path, to: Path, seed: int) -> dict[str, Any]:
    """Write the rows as JSON lines of messages; how many prompts agreed, and the scores before and after thinning."""
    people = {row["id"]: [c["score"] for c in row["candidates"]] for row in _rows(rankings)}
    said: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in pq.read_table(judged / "hits" / "judgements.parquet").to_pylist():
        if line["sample"] == 0 and line["rating"] is not None:
            said[line["id"]][line["candidate"]] = line
    rows: list[dict[str, Any]] = []
    whole = agreed = 0
    for row in _rows(judged):
        lines, ranks = said[row["id"]], people[row["id"]]
        if len(lines) < len(ranks):
            continue
        whole += 1
        if agrees([lines[i]["rating"] for i in range(len(ranks))], ranks):
            agreed += 1
            for i, candidate in enumerate(row["candidates"]):
                asked = ask_score(row["prompt"], candidate["content"]).messages
                messages = [*asked, {"role": "assistant", "content": lines[i]["raw"]}]
                rows.append({"messages": messages, "score": lines[i]["rating"], "key": f"{row['id']}/{i}"})
    kept = thinned(rows, seed)
    with whole_file(to) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in kept:
            file.write(json.dumps({"messages": row["messages"], "score": row["score"]}, ensure_ascii=False) + "\n")
    counts = {"prompts": len(people), "judged": whole, "agree": agreed, "judgements": len(rows), "rows": len(kept)}
    return {**counts, "scores": _histogram(rows), "scores_thinned": _histogram(kept)}


def _rows(directory: Path) -> list[dict[str, Any]]:
    batches = read_batches(open_dataset(directory), ["id", "prompt", "candidates"])
    return [row for batch in batches for row in batch.to_pylist()]


def _histogram(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {str(mark): n for mark, n in sorted(Counter(int(row["score"]) for row in rows).items())}
