"""The mix config and the arithmetic of amounts: pure, reads and writes nothing.

What goes in: a YAML file (see docs/mix.md). What comes out: a frozen `MixConfig`, and `draw`, which picks rows by hashed ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, field_validator, model_validator

from columnar.config import Config
from columnar.errors import ConfigError
from columnar.load import SourceSpec
from curation.dedup import DedupConfig
from curation.select import Piece, first_rows
from curation.signals import SignalsConfig
from decontam.rules import DecontamConfig

Keys = npt.NDArray[np.uint64]
PIECE = 1 << 20  # rows looked at together


class MixSource(SourceSpec):
    """One source: where it is, and how much of it. Amounts count different rows; `repeat` is how often each appears."""

    rows: int | None = Field(None, gt=0)
    fraction: float | None = Field(None, gt=0, le=1)
    tokens: int | None = Field(None, gt=0)
    all: bool | None = None
    repeat: int = Field(1, ge=1)
    cap: int | None = Field(None, gt=0)  # at most so many rows; unlike `rows`, having fewer is no error
    where: str | None = None

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        given = [name for name in ("rows", "fraction", "tokens", "all") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give exactly one of rows, fraction, tokens, all; found {' and '.join(given)}")
        if self.all is False:
            raise ValueError("all: false asks for nothing; leave the source out instead")
        return self

    @property
    def amount(self) -> str:
        """The amount in words, for plans and cards."""
        for name in ("rows", "fraction", "tokens"):
            if (value := getattr(self, name)) is not None:
                return f"{name}: {value:,}" if name != "fraction" else f"fraction: {value:g}"
        return "all" if self.cap is None else f"all, at most {self.cap:,}"


class Limits(Config):
    """Rows outside these bounds are dropped; the reason is the limit's name."""

    max_tokens: int | None = Field(None, gt=0)
    min_tokens: int | None = Field(None, ge=0)
    max_chars: int | None = Field(None, gt=0)
    min_chars: int | None = Field(None, ge=0)
    max_turns: int | None = Field(None, gt=0)
    min_turns: int | None = Field(None, ge=0)


class Validation(Config):
    """How much goes to the validation split: rows with the same prompt always land on the same side."""

    rows: int | None = Field(None, gt=0)
    fraction: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if (self.rows is None) == (self.fraction is None):
            raise ValueError("give exactly one of rows, fraction")
        return self


def _rules(value: Any) -> Any:
    """`select: ["NOT refusal"]` means `select: {"NOT refusal": "NOT refusal"}`: a rule without a name is its own reason."""
    return {rule: rule for rule in value} if isinstance(value, list) and all(isinstance(rule, str) for rule in value) else value


