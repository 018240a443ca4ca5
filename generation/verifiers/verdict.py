"""What a verifier says: one `Part` per verifier and per constraint, put together into one `Verdict` per completion.

>>> weigh([Part("gsm8k", 1.0, True), Part("ifeval", 0.5, False, weight=3.0)]).score
0.625
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """The result of one verifier, of one constraint in it, or of one of its tests.

    `rule` is how the answer was found or read (boxed, hash, phrase, ...), `found` what was read, `expected` what should be there.
    `error` is set when the verifier itself failed (crash, time-out, bad ground truth): then `score` is NaN, never 0.
    """

    name: str
    score: float
    passed: bool
    weight: float = 1.0
    rule: str = ""
    found: str = ""
    expected: str = ""
    reason: str = ""
    error: str = ""
    checks: tuple[Part, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict; NaN becomes None, so that the JSON is one that every reader takes."""
        out: dict[str, Any] = {k: v for k, v in asdict(self).items() if k != "checks" and (v != "" or k == "name")}
        out["score"] = None if math.isnan(self.score) else self.score
        if self.checks:
            out["checks"] = [check.to_json() for check in self.checks]
        return out

    @staticmethod
    def from_json(data: dict[str, Any]) -> Part:
        """The inverse of `to_json`."""
        checks = tuple(Part.from_json(check) for check in data.get("checks", ()))
        score = math.nan if data["score"] is None else float(data["score"])
        return Part(**{**data, "score": score, "checks": checks})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of all verifiers of a row on one completion.

    `score` is the weighted mean of the parts, 0 to 1, and NaN when any part failed to run (see `error`): a failure of ours is never
    read as a wrong answer. `passed` is all-or-nothing: every part passed and none failed to run.
    """

    score: float
    passed: bool
    parts: tuple[Part, ...]
    reason: str
    error: str = ""


def failed(name: str, error: str, weight: float = 1.0) -> Part:
    """The part of a verifier that could not do its work."""
    return Part(name, math.nan, False, weight, error=error[:500], reason="could not be verified")


def wrong(name: str, reason: str, **more: Any) -> Part:
    """A plain no."""
    return Part(name, 0.0, False, reason=reason, **more)


def combine(name: str, checks: Sequence[Part], rule: str = "") -> Part:
    """One part out of several checks: partial credit in `score` (their weighted mean), all or nothing in `passed`."""
    verdict = weigh(checks)
    return Part(name, verdict.score, verdict.passed, rule=rule, reason=verdict.reason, error=verdict.error, checks=tuple(checks))


def weigh(parts: Sequence[Part]) -> Verdict:
    """The verdict over parts: weighted mean, all-or-nothing, and a reason that names what failed."""
    errors = "; ".join(f"{p.name}: {p.error}" for p in parts if p.error)
    total = sum(p.weight for p in parts)
    score = math.nan if errors or not total else sum(p.weight * p.score for p in parts) / total
    missed = [f"{p.name}: {p.error or p.reason or 'failed'}" for p in parts if not p.passed]
    shown = "; ".join(missed[:4]) + (f"; and {len(missed) - 4} more" if len(missed) > 4 else "")
    return Verdict(score, not missed and bool(parts), tuple(parts), shown or "passed", errors)


def reweigh(part: Part, weight: float) -> Part:
    """The same part with another weight."""
    return part if part.weight == weight else replace(part, weight=weight)
