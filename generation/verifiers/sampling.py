"""Sets of constraints that can hold together, drawn by seed and proven by a text that meets them all.

In: how many, a seed, the groups, a request. Out: `Chosen`s: id, parameters, and a sentence that asks for it.
Three sieves: the conflict table (conflicts.py), words that no two constraints share, and a witness: a plain text that the constraints'
own makers turn, round by round, into one that meets every constraint. A set without a witness is drawn again.

>>> [c.id for c in sample_constraints(3, seed=1)]  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import NamedTuple

from columnar.errors import ConfigError
from generation.verifiers.conflicts import conflict
from generation.verifiers.constraints import CONSTRAINTS, GROUPS, Context, plain
from generation.verifiers.constraints.constraint import Params


class Chosen(NamedTuple):
    """A constraint with its parameters, and the sentence that asks for it."""

    id: str
    params: Params
    description: str


def sample_constraints(
    n: int, seed: int | str, groups: Sequence[str] = ("ifeval", "train"), prompt: str = "", exclude: Sequence[str] = ()
) -> list[Chosen]:
    """n constraints of different kinds that can hold together; the same arguments give the same set.

    Args:
        groups: which kinds to draw from: ifeval, train, test (held out: only when it is asked for).
        prompt: the request that they are added to; some constraints speak about it.
        exclude: ids never to draw, for example all that a benchmark you will report uses.

    Raises:
        ConfigError: an unknown group, or more constraints than can hold together.
    """
    unknown = [g for g in groups if g not in GROUPS]
    if unknown or not groups:
        raise ConfigError(f"constraint group {unknown[0] if unknown else groups!r}: expected some of {', '.join(GROUPS)}")
    pool = [c for c in CONSTRAINTS.values() if c.group in groups and c.id not in exclude]
    rng = random.Random(int.from_bytes(hashlib.sha256(f"{seed}\x1fconstraints\x1f{n}\x1f{prompt}".encode()).digest()[:8], "big"))
    for _ in range(400):
        context = Context(prompt) if prompt else Context()
        chosen: list[tuple[str, Params]] = []
        for kind in rng.sample(pool, len(pool)):
            if len(chosen) == n:
                break
            if not any(conflict(kind.id, other) for other, _ in chosen):
                chosen.append((kind.id, kind.draw(rng, context)))
        if len(chosen) == n and witness(chosen, rng, context.prompt) is not None:
            return [Chosen(name, params, CONSTRAINTS[name].describe(params, rng)) for name, params in chosen]
    raise ConfigError(f"no {n} constraints of the groups {', '.join(groups)} hold together", "ask for fewer")


def witness(chosen: Sequence[tuple[str, Params]], rng: random.Random, prompt: str) -> str | None:
    """A text that meets every constraint, or None when none was found: makers repair what is not met, in their order, round by round."""
    kinds = sorted(((CONSTRAINTS[name], params) for name, params in chosen), key=lambda pair: pair[0].order)
    for _ in range(4):
        text = plain(rng)
        for _ in range(5):
            broken = [(kind, params) for kind, params in kinds if kind.follows(text, params, prompt) < 1]
            if not broken:
                return text
            for kind, params in broken:
                if len(text) < 20_000 and kind.follows(text, params, prompt) < 1 and text.strip():
                    text = kind.make(text, params, rng, prompt)
    return None


def ground_truth(chosen: Sequence[Chosen]) -> str:
    """The `ground_truth` of a row whose verifier is `ifeval`."""
    return json.dumps({"constraints": [{"id": c.id, "params": c.params} for c in chosen]}, ensure_ascii=False)