class MixConfig(Config):
    """A mix: sources, what is measured, what is dropped and why, how much is taken."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    kind: Literal["sft", "pair", "prompt", "candidates"]
    seed: int = 0
    root: str = "."  # relative paths start here; itself relative to the config file
    description: str | None = None
    sources: tuple[MixSource, ...] = Field(min_length=1)
    signals: SignalsConfig = SignalsConfig()
    limits: Limits = Limits()
    select: Annotated[dict[str, str], BeforeValidator(_rules)] = Field(default_factory=dict)
    exclude_flags: tuple[str, ...] = ()
    dedup: DedupConfig | None = None
    decontam: DecontamConfig | None = None
    validation: Validation | None = None
    max_reject: float | None = Field(None, ge=0, le=1)
    shard_rows: int = Field(100_000, ge=1)

    @field_validator("dedup", mode="before")
    @classmethod
    def _keep_longest(cls, dedup: Any) -> Any:
        """Unless told otherwise a mix keeps the longest of its duplicates, because that does not depend on the order of the sources."""
        return {"keep": "longest", **dedup} if isinstance(dedup, dict) else {"keep": "longest"} if dedup is True else dedup

    @field_validator("sources")
    @classmethod
    def _unique_names(cls, sources: tuple[MixSource, ...]) -> tuple[MixSource, ...]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {', '.join(twice)}; names must differ (to take a source twice, use repeat)")
        return sources


def seed_for(seed: int, purpose: str) -> np.uint64:
    """A seed of its own for each purpose, so that changing one draw changes no other."""
    return np.uint64(int.from_bytes(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest()))


def draw_keys(ids: Keys, seed: int, purpose: str) -> Keys:
    """A pseudo-random number for each id that depends on nothing but (seed, purpose, id).

    splitmix64's finaliser over the id: rows are drawn in the order of these numbers, so a draw does not depend on the order of
    files, sources or threads, and adding a source moves no row of another.
    """
    with np.errstate(over="ignore"):
        x = ids ^ seed_for(seed, purpose)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def draw(source: MixSource, ids: Keys, tokens: npt.NDArray[np.uint32], seed: int) -> npt.NDArray[np.bool_]:
    """Which of the eligible rows of one source are taken.

    A smaller amount is always a subset of a larger one under the same seed.

    Args:
        ids: the ids of the rows that passed every rule, as integers.
        tokens: the token count of each.

    Raises:
        ConfigError: the source has fewer eligible rows (or tokens) than the config asks for.
    """
    available = len(ids)
    limit, weights = available, None
    if source.rows is not None:
        if source.rows > available:
            raise ConfigError(
                f"{source.name}: rows: {source.rows:,} asked, {available:,} available after filters, dedup and decontamination",
                f"lower rows to {available} (repeat makes more of the same rows), or loosen the rules"
                if available
                else "loosen the rules, or leave the source out",
            )
        limit = source.rows
    elif source.fraction is not None:
        limit = round(source.fraction * available)
    elif source.tokens is not None:
        total = int(tokens.sum(dtype=np.int64))
        if source.tokens > total:
            raise ConfigError(
                f"{source.name}: tokens: {source.tokens:,} asked, {total:,} available in {available:,} rows",
                f"lower tokens to {total} (repeat makes more of the same rows), or loosen the rules"
                if total
                else "loosen the rules, or leave the source out",
            )
        limit, weights = source.tokens, tokens

    def pieces() -> Iterator[Piece]:
        for start in range(0, max(available, 1), PIECE):
            mine = slice(start, start + PIECE)
            yield draw_keys(ids[mine], seed, f"sample:{source.name}"), ids[mine], None if weights is None else weights[mine]

    taken = _taken(pieces, limit)
    if source.tokens is not None and not taken.any():
        least = int(tokens[np.lexsort((ids, draw_keys(ids, seed, f"sample:{source.name}")))[0]])
        raise ConfigError(f"{source.name}: tokens: {source.tokens:,} asked, but the first row drawn has {least:,}", "ask for more")
    if source.cap is not None and int(taken.sum()) > source.cap:
        weights = None
        taken = _taken(pieces, source.cap)
    return taken


def _taken(pieces: Callable[[], Iterable[Piece]], limit: int) -> npt.NDArray[np.bool_]:
    cut = first_rows(pieces, limit)
    return np.concatenate([cut.takes(keys, ids) for keys, ids, _ in pieces()])


def split_validation(prompts: Keys, validation: Validation | None, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows go to validation: whole groups of rows with the same prompt, in the order of their hashed prompt.

    With `fraction` a prompt's side depends on nothing else, so adding rows moves none; with `rows` groups are taken while they
    fit, so adding rows moves at most a few at the edge.

    Raises:
        ConfigError: as many rows asked for as there are, or more.
    """
    if validation is None or not len(prompts):
        return np.zeros(len(prompts), bool)
    if validation.rows is not None and validation.rows >= len(prompts):
        raise ConfigError(
            f"validation: rows: {validation.rows:,} asked, the mix has {len(prompts):,}, and nothing would be left to train on",
            "lower validation.rows, or give a fraction",
        )
    keys = draw_keys(prompts, seed, "validation")
    if validation.fraction is not None:
        return keys < np.uint64(int(validation.fraction * 2**64))
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(keys[order]) != 0, True)) + 1
    assert validation.rows is not None
    fitting = ends[ends <= validation.rows]
    chosen = np.zeros(len(prompts), bool)
    chosen[order[: fitting[-1] if len(fitting) else 0]] = True
    return chosen
