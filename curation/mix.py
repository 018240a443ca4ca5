"""The mix config and the arithmetic of amounts: pure, reads and writes nothing.

What goes in: a YAML file (see docs/mix.md). What comes out: a frozen `MixConfig`, and `draw`, which picks rows by hashed ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, field_validator, model_validator

from columnar.config import Config
from columnar.errors import ConfigError
from columnar.load import SourceSpec
from curation.dedup import DedupConfig
from curation.select import NO_ROW, Cut, Piece, before, first_rows
from curation.signals import SignalsConfig
from decontam.rules import DecontamConfig

Keys = npt.NDArray[np.uint64]
VALIDATION = "validation"  # the purpose of the split's numbers
Amounts = tuple[Keys, npt.NDArray[np.uint32]]  # ids of rows as integers, and the tokens of each


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


class Drawn(NamedTuple):
    """Which rows a draw takes: those whose pseudo-random number comes before the cut."""

    seed: int
    purpose: str
    cut: Cut

    def takes(self, ids: Keys) -> npt.NDArray[np.bool_]:
        """Which of these rows are taken."""
        return self.cut.takes(draw_keys(ids, self.seed, self.purpose), ids)


def draw(source: MixSource, eligible: Callable[[], Iterable[Amounts]], seed: int) -> Drawn:
    """Which of the eligible rows of one source are taken.

    A smaller amount is always a subset of a larger one under the same seed.

    Args:
        eligible: gives, again and again, the rows that passed every rule, in any pieces.

    Raises:
        ConfigError: the source has fewer eligible rows (or tokens) than the config asks for.
    """
    available, total = 0, 0
    for ids, tokens in eligible():
        available += len(ids)
        total += int(tokens.sum(dtype=np.int64))
    limit, weighed = available, False
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
        if source.tokens > total:
            raise ConfigError(
                f"{source.name}: tokens: {source.tokens:,} asked, {total:,} available in {available:,} rows",
                f"lower tokens to {total} (repeat makes more of the same rows), or loosen the rules"
                if total
                else "loosen the rules, or leave the source out",
            )
        limit, weighed = source.tokens, True
    purpose = f"sample:{source.name}"

    def first(limit: int, weighed: bool) -> Drawn:
        def pieces() -> Iterator[Piece]:
            for ids, tokens in eligible():
                yield draw_keys(ids, seed, purpose), ids, tokens if weighed else None

        return Drawn(seed, purpose, first_rows(pieces, limit))

    drawn = first(limit, weighed)
    if weighed or source.cap is not None:
        taken = sum(int(drawn.takes(ids).sum()) for ids, _ in eligible())
        if not taken and weighed:
            foremost = first(1, False)
            least = max(int(tokens[foremost.takes(ids)].sum()) for ids, tokens in eligible())
            raise ConfigError(f"{source.name}: tokens: {source.tokens:,} asked, but the first row drawn has {least:,}", "ask for more")
        if source.cap is not None and taken > source.cap:
            return first(source.cap, False)
    return drawn


def validation_cut(validation: Validation | None, prompts: Callable[[], Iterable[Keys]], seed: int) -> Drawn:
    """Which rows go to validation, by their prompts: whole groups of rows with the same one, in the order of their hashed prompt.

    With `fraction` a prompt's side depends on nothing else, so adding rows moves none; with `rows` groups are taken while they
    fit, so adding rows moves at most a few at the edge.

    Args:
        prompts: gives, again and again, the prompt of every row of the mix, in any pieces.

    Raises:
        ConfigError: as many rows asked for as there are, or more.
    """
    total = sum(len(piece) for piece in prompts())
    if validation is None or not total:
        return Drawn(seed, VALIDATION, NO_ROW)
    if validation.fraction is not None:
        return Drawn(seed, VALIDATION, before(int(validation.fraction * 2**64)))
    assert validation.rows is not None
    if validation.rows >= total:
        raise ConfigError(
            f"validation: rows: {validation.rows:,} asked, the mix has {total:,}, and nothing would be left to train on",
            "lower validation.rows, or give a fraction",
        )

    def pieces() -> Iterator[Piece]:
        for piece in prompts():
            yield draw_keys(piece, seed, VALIDATION), np.zeros(len(piece), np.uint64), None

    cut = first_rows(pieces, validation.rows)
    if cut.none:
        return Drawn(seed, VALIDATION, cut)
    whole = Cut(cut.key, (1 << 64) - 1)
    fits = sum(int(whole.takes(keys, ties).sum()) for keys, ties, _ in pieces()) <= validation.rows
    return Drawn(seed, VALIDATION, whole if fits else before(cut.key))
