"""What a constraint is: a handful of small functions, and the plain text that the makers start from.

draw      parameters that can be met (seeded)            check   does a text meet them? True/False, or a share of them
describe  a sentence that asks for it, several phrasings make    a text that does not meet it -> one that does
spoil     a text that meets it -> one that does not
`make` and `spoil` are what the property tests and the search for compatible sets stand on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from generation.verifiers.text import has_word, visible

Params = dict[str, Any]


@dataclass
class Context:
    """What a draw may look at: the request, and the words that other constraints of the set already speak about."""

    prompt: str = "Write a short note about a quiet morning in the city."
    taken: set[str] = field(default_factory=set)

    def words(self, rng: random.Random, n: int) -> list[str]:
        """n common words that no other constraint of the set has; they are taken from now on."""
        chosen = rng.sample([w for w in KEYWORDS if w not in self.taken], n)
        self.taken.update(chosen)
        return chosen


Draw = Callable[[random.Random, Context], Params]
Check = Callable[[str, Params, str], bool | float]
Change = Callable[[str, Params, random.Random, str], str]


@dataclass(frozen=True)
class Constraint:
    """One kind of verifiable instruction.

    `group`: ifeval (IFEval's own 25), train (29 more, the ids and parameters of the published training constraints) or test (held
    out: never drawn unless asked for). `order` says when `make` runs in a set: whole texts first, wrappers last.
    """

    id: str
    group: str
    draw: Draw
    phrases: tuple[str, ...]
    check: Check
    make: Change
    spoil: Change
    order: int = 5
    params: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def follows(self, text: str, params: Params, prompt: str = "") -> float:
        """How far a text meets it, 0 to 1: what a reader sees is judged, and a text without a letter or digit meets nothing."""
        seen = visible(text)
        return float(self.check(seen, params, prompt)) if has_word(seen) else 0.0

    def describe(self, params: Params, rng: random.Random) -> str:
        """A sentence that asks for it, in one of several phrasings."""
        shown = {k: ", ".join(map(str, v)) if isinstance(v, list | tuple) else v for k, v in params.items()}
        return rng.choice(self.phrases).format(**shown)


def nothing(rng: random.Random, context: Context) -> Params:
    """The draw of a constraint without parameters."""
    return {}


SENTENCES = (
    "The old house by the river was quiet in the early light.",
    "A small boat moved slowly across the wide lake.",
    "My sister reads a good book every night before sleep.",
    "We walked along the path until the trees became thin.",
    "The teacher wrote a long list of names on the board.",
    "Some people prefer to work when everything is still.",
    "Nobody in the village could remember such a warm winter.",
    "He bought fresh bread and a little cheese at the shop.",
    "The train left the station ten minutes after noon.",
    "They planted three rows of beans behind the fence.",
    "Her father repaired the broken chair with great care.",
    "The children played near the bridge for many hours.",
    "It is easy to forget how large the ocean really is.",
    "A gentle wind carried the smell of rain over the hills.",
    "You can see the tower from almost every street.",
    "Our neighbours keep two dogs and a very lazy horse.",
    "This recipe needs only flour and water and some salt.",
    "The painter used a thin brush for the final details.",
    "Most visitors arrive late and leave before dinner.",
    "The library stays open on most days of the week.",
    "An honest answer is often shorter than a clever one.",
    "She found the missing letter under a heavy box.",
    "The road to the farm is narrow but quite safe.",
    "Every morning the baker opens his door before sunrise.",
)
KEYWORDS = (
    "anchor",
    "bamboo",
    "candle",
    "desert",
    "engine",
    "falcon",
    "garden",
    "harbor",
    "island",
    "jungle",
    "kettle",
    "ladder",
    "meadow",
    "needle",
    "orchard",
    "pepper",
    "quartz",
    "ribbon",
    "saddle",
    "temple",
    "umbrella",
    "velvet",
    "walnut",
    "yogurt",
    "zipper",
    "lantern",
    "marble",
    "nephew",
    "olive",
    "pocket",
    "rocket",
    "silver",
    "thunder",
    "violin",
    "window",
    "bridge",
    "castle",
    "dragon",
    "forest",
    "glacier",
    "helmet",
    "insect",
)


def plain(rng: random.Random, n: int | None = None) -> str:
    """Plain English to start from: n sentences (4 to 9 when not given) in one to three paragraphs, no commas, no marks but full stops."""
    count = n or rng.randint(4, 9)
    chosen = rng.sample(SENTENCES, count) if count <= len(SENTENCES) else rng.choices(SENTENCES, k=count)
    breaks = sorted(rng.sample(range(1, count), min(count - 1, rng.randint(0, 2)))) if count > 1 else []
    parts, start = [], 0
    for end in [*breaks, count]:
        parts.append(" ".join(chosen[start:end]))
        start = end
    return "\n\n".join(parts)


def relation(rng: random.Random, low: int, high: int) -> tuple[str, int]:
    """IFEval's two relations with a number each that a normal answer can meet."""
    return rng.choice(["at least", "less than"]), rng.randint(low, high)
