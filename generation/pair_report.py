"""What came of a set of candidates: yield, margins, lengths, who wins, whether position or length decides, how aspects agree.

    report = Report(); report.add(row, pairs, why) ...; report.summary()

Fed row by row in constant memory. What to look at: `equal_texts` must be 0; a chosen answer longer than the rejected one in much
more than half of the pairs means the judge pays for length; a mean rating that falls or rises with the position shown means that it
reads the order; aspects that correlate near 1 are one aspect asked several times.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from columnar.record import normalise

MARGINS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
RATIOS = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)  # characters of the chosen over those of the rejected


class Correlation:
    """Pearson's r, one pair of numbers at a time."""

    def __init__(self) -> None:
        self.n, self.sums = 0, [0.0] * 5

    def add(self, x: float, y: float) -> None:
        """One observation."""
        self.n += 1
        for i, value in enumerate((x, y, x * x, y * y, x * y)):
            self.sums[i] += value

    @property
    def r(self) -> float | None:
        """The correlation; None with fewer than three observations or no spread."""
        x, y, xx, yy, xy = self.sums
        spread = (self.n * xx - x * x) * (self.n * yy - y * y)
        return round((self.n * xy - x * y) / math.sqrt(spread), 4) if self.n > 2 and spread > 1e-9 else None


class Report:
    """Counts over all rows."""

    def __init__(self) -> None:
        self.rows = self.made = self.equal_texts = self.longer = self.shared_first = 0
        self.reasons: Counter[str] = Counter()
        self.margins: Counter[str] = Counter()
        self.ratios: Counter[str] = Counter()
        self.length_ratio: list[float] = [0.0, 0.0]  # sum of log(chosen / rejected), pairs
        self.wins: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])  # chosen, rejected, answered
        self.aspects: dict[tuple[str, str], Correlation] = defaultdict(Correlation)
        self.length = Correlation()

    def add(self, row: dict[str, Any], made: list[dict[str, Any]], why: str) -> None:
        """One row of candidates and what it gave."""
        self.rows += 1
        self.made += len(made)
        if why:
            self.reasons[why] += 1
        scores = [c["score"] for c in row["candidates"] if c.get("score") is not None]
        self.shared_first += len(scores) > 1 and scores.count(max(scores)) > 1
        for candidate in row["candidates"]:
            self.wins[candidate["model"]][2] += 1
            if candidate.get("score") is not None:
                self.length.add(len(candidate["content"]), candidate["score"])
            ratings = {r["aspect"]: r["rating"] for r in candidate.get("ratings") or () if r["rating"] is not None}
            for a, b in combinations(sorted(ratings), 2):
                self.aspects[a, b].add(ratings[a], ratings[b])
        for pair in made:
            if pair["kind"] == "pair":
                self._pair(pair)

    def _pair(self, pair: dict[str, Any]) -> None:
        chosen, rejected = pair["chosen"][-1]["content"] or "", pair["rejected"][-1]["content"] or ""
        self.equal_texts += normalise(chosen) == normalise(rejected)
        self.longer += len(chosen) > len(rejected)
        ratio = (len(chosen) + 1) / (len(rejected) + 1)
        self.ratios[_ratio_bin(ratio)] += 1
        self.length_ratio[0] += math.log(ratio)
        self.length_ratio[1] += 1
        self.wins[pair["chosen_model"]][0] += 1
        self.wins[pair["rejected_model"]][1] += 1
        margin = json.loads(pair["meta"])["margin"]
        if margin is not None:
            self.margins[_bin(margin)] += 1

    def summary(self, judgements: Path | None = None) -> dict[str, Any]:
        """Everything as plain values.

        Args:
            judgements: the hits/judgements.parquet of the candidates, for the ratings by position.
        """
        pairs = int(self.length_ratio[1])
        return {
            "prompts": self.rows,
            "rows": self.made,
            "yield": round(1 - sum(self.reasons.values()) / self.rows, 4) if self.rows else None,
            "without": dict(sorted(self.reasons.items())),
            "first_place_shared": self.shared_first,
            "equal_texts": self.equal_texts,
            "margins": {name: self.margins[name] for name in map(_bin, MARGINS) if name in self.margins},
            "lengths": {name: self.ratios[name] for name in map(_ratio_bin, (0.0, *RATIOS)) if name in self.ratios},
            "chosen_longer": round(self.longer / pairs, 4) if pairs else None,
            "length_ratio": round(math.exp(self.length_ratio[0] / pairs), 4) if pairs else None,
            "length_score_correlation": self.length.r,
            "models": {
                name: {
                    "answers": answers,
                    "chosen": won,
                    "rejected": lost,
                    "win_rate": round(won / (won + lost), 4) if won + lost else None,
                }
                for name, (won, lost, answers) in sorted(self.wins.items())
            },
            "positions": by_position(judgements) if judgements is not None and judgements.is_file() else {},
            "aspect_correlations": {f"{a} / {b}": c.r for (a, b), c in sorted(self.aspects.items())},
        }


