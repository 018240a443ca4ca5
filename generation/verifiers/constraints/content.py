"""Things that must stand in the text: placeholders, a postscript, a title, highlights, bullets, sections, JSON, one of three answers.

In: text and IFEval's parameters. Out: True or False. Empty marks (`[]`, `<<>>`, `******`, `- `) never count.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from generation.verifiers.constraints.constraint import SENTENCES, Constraint, Context, Params, nothing, plain
from generation.verifiers.text import bullets, has_word, occurrences, paragraphs, sentences, unfenced, words

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_HIGHLIGHT = re.compile(r"(?<![*\w\\])(\*{1,3})(?=[^\s*])([^*\n]*[^\s*])\1(?![*\w])")
_PLACEHOLDER = re.compile(r"(?<![!\w])\[([^\[\]\n]{2,80})\](?![(:])")
_TITLE = re.compile(r"<<(?!<)([^<>\n]{2,200})>>(?!>)")


def highlights(text: str) -> set[str]:
    """The distinct `*parts*` and `**parts**` with a word of two letters in them; bullets, rules and empty stars are none."""
    found = (m.group(2) for m in _HIGHLIGHT.finditer(unfenced(text)))
    return {" ".join(words(part.casefold())) for part in found if re.search(r"[^\W\d_]{2}", part)}


def placeholders(text: str) -> set[str]:
    """The distinct `[names]`: letters in square brackets; links, check boxes, footnotes and empty brackets are none."""
    found = (m.group(1) for m in _PLACEHOLDER.finditer(unfenced(text)))
    return {" ".join(words(part.casefold())) for part in found if re.search(r"[^\W\d_]{2}", part)}


def draw_n(name: str, low: int, high: int):  # type: ignore[no-untyped-def]
    """A draw of one whole number."""

    def draw(rng: random.Random, context: Context) -> Params:
        return {name: rng.randint(low, high)}

    return draw


def _make_placeholders(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    names = ["name", "address", "date", "city", "phone number", "company", "time", "street", "age", "title", "place", "subject"]
    missing = max(0, params["num_placeholders"] - len(placeholders(text)))
    return "Sent to " + " and ".join(f"[{n}]" for n in rng.sample(names, min(missing, len(names)))) + f". {text}"


def _check_postscript(text: str, params: Params, prompt: str) -> bool:
    marker = params["postscript_marker"].strip()
    found = re.search(rf"(?im)^[ \t*_>]*{re.escape(marker.rstrip('.'))}(?![.]?P\b)[.:]?[*_]*(?P<rest>[\s\S]*)", text)
    if found is None or not has_word(text[: found.start()]):
        return False
    said = [w for w in words(found["rest"]) if w.casefold().replace(".", "") != marker.casefold().replace(".", "")]
    return len(said) >= 2 and len(paragraphs(found["rest"])) <= 2


def _check_title(text: str, params: Params, prompt: str) -> bool:
    return any(re.search(r"[^\W\d_]{2}", m) and m.strip().casefold() != "title" for m in _TITLE.findall(unfenced(text)))


def _make_highlights(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    n = 0
    while len(highlights(text)) < params["num_highlights"]:
        text = f"*point {'abcdefghijklmnop'[n % 16] * 2}* is first. {text}"
        n += 1
    return text


def _make_bullets(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    wanted, mark = params["num_bullets"], rng.choice("*-")
    rest = re.sub(r"(?m)^[ \t]*[-*+][ \t]+.*$\n?", "", text).strip() or rng.choice(SENTENCES)
    first, *others = paragraphs(rest) or (rng.choice(SENTENCES),)
    items = "\n".join(f"{mark} {sentence}" for sentence in rng.sample(SENTENCES, wanted))
    return "\n\n".join([f"{first}\n{items}", *others])


def _sections(text: str, splitter: str) -> int:
    """Numbered headers at the start of a line, each with a text of its own below or beside it; a number counts once."""
    headers = list(re.finditer(rf"(?im)^[ \t*_#>]*{re.escape(splitter)}[ ]?([0-9]+|[ivxlc]+|[a-h])\b[*_:.\-–]*", text))
    ends = [h.start() for h in headers[1:]] + [len(text)] * bool(headers)
    return len({h.group(1).casefold() for h, end in zip(headers, ends, strict=True) if has_word(text[h.end() : end])})


def _check_sections(text: str, params: Params, prompt: str) -> bool:
    return _sections(text, params["section_spliter"].strip()) >= params["num_sections"]


def _draw_sections(rng: random.Random, context: Context) -> Params:
    return {"section_spliter": rng.choice(["Section", "SECTION", "Part", "Chapter"]), "num_sections": rng.randint(2, 4)}


def _make_sections(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    parts = list(sentences(text))
    while len(parts) < params["num_sections"]:
        parts.append(rng.choice(SENTENCES))
    size = len(parts) // params["num_sections"]
    cuts = [i * size for i in range(params["num_sections"])] + [len(parts)]
    return "\n".join(
        f"{params['section_spliter']} {i + 1}\n{' '.join(parts[cuts[i] : cuts[i + 1]])}" for i in range(params["num_sections"])
    )


def _check_json(text: str, params: Params, prompt: str) -> bool:
    """The whole answer, with or without one code fence, is a JSON object or list with something in it."""
    fenced = re.fullmatch(r"```(?:json|JSON)?[ \t]*\n(.*?)\n?[ \t]*```", text.strip(), re.DOTALL)
    try:
        data = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict | list) and _says_something(data)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _says_something(data: Any) -> bool:
    items = [*data.keys(), *data.values()] if isinstance(data, dict) else data if isinstance(data, list) else [data]
    return any(_says_something(i) if isinstance(i, dict | list) else has_word(str(i)) for i in items[:100])


def _make_json(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    body = json.dumps({"answer": text, "lines": rng.randint(1, 9)}, ensure_ascii=False)
    return f"```json\n{body}\n```" if rng.random() < 0.5 else body


def _check_answer(text: str, params: Params, prompt: str) -> bool:
    """Exactly one of the options is there; a text that names two has answered nothing."""
    options = params.get("options") or ANSWERS
    named = [option.strip(" .") for option in options if occurrences(text, option.strip(" ."))]
    if len(named) != 1:
        return False
    before, _, after = " ".join(text.casefold().split()).partition(" ".join(named[0].casefold().split()))
    others = "|".join(re.escape(option.strip(" .").split()[-1].casefold()) for option in options if option.strip(" .") != named[0])
    return not re.match(rf"\W*(?:or|and|/)\W*(?:{others})\b", after) and not re.search(r"\b(?:not|never)\b[^.!?]*$", before)


CONTENT_CONSTRAINTS = (
    Constraint(
        "detectable_content:number_placeholders",
        "ifeval",
        draw_n("num_placeholders", 1, 5),
        (
            "Leave at least {num_placeholders} different placeholders in square brackets, such as [name].",
            "Put {num_placeholders} or more distinct blanks like [address] in the text.",
        ),
        lambda t, p, q: len(placeholders(t)) >= p["num_placeholders"],
        _make_placeholders,
        lambda t, p, r, q: t.replace("[", "(").replace("]", ")") + " []" * 9,
        params=("num_placeholders",),
    ),
    Constraint(
        "detectable_content:postscript",
        "ifeval",
        lambda r, c: {"postscript_marker": r.choice(["P.S.", "P.P.S"])},
        (
            "Close with a postscript that begins with {postscript_marker}",
            "After the text, add a remark that starts with {postscript_marker}",
        ),
        _check_postscript,
        lambda t, p, r, q: f"{t}\n\n{p['postscript_marker']} {r.choice(SENTENCES)}",
        lambda t, p, r, q: plain(r, 3) + f"\n\n{p['postscript_marker']}",
        params=("postscript_marker",),
        order=6,
    ),
    Constraint(
        "detectable_format:title",
        "ifeval",
        nothing,
        ("Give the text a title in double angle brackets, like <<a day at sea>>.", "There must be a title, written as <<title>>."),
        _check_title,
        lambda t, p, r, q: f"<<{r.choice(['A quiet day', 'The long road'])}>>\n{t}",
        lambda t, p, r, q: t.replace("<<", "<").replace(">>", ">") + "\n<<>>",
        order=6,
    ),
    Constraint(
        "detectable_format:number_highlighted_sections",
        "ifeval",
        draw_n("num_highlights", 1, 5),
        (
            "Highlight at least {num_highlights} parts with Markdown, that is *highlighted part*.",
            "Set {num_highlights} or more different phrases in *emphasis*.",
        ),
        lambda t, p, q: len(highlights(t)) >= p["num_highlights"],
        _make_highlights,
        lambda t, p, r, q: t.replace("*", "") + " ******" * 4,
        params=("num_highlights",),
    ),
    Constraint(
        "detectable_format:number_bullet_lists",
        "ifeval",
        draw_n("num_bullets", 2, 6),
        (
            "Include exactly {num_bullets} Markdown bullet points, such as:\n* This is a point.",
            "Use a bullet list of exactly {num_bullets} items (* or -).",
        ),
        lambda t, p, q: len(bullets(t)) == p["num_bullets"] == len(set(map(str.casefold, bullets(t)))),
        _make_bullets,
        lambda t, p, r, q: f"{t}\n* one point more",
        params=("num_bullets",),
        order=4,
    ),
    Constraint(
        "detectable_format:multiple_sections",
        "ifeval",
        _draw_sections,
        (
            "Divide the answer into {num_sections} sections, each headed {section_spliter} X with its number.",
            "Write {num_sections} parts and begin each with {section_spliter} and a number.",
        ),
        _check_sections,
        _make_sections,
        lambda t, p, r, q: re.sub(r"(?i)(section|part|chapter) ", r"\1ed ", t) + f"\n{p['section_spliter']} 1\n{p['section_spliter']} 2",
        params=("section_spliter", "num_sections"),
        order=2,
    ),
    Constraint(
        "detectable_format:json_format",
        "ifeval",
        nothing,
        ("Put the whole answer in JSON; a Markdown code fence around it is fine.", "Answer with one JSON object and nothing else."),
        _check_json,
        _make_json,
        lambda t, p, r, q: f"Here it is: {t}",
        order=11,
    ),
    Constraint(
        "detectable_format:constrained_response",
        "ifeval",
        nothing,
        (
            "Answer with one of: My answer is yes. / My answer is no. / My answer is maybe.",
            'Choose exactly one: "My answer is yes.", "My answer is no." or "My answer is maybe."',
        ),
        _check_answer,
        lambda t, p, r, q: r.choice(ANSWERS),
        lambda t, p, r, q: r.choice([" ".join(ANSWERS), "Yes.", "My answer is unclear."]),
        optional=("options",),
        order=1,
    ),
)
