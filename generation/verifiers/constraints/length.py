"""How much text: words, sentences, paragraphs, letters. What counts as one is said in generation/verifiers/text.py.

In: text and IFEval's parameters. Out: True or False.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise

from generation.verifiers.constraints.constraint import SENTENCES, Constraint, Context, Params, nothing, plain, relation
from generation.verifiers.constraints.keywords import add_sentence
from generation.verifiers.text import divided, holds, paragraphs, sentences, words


def _draw_words(rng: random.Random, context: Context) -> Params:
    kind, n = relation(rng, 4, 24)
    return {"relation": kind, "num_words": n * 10}


def _check_words(text: str, params: Params, prompt: str) -> bool:
    return holds(len(words(text)), params["relation"], params["num_words"])


def _make_words(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    return _fit(text, words, params["relation"], params["num_words"], rng)


def _fit(text: str, count, kind: str, n: int, rng: random.Random) -> str:  # type: ignore[no-untyped-def]
    """Add or drop sentences until the count is right; the last sentence stays the last."""
    while not holds(len(count(text)), kind, n) and len(count(text)) < n:
        text = add_sentence(text, rng.choice(SENTENCES), rng) if len(sentences(text)) > 1 else f"{rng.choice(SENTENCES)} {text}"
    while not holds(len(count(text)), kind, n) and len(sentences(text)) > 1:
        text = text.replace(rng.choice(sentences(text)), "", 1).strip()
    return text


def _spoil_count(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    if params["relation"] == "less than":
        return text + "\n\n" + plain(rng, 1 + (params.get("num_words") or 0) // 5 + (params.get("num_sentences") or 0))
    return "Only this."


def _draw_sentences(rng: random.Random, context: Context) -> Params:
    kind, n = relation(rng, 3, 12)
    return {"relation": kind, "num_sentences": n}


def _check_sentences(text: str, params: Params, prompt: str) -> bool:
    return holds(len(sentences(text)), params["relation"], params["num_sentences"])


def _make_sentences(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    return _fit(text, sentences, params["relation"], params["num_sentences"], rng)


def _regroup(text: str, n: int, rng: random.Random, joint: str) -> str:
    """The text's sentences in n groups."""
    parts = list(sentences(text.replace("***", "")))
    while len(parts) < n:
        parts.append(rng.choice(SENTENCES))
    cuts = [0, *sorted(rng.sample(range(1, len(parts)), n - 1)), len(parts)]
    return joint.join(" ".join(parts[a:b]) for a, b in pairwise(cuts))


def _draw_paragraphs(rng: random.Random, context: Context) -> Params:
    return {"num_paragraphs": rng.randint(2, 5)}


