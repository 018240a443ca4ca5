"""Words that must, must not, or must so often appear; whole words only, whatever their case.

In: text and IFEval's parameters. Out: True, False, or the share of the keywords that are there.
"""

from __future__ import annotations

import random
import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

from generation.verifiers.constraints.constraint import Constraint, Context, Params, nothing, plain
from generation.verifiers.text import has_word, holds, occurrences, sentences, words

_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһոαεορτυνικᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "aeopcyxijsdhnaeoptuvikabcdefghijklmnoprstuvwyz"
)  # Cyrillic, Armenian and Greek letters and small capitals that pass for Latin ones


@lru_cache(maxsize=64)
def folded(text: str) -> str:
    """Text in which a forbidden word cannot hide: compatibility forms, accents and look-alike letters made plain."""
    if text.isascii():
        return text
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return bare.casefold().translate(_LOOKALIKES)


def add_sentence(text: str, sentence: str, rng: random.Random) -> str:
    """The text with one more sentence after one of its sentences, never after the last words."""
    ends = [m.end() for m in re.finditer(r"[.!?](?= )", text)]
    if not ends:
        return f"{sentence} {text}"
    at = rng.choice(ends)
    return f"{text[:at]} {sentence}{text[at:]}"


def mention(word: str, rng: random.Random) -> str:
    """A sentence with the word in it."""
    return rng.choice(
        ["They talked about the {} for a while.", "Then the {} was mentioned again.", "There was also a {} in the story."]
    ).format(word)


def without(text: str, word: str) -> str:
    """The text with every whole occurrence of a word replaced by a harmless one."""
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "thing", text, flags=re.IGNORECASE)


def _draw_existence(rng: random.Random, context: Context) -> Params:
    return {"keywords": sorted(context.words(rng, rng.randint(1, 3)))}


def _check_existence(text: str, params: Params, prompt: str) -> float:
    keywords = params["keywords"]
    return sum(occurrences(text, k) > 0 for k in keywords) / len(keywords)


