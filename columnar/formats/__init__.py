"""The shapes we read, one small file per family; `SHAPES` is the order in which they are tried: the most telling first."""

from __future__ import annotations

from collections import Counter

from columnar.errors import ConfigError, InputError
from columnar.formats import candidates, chat, comparisons, instruction, ours, pairs, prompts, strings, tasks, trees
from columnar.formats.shape import Record, Shape

SHAPES: tuple[Shape, ...] = (
    ours.ROWS,
    trees.OASST,
    trees.OASST_PAIRS,
    trees.OASST_RANKED,
    pairs.CHOSEN_REJECTED,
    candidates.UNPAIRED,
    comparisons.COMPARISON,
    candidates.CANDIDATES,
    candidates.SOLUTIONS,
    candidates.RANKED,
    prompts.RLVR,
    strings.BAIZE,
    chat.SHAREGPT,
    chat.MESSAGES,
    tasks.TASK_FILE,
    tasks.SEED_TASKS,
    tasks.TASK_ROWS,
    candidates.MODEL_OUTPUTS,
    prompts.PERSONA,
    prompts.BENCHMARK,
    instruction.ALPACA,
    instruction.DOLLY,
    instruction.COLUMNS,
    instruction.PROMPT_COMPLETION,
    prompts.PROMPT,
)
NAMES = [shape.name for shape in SHAPES]


def named(name: str) -> Shape:
    """The shape of that name.

    Raises:
        ConfigError: there is none.
    """
    for shape in SHAPES:
        if shape.name == name:
            return shape
    raise ConfigError(f"format {name!r}: not known", "one of: auto, " + ", ".join(NAMES))


def detect(samples: list[Record]) -> tuple[str, str]:
    """The shape of some records: its name and, in words, how its fields are mapped.

    Raises:
        InputError: they match nothing we know; the message says what was found and what was tried.
    """
    often = Counter(key for record in samples for key in record)
    fields = set(often)
    # first by the fields that most records have, so that a stray record does not decide for all
    for known in ({key for key, n in often.items() if 2 * n >= len(samples)}, fields):
        for shape in SHAPES:
            words = shape.match(known, samples)
            if words is not None:
                return shape.name, words
    found = ", ".join(sorted(map(str, fields))) or "no fields at all"
    raise InputError(
        f"no known shape: the records have the fields {found}",
        f"formats tried: {', '.join(NAMES)}; map names by hand, for example --columns instruction=YOUR_FIELD,output=OTHER_FIELD "
        "(in a mix: columns: {instruction: YOUR_FIELD})",
    )
