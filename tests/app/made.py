"""Dataset directories for the views: pairs with planted faults, judged candidates, a mix with contamination, all with hostile text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from columnar.record import rehash, row_id
from columnar.store import write_table
from tests.columnar.small import chat, write_dropped, write_rows, write_signals

EVIL = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> $x$ :red[y] \x1b[31m \u202egnp"


def pair(number: int, chosen: str, rejected: str, prompt: str = "", **more: Any) -> dict[str, Any]:
    """A pair; its id goes by the number."""
    row = {
        "id": row_id("pairs", "f.jsonl", number),
        "kind": "pair",
        "source": "pairs",
        "origin": {"uri": "f.jsonl", "revision": None, "split": None, "row": number},
        "license": None,
        "meta": None,
        "parents": [],
        "prompt": [{"role": "user", "content": prompt or f"Question {number}?"}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "chosen_score": 2.0,
        "rejected_score": 1.0,
        "chosen_model": "north",
        "rejected_model": "south",
        **more,
    }
    return rehash(row)


def pairs() -> dict[str, dict[str, Any]]:
    """One pair for each lint, by its key, and good ones."""
    long = "word " * 600
    return {
        "good": pair(0, "a fine answer", "a poor reply"),
        "twice": pair(1, "this one is more than twice as long", "short"),
        "half": pair(2, "short", "this one is more than twice as long"),
        "same": pair(3, "the same", "the same"),
        "same_head": pair(4, long + "at last yes", long + "at last no!"),
        "tie": pair(5, "a fine answer", "a poor reply", chosen_score=1.0),
        "inverted": pair(6, "a fine answer", "a poor reply", chosen_score=0.5),
        "unscored": pair(7, "a fine answer", "a poor reply", chosen_score=None),
        "earlier": pair(8, "a fine answer", "a poor reply", meta=json.dumps({"chosen_place": 0, "rejected_place": 3})),
        "refusal": pair(9, "sorry, I cannot", "certainly, here"),
        "empty": pair(10, "", "certainly, here"),
        "contradicted": pair(11, "the sun", "the moon", "Which is brighter?"),
        "contradicts": pair(12, "the moon", "the sun", "Which is brighter?"),
        "evil": pair(13, f"chosen {EVIL}", f"rejected {EVIL} too", f"prompt {EVIL}", source=f"source {EVIL}", chosen_model=f"model {EVIL}"),
    }


def write_pairs(directory: Path, signals: bool = True) -> dict[str, dict[str, Any]]:
    """A directory of those pairs."""
    found = pairs()
    write_rows(directory, list(found.values()), "pairs", "pair")
    if signals:
        rows = list(found.values())
        for row in rows:  # as the signals stage measures them
            row["same"] = row["chosen"][0]["content"] == row["rejected"][0]["content"]
        write_signals(directory, rows)
        _mark_same(directory, [row["same"] for row in rows])
    return found


def _mark_same(directory: Path, same: list[bool]) -> None:
    import pyarrow.parquet as pq

    file = directory / "cols" / "signals.parquet"
    table = pq.read_table(file)
    place = table.schema.get_field_index("same_answers")
    write_table(
        file, table.set_column(place, "same_answers", pa.array(same)), {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    )


def write_candidates(directory: Path, rows: int = 3) -> list[dict[str, Any]]:
    """Judged candidates: a tie, two judges that disagree, a hostile answer, a rating that is missing."""
    made = []
    judged: list[dict[str, Any]] = []
    for number in range(rows):
        candidates = [
            {
                "model": f"model-{place}",
                "content": f"answer {place} {EVIL if place == 1 else ''}",
                "finish_reason": "stop",
                "params": json.dumps({"outcome": "ok"}),
                "ratings": [
                    {"aspect": "helpfulness", "rating": float(place), "rationale": f"because {EVIL}"},
                    {"aspect": "honesty", "rating": None, "rationale": None},
                ],
                "score": None if place == 3 else float(min(place, 1)),
            }
            for place in range(4)
        ]
        row = {
            "id": row_id("asked", "p.jsonl", number),
            "kind": "candidates",
            "source": "asked",
            "origin": {"uri": "p.jsonl", "revision": None, "split": None, "row": number},
            "prompt": [{"role": "user", "content": f"Explain {number} {EVIL}"}],
            "candidates": candidates,
        }
        made.append(rehash(row))
        for sample, rating in ((0, 1.0), (1, 4.0)):
            judged.append(
                {
                    "id": row["id"], "judge": "aspects", "mode": "aspects", "model": "judge", "aspect": "helpfulness", "sample": sample,
                    "candidate": 1, "other": None, "position": 1 + sample, "rating": rating, "verdict": None,
                    "rationale": f"said {EVIL}", "outcome": "ok", "problem": "", "repaired": False, "raw": "{}",
                }
            )  # fmt: skip
    write_rows(directory, made, "candidates", "candidates")
    write_table(directory / "hits" / "judgements.parquet", pa.Table.from_pylist(judged))
    return made


ITEM = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."


def write_leaky(directory: Path, items: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """A mix in which one kept and one dropped row hold a benchmark item."""
    kept = chat("north", 1, f"{EVIL} Well: {ITEM} How many?", "72")
    gone = chat("south", 2, "Hello", f"I know this one. {ITEM.upper()}")
    other = chat("north", 3)
    write_rows(directory, sorted([kept, other], key=lambda row: row["id"]), "leaky")
    write_dropped(directory, [(gone, "decontam", "contaminated", "gsm8k")])
    hits = []
    for row, turn in ((kept, 0), (gone, 1)):
        text = row["messages"][turn]["content"]
        start = text.lower().index("natalia")
        hits.append(
            {
                "id": row["id"], "field": "messages", "turn": turn, "benchmark": "gsm8k", "item_id": "test/7", "item_field": "question",
                "coverage_item": 1.0, "coverage_row": 0.8, "longest_run": 19, "start": start, "end": start + len(ITEM) - 1,
                "item_start": 0, "item_end": len(ITEM) - 1, "rule": "caravan",
            }
        )  # fmt: skip
    write_table(directory / "hits" / "decontam.parquet", pa.Table.from_pylist(hits))
    if items:
        line = {"benchmark": "gsm8k", "item_id": "test/7", "item_field": "question", "text": ITEM}
        write_table(directory / "hits" / "decontam_items.parquet", pa.Table.from_pylist([line]))
    unseeable = {"items": 5, "empty": 1, "short": 4, "same": 0}
    report = {
        "rule": {"preset": "caravan", "source": "n-grams"},
        "scanned": {"roles": ["user"], "fields": ["messages"]},
        "paraphrase": "not checked",
        "benchmarks": [
            {
                "benchmark": "gsm8k",
                "policy": "dev",
                "items": 10,
                "hit": 1,
                "rows": 2,
                "share": 0.1,
                "verdict": "contaminated",
                "unseeable": unseeable,
            },
            {
                "benchmark": "mmlu",
                "policy": "unseen",
                "items": 20,
                "hit": 0,
                "rows": 0,
                "share": 0.0,
                "verdict": "clean",
                "unseeable": unseeable,
            },
        ],
    }
    (directory / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return kept, gone