def _make_existence(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    for keyword in params["keywords"]:
        if not occurrences(text, keyword):
            text = add_sentence(text, mention(keyword, rng), rng)
    return text


def _spoil_existence(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    word = rng.choice(params["keywords"])
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", f"{word}ish", text, flags=re.IGNORECASE)


def _draw_frequency(rng: random.Random, context: Context) -> Params:
    return {"keyword": context.words(rng, 1)[0], "relation": rng.choice(["at least", "less than"]), "frequency": rng.randint(2, 4)}


def _check_frequency(text: str, params: Params, prompt: str) -> bool:
    return holds(occurrences(text, params["keyword"]), params.get("relation") or "exactly", params["frequency"])


def _make_frequency(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    wanted = params["frequency"] if (params.get("relation") or "exactly") != "less than" else params["frequency"] - 1
    if params.get("relation") != "at least" and occurrences(text, params["keyword"]) > wanted:
        text = without(text, params["keyword"])
    while occurrences(text, params["keyword"]) < wanted:
        text = add_sentence(text, mention(params["keyword"], rng), rng)
    return text


def _spoil_frequency(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    if params.get("relation") == "at least":
        return without(text, params["keyword"])
    return text + f" {params['keyword']}" * (params["frequency"] + 1)


def _draw_forbidden(rng: random.Random, context: Context) -> Params:
    return {"forbidden_words": sorted(context.words(rng, rng.randint(1, 3)))}


def _check_forbidden(text: str, params: Params, prompt: str) -> bool:
    plain_text = folded(text).replace("_", " ")
    return not any(
        occurrences(plain_text, folded(w)) or occurrences(text, w) or _spelt(plain_text, folded(w)) for w in params["forbidden_words"]
    )


def _spelt(text: str, word: str) -> bool:
    """Does the word stand there letter by letter: `c-a-t`, `c a t`, `c*a*t`?"""
    if len(word) < 3 or not word.isalpha():
        return False
    return any(occurrences(text, mark.join(word)) for mark in "-. *·")


def _make_forbidden(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    for word in params["forbidden_words"]:
        text = without(text, word)
    return text


def _spoil_forbidden(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    word = rng.choice(params["forbidden_words"])
    return add_sentence(
        text, mention(rng.choice([word, word.upper(), f"{word}-like", f"*{word}*", word[0] + "\u200b" + word[1:]]), rng), rng
    )


def _draw_letter(rng: random.Random, context: Context) -> Params:
    relation = rng.choice(["at least", "less than"])
    letter = rng.choice("bcdghklmpuvwy" if relation == "at least" else "jqxz")
    return {"letter": letter, "let_relation": relation, "let_frequency": rng.randint(3, 10)}


def _check_letter(text: str, params: Params, prompt: str) -> bool:
    seen = folded(text) if params["let_relation"] in ("less than", "at most") else text  # an é is an e where there may be none
    return holds(seen.casefold().count(params["letter"].casefold()), params["let_relation"], params["let_frequency"])


def _make_letter(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    letter = params["letter"]
    if params["let_relation"] == "at least":
        while text.casefold().count(letter) < params["let_frequency"]:
            text = add_sentence(text, f"The sign says {(letter + 'a') * 4}.", rng)
        return text
    return " ".join(w for w in text.split(" ") if letter not in w.casefold())


def _spoil_letter(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    letter = params["letter"]
    return (
        re.sub(re.escape(letter), "", text, flags=re.IGNORECASE)
        if params["let_relation"] == "at least"
        else text + " " + letter * params["let_frequency"]
    )


def _draw_once(rng: random.Random, context: Context) -> Params:
    return {"keyword": context.words(rng, 1)[0]}


def _once(params: Params) -> Params:
    return {"keyword": params["keyword"], "relation": "exactly", "frequency": 1}


def _draw_exclude(rng: random.Random, context: Context) -> Params:
    known = [w.casefold() for w in words(context.prompt) if len(w) > 3 and w.isalpha() and w.casefold() not in context.taken]
    keyword = rng.choice(sorted(set(known))) if known else context.words(rng, 1)[0]
    context.taken.add(keyword)
    return {"keyword": keyword}


def _draw_increment(rng: random.Random, context: Context) -> Params:
    first, second = context.words(rng, 2)
    return {"keyword1": first, "keyword2": second}


def _increments(params: Params) -> list[Params]:
    return [{"keyword": params[f"keyword{n}"], "relation": "exactly", "frequency": n} for n in (1, 2)]


def _make_increment(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    for one in _increments(params):
        text = _make_frequency(text, one, rng, prompt)
    return text


def _draw_position(rng: random.Random, context: Context) -> Params:
    return {"keyword": context.words(rng, 1)[0], "n": rng.randint(1, 4), "m": rng.randint(1, 5)}


def _check_position(text: str, params: Params, prompt: str) -> bool:
    found = sentences(text)
    if not 1 <= params["n"] <= len(found):
        return False
    inside = words(found[params["n"] - 1])
    return params["m"] <= len(inside) and inside[params["m"] - 1].casefold() == params["keyword"].casefold()


def _make_position(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    while len(sentences(text)) < params["n"] or len(words(sentences(text)[params["n"] - 1])) < params["m"]:
        text = plain(rng, params["n"] + 1)
    sentence = sentences(text)[params["n"] - 1]
    pieces = sentence.split()
    pieces[params["m"] - 1] = re.sub(r"[\w'-]+", params["keyword"], pieces[params["m"] - 1], count=1)
    return text.replace(sentence, " ".join(pieces), 1)


def _check_palindrome(text: str, params: Params, prompt: str) -> bool:
    return any(len(w) >= 5 and w.isalpha() and w == w[::-1] and len(set(w)) > 1 for w in (x.casefold() for x in words(text)))


def _check_neighbours(text: str, params: Params, prompt: str) -> bool:
    firsts = [w[0].casefold() for w in words(text)]
    return has_word(text) and not any(a.isalpha() and ord(b) - ord(a) == 1 for a, b in pairwise(firsts))


def _make_neighbours(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    out: list[str] = []
    for token in re.findall(r"\S+\s*", text):
        here = words(token)
        before = words(out[-1]) if out else ()
        if not (here and before and ord(here[0][0].casefold()) - ord(before[-1][0].casefold()) == 1):
            out.append(token)
    return "".join(out)


KEYWORD_CONSTRAINTS = (
    Constraint(
        "keywords:existence",
        "ifeval",
        _draw_existence,
        (
            "Use each of these words at least once: {keywords}.",
            "Your answer has to mention: {keywords}.",
            "Work the following into your reply: {keywords}.",
        ),
        _check_existence,
        _make_existence,
        _spoil_existence,
        params=("keywords",),
    ),
    Constraint(
        "keywords:frequency",
        "ifeval",
        _draw_frequency,
        (
            'The word "{keyword}" should be used {relation} {frequency} times.',
            'Let "{keyword}" occur {relation} {frequency} times in what you write.',
        ),
        _check_frequency,
        _make_frequency,
        _spoil_frequency,
        params=("keyword", "frequency"),
        optional=("relation",),
    ),
    Constraint(
        "keywords:forbidden_words",
        "ifeval",
        _draw_forbidden,
        (
            "Never use any of these words: {forbidden_words}.",
            "Write it without the following: {forbidden_words}.",
            "These are off limits: {forbidden_words}.",
        ),
        _check_forbidden,
        _make_forbidden,
        _spoil_forbidden,
        params=("forbidden_words",),
        order=7,
    ),
    Constraint(
        "keywords:letter_frequency",
        "ifeval",
        _draw_letter,
        (
            'The letter "{letter}" should turn up {let_relation} {let_frequency} times.',
            'Use the letter "{letter}" {let_relation} {let_frequency} times, capital or small.',
        ),
        _check_letter,
        _make_letter,
        _spoil_letter,
        params=("letter", "let_relation", "let_frequency"),
    ),
    Constraint(
        "keywords:word_once",
        "train",
        _draw_once,
        ('Use the word "{keyword}" exactly once.', 'The word "{keyword}" belongs in your answer one time, no more and no less.'),
        lambda t, p, q: _check_frequency(t, _once(p), q),
        lambda t, p, r, q: _make_frequency(t, _once(p), r, q),
        lambda t, p, r, q: _spoil_frequency(t, _once(p), r, q),
        params=("keyword",),
    ),
    Constraint(
        "keywords:word_count_different_numbers",
        "train",
        _draw_frequency,
        (
            'Make sure that "{keyword}" comes up {relation} {frequency} times.',
            'Count your uses of "{keyword}": there should be {relation} {frequency}.',
        ),
        _check_frequency,
        _make_frequency,
        _spoil_frequency,
        params=("keyword", "frequency"),
        optional=("relation",),
    ),
    Constraint(
        "keywords:exclude_word_harder",
        "train",
        _draw_exclude,
        ('Although the request contains it, do not use the word "{keyword}".', 'Answer without repeating the word "{keyword}".'),
        lambda t, p, q: _check_forbidden(t, {"forbidden_words": [p["keyword"]]}, q),
        lambda t, p, r, q: without(t, p["keyword"]),
        lambda t, p, r, q: add_sentence(t, mention(p["keyword"], r), r),
        params=("keyword",),
        order=7,
    ),
    Constraint(
        "letters:letter_counting2",
        "train",
        _draw_letter,
        (
            'Let the letter "{letter}" occur {let_relation} {let_frequency} times.',
            'Count every "{letter}" you write: there should be {let_relation} {let_frequency}.',
        ),
        _check_letter,
        _make_letter,
        _spoil_letter,
        params=("letter", "let_relation", "let_frequency"),
    ),
    Constraint(
        "count:count_increment_word",
        "train",
        _draw_increment,
        (
            'Use "{keyword1}" one time and "{keyword2}" two times.',
            'The word "{keyword1}" should occur once and the word "{keyword2}" twice.',
        ),
        lambda t, p, q: all(_check_frequency(t, one, q) for one in _increments(p)),
        _make_increment,
        lambda t, p, r, q: f"{t} {p['keyword2']}",
        params=("keyword1", "keyword2"),
    ),
    Constraint(
        "keywords:keyword_specific_position",
        "train",
        _draw_position,
        ('Put "{keyword}" at word {m} of sentence {n}.', 'In sentence number {n}, word number {m} has to be "{keyword}".'),
        _check_position,
        _make_position,
        lambda t, p, r, q: f"Well now. {without(t, p['keyword'])}",
        params=("keyword", "n", "m"),
        order=8,
    ),
    Constraint(
        "keywords:palindrome",
        "train",
        nothing,
        ("Use a palindrome of at least five letters somewhere.", "Work in one word of five letters or more that reads the same backwards."),
        _check_palindrome,
        lambda t, p, r, q: add_sentence(t, mention(r.choice(["level", "radar", "kayak", "civic", "rotor"]), r), r),
        lambda t, p, r, q: " ".join(w for w in t.split() if not _check_palindrome(w, {}, "")) or "none",
    ),
    Constraint(
        "keywords:no_adjacent_consecutive",
        "train",
        nothing,
        (
            "No word may begin with the letter that follows, in the alphabet, the first letter of the word before it.",
            "Neighbouring words must not start with consecutive letters such as a and b.",
        ),
        _check_neighbours,
        _make_neighbours,
        lambda t, p, r, q: f"{t} A bird came.",
        order=9,
    ),
)
