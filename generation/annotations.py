"""Who was judged better than the reference, out of annotations of AlpacaEval's form or out of candidates that were judged here.

In: annotation records and the outputs they are about, or a directory of `generation.judge` (mode pairwise). Out: comparisons, one a
model and instruction, and how many of each model have no verdict.

    comparisons, missing = read_comparisons(Path("annotations.parquet"), Path("outputs.parquet"), "gpt4_1106_preview", None)
    comparisons, missing = read_judged(Path("out/judged"), "my-model", None)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from columnar.errors import InputError


class Comparison(NamedTuple):
    """One judged comparison: `win` is 1 when the model won, 0 when the reference did; lengths in characters."""

    model: str
    instruction: str
    win: float
    length: int
    reference_length: int


def win_of(preference: float | None) -> float | None:
    """AlpacaEval's preference as a share of a win; 0 is its old code for a tie.

    Raises:
        InputError: a number that is no preference.
    """
    if preference is None or math.isnan(preference):
        return None
    if preference == 0:
        return 0.5
    if not 1 <= preference <= 2:
        raise InputError(f"preference {preference}: expected 1 (the reference wins) to 2 (the model wins), or 0 for a tie")
    return float(preference) - 1


def read_comparisons(annotations: Path, outputs: Path | None, reference: str, judge: str | None) -> tuple[list[Comparison], dict[str, int]]:
    """Comparisons from annotation records, and how many of each model have no verdict.

    Raises:
        InputError: columns are missing, several judges and none chosen, or a judged output that cannot be found.
    """
    from columnar.readers import read

    records = [r.value for r in read(annotations) if r.value is not None]
    needed = {"instruction", "preference"}
    if not records or not needed <= set(records[0]):
        found = ", ".join(records[0]) if records else "no records"
        raise InputError(f"{annotations}: found the columns {found}", "expected instruction, preference, and model (or generator_2)")
    judges = sorted({str(r.get("judge_config")) for r in records if r.get("judge_config")})
    if judge is None and len(judges) > 1:
        raise InputError(
            f"{annotations}: several judges: {', '.join(judges)}", "choose one with --judge NAME: their verdicts do not compare"
        )
    if judge is not None and judge not in judges:
        raise InputError(f"{annotations}: no judge {judge!r}", f"judges there: {', '.join(judges) or 'the column judge_config is missing'}")
    lengths: dict[tuple[str, str], int] = {}
    for r in (r.value for r in read(outputs)) if outputs else ():
        if r is not None:
            lengths[str(r.get("model") or r.get("generator")), r["instruction"]] = len(r["output"] or "")
    comparisons: list[Comparison] = []
    missing: dict[str, int] = {}
    for r in records:
        if judge is not None and r.get("judge_config") != judge:
            continue
        model, text = str(r.get("model") or r.get("generator_2")), r["instruction"]
        win = win_of(r["preference"])
        if win is None:
            missing[model] = missing.get(model, 0) + 1
            continue
        own = len(r["output_2"]) if r.get("output_2") is not None else lengths.get((model, text))
        against = len(r["output_1"]) if r.get("output_1") is not None else lengths.get((reference, text))
        if own is None or against is None:
            absent = model if own is None else reference
            raise InputError(
                f"no output of {absent} for {text[:60]!r}",
                "give --outputs with the columns model, instruction, output, and the right --reference",
            )
        comparisons.append(Comparison(model, text, win, own, against))
    return comparisons, missing


def read_judged(path: Path, reference: str, judge: str | None) -> tuple[list[Comparison], dict[str, int]]:
    """Comparisons out of judged candidates: every model's answer against the reference model's, both orders taken together.

    Raises:
        InputError: no pairwise judgements, several judges and none chosen, or no answer of the reference model.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from columnar.store import open_dataset, read_batches
    from generation.scores import of_judge

    file = path / "hits" / "judgements.parquet"
    if not file.is_file():
        raise InputError(f"{path}: no hits/judgements.parquet", "judge the candidates first: python -m generation.judge, mode pairwise")
    table = pq.read_table(file, columns=["id", "judge", "mode", "candidate", "other", "rating"])
    table = table.filter(pc.equal(table["mode"], "pairwise"))
    judges = sorted(set(table["judge"].to_pylist()))
    if (judge or (judges[0] if len(judges) == 1 else None)) not in judges:
        raise InputError(f"{path}: pairwise judges there: {', '.join(judges) or 'none'}", "choose one with --judge NAME")
    said: dict[str, list[tuple[int, int, float | None]]] = {}
    for line in table.filter(pc.equal(table["judge"], judge or judges[0])).to_pylist():
        said.setdefault(line["id"], []).append((line["candidate"], line["other"], line["rating"]))
    comparisons: list[Comparison] = []
    missing: dict[str, int] = {}
    for batch in read_batches(open_dataset(path), ["id", "candidates"]):
        for row in batch.to_pylist():
            names = [c["model"] for c in row["candidates"]]
            if reference not in names:
                continue
            ours, lengths = names.index(reference), [len(c["content"]) for c in row["candidates"]]
            for i, model in enumerate(names):
                if i == ours:
                    continue
                # of the two, 0 is the model and 1 the reference
                lines = [("pairwise", int(a != i), int(b != i), r) for a, b, r in said.get(row["id"], ()) if {a, b} == {i, ours}]
                win = of_judge("pairwise", lines, 2)[0]
                if win is None:
                    missing[model] = missing.get(model, 0) + 1
                else:
                    comparisons.append(Comparison(model, row["id"], win, lengths[i], lengths[ours]))
    if not comparisons:
        raise InputError(
            f"{path}: no judged answer beside one of the model {reference!r}", "give --reference the model's name in the candidates"
        )
    return comparisons, missing


def read_leaderboard(path: Path) -> dict[str, tuple[float, float | None]]:
    """Published (win rate, length-controlled win rate) by model, from a leaderboard CSV whose first column is the model's name."""
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or "win_rate" not in rows[0]:
        raise InputError(f"{path}: no column win_rate", "expected a leaderboard as AlpacaEval publishes it")
    first = next(iter(rows[0]))
    return {
        r[first]: (float(r["win_rate"]), float(r["length_controlled_winrate"]) if r.get("length_controlled_winrate") else None)
        for r in rows
    }
