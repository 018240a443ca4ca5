"""The rules as named presets: when does a row of training data hold an item of a benchmark.

Each preset is one `Rule`; docs/decontamination.md has their measured recall and false flags. `DecontamConfig` is what a user
writes (under `decontam:` in a mix, or as flags of `python -m decontam.scan`): a preset and what should differ from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import field_validator

from columnar.config import Config
from columnar.errors import ConfigError
from columnar.record import ROLES

Role = Literal["system", "user", "assistant", "tool"]
Field = Literal["messages", "prompt", "chosen", "rejected", "candidates"]
FIELDS: tuple[Field, ...] = ("messages", "prompt", "chosen", "rejected", "candidates")
# An item this short says little: parts of it are no evidence, and the whole must stand as a sentence or line of its own.
SHORT_TOKENS, SHORT_BYTES = 8, 20  # below either; bytes of UTF-8 without separators, so that 8 Chinese characters are enough
TINY_TOKENS, TINY_BYTES = 4, 13  # below either ("Who are you?") it must be the whole turn
ANY = ((1, 0.0),)  # one shared n-gram is enough
WHOLE = ((1, 1.0),)


@dataclass(frozen=True)
class Rule:
    """When an item counts as found in a row, all turns of the row together.

    The share of the item's tokens that lie in n-grams shared with the row must reach `coverage`: points (tokens of the item,
    share), linear between them; `strict` means more than that share.
    """

    name: str
    source: str
    n: int
    coverage: tuple[tuple[int, float], ...]
    strict: bool = False
    aligned: tuple[tuple[int, float], ...] = ()  # or: this share of its tokens the same, token by token, beside a shared n-gram (points)
    roles: tuple[str, ...] = ROLES
    whole_items: bool = False  # an item found whole counts whatever the coverage needed; short ones count only so
    common: bool = False  # n-grams that anybody might write do not count towards the coverage
    skip_budget: int = 0  # Llama 2: this many tokens of a run may differ
    run_characters: int = 0  # GPT-4: the longest common run must have so many characters (or be the whole item)
    dataset_share: float = 0.02  # a source that holds more than this share of a benchmark's items is contaminated as a whole


PRESETS = {
    rule.name: rule
    for rule in (
        Rule(
            "caravan",
            "5-gram coverage by item length, common n-grams left out, short items only as a sentence of their own",
            n=5,
            coverage=((8, 0.9), (25, 0.5)),
            aligned=((8, 1.0), (10, 0.9), (20, 0.8)),
            whole_items=True,
            common=True,
        ),
        Rule(
            "tulu3",
            "Tülu 3 (arXiv:2411.15124), section 3.2: 8-grams, user turns, more than half of the item's tokens in one row",
            n=8,
            coverage=((1, 0.5),),
            strict=True,
            roles=("user",),
        ),
        Rule("gpt3", "GPT-3 (arXiv:2005.14165), appendix C: any shared 13-gram", n=13, coverage=ANY, strict=True),
        Rule(
            "llama2",
            "Llama 2 (arXiv:2307.09288), appendix A.6: runs of more than 10 tokens that may differ in 4, over a fifth of the item",
            n=10,
            coverage=((1, 0.2),),
            skip_budget=4,
        ),
        Rule("exact", "the whole item, normalised, inside one turn", n=5, coverage=WHOLE, whole_items=True),
        Rule(
            "substring",
            "after GPT-4 (arXiv:2303.08774), appendix C: a common run of 50 characters, or the whole item",
            n=5,
            coverage=ANY,
            strict=True,
            run_characters=50,
            whole_items=True,
        ),
    )
}


class Policy(Config):
    """What to do with a row that holds an item: drop it, or report it and keep it."""

    dev: Literal["drop", "report"] = "drop"
    unseen: Literal["drop", "report"] = "drop"


class DecontamConfig(Config):
    """What to scan for, by which rule, and what to do about it."""

    benchmarks: str | list[str] = "tulu3"  # names from the registry, a YAML file, or a folder of files
    root: str | None = None  # where relative files of the YAML start (its own folder, when absent)
    preset: str = "caravan"
    ngram: int | None = None
    threshold: float | None = None  # one share for items of every length
    characters: int | None = None  # preset substring
    roles: list[Role] | None = None
    fields: tuple[Field, ...] = FIELDS
    common: bool | None = None  # leave common n-grams out
    policy: Policy = Policy()
    fail_on: Literal["dev", "unseen", "any"] | None = None

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r} (presets: {', '.join(PRESETS)})")
        return name

    def rule(self) -> Rule:
        """The preset with this config's changes.

        Raises:
            ConfigError: a change that makes no sense.
        """
        rule = PRESETS[self.preset]
        if self.ngram is not None:
            if not 2 <= self.ngram <= 64:
                raise ConfigError(f"ngram: {self.ngram}, expected 2 to 64")
            rule = replace(rule, n=self.ngram)
        if self.threshold is not None:
            if not 0 <= self.threshold <= 1:
                raise ConfigError(f"threshold: {self.threshold}, expected a share from 0 to 1")
            rule = replace(rule, coverage=((1, self.threshold),))
        if self.characters is not None:
            if not rule.run_characters:
                raise ConfigError(f"characters: preset {rule.name} does not count characters", "use it with preset: substring")
            rule = replace(rule, run_characters=self.characters)
        if self.roles is not None:
            rule = replace(rule, roles=tuple(self.roles))
        if self.common is not None:
            rule = replace(rule, common=self.common)
        return rule


ALIGNED_TOKENS = 64  # longer items are found by their n-grams


def tokens_aligned(rule: Rule, lengths: np.ndarray) -> np.ndarray:
    """How many tokens must be the same in one alignment; 0 for items to which this does not apply."""
    if not rule.aligned:
        return np.zeros(0, np.int32)
    points, shares = zip(*rule.aligned, strict=True)
    needed = np.ceil(np.interp(lengths, points, shares) * lengths - 1e-9)
    return np.where((lengths >= max(SHORT_TOKENS, rule.n)) & (lengths <= ALIGNED_TOKENS), needed, 0).astype(np.int32)


def tokens_needed(rule: Rule, lengths: np.ndarray) -> np.ndarray:
    """How many tokens of an item must be covered, for items of these token counts (at least 1; `lengths + 1` cannot be reached)."""
    points, shares = zip(*rule.coverage, strict=True)
    exact = np.interp(lengths, points, shares) * lengths
    needed = np.floor(exact + 1e-9) + 1 if rule.strict else np.ceil(exact - 1e-9)
    return np.clip(needed, 1, None).astype(np.int32)
