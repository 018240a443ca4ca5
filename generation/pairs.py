"""Judged candidates -> preference pairs (or the best answers as SFT rows): a pure function, redone for nothing under other rules.

    python -m generation.pairs CONFIG.yaml --out out/pairs

    candidates: out/judged
    pairs: {rule: best_vs_random_lower, min_margin: 0.5}

    rule                   chosen                  rejected
    best_vs_random_lower   the best                drawn from those strictly lower (Zephyr, UltraFeedback-binarized)
    best_vs_worst          the best                the worst (Self-Rewarding)
    all                    every strict pair
    on_vs_off_policy       the best strict pair with exactly one side from `on_policy` (Tülu 3)
    strong_vs_weak         an answer of `strong`   an answer of `weak`; no judge needed (delta learning)
    moderate               the best pair with margin in [min_margin, max_margin] and chosen score >= min_score (AIR, arXiv 2504.03612)

Whatever the rule: the rejected answer's score is strictly lower (except strong_vs_weak, which has none to compare), equal texts are
never a pair, an answer that was cut off, refused by a filter or empty is no side of a pair unless `chosen_may_be` or
`rejected_may_be` says so, and a prompt without a pair is counted under the reason. Nothing is drawn but from the seed and the row.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from statistics import fmean
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from columnar.config import Config
from columnar.record import normalise, rehash, row_id
from generation.respond import draw

VERSION = 1
Rule = Literal["best_vs_random_lower", "best_vs_worst", "all", "on_vs_off_policy", "strong_vs_weak", "moderate"]


class PairsConfig(Config):
    """The rule and its limits.

    Attributes:
        output: pairs, or sft (the best `keep` answers of each prompt, at least min_score: positive-only rows, rejection sampling).
        aspects: rank by the mean of these ratings instead of the score; every one of them that applies must be there.
        ties: what the best is when several share the first place: one drawn, the shortest, or no pair at all.
        max_length_ratio: the longer of the two has at most so many times the characters of the shorter.
        cross_check: a second judge's name (a reward model's, say); pairs that it sees the other way round, or does not see, are left out.
        chosen_may_be, rejected_may_be: outcomes besides `ok` that a side may have: truncated, refused, empty.
    """

    rule: Rule = "best_vs_random_lower"
    output: Literal["pairs", "sft"] = "pairs"
    aspects: list[str] = Field(default_factory=list)
    min_margin: float = Field(0.0, ge=0)
    max_margin: float | None = None
    min_score: float | None = None
    ties: Literal["random", "shortest", "drop"] = "random"
    max_length_ratio: float | None = Field(None, ge=1)
    cross_check: str | None = None
    on_policy: str | None = None
    strong: list[str] = Field(default_factory=list)
    weak: list[str] = Field(default_factory=list)
    keep: int = Field(1, ge=1)
    chosen_may_be: list[Literal["truncated", "refused", "empty"]] = Field(default_factory=list)
    rejected_may_be: list[Literal["truncated", "refused", "empty"]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> PairsConfig:
        if self.rule == "on_vs_off_policy" and not self.on_policy:
            raise ValueError("on_policy: missing; rule on_vs_off_policy needs the name of the policy's model")
        if self.rule == "strong_vs_weak" and not (self.strong and self.weak):
            raise ValueError("strong, weak: missing; rule strong_vs_weak needs the names of both kinds of models")
        if self.rule == "moderate" and (self.max_margin is None or self.min_score is None):
            raise ValueError("max_margin, min_score: missing; rule moderate needs both")
        if self.max_margin is not None and self.max_margin < self.min_margin:
            raise ValueError(f"max_margin: {self.max_margin:g} is below min_margin: {self.min_margin:g}")
        return self


class PairsRun(Config):
    """What `generation.pairs` is told."""

    candidates: str
    pairs: PairsConfig = Field(default_factory=lambda: PairsConfig.model_validate({}))
    seed: int = 0
    name: str = "pairs"


class Side(NamedTuple):
    """A candidate as a rule sees it."""

    place: int
    model: str
    text: str
    score: float | None
    outcome: str
    check: float | None
    candidate: dict[str, Any]


class Pair(NamedTuple):
    """Two candidates of one prompt."""

    chosen: Side
    rejected: Side

    @property
    def margin(self) -> float | None:
        """The difference of the scores; None without scores."""
        known = self.chosen.score is not None and self.rejected.score is not None
        return self.chosen.score - self.rejected.score if known else None  # type: ignore[operator]


def sides_of(row: dict[str, Any], config: PairsConfig) -> list[Side]:
    """The candidates of a row with the numbers that the rule needs."""
    out = []
    for place, candidate in enumerate(row["candidates"]):
        ratings = {r["aspect"]: r["rating"] for r in candidate.get("ratings") or ()}
        score = candidate.get("score")
        if config.aspects:
            known = [ratings[a] for a in config.aspects if ratings.get(a) is not None]
            score = fmean(known) if known and all(a in ratings for a in config.aspects) else None
        outcome = json.loads(candidate.get("params") or "{}").get("outcome")
        if outcome is None:
            outcome = "truncated" if candidate.get("finish_reason") == "length" else "ok" if candidate["content"].strip() else "empty"
        out.append(Side(place, candidate["model"], candidate["content"], score, outcome, ratings.get(config.cross_check or ""), candidate))
    return out


def pairs_of(row: dict[str, Any], config: PairsConfig, seed: int = 0) -> tuple[list[Pair], str]:
    """The pairs of a row under a rule, and why there are none (empty when there are).

    The limits narrow the possible pairs one after the other; the reason names the first limit that left nothing.
    """
    sides = sides_of(row, config)
    pairs = [Pair(a, b) for a, b in itertools.permutations(sides, 2) if _may_stand(a, b, config)]
    if not pairs:
        return [], "fewer than two usable answers"
    if config.rule == "strong_vs_weak":
        pairs = [p for p in pairs if p.chosen.model in config.strong and p.rejected.model in config.weak]
        steps = [("no answer of a strong and of a weak model", pairs)]
    else:
        scored = [p for p in pairs if p.margin is not None]
        pairs = [p for p in scored if p.margin is not None and p.margin > 0]
        steps = [("no scores", scored), ("all scores equal", pairs)]
    if config.rule == "on_vs_off_policy":
        pairs = [p for p in pairs if (p.chosen.model == config.on_policy) != (p.rejected.model == config.on_policy)]
        steps.append(("no pair across the policies", pairs))
    pairs = [p for p in pairs if normalise(p.chosen.text) != normalise(p.rejected.text)]
    steps.append(("equal texts", pairs))
    if config.rule != "all" and config.rule != "moderate":
        pairs = _with_the_best(pairs, config, seed, row["id"])
        steps.append(("the first place is shared", pairs))
    pairs = [p for p in pairs if _within(p, config)]
    steps.append(("margin or score outside the limits", pairs))
    if config.max_length_ratio is not None:
        most = config.max_length_ratio
        pairs = [p for p in pairs if _ratio(p) <= most]
        steps.append(("lengths too different", pairs))
    if config.cross_check is not None:
        pairs = [p for p in pairs if p.chosen.check is not None and p.rejected.check is not None and p.chosen.check > p.rejected.check]
        steps.append((f"{config.cross_check} disagrees or is missing", pairs))
    reason = next((why for why, left in steps if not left), "")
    return ([], reason) if reason else (_pick(pairs, config, seed, row["id"]), "")


def _may_stand(chosen: Side, rejected: Side, config: PairsConfig) -> bool:
    return chosen.outcome in ("ok", *config.chosen_may_be) and rejected.outcome in ("ok", *config.rejected_may_be)


def _with_the_best(pairs: list[Pair], config: PairsConfig, seed: int, row_id: str) -> list[Pair]:
    """The pairs whose chosen side is the best one; the tie policy decides which that is."""
    if not pairs:
        return []
    top = max((p.chosen.score for p in pairs if p.chosen.score is not None), default=None)
    best = {p.chosen.place: p.chosen for p in pairs if config.rule == "strong_vs_weak" or p.chosen.score == top}
    if config.rule != "strong_vs_weak" and len(best) > 1 and config.ties == "drop":
        return []
    if config.ties == "shortest":
        first = min(best.values(), key=lambda s: (len(s.text), s.place))
    else:
        first = min(best.values(), key=lambda s: draw(seed, "best", f"{row_id}/{s.place}"))
    return [p for p in pairs if p.chosen.place == first.place]


def _within(pair: Pair, config: PairsConfig) -> bool:
    if pair.margin is None:
        return config.min_margin == 0 and config.min_score is None and config.max_margin is None
    high = config.max_margin is None or pair.margin <= config.max_margin
    good = config.min_score is None or (pair.chosen.score is not None and pair.chosen.score >= config.min_score)
    return pair.margin >= config.min_margin and high and good


def _ratio(pair: Pair) -> float:
    a, b = len(pair.chosen.text), len(pair.rejected.text)
    return max(a, b) / max(1, min(a, b))


def _pick(pairs: list[Pair], config: PairsConfig, seed: int, row_id: str) -> list[Pair]:
    """One pair by the rule, or all of them, in the order of the candidates."""
    if config.rule == "all":
        return sorted(pairs, key=lambda p: (p.chosen.place, p.rejected.place))

    def drawn(pair: Pair) -> float:
        return draw(seed, "rejected", f"{row_id}/{pair.chosen.place}/{pair.rejected.place}")

    if config.rule == "best_vs_worst":
        return [min(pairs, key=lambda p: (p.rejected.score if p.rejected.score is not None else 0.0, drawn(p)))]
    if config.rule == "moderate":
        middle = (config.min_margin + (config.max_margin or 0)) / 2
        return [min(pairs, key=lambda p: (-(p.chosen.score or 0), abs((p.margin or 0) - middle), drawn(p)))]
    return [min(pairs, key=drawn)]


def best_of(row: dict[str, Any], config: PairsConfig, seed: int = 0) -> tuple[list[Side], str]:
    """The `keep` best answers of a row (no two of the same text), and why there are none."""
    usable = [s for s in sides_of(row, config) if s.outcome in ("ok", *config.chosen_may_be)]
    scored = [s for s in usable if s.score is not None]
    good = [s for s in scored if config.min_score is None or (s.score or 0) >= config.min_score]
    for why, left in (("no usable answer", usable), ("no scores", scored), ("no answer reaches min_score", good)):
        if not left:
            return [], why
    length = (lambda s: len(s.text)) if config.ties == "shortest" else (lambda s: 0)
    out: dict[bytes, Side] = {}
    for side in sorted(good, key=lambda s: (-(s.score or 0), length(s), draw(seed, "best", f"{row['id']}/{s.place}"))):
        out.setdefault(normalise(side.text), side)
    return list(out.values())[: config.keep], ""


def pair_rows(row: dict[str, Any], config: PairsConfig, seed: int, name: str) -> tuple[list[dict[str, Any]], str]:
    """The rows that a row of candidates gives, and why it gives none."""
    if config.output == "sft":
        sides, why = best_of(row, config, seed)
        return [_sft_row(row, side, part, name) for part, side in enumerate(sides)], why
    pairs, why = pairs_of(row, config, seed)
    return [_pair_row(row, pair, part, name) for part, pair in enumerate(pairs)], why


def _pair_row(row: dict[str, Any], pair: Pair, part: int, name: str) -> dict[str, Any]:
    meta = _told(row) | {
        "margin": pair.margin,
        "chosen_place": pair.chosen.place,
        "rejected_place": pair.rejected.place,
        "chosen_ratings": _ratings(pair.chosen),
        "rejected_ratings": _ratings(pair.rejected),
    }
    return rehash(
        _envelope(row, "pair", part, name, meta)
        | {
            "prompt": row["prompt"],
            "chosen": [_answer(pair.chosen)],
            "rejected": [_answer(pair.rejected)],
            "tools": row.get("tools"),
            "chosen_score": pair.chosen.score,
            "rejected_score": pair.rejected.score,
            "chosen_model": pair.chosen.model,
            "rejected_model": pair.rejected.model,
        }
    )


def _sft_row(row: dict[str, Any], side: Side, part: int, name: str) -> dict[str, Any]:
    meta = _told(row) | {"model": side.model, "score": side.score, "place": side.place, "ratings": _ratings(side)}
    return rehash(_envelope(row, "sft", part, name, meta) | {"messages": [*row["prompt"], _answer(side)], "tools": row.get("tools")})


def _envelope(row: dict[str, Any], kind: str, part: int, name: str, meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row_id(name, row["id"], 0, part), "kind": kind, "source": row["source"], "origin": row["origin"], "license": row["license"],
        "meta": json.dumps(meta, sort_keys=True, ensure_ascii=False), "parents": [row["id"]],
    }  # fmt: skip


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads(row["meta"]) if row.get("meta") else {}


def _ratings(side: Side) -> dict[str, float | None]:
    return {r["aspect"]: r["rating"] for r in side.candidate.get("ratings") or ()}


def _answer(side: Side) -> dict[str, Any]:
    return {"role": "assistant", "content": side.text, "thinking": side.candidate.get("thinking")}


def every_pair(
    rows: Iterator[dict[str, Any]], config: PairsConfig, seed: int, name: str
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], str]]:
    """(candidates, the rows they give, why none) for each row."""
    for row in rows:
        yield row, *pair_rows(row, config, seed, name)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    from generation.write_pairs import command

    return command(__doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