def _bin(margin: float) -> str:
    low = max(m for m in MARGINS if m <= max(margin, 0.0))
    high = next((m for m in MARGINS if m > low), None)
    return f"{low:g}-{high:g}" if high is not None else f">={low:g}"


def _ratio_bin(ratio: float) -> str:
    if ratio < RATIOS[0]:
        return f"<{RATIOS[0]:g}"
    low = max(r for r in RATIOS if r <= ratio)
    high = next((r for r in RATIOS if r > low), None)
    return f"{low:g}-{high:g}" if high is not None else f">={low:g}"


def by_position(judgements: Path) -> dict[str, dict[str, Any]]:
    """For each position shown: how often, and the mean rating it got (for comparisons: how often the first shown won)."""
    sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for batch in pq.ParquetFile(judgements).iter_batches(columns=["mode", "position", "rating"], batch_size=10_000):
        for mode, position, rating in zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True):
            if rating is not None and mode not in ("reward", "verifier", "additive"):
                sums[mode, position][0] += rating
                sums[mode, position][1] += 1
    return {f"{mode} {position}": {"n": int(n), "mean": round(total / n, 4)} for (mode, position), (total, n) in sorted(sums.items())}


def lines(summary: dict[str, Any]) -> list[str]:
    """The report for people."""
    out = [f"{summary['prompts']:,} prompts -> {summary['rows']:,} rows (yield {100 * (summary['yield'] or 0):.1f} %)"]
    out += [f"  no row: {n:,} {why}" for why, n in summary["without"].items()]
    if summary["margins"]:
        out.append("  margins: " + "  ".join(f"{name}: {n:,}" for name, n in summary["margins"].items()))
    if summary["lengths"]:
        out.append("  length of chosen / rejected: " + "  ".join(f"{name}: {n:,}" for name, n in summary["lengths"].items()))
    if summary["chosen_longer"] is not None:
        out.append(
            f"  chosen is longer in {100 * summary['chosen_longer']:.1f} % of pairs, {summary['length_ratio']:.2f} times as long; "
            f"length and score correlate {_shown(summary['length_score_correlation'])}; equal texts: {summary['equal_texts']}"
        )
    for name, m in summary["models"].items():
        won = (
            f"wins {100 * m['win_rate']:.1f} % of its {m['chosen'] + m['rejected']:,} pairs" if m["win_rate"] is not None else "in no pair"
        )
        out.append(f"  {name}: {m['answers']:,} answers, {won}")
    if summary["positions"]:
        out.append("  mean rating by position: " + "  ".join(f"{name}: {v['mean']:.2f}" for name, v in summary["positions"].items()))
    if summary["aspect_correlations"]:
        out.append("  aspects: " + "  ".join(f"{name}: {_shown(r)}" for name, r in summary["aspect_correlations"].items()))
    return out


def _shown(value: float | None) -> str:
    return "·" if value is None else f"{value:.2f}"
