"""What a run has asked, got and spent: per model, for the progress line, the budget and the manifest.

>>> meter = Meter(); meter.note("a", "ok", 10, 20, Price(input=1, output=2), cached=False); round(meter.dollars, 6)
5e-05
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from generation.models import ModelConfig, Price
from generation.wire import length_limit

BYTES_PER_TOKEN = 3  # of a prompt, for estimates: on the safe side for English, near the truth for code
USUAL_ANSWER = 500  # tokens, until a model has shown how long its answers are


@dataclass
class Count:
    """One model's calls."""

    asked: int = 0
    cached: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)


class Meter:
    """Counts of this process; `models` maps a model's name to its Count."""

    def __init__(self) -> None:
        self.models: dict[str, Count] = {}
        self.began = time.monotonic()

    def of(self, model: str) -> Count:
        """The counts of one model."""
        return self.models.setdefault(model, Count())

    def note(self, model: str, outcome: str, prompt_tokens: int, completion_tokens: int, price: Price | None, cached: bool) -> None:
        """One reply."""
        count = self.of(model)
        count.outcomes[outcome] = count.outcomes.get(outcome, 0) + 1
        if cached:
            count.cached += 1
            return
        count.asked += 1
        count.prompt_tokens += prompt_tokens
        count.completion_tokens += completion_tokens
        count.dollars += price.cost(prompt_tokens, completion_tokens) if price else 0.0

    @property
    def dollars(self) -> float:
        """Spent by this process."""
        return sum(c.dollars for c in self.models.values())

    @property
    def calls(self) -> int:
        """Requests that went to a server."""
        return sum(c.asked for c in self.models.values())

    def failed(self) -> int:
        """Replies without an answer."""
        return sum(n for c in self.models.values() for outcome, n in c.outcomes.items() if outcome in ("failed", "timeout", "unparsable"))

    def line(self) -> str:
        """For the progress line: calls, tokens a second, money, failures."""
        seconds = max(time.monotonic() - self.began, 1e-6)
        tokens = sum(c.completion_tokens for c in self.models.values())
        cached = sum(c.cached for c in self.models.values())
        failed = self.failed()
        parts = [f"{self.calls:,} calls", f"{tokens / seconds:,.0f} tokens/s", f"${self.dollars:,.2f}"]
        return ", ".join(parts + ([f"{cached:,} cached"] if cached else []) + ([f"{failed:,} failed"] if failed else []))

    def table(self) -> list[dict[str, Any]]:
        """One line a model, for people."""
        return [
            {
                "model": name,
                "asked": c.asked,
                "cached": c.cached,
                "retries": c.retries,
                "prompt tokens": c.prompt_tokens,
                "completion tokens": c.completion_tokens,
                "dollars": round(c.dollars, 4),
                **dict(sorted(c.outcomes.items())),
            }
            for name, c in sorted(self.models.items())
        ]


def estimate(config: ModelConfig, body: dict[str, Any], answer_tokens: float | None = None) -> tuple[float, float, float]:
    """Prompt tokens, completion tokens and dollars that a call may come to.

    Args:
        answer_tokens: how long this model's answers have been; None = the request's limit, or USUAL_ANSWER without one.
    """
    prompt = sum(len((m.get("content") or "").encode("utf-8", "replace")) for m in body["messages"]) / BYTES_PER_TOKEN
    answer = answer_tokens if answer_tokens is not None else length_limit(body) or USUAL_ANSWER
    price = config.rate or Price()
    return prompt, answer, price.cost(prompt, answer)
