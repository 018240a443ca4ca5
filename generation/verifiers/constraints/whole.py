"""Constraints on the whole text: repeated requests, two responses, every word wrapped, every sentence joined.

In: text, the published parameters, and the request. Out: True or False.
"""

from __future__ import annotations

import random
import re

from generation.verifiers.constraints.constraint import Constraint, Context, Params, nothing, plain
from generation.verifiers.text import has_word, sentences, words

_SIX = re.compile(r"(?<!\*)\*{6}(?!\*)")
PHRASES = (
    "A patient gardener waits for the rain",
    "Small steps carry people over high mountains",
    "The careful sailor checks every single rope",
    "Good bread needs time and warm hands",
    "Quiet rivers often hide a deep bed",
)


def same(a: str, b: str) -> bool:
    """Equal but for white space, case, and quotation marks around them."""
    return _bare(a) == _bare(b) != ""


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" \"'“”‘’`")


def _draw_prompt(rng: random.Random, context: Context) -> Params:
    return {"prompt_to_repeat": context.prompt.strip()}


def _check_repeat(text: str, params: Params, prompt: str) -> bool:
    """The request first, word for word, and an answer of at least one word behind it."""
    said, wanted = _bare(text), _bare(params["prompt_to_repeat"])
    rest = said[len(wanted) :]
    if not wanted or not said.startswith(wanted) or (wanted[-1].isalnum() and rest[:1].isalnum()):
        return False
    return has_word(rest.replace(wanted, ""))


def _check_two(text: str, params: Params, prompt: str) -> bool:
    """Six asterisks once, and on either side a text of its own: not empty, and not the same again with other marks."""
    parts = _SIX.split(text)
    if len(parts) != 2 or not all(map(has_word, parts)):
        return False
    a, b = ([w.casefold() for w in words(part)] for part in parts)
    shared = len(set(a) & set(b)) / max(1, len(set(a) | set(b)))
    return a != b and shared < 0.9


def _check_multiple(text: str, params: Params, prompt: str) -> bool:
    parts = _SIX.split(text)
    return len(parts) == params["N"] and all(same(part, params["prompt_to_repeat"]) for part in parts)


