"""Prompts -> preference pairs in one resumable command: answers from several models, judged as they come, paired.

    python -m generation.preferences CONFIG.yaml --out out/prefs [--dry-run] [--max-cost 5] [--limit 100] [--set pairs.min_margin=1]

    prompts: out/prompts                       # a dataset directory, or a file
    models:
      - {name: a, base_url: http://localhost:8001/v1}
      - {name: b, base_url: http://localhost:8002/v1}
      - {name: c, base_url: http://localhost:8003/v1}
      - {name: d, base_url: http://localhost:8004/v1}
      - {name: gpt, model: gpt-4o-2024-08-06}
    per_prompt: 4
    judge: {mode: aspects, model: gpt}         # a judge is not in the pool unless `pool` names it
    pairs: {rule: best_vs_random_lower, min_margin: 0.5}
    until: {rows: 1000, pass: pair}            # stop when so many prompts gave a pair, at most `candidates` prompts

DIR is the dataset of pairs, DIR/candidates the judged candidates with every rating, rationale and raw reply, DIR/replies.sqlite the
cache: kill it when you like, run it again, nothing answered is asked twice and the result is the same. Another rule under `pairs`
costs no call. Each prompt is judged as soon as its own answers are in.
"""

from __future__ import annotations

import re
import sys

from pydantic import Field, field_validator

from columnar.config import Config
from generation.judge import JudgeConfig
from generation.pairs import PairsConfig
from generation.respond import RespondConfig


class Until(Config):
    """When there is enough.

    Attributes:
        rows: prompts that must pass.
        pass_: `pair` (it gives a pair, or an SFT row), `answers` (none is missing or cut off), or `score >= X` (of the best answer).
        candidates: the most prompts that are tried.
    """

    rows: int = Field(ge=1)
    pass_: str = Field("pair", alias="pass")
    candidates: int | None = None

    @field_validator("pass_")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("pair", "answers") and not re.fullmatch(r"score\s*>=\s*-?\d+(\.\d+)?", value):
            raise ValueError(f"expected pair, answers, or score >= NUMBER; found {value!r}")
        return value


class PreferencesConfig(RespondConfig):
    """What `generation.preferences` is told: everything of `respond`, and how to judge and to pair."""

    judge: JudgeConfig | list[JudgeConfig] | None = None
    pairs: PairsConfig = Field(default_factory=lambda: PairsConfig.model_validate({}))
    until: Until | None = None
    name: str = "preferences"


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    from generation.commands import command

    return command("preferences", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