def _make_divided(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    return _regroup(text, params["num_paragraphs"], rng, "\n***\n")


def _draw_first_word(rng: random.Random, context: Context) -> Params:
    count = rng.randint(2, 5)
    return {"num_paragraphs": count, "nth_paragraph": rng.randint(1, count), "first_word": context.words(rng, 1)[0]}


def _check_first_word(text: str, params: Params, prompt: str) -> bool:
    found, n = paragraphs(text), params["nth_paragraph"]
    if len(found) != params["num_paragraphs"] or not 1 <= n <= len(found):
        return False
    inside = words(found[n - 1])
    return bool(inside) and inside[0].casefold() == str(params["first_word"]).casefold()


def _make_first_word(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    if len(paragraphs(text)) != params["num_paragraphs"]:
        text = _regroup(text, params["num_paragraphs"], rng, "\n\n")
    parts = list(paragraphs(text))
    n = params["nth_paragraph"] - 1
    parts[n] = f"{str(params['first_word']).capitalize()} is the word here. {parts[n]}"
    return "\n\n".join(parts)


def _check_two_blocks(text: str, params: Params, prompt: str) -> bool:
    return len(paragraphs(text)) == 2


def _draw_letters(rng: random.Random, context: Context) -> Params:
    kind, n = relation(rng, 2, 12)
    return {"relation": kind, "N": n * 50}


def _letters(text: str) -> list[str]:
    return re.findall(r"[a-zA-Z]", text)


def _check_letters(text: str, params: Params, prompt: str) -> bool:
    return holds(len(_letters(text)), params["relation"], params["N"])


def _make_letters(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    return _fit(text, _letters, params["relation"], params["N"], rng)


def _spoil_letters(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    return "Only this." if params["relation"] == "at least" else f"{text}\n\n" + plain(rng, params["N"] // 20)


def _draw_lowercase(rng: random.Random, context: Context) -> Params:
    return {"N": rng.randint(2, 9)}


def _lowercase(text: str) -> int:
    return sum(word.islower() for word in words(text))


def _make_lowercase(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    left = params["N"]

    def change(match: re.Match[str]) -> str:
        nonlocal left
        word = match.group()
        if word.islower():
            left -= 1
            return word if left >= 0 else word.capitalize()
        return word

    return re.sub(r"[A-Za-z][\w'’.-]*", change, text)


def _draw_composition(rng: random.Random, context: Context) -> Params:
    return {"n_sent": rng.randint(2, 3), "n_words": rng.randint(3, 6)}


def _check_composition(text: str, params: Params, prompt: str) -> bool:
    parts = divided(text)
    return len(parts) == 3 and all(
        len(sentences(part)) == params["n_sent"] and all(len(words(s)) == params["n_words"] for s in sentences(part)) for part in parts
    )


def _make_composition(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    def sentence() -> str:
        return " ".join(rng.choice(SENTENCES).strip(".").split()[: params["n_words"]]) + "."

    return "\n* * *\n".join(" ".join(sentence() for _ in range(params["n_sent"])) for _ in range(3))


def _check_unique(text: str, params: Params, prompt: str) -> bool:
    found = [w.casefold() for w in words(text)]
    return len(set(found)) == len(found)


def _make_unique(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    seen: set[str] = set()
    out = []
    for token in re.findall(r"\S+\s*", text):
        here = {w.casefold() for w in words(token)}
        if not here & seen and len(here) == len(words(token)):
            out.append(token)
        seen |= here
    return "".join(out)


LENGTH_CONSTRAINTS = (
    Constraint(
        "length_constraints:number_words",
        "ifeval",
        _draw_words,
        (
            "Write {relation} {num_words} words.",
            "Your text should run to {relation} {num_words} words.",
            "Length: {relation} {num_words} words.",
        ),
        _check_words,
        _make_words,
        _spoil_count,
        params=("relation", "num_words"),
        order=3,
    ),
    Constraint(
        "length_constraints:number_sentences",
        "ifeval",
        _draw_sentences,
        (
            "Use {relation} {num_sentences} sentences.",
            "Say it in {relation} {num_sentences} sentences.",
            "The reply should have {relation} {num_sentences} sentences.",
        ),
        _check_sentences,
        _make_sentences,
        _spoil_count,
        params=("relation", "num_sentences"),
        order=2,
    ),
    Constraint(
        "length_constraints:number_paragraphs",
        "ifeval",
        _draw_paragraphs,
        (
            "Write {num_paragraphs} paragraphs and put a line with *** between them.",
            "Split the text into {num_paragraphs} paragraphs, divided by the Markdown rule ***.",
        ),
        lambda t, p, q: len(divided(t)) == p["num_paragraphs"],
        _make_divided,
        lambda t, p, r, q: f"{t}\n***\nOne part more.",
        params=("num_paragraphs",),
        order=2,
    ),
    Constraint(
        "length_constraints:nth_paragraph_first_word",
        "ifeval",
        _draw_first_word,
        (
            'Write {num_paragraphs} paragraphs with blank lines between; paragraph {nth_paragraph} begins with the word "{first_word}".',
            'Your {num_paragraphs} paragraphs are separated by an empty line; number {nth_paragraph} opens with "{first_word}".',
        ),
        _check_first_word,
        _make_first_word,
        lambda t, p, r, q: f"{t}\n\nOne paragraph more.",
        params=("num_paragraphs", "nth_paragraph", "first_word"),
        order=2,
    ),
    Constraint(
        "paragraphs:paragraphs",
        "train",
        nothing,
        ("Write two paragraphs with the Markdown divider *** between them.", "Give exactly two paragraphs; a line of *** divides them."),
        lambda t, p, q: len(divided(t)) == 2,
        lambda t, p, r, q: _make_divided(t, {"num_paragraphs": 2}, r, q),
        lambda t, p, r, q: f"{t}\n***\nOne part more.",
        order=2,
    ),
    Constraint(
        "paragraphs:paragraphs2",
        "train",
        nothing,
        (
            "Write exactly two paragraphs with an empty line between them.",
            "The answer has two paragraphs, and an empty line stands nowhere else.",
        ),
        _check_two_blocks,
        lambda t, p, r, q: _regroup(t, 2, r, "\n\n"),
        lambda t, p, r, q: f"{t}\n\nOne paragraph more.",
        order=2,
    ),
    Constraint(
        "letters:letter_counting",
        "train",
        _draw_letters,
        ("Use {relation} {N} letters in all.", "Count the letters of your answer: there should be {relation} {N}."),
        _check_letters,
        _make_letters,
        _spoil_letters,
        params=("N", "relation"),
        order=3,
    ),
    Constraint(
        "count:lowercase_counting",
        "train",
        _draw_lowercase,
        (
            "Write at most {N} words all in small letters; the others carry a capital.",
            "No more than {N} words of the answer may be entirely lower case.",
        ),
        lambda t, p, q: _lowercase(t) <= p["N"],
        _make_lowercase,
        lambda t, p, r, q: t + " and so on it went" * (p["N"] // 4 + 2),
        params=("N",),
        order=8,
    ),
    Constraint(
        "count:counting_composition",
        "train",
        _draw_composition,
        (
            "Write 3 paragraphs divided by * * *; each has exactly {n_sent} sentences, and every sentence exactly {n_words} words.",
            "Three parts with * * * between them, {n_sent} sentences a part, {n_words} words a sentence: no more, no fewer.",
        ),
        _check_composition,
        _make_composition,
        lambda t, p, r, q: f"{t} Too long now.",
        params=("n_sent", "n_words"),
        order=1,
    ),
    Constraint(
        "count:count_unique",
        "train",
        nothing,
        ("Never use a word twice.", "Every word of the answer may occur only once."),
        _check_unique,
        _make_unique,
        lambda t, p, r, q: f"{t} The end is the end.",
        order=9,
    ),
)
