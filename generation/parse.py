"""What a judge said, read strictly: either everything that was asked for is there and in range, or it is Unparsable, with the reason.

    >>> [r.rating for r in ratings('{"answer_2": {"rating": 5}, "answer_1": {"rating": "3/5"}}', 2, 1, 5)]
    [3.0, 5.0]

Nothing is guessed: no default rating, no shifting of blocks, no rounding of "3 or 4", no number outside the scale. Ratings find
their answer by its number, never by their place, so a heading or a blank line cannot move them to another answer. N/A is a
missing value where the rubric allows it, and an error where it does not.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

NOT_APPLICABLE = {"n/a", "na", "not applicable", "none", "n.a."}


class Unparsable(ValueError):
    """A judge's reply that does not say what was asked; the text says how."""


class Rated(NamedTuple):
    """One rating; None = the judge said that the aspect does not apply."""

    rating: float | None
    rationale: str


def json_of(text: str) -> Any:
    """The one JSON object or list in a reply: bare, fenced, or with prose around it."""
    text = text.strip()
    fenced = re.findall(r"```(?:json)?[ \t]*\n(.*?)```", text, flags=re.DOTALL)
    if len(fenced) > 1:
        raise Unparsable("several code blocks where one answer was expected")
    for candidate in (*fenced, text):
        try:
            value = json.loads(candidate, strict=False)  # a raw tab or newline in a rationale harms nobody
        except ValueError:
            continue
        if isinstance(value, dict | list):
            return _well_formed(value)
    values, at = [], 0
    decoder = json.JSONDecoder(strict=False)
    while (start := _next_bracket(text, at)) >= 0:
        try:
            value, at = decoder.raw_decode(text, start)
            values.append(value)
        except ValueError:
            at = start + 1
    objects = [v for v in values if isinstance(v, dict)]
    if len(objects) != 1:
        raise Unparsable("no JSON object in the reply" if not objects else f"{len(objects)} JSON objects where one was expected")
    return _well_formed(objects[0])


