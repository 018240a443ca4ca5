"""The test group: kinds of constraints kept apart from training, to measure whether following instructions carries over.

They are drawn only when the group `test` is asked for. None of them is an IFEval type, nor one of the published training types.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise

from generation.verifiers.constraints.constraint import SENTENCES, Constraint, Params, nothing
from generation.verifiers.constraints.content import draw_n
from generation.verifiers.constraints.keywords import add_sentence, folded
from generation.verifiers.text import has_word, lines, sentences, unfenced, words

_ONE = "[\U0001f300-\U0001f3fa\U0001f400-\U0001faff\u2600-\u27bf][\U0001f3fb-\U0001f3ff]?"
_EMOJI = re.compile(f"[\U0001f1e6-\U0001f1ff]{{2}}|{_ONE}(?:\u200d{_ONE})*")  # flags, skin tones and families are one each
_PARTS = ("First", "Second", "Third", "Fourth", "Fifth")
_ACROSTICS = ("HOPE", "RAIN", "STONE", "LAKE", "WIND", "BREAD")


def _rising(text: str) -> bool:
    lengths = [len(words(s)) for s in sentences(text)]
    return len(lengths) > 1 and all(a < b for a, b in pairwise(lengths))


def _make_rising(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    rich = [w for w in " ".join(SENTENCES).replace(".", "").lower().split() if len(w) > 2]
    start = rng.randint(3, 5)
    return " ".join(" ".join(rng.sample(rich, start + i)).capitalize() + "." for i in range(rng.randint(3, 5)))


def _make_lipogram(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    return " ".join(w for w in text.split(" ") if params["letter"] not in w.casefold()) or "Hm."


def _longest(text: str) -> int:
    return max(map(len, words(text)), default=0)


def _check_acrostic(text: str, params: Params, prompt: str) -> bool:
    if any(len(words(line)) < 2 for line in lines(text)):
        return False
    firsts = "".join(words(line)[0][0] for line in lines(text))
    return firsts.casefold() == params["word"].casefold()


def _make_acrostic(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    return "\n".join(
        f"{letter.upper()}{rng.choice(['ong', 'est', 'ar', 'im'])} {rng.choice(SENTENCES).lower()}" for letter in params["word"]
    )


def _numbered(text: str) -> list[int]:
    found = re.findall(r"(?m)^[ \t]*(\d{1,3})[.)][ \t]+(.*)$", unfenced(text))
    said = [rest.strip().casefold() for _, rest in found]
    return [int(n) for (n, _), rest in zip(found, said, strict=True) if has_word(rest) and said.count(rest) == 1]


def _make_numbered(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    return text + "\n" + "\n".join(f"{i + 1}. {s}" for i, s in enumerate(rng.sample(SENTENCES, params["n"])))


def _check_table(text: str, params: Params, prompt: str) -> bool:
    """One Markdown table: header, rule, and so many rows of so many cells, each with something in it."""
    shown = [line.strip() for line in text.splitlines()]
    at = [i for i, line in enumerate(shown) if len(line) > 1 and line.startswith("|") and line.endswith("|")]
    if not at or at[-1] - at[0] != len(at) - 1:
        return False
    rows = [shown[i] for i in at]
    cells = [[c.strip() for c in row[1:-1].split("|")] for row in rows]
    if len(cells) != params["rows"] + 2 or not all(re.fullmatch(r":?-+:?", c) for c in cells[1]):
        return False
    return all(len(row) == params["columns"] for row in cells) and all(has_word(c) for i, row in enumerate(cells) if i != 1 for c in row)


def _make_table(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    def row(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    width = params["columns"]
    body = [row([f"cell {i} {j}" for j in range(width)]) for i in range(params["rows"])]
    return "\n".join([text, "", row([f"head {j}" for j in range(width)]), row(["---"] * width), *body])


def _questions(text: str) -> int:
    return sum(s.rstrip("\"'”’)*_").endswith(("?", "？")) for s in sentences(text))


def _make_questions(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    text = text.replace("?", ".")
    while _questions(text) < params["n"]:
        text = add_sentence(text, rng.choice(["Who can say?", "Is it so?", "What then?"]), rng)
    return text


def _alliterates(text: str, n: int) -> bool:
    run, before = 0, " "
    for word in (w.casefold() for w in words(text)):
        run = run + 1 if word[0] == before[0] and word.isalpha() and word != before else 1
        before = word
        if run >= n:
            return True
    return False


def _parentheses(text: str) -> int:
    return sum(has_word(inside) for inside in re.findall(r"\(([^()\n]+)\)", text))


def _make_parentheses(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    text = text.replace("(", "").replace(")", "")
    return "So it is" + " (as we know)" * params["n"] + f". {text}"


def _headings(text: str) -> int:
    found = [rest.strip().casefold() for rest in re.findall(r"(?m)^#{1,6}[ \t]+(.+)$", unfenced(text))]
    return len({rest for rest in found if has_word(rest)})


def _make_headings(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    body = re.sub(r"(?m)^#.*$", "", text)
    return "\n\n".join(f"## {_PARTS[i]} part\n{rng.choice(SENTENCES)}" for i in range(params["n"])) + f"\n\n{body}"


def _digits_sum(text: str) -> int:
    return sum(int(n) for n in re.findall(r"(?<![\w.,])\d{1,6}(?![\w]|[.,]\d)", text))


def _make_sum(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    part = rng.randint(1, params["total"] - 1)
    return re.sub(r"\d+", "some", text) + f" They counted {part} birds and {params['total'] - part} boats."


HELD_OUT_CONSTRAINTS = (
    Constraint(
        "sentences:rising_length",
        "test",
        nothing,
        ("Every sentence has more words than the one before.", "Let the sentences grow longer, word by word, from first to last."),
        lambda t, p, q: _rising(t),
        _make_rising,
        lambda t, p, r, q: f"{t} Stop.",
        order=2,
    ),
    Constraint(
        "letters:lipogram",
        "test",
        lambda r, c: {"letter": r.choice("bcfgjkmpqvwxyz")},
        ('Do not use the letter "{letter}".', 'Write without a single "{letter}", small or capital.'),
        lambda t, p, q: p["letter"] not in folded(t).casefold(),
        _make_lipogram,
        lambda t, p, r, q: t + " " + r.choice([p["letter"], p["letter"].upper()]),
        params=("letter",),
        order=7,
    ),
    Constraint(
        "words:longest",
        "test",
        draw_n("n", 7, 12),
        ("No word may be longer than {n} letters.", "Keep every word to {n} characters or fewer."),
        lambda t, p, q: _longest(t) <= p["n"],
        lambda t, p, r, q: " ".join(w for w in t.split(" ") if _longest(w) <= p["n"]) or "Yes.",
        lambda t, p, r, q: f"{t} incomprehensibilities",
        params=("n",),
        order=7,
    ),
    Constraint(
        "lines:acrostic",
        "test",
        lambda r, c: {"word": r.choice(_ACROSTICS)},
        ("The first letters of the lines spell {word}.", "Write an acrostic: line by line the initials give {word}."),
        _check_acrostic,
        _make_acrostic,
        lambda t, p, r, q: f"{t}\nZebra line.",
        params=("word",),
        order=2,
    ),
    Constraint(
        "lists:numbered",
        "test",
        draw_n("n", 2, 6),
        ("Include a numbered list of exactly {n} items: 1. 2. and so on.", "Number {n} points from 1 to {n}, a line each."),
        lambda t, p, q: _numbered(t) == list(range(1, p["n"] + 1)),
        _make_numbered,
        lambda t, p, r, q: t + r.choice(["\n9. One more.", f"\n{p['n'] + 1}. One more."]),
        params=("n",),
        order=4,
    ),
    Constraint(
        "format:table",
        "test",
        lambda r, c: {"rows": r.randint(2, 4), "columns": r.randint(2, 4)},
        (
            "Include a Markdown table with {columns} columns and {rows} rows below its header.",
            "Show a table in Markdown: {rows} rows of {columns} filled cells, and a header.",
        ),
        _check_table,
        _make_table,
        lambda t, p, r, q: f"{t}\n| one | more |",
        params=("rows", "columns"),
        order=4,
    ),
    Constraint(
        "punctuation:questions",
        "test",
        draw_n("n", 1, 4),
        ("Ask exactly {n} questions.", "Exactly {n} of your sentences end with a question mark."),
        lambda t, p, q: _questions(t) == p["n"],
        _make_questions,
        lambda t, p, r, q: f"{t} Really so?",
        params=("n",),
    ),
    Constraint(
        "words:alliteration",
        "test",
        draw_n("n", 3, 5),
        ("Use at least {n} words in a row that begin with the same letter.", "Let {n} neighbouring words start alike."),
        lambda t, p, q: _alliterates(t, p["n"]),
        lambda t, p, r, q: add_sentence(t, "Big blue boats bring brave birds.", r),
        lambda t, p, r, q: "We ate it. " * 9,
        params=("n",),
    ),
    Constraint(
        "punctuation:parentheses",
        "test",
        draw_n("n", 1, 4),
        ("Use exactly {n} remarks in (round brackets).", "There should be exactly {n} bracketed asides, like (this)."),
        lambda t, p, q: _parentheses(t) == p["n"],
        _make_parentheses,
        lambda t, p, r, q: f"{t} (one more)",
        params=("n",),
    ),
    Constraint(
        "format:headings",
        "test",
        draw_n("n", 2, 4),
        ("Use exactly {n} Markdown headings (#).", "Structure it with {n} headings in Markdown."),
        lambda t, p, q: _headings(t) == p["n"],
        _make_headings,
        lambda t, p, r, q: f"{t}\n# One more",
        params=("n",),
        order=4,
    ),
    Constraint(
        "emoji:count",
        "test",
        draw_n("n", 1, 5),
        ("Use exactly {n} emoji.", "Put in {n} emoji, no more and no fewer."),
        lambda t, p, q: len(_EMOJI.findall(t)) == p["n"],
        lambda t, p, r, q: _EMOJI.sub("", t) + " 🌲" * p["n"],
        lambda t, p, r, q: f"{t} 🌲",
        params=("n",),
        order=6,
    ),
    Constraint(
        "numbers:total",
        "test",
        draw_n("total", 10, 99),
        ("Use whole numbers in digits that add up to {total}.", "The numbers you write in digits must sum to {total}."),
        lambda t, p, q: _digits_sum(t) == p["total"],
        _make_sum,
        lambda t, p, r, q: f"{t} And 7 more.",
        params=("total",),
        order=6,
    ),
)
