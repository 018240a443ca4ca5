"""Verifiable requirements in a request: drawn from the verifiers, stated in the text, checked in the answer.

In: how many, of which groups. Out: requirements that can hold together, each with a sentence; the row's `verifier` and `ground_truth`.

    chosen = draw(Requirements(least=1, most=3), seed=1, key="persona 7")
    lost(request, chosen)         # the first one that a rewritten request no longer states, or None
    checked(row, answer).passed   # does the answer obey all of them?

The groups keep training apart from testing: `train` is the default, `ifeval` are IFEval's own 25 kinds and only drawn when asked for
(who trains on them cannot report IFEval as unseen), `test` is held out for evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from columnar.config import Config
from generation.verifiers.constraints import CONSTRAINTS
from generation.verifiers.dispatch import verify
from generation.verifiers.sampling import Chosen, ground_truth, sample_constraints
from generation.verifiers.verdict import Verdict

# these speak about the request itself, which is rewritten after they are drawn
BOUND = frozenset(c.id for c in CONSTRAINTS.values() if "prompt_to_repeat" in c.params) | {"keywords:exclude_word_harder"}
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_SMALL = ("once", "twice", "single", "a ", "an ", "both", "pair", "dozen")


class Requirements(Config):
    """How many requirements a request gets, and of which groups.

    Attributes:
        groups: train, ifeval, test; see the module.
        exclude: ids never drawn, for example what a benchmark you report uses.
        stated: reject a request that no longer holds every word, phrase and number of its requirements.
    """

    groups: tuple[Literal["train", "ifeval", "test"], ...] = ("train",)
    least: int = Field(default=1, ge=1)
    most: int = Field(default=3, ge=1)
    exclude: list[str] = Field(default_factory=list)
    stated: bool = True


def draw(spec: Requirements, seed: int, key: str, prompt: str = "") -> list[Chosen]:
    """Requirements that can hold together: depends on the seed and the key alone.

    Raises:
        ConfigError: so many of these groups cannot hold together.
    """
    from generation.statistics import generator

    count = int(generator(seed, f"requirements\x1f{key}").integers(spec.least, max(spec.least, spec.most) + 1))
    return sample_constraints(count, f"{seed}\x1f{key}", spec.groups, prompt, [*spec.exclude, *BOUND])


def as_list(chosen: Iterable[Chosen]) -> str:
    """The sentences, one a line."""
    return "\n".join(f"- {c.description}" for c in chosen)


def lost(request: str, chosen: Iterable[Chosen]) -> Chosen | None:
    """The first requirement of which a word, phrase or number is not in the request any more."""
    text = request.casefold()
    words = set(re.findall(r"\w+", text))
    for one in chosen:
        for value in one.params.values():
            items = value if isinstance(value, list | tuple) else [value]
            if not all(_there(item, one.description.casefold(), text, words) for item in items):
                return one
    return None


def _there(value: Any, sentence: str, text: str, words: set[str]) -> bool:
    """Is a parameter that the sentence names in the text; numbers also as words."""
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int | float):
        if str(value) not in sentence:
            return True  # the sentence says it in another way, and so may the request
        spelled = _NUMBER_WORDS[int(value)] if 0 <= value < len(_NUMBER_WORDS) else ""
        return str(value) in words or f"{value:,}" in text or spelled in words or (value <= 2 and any(w in text for w in _SMALL))
    said = str(value).casefold()
    return said not in sentence or said in text


def fields(chosen: list[Chosen]) -> dict[str, str]:
    """The columns of a row that is checked by these requirements."""
    return {"verifier": "ifeval", "ground_truth": ground_truth(chosen)}


def checked(request: str, chosen: list[Chosen], answer: str) -> Verdict:
    """What the verifiers say of an answer."""
    return verify({"prompt": [{"role": "user", "content": request}], **fields(chosen)}, answer)


def notes(specs: Iterable[Requirements]) -> list[str]:
    """What has to be known of rows with these requirements."""
    groups = sorted({group for spec in specs for group in spec.groups})
    out = [f"verifiable requirements drawn from the groups: {', '.join(groups)}"] if groups else []
    if "ifeval" in groups:
        out.append(
            "these rows have IFEval's own kinds of requirements: a model trained on them must not report IFEval as an unseen benchmark"
        )
    if "test" in groups:
        out.append("these rows have the held-out kinds of requirements: use them for evaluation only")
    return out
