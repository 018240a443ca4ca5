"""Numbers as people and models write them, read exactly.

In: text. Out: `Number`s (a `Fraction` and where it stood). Signs, currency, thousands, decimals, fractions (3/4, 2 1/2, \\frac{3}{4}, ½),
percent, scale words (5 million) and powers of ten are read; dates, times, versions and digits inside words (H2O, x2) are not numbers.
A minus is a sign only where it cannot be a hyphen, a range, a subtraction or a bullet: `5-10` is 5 and 10, `= -10` is -10.

>>> [str(n.value) for n in numbers("from 5-10 to $-1,234.50")]
['5', '10', '-2469/2']
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

_BODY = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_GROUP = rf"(?:{_BODY})"
_TOKEN = re.compile(
    rf"""
    (?:(?P<whole>\d+)\ ?(?=\\[dt]?frac))?\\[dt]?frac\ *
      (?:\{{\ *(?P<top>-?{_GROUP})\ *\}}|(?P<top1>\d))\ *(?:\{{\ *(?P<under>{_GROUP})\ *\}}|(?P<under1>\d))
  | (?<![\w.])(?P<mixed>\d+)\ +(?P<mtop>\d+)/(?P<munder>\d+)(?![\d/])
  | (?<![\w])(?<!\d[.:,/])(?P<number>{_GROUP})
      (?:/(?P<over>\d+(?:\.\d+)?)(?![\d/]))?
      (?P<power>[eE][+-]?\d{{1,3}}\b|\ *(?:×|\\times|\\cdot|\*|x)\ *10\ *(?:\^|\*\*)\ *\{{?\ *[+-]?\d{{1,3}}\ *\}}?)?
    """,
    re.VERBOSE,
)
_AFTER = re.compile(
    r"(?P<percent>[ ]?(?:\\?%|％|percent\b|per cent\b))|"
    r"(?P<scale>[ -]?(?i:hundred|thousand|million|billion|trillion|dozen|lakh|crore|mn|bn)s?\b|[kKMB]\b)"
)
_BELOW = re.compile(r"\s*(?:°\s*[CF]?|degrees?(?:\s+(?:celsius|fahrenheit))?)?\s*below\s+(?:zero|freezing)\b", re.IGNORECASE)
_SCALES = {
    "hundred": 100,
    "thousand": 1_000,
    "k": 1_000,
    "million": 10**6,
    "m": 10**6,
    "mn": 10**6,
    "billion": 10**9,
    "b": 10**9,
    "bn": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "lakh": 10**5,
    "crore": 10**7,
}
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_VULGAR = dict(zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅛", ["1/2", "1/3", "2/3", "1/4", "3/4", "1/5", "2/5", "3/5", "4/5", "1/6", "1/8"], strict=True))
_WIDE = str.maketrans("０１２３４５６７８９．，％－", "0123456789.,%-")
_CURRENCY = "$€£¥₹₽₩"
_CALCULATOR = re.compile(r"<<[^<>\n]*=[^<>\n]*>>")  # GSM8K's annotations, <<16-3=13>>
_MAX_DIGITS = 100


class Number(NamedTuple):
    """A number in a text: its exact value, whether a percent sign followed, and its place in the cleaned text."""

    value: Fraction
    percent: bool
    start: int
    end: int
    text: str


def clean(text: str) -> str:
    """The text with notation variants made equal: wide digits, vulgar fractions, LaTeX thin spaces, thousands and dollars."""
    if "<<" in text:
        text = _CALCULATOR.sub("", text)
    if not text.isascii():
        text = text.translate(_WIDE).replace("\u2212", "-").replace("\u2044", "/").replace("\u00a0", " ").replace("\u202f", " ")
        text = re.sub("[" + "".join(_VULGAR) + "]", lambda m: " " + _VULGAR[m.group()], text)
    if "\\" in text:
        text = re.sub(r"\\text(?:rm|bf|it)?\{([^{}]*)\}|\\math(?:rm|bf|it)\{([^{}]*)\}", lambda m: m.group(1) or m.group(2) or "", text)
        text = text.replace("\\$", "$").replace("\\%", "%").replace("{,}", ",").replace("\\!", "")
        text = re.sub(r"(?<=\d)\\[,;: ](?=\d{3})", "", text)
        text = re.sub(r"\\[,;: ]", " ", text)
    return text


def numbers(text: str) -> list[Number]:
    """Every number in the text, in order."""
    text = clean(text)
    found = []
    for match in _TOKEN.finditer(text):
        number = _read(text, match)
        if number is not None:
            found.append(number)
    return found


def _read(text: str, match: re.Match[str]) -> Number | None:
    get = match.group
    if match.end() - match.start() > _MAX_DIGITS:
        return None
    try:
        if get("number") is not None:
            after = text[match.end() : match.end() + 2]
            if len(after) == 2 and after[0] in ":/." and after[1].isdigit():  # a time, a date, a version
                return None
            value = Fraction(get("number").replace(",", ""))
            if get("over"):
                value /= Fraction(get("over"))
            if get("power"):
                value *= Fraction(10) ** int(re.findall(r"[+-]?\d+", get("power"))[-1])
        elif get("mixed") is not None:
            value = int(get("mixed")) + Fraction(int(get("mtop")), int(get("munder")))
        else:
            top, under = get("top") or get("top1"), get("under") or get("under1")
            value = Fraction(top.replace(",", "")) / Fraction(under.replace(",", ""))
            if get("whole"):
                value += int(get("whole"))
    except (ZeroDivisionError, ValueError):
        return None
    end = match.end()
    if text[end : end + 1] in tuple(_RAISED):
        return None
    percent = False
    while not percent and (tail := _AFTER.match(text, end)):  # 5 hundred thousand
        end = tail.end()
        percent = tail.group("percent") is not None
        if not percent:
            value *= _SCALES[tail.group("scale").strip(" -").lower().removesuffix("s")]
    if _negative(text, match.start()) or _BELOW.match(text, end):
        value = -abs(value)
    return Number(value, percent, match.start(), end, text[match.start() : end])


def _negative(text: str, start: int) -> bool:
    """Is what stands before a number a minus sign, and not a hyphen, a range, a subtraction or a bullet?"""
    i = start - 1
    while i >= 0 and text[i] in _CURRENCY:
        i -= 1
    gap = i >= 0 and text[i] == " "
    while i >= 0 and text[i] == " ":
        i -= 1
    if i < 0 or text[i] not in "-–":
        if gap:
            word = text[max(0, i - 8) : i + 1].lower()
            if word.endswith("negative"):
                return True
            if word.endswith("minus"):
                before = text[: i - 4].rstrip()
                return not (before and (before[-1].isdigit() or before[-1] in ")]}%"))
        return False
    if i > 0 and text[i - 1] in "-–":  # two dashes: not arithmetic
        return False
    before = text[:i].rstrip(" ") if i < 64 else text[i - 64 : i].rstrip(" ")
    adjacent = i > 0 and text[i - 1] != " "
    if before and (before[-1].isdigit() or before[-1] in ")]}%"):  # 5-10, 5 - 10, (a)-10: a range or a subtraction
        return False
    if before and adjacent and (before[-1].isalpha() or before[-1] == "_"):  # COVID-19, x-2
        return False
    if gap:  # `- 10`: a bullet or a dash, unless an equals sign stands before
        return bool(before) and before[-1] in "=(:"
    return True


def unevaluated(number: Number) -> bool:
    """Is it a division handed back: `36/2` for 18, `1.5/3` for 0.5? (`3/4` is a number, and so is `1/2 dozen`.)"""
    text = number.text.rstrip()
    divided = "/" in text or "frac" in text
    return (
        divided
        and text[-1] in "0123456789}"
        and ("." in text or (number.value.denominator == 1 and not re.search(r"[/{]\s*1\s*\}?$", text)))
    )


def same(found: Number, gold: Number) -> bool:
    """Equal values. `50%` answers 50 and 0.5 alike, because sources write either; nothing is rounded."""
    if found.value == gold.value:
        return True
    if found.percent and not gold.percent and gold.value.denominator != 1:
        return found.value / 100 == gold.value
    if gold.percent and not found.percent and found.value.denominator != 1:
        return found.value == gold.value / 100
    return False