def _well_formed(value: Any) -> Any:
    """The value with U+FFFD for each half of a surrogate pair: models write such escapes, and no file can hold them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    return value


def _next_bracket(text: str, at: int) -> int:
    found = re.compile(r"[{\[]").search(text, at)
    return found.start() if found else -1


def rating(value: Any, low: float, high: float, may_be_missing: bool = False) -> float | None:
    """One rating on a scale; None for N/A where that is allowed."""
    if value is None or (isinstance(value, str) and value.strip().strip(".").lower() in NOT_APPLICABLE | {""}):
        if may_be_missing:
            return None
        raise Unparsable(f"no rating where one from {low:g} to {high:g} is needed (found {value!r})")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Unparsable(f"found {value!r} where a rating from {low:g} to {high:g} was expected")
    if isinstance(value, str):
        match = re.fullmatch(r"\**\s*(-?\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*(\d+))?\s*\**\.?", value.strip())
        if match is None or (match[2] and float(match[2]) != high):
            raise Unparsable(f"found {value!r} where a rating from {low:g} to {high:g} was expected")
        value = float(match[1])
    if not low <= value <= high:
        raise Unparsable(f"rating {value:g} is outside the scale {low:g} to {high:g}")
    return float(value)


def ratings(text: str, n: int, low: float, high: float, may_be_missing: bool = False) -> list[Rated]:
    """The ratings of answers 1 to n, in that order; as JSON, or as blocks of text that each name their answer."""
    try:
        found = json_of(text)
    except Unparsable as error:
        found = _blocks(text)
        if not found:
            raise error from None
    entries = found.get("ratings", found) if isinstance(found, dict) else found
    if isinstance(entries, dict):
        entries = [{**_entry(value), "answer": re.sub(r"^answer[ _]?", "", key, flags=re.IGNORECASE)} for key, value in entries.items()]
    if not isinstance(entries, list):
        raise Unparsable("expected one entry for every answer")
    out: dict[int, Rated] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise Unparsable(f"expected an object for every answer, found {entry!r:.60}")
        number = entry.get("answer")
        number = int(number) if isinstance(number, str) and number.strip().isdigit() else number
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= n:
            raise Unparsable(f"a rating for answer {number!r}; there are answers 1 to {n}")
        if number in out:
            raise Unparsable(f"two ratings for answer {number}")
        if "rating" not in entry:
            raise Unparsable(f"no rating for answer {number}")
        out[number] = Rated(rating(entry["rating"], low, high, may_be_missing), str(entry.get("rationale") or ""))
    if len(out) != n:
        raise Unparsable(f"no rating for answer {', '.join(str(i) for i in range(1, n + 1) if i not in out)}")
    return [out[i] for i in range(1, n + 1)]


def _entry(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"rating": value}


_LABEL = re.compile(r"^[#*\s]*(?:output (?:for )?)?(?:answer|text|response)\s*(\d+)[:*\s]*$", re.IGNORECASE | re.MULTILINE)
_FIELD = re.compile(r"^[-*\s]*(rating|score|rationale|reason)\**\s*:\**[ \t]*(.*)$", re.IGNORECASE)


def _blocks(text: str) -> list[dict[str, Any]]:
    """Blocks that begin with the name of their answer and hold `Rating:` and `Rationale:` lines."""
    out = []
    labels = list(_LABEL.finditer(text))
    ends = [following.start() for following in labels[1:]] + [len(text)]
    for label, end in zip(labels, ends, strict=False):
        entry: dict[str, Any] = {"answer": int(label[1])}
        field = ""
        for line in text[label.end() : end].splitlines():
            match = _FIELD.match(line)
            if match:
                field = "rating" if match[1].lower() in ("rating", "score") else "rationale"
                if field in entry:
                    raise Unparsable(f"two {field}s for answer {label[1]}")
                entry[field] = match[2].strip()
            elif field == "rationale" and line.strip():
                entry["rationale"] += "\n" + line.strip()
        out.append(entry)
    return out


def score(text: str, low: float, high: float, name: str = "score") -> Rated:
    """One score: JSON `{"rationale": ..., "score": 4}`, or one line `Score: 4` at the end of the reasoning."""
    try:
        found = json_of(text)
    except Unparsable:
        lines = re.findall(rf"^[#*\s]*{name}\s*\**\s*:\s*(.+?)\s*$", text, flags=re.IGNORECASE | re.MULTILINE)
        if len(set(lines)) != 1:
            raise Unparsable(f"expected one line `{name.capitalize()}: <number>`, found {len(lines)}") from None
        value = rating(lines[0], low, high)
        return Rated(value, re.split(rf"^[#*\s]*{name}\s*\**\s*:", text, flags=re.IGNORECASE | re.MULTILINE)[0].strip())
    if not isinstance(found, dict) or name not in found:
        raise Unparsable(f"no {name!r} in the reply")
    return Rated(rating(found[name], low, high), str(found.get("rationale") or ""))


def verdict(text: str, options: tuple[str, ...], name: str = "verdict") -> tuple[str, str]:
    """(option, rationale): JSON `{"rationale": ..., "verdict": "A"}`, the option alone, or one line `Verdict: A`."""
    by_name = {option.lower(): option for option in options}
    plain = text.strip().strip("[]*.").lower()
    if plain in by_name:
        return by_name[plain], ""
    try:
        found = json_of(text)
    except Unparsable:
        lines = re.findall(rf"^[#*\s]*{name}\s*\**\s*:\s*(.+?)\s*$", text, flags=re.IGNORECASE | re.MULTILINE)
        if len(lines) != 1:
            raise Unparsable(f"expected one line `{name.capitalize()}: ...`, found {len(lines)}") from None
        found = {name: lines[0], "rationale": text.split(lines[0])[0].strip()}
    value = str(found.get(name) if isinstance(found, dict) else found).strip().strip("[]*.").lower()
    if value not in by_name:
        raise Unparsable(f"found {value!r:.60}, expected one of {', '.join(options)}")
    return by_name[value], str(found.get("rationale") or "")


def aspects(text: str, low: float, high: float, may_be_missing: bool = False) -> dict[str, Rated]:
    """Several aspects of one answer: `{"clarity": {"reason": ..., "score": "5"}, ...}`, as in just-eval."""
    found = json_of(text)
    if not isinstance(found, dict) or not found:
        raise Unparsable("expected an object of aspects")
    out = {}
    for aspect, entry in found.items():
        if not isinstance(entry, dict) or "score" not in entry:
            raise Unparsable(f"no score for {aspect!r}")
        out[str(aspect)] = Rated(
            rating(entry["score"], low, high, may_be_missing), str(entry.get("reason") or entry.get("rationale") or "")
        )
    return out


def ranking(text: str, names: tuple[str, ...]) -> dict[str, float]:
    """Ranks by name (1 is best, equal is a tie) as in AlpacaEval: `{"ordered_models": [{"model": "m", "rank": 1}, ...]}`."""
    found = json_of(text)
    entries = found.get("ordered_models") if isinstance(found, dict) else found
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "model" in e and "rank" in e for e in entries):
        raise Unparsable('expected {"ordered_models": [{"model": ..., "rank": ...}, ...]}')
    out = {str(e["model"]): rating(e["rank"], 1, len(names)) or 0.0 for e in entries}
    if len(entries) != len(names) or set(out) != set(names):
        raise Unparsable(f"expected a rank for each of {', '.join(names)}, found {[e['model'] for e in entries]}")
    return out
