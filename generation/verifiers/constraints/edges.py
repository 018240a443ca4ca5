"""How a text, or each of its sentences, begins and ends.

In: text and IFEval's parameters. Out: True or False. White space and emphasis marks at the ends are not part of the text.
"""

from __future__ import annotations

import random
import re

from generation.verifiers.constraints.constraint import Constraint, Context, Params, nothing
from generation.verifiers.text import sentences, words

_EDGE = " \t\n*_`>"
ENDINGS = (
    "Is there anything else you would like to know?",
    "That is all for today.",
    "Any further questions?",
    "Thank you for your patience.",
)


def _check_end(text: str, params: Params, prompt: str) -> bool:
    """The very last words are the phrase; quotation marks and emphasis may close behind it."""
    phrase = " ".join(str(params["end_phrase"]).casefold().split()).strip(" \"'“”")
    said = " ".join(text.casefold().split()).rstrip(_EDGE + "\"'”’")
    said_bare, phrase_bare = said.rstrip(_EDGE), phrase.rstrip(_EDGE + "\"'”’")
    if not phrase_bare or not said_bare.endswith(phrase_bare):
        return False
    before = said_bare[: -len(phrase_bare)]
    return not before or not (before[-1].isalnum() and phrase_bare[0].isalnum())


def _make_end(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    quoted = text.rstrip().endswith('"') and text.lstrip().startswith('"')
    return f'{text.rstrip()[:-1]} {params["end_phrase"]}"' if quoted else f"{text} {params['end_phrase']}"


def _check_quotation(text: str, params: Params, prompt: str) -> bool:
    """One pair of double quotation marks around everything: `"a" and "b"` is not wrapped, a single `"` is nothing."""
    body = text.strip()
    if len(body) < 3 or (body[0], body[-1]) not in (('"', '"'), ("“", "”"), ("«", "»"), ("„", "“"), ("「", "」")):
        return False
    inside = body[1:-1]
    if body.startswith('""'):
        return False
    first = re.search(r'["“”]', inside)
    return first is None or first.group() == "“" or first.start() == 0 or inside[first.start() - 1] in " \n\t(:—-\\"


def one_word(name: str):  # type: ignore[no-untyped-def]
    """A draw of one word."""

    def draw(rng: random.Random, context: Context) -> Params:
        return {name: context.words(rng, 1)[0]}

    return draw


def _is(word: str, wanted: str) -> bool:
    return word.casefold() == str(wanted).strip(" .,!?\"'").casefold()


def _check_first(text: str, params: Params, prompt: str) -> bool:
    return _is(words(text)[0], params["first_word"])


def _check_each_first(text: str, params: Params, prompt: str) -> bool:
    return all(_is(words(s)[0], params["first_word"]) for s in sentences(text))


def _check_last(text: str, params: Params, prompt: str) -> bool:
    return _is(words(text)[-1], params["last_word"])


def _check_each_last(text: str, params: Params, prompt: str) -> bool:
    return all(_is(words(s)[-1], params["last_word"]) for s in sentences(text))


def each(change):  # type: ignore[no-untyped-def]
    """A maker that changes every sentence."""

    def make(text: str, params: Params, rng: random.Random, prompt: str) -> str:
        for sentence in dict.fromkeys(sentences(text)):
            text = (
                text.replace(sentence, change(sentence, params), 1)
                if text.count(sentence) == 1
                else text.replace(sentence, change(sentence, params))
            )
        return text

    return make


def _first_of(sentence: str, params: Params) -> str:
    word = str(params["first_word"])
    return (
        sentence
        if words(sentence) and _is(words(sentence)[0], word)
        else f"{word.capitalize()} it says {sentence[0].lower()}{sentence[1:]}"
    )


def _last_of(sentence: str, params: Params) -> str:
    return (
        sentence
        if _is(words(sentence)[-1], params["last_word"])
        else re.sub(r"([.!?]*)$", rf" near the {params['last_word']}\1", sentence, count=1)
    )


def _check_same_ends(text: str, params: Params, prompt: str) -> bool:
    """The first word is the last too, two words at least, and nothing but white space behind it."""
    found = words(text)
    return len(found) > 1 and found[0].casefold() == found[-1].casefold() and text.rstrip()[-1].isalnum()


EDGE_CONSTRAINTS = (
    Constraint(
        "startend:end_checker",
        "ifeval",
        lambda r, c: {"end_phrase": r.choice(ENDINGS)},
        ("Finish with exactly this phrase: {end_phrase}", 'The last words have to be "{end_phrase}" and nothing may follow.'),
        _check_end,
        _make_end,
        lambda t, p, r, q: r.choice([f"{t} Bye now.", t[:-8], f"{t}\n\nBest wishes"]),
        params=("end_phrase",),
        order=7,
    ),
    Constraint(
        "startend:quotation",
        "ifeval",
        nothing,
        ("Put the whole answer inside double quotation marks.", "Wrap everything you write in one pair of double quotes."),
        _check_quotation,
        lambda t, p, r, q: '"' + t.replace('"', "'").strip() + '"',
        lambda t, p, r, q: r.choice([t[:-1], t[1:], '"', '""', f'{t} said she "']),
        order=12,
    ),
    Constraint(
        "first_word:first_word_answer",
        "train",
        one_word("first_word"),
        ('Begin your answer with the word "{first_word}".', 'The very first word is "{first_word}".'),
        _check_first,
        lambda t, p, r, q: f"{p['first_word'].capitalize()} comes first here. {t}",
        lambda t, p, r, q: f"Well {t}",
        params=("first_word",),
        order=8,
    ),
    Constraint(
        "first_word:first_word_sent",
        "train",
        one_word("first_word"),
        ('Begin every sentence with the word "{first_word}".', 'Each sentence has to open with "{first_word}".'),
        _check_each_first,
        each(_first_of),
        lambda t, p, r, q: f"{t} And so on.",
        params=("first_word",),
        order=6,
    ),
    Constraint(
        "last_word:last_word_answer",
        "train",
        one_word("last_word"),
        ('End your answer with the word "{last_word}".', 'The very last word is "{last_word}".'),
        _check_last,
        lambda t, p, r, q: f"{t} It was the {p['last_word']}.",
        lambda t, p, r, q: f"{t} Or not.",
        params=("last_word",),
        order=8,
    ),
    Constraint(
        "last_word:last_word_sent",
        "train",
        one_word("last_word"),
        ('End every sentence with the word "{last_word}" before its full stop.', 'The last word of each sentence is "{last_word}".'),
        _check_each_last,
        each(_last_of),
        lambda t, p, r, q: f"{t} Or not at all.",
        params=("last_word",),
        order=6,
    ),
    Constraint(
        "keywords:start_end",
        "train",
        nothing,
        (
            "Begin and end with the same word and write nothing after it, not even a full stop.",
            "Your first word comes back as the last one, with no mark behind it.",
        ),
        _check_same_ends,
        lambda t, p, r, q: f"{t} In the end {words(t)[0].lower()}",
        lambda t, p, r, q: f"{t}{r.choice(['.', ' zebra'])}",
        order=10,
    ),
)