def _draw_span(rng: random.Random, context: Context) -> Params:
    request = context.prompt.strip()
    starts = [0, *(m.end() for m in re.finditer(r"\s+", request))]
    start = rng.choice(starts[: max(1, len(starts) // 2)])
    ends = [m.start() for m in re.finditer(r"\s+|$", request) if m.start() > start]
    return {"prompt_to_repeat": request, "n_start": start, "n_end": rng.choice(ends)}


def _check_span(text: str, params: Params, prompt: str) -> bool:
    """Exactly the characters n_start to n_end of the request; the published data leaves open whether the last one belongs to it."""
    request, start, end = params["prompt_to_repeat"], params["n_start"], params["n_end"]
    return any(same(text, request[start:stop]) for stop in (end, end + 1))


def _draw_phrase(rng: random.Random, context: Context) -> Params:
    return {"phrase": rng.choice(PHRASES), "small_n": rng.randint(2, 3)}


def _check_phrase(text: str, params: Params, prompt: str) -> bool:
    """The phrase so many times, each time with another single inner word in place of its own."""
    wanted = [w.casefold() for w in words(params["phrase"])]
    said, size = [w.casefold() for w in words(text)], len(wanted)
    changed = []
    for i in range(len(said) - size + 1):
        differ = [j for j in range(size) if said[i + j] != wanted[j]]
        if not differ:
            return False
        if len(differ) == 1 and 0 < differ[0] < size - 1:
            changed.append((differ[0], said[i + differ[0]]))
    return len(changed) == params["small_n"] == len(set(changed))


def _make_phrase(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    out = []
    for word in rng.sample(["purple", "wooden", "gentle", "marble"], params["small_n"]):
        pieces = params["phrase"].split()
        pieces[len(pieces) // 2] = word
        out.append(" ".join(pieces) + ".")
    return text + "\n" + " ".join(out)


def _check_hyphens(text: str, params: Params, prompt: str) -> bool:
    """Two sentences or more, a hyphen and no space between each and the next."""
    return (
        len(re.findall(r"(?<=[.!?])-(?=[^\s-])", text)) >= 1
        and len(sentences(text)) >= 2
        and not re.search(r"[.!?]\s+\S|\s-|-\s|\n", text.strip())
    )


def _check_brackets(text: str, params: Params, prompt: str) -> bool:
    return all(re.fullmatch(r"\[[^\[\]\s]+\][^\w\[\]]*", token) and len(words(token)) == 1 for token in text.split())


def _check_bigrams(text: str, params: Params, prompt: str) -> bool:
    """Every two words in <<double angle brackets>>; an odd last word may have a pair of its own."""
    pairs = re.findall(r"<<(\S+)(?: (\S+))?>>", text)
    rest = re.sub(r"<<\S+(?: \S+)?>>", "", text)
    if has_word(rest) or not pairs or len(words(pairs[-1][0])) != 1 or len(words(pairs[-1][1])) > 1:
        return False
    return all(len(words(word)) == 1 for pair in pairs[:-1] for word in pair)


def _make_bigrams(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    found = words(text)
    return " ".join(f"<<{' '.join(found[i : i + 2])}>>" for i in range(0, len(found), 2))


def _request(params: Params, prompt: str) -> str:
    return str(params["prompt_to_repeat"])


_COPY_ONLY = (
    "Copy the request word for word and write nothing else; do not answer it. This sentence does not belong to it.",
    "Do not answer: only repeat the request without any change, leaving out this remark.",
)
WHOLE_CONSTRAINTS = (
    Constraint(
        "combination:repeat_prompt",
        "ifeval",
        _draw_prompt,
        (
            "First repeat the request without a change, then answer it; this remark is not part of the request.",
            "Begin with the request, word for word, and give your answer after it.",
        ),
        _check_repeat,
        lambda t, p, r, q: f"{_request(p, q)}\n\n{t}",
        lambda t, p, r, q: r.choice([_request(p, q), plain(r)]),
        params=("prompt_to_repeat",),
        order=10,
    ),
    Constraint(
        "combination:two_responses",
        "ifeval",
        nothing,
        (
            "Give two different answers with six asterisks between them: ******",
            "Answer twice, differently, and separate the two with ******.",
        ),
        _check_two,
        lambda t, p, r, q: f"{_SIX.split(t)[0].strip()}\n******\nIn short: {plain(r, 2)}",
        lambda t, p, r, q: r.choice([f"{_SIX.split(t)[0]}******", "hi******hi!", "one thing and nothing"]),
        order=10,
    ),
    Constraint(
        "copy:repeat_phrase",
        "train",
        _draw_phrase,
        (
            'Repeat the phrase "{phrase}" exactly {small_n} times, each time with one other word in its middle replaced.',
            'Write "{phrase}" {small_n} times, changing a single inner word each time.',
        ),
        _check_phrase,
        _make_phrase,
        lambda t, p, r, q: f"{t} {p['phrase']}.",
        params=("phrase", "small_n"),
        order=4,
    ),
    Constraint(
        "copy:copy",
        "train",
        _draw_prompt,
        _COPY_ONLY,
        lambda t, p, q: same(t, p["prompt_to_repeat"]),
        lambda t, p, r, q: _request(p, q),
        lambda t, p, r, q: f"{t} Here is my answer.",
        params=("prompt_to_repeat",),
        order=1,
    ),
    Constraint(
        "copy:copying_simple",
        "train",
        _draw_prompt,
        _COPY_ONLY,
        lambda t, p, q: same(t, p["prompt_to_repeat"]),
        lambda t, p, r, q: _request(p, q),
        lambda t, p, r, q: f"Sure: {t}",
        params=("prompt_to_repeat",),
        order=1,
    ),
    Constraint(
        "copy:copying_multiple",
        "train",
        lambda r, c: {**_draw_prompt(r, c), "N": r.randint(2, 3)},
        (
            "Repeat the request {N} times with ****** between, and do not answer it; this remark is not part of it.",
            "Only copy the request {N} times, separated by six asterisks.",
        ),
        _check_multiple,
        lambda t, p, r, q: "\n******\n".join([_request(p, q)] * p["N"]),
        lambda t, p, r, q: f"{t}\n******\n{_request(p, q)}",
        params=("prompt_to_repeat", "N"),
        order=1,
    ),
    Constraint(
        "new:copy_span_idx",
        "train",
        _draw_span,
        (
            "Copy only the part of the request between the character positions {n_start} and {n_end}.",
            "Your whole answer is the request from character {n_start} to character {n_end}.",
        ),
        _check_span,
        lambda t, p, r, q: p["prompt_to_repeat"][p["n_start"] : p["n_end"]],
        lambda t, p, r, q: f"{t} more",
        params=("prompt_to_repeat", "n_start", "n_end"),
        order=1,
    ),
    Constraint(
        "detectable_format:sentence_hyphens",
        "train",
        nothing,
        (
            "Join all sentences with hyphens and leave no space between them.",
            "Between one sentence and the next stands a hyphen and no space.",
        ),
        _check_hyphens,
        lambda t, p, r, q: "-".join(sentences(t) if len(sentences(t)) > 1 else sentences(plain(r, 3))),
        lambda t, p, r, q: f"{t} And then some.",
        order=9,
    ),
    Constraint(
        "detectable_format:square_brackets",
        "train",
        nothing,
        ("Enclose each single word in square brackets.", "Put [square] [brackets] around every word."),
        _check_brackets,
        lambda t, p, r, q: " ".join(f"[{w}]" for w in words(t)),
        lambda t, p, r, q: f"{t} word",
        order=10,
    ),
    Constraint(
        "detectable_format:bigram_wrapping",
        "train",
        nothing,
        (
            "Wrap every two words in double angle brackets, like <<this is>> <<an example>>.",
            "Write in pairs of words, each pair inside << >>.",
        ),
        _check_bigrams,
        _make_bigrams,
        lambda t, p, r, q: f"{t} loose words",
        order=10,
    ),
)
