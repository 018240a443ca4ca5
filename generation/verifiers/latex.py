"""LaTeX answers in one spelling, so that equal answers are equal strings.

In: the inside of a \\boxed{} or of $...$. Out: a canonical string. Rules only; nothing is evaluated here.

>>> canonical(r"\\dfrac12"), canonical(r"x = \\frac{1}{2}\\text{ cm}")
('\\\\frac{1}{2}', '\\\\frac{1}{2}')
"""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = (
    "degrees?|cm|mm|km|m|in|ft|feet|foot|inch(?:es)?|yards?|miles?|mph|km/h|m/s|units?|square|cubic|sq|liters?|litres?|gallons?|grams?|kg|lbs?|pounds?|"
    "ounces?|oz|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|months?|years?|dollars?|cents?|points?|ways?|people|students|apples|"
    "solutions?|integers?|values?|numbers?|squares?|triangles?|sides?|edges?|faces?|balls|cards|games|coins|books|tickets|girls|boys|men|women|meters?|metres?|"
    "centimeters?|per|an|a|of|and"
)
_UNIT_TAIL = re.compile(rf"(?:(?<=[\d}})\]!])|(?<=\\pi))(?:\s*(?:(?:{_UNITS})\b\.?(?:\^\{{?[23]\}}?)?))+$", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal|sf)?|mbox|mathrm|mathbf|mathit|mathsf|operatorname|hbox|textnormal)\s*\{([^{}]*)\}")
_WRAPPERS = re.compile(r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|textstyle|limits|rm|bf|it|boldsymbol|quad|qquad)(?![a-zA-Z])\s*")
_SPACES = re.compile(r"\\[,;:! ]|~|\s+")
_SPELLINGS = [
    *(("\\" + name, "") for name in ("$", "bigl", "bigr", "degree")),
    *((old, "\\frac") for old in ("\\dfrac", "\\tfrac", "\\cfrac")),
    *((old, "") for old in ("^\\circ", "^{\\circ}", "°", "$")),
    *((old, "*") for old in ("\\cdot", "\\times")),
    *((f"\\{side}{{{kind}}}", f"\\{side}{{pmatrix}}") for side in ("begin", "end") for kind in ("array", "bmatrix")),
    *(("−", "-"), ("π", "\\pi"), ("∞", "\\infty"), ("√", "\\sqrt"), ("\\infinity", "\\infty"), ("\\%", "%"), ("{,}", ",")),
    *(("\\neq", "\\ne"), ("\\leq", "\\le"), ("\\geq", "\\ge")),
    *(("\\lbrace", "\\{"), ("\\rbrace", "\\}"), ("\\lparen", "("), ("\\rparen", ")")),
]
_ASSIGN = re.compile(r"^[a-zA-Z](?:_\{?\w+\}?)?(?:\([a-zA-Z](?:,[a-zA-Z])*\))?\s*=\s*(?=[^=]+$)")


def canonical(latex: str) -> str:
    """One spelling of an answer: no units, no spaces, `\\frac{a}{b}`, plain brackets, no `x =` in front."""
    text = latex.strip().strip("$").strip().rstrip(".,;").strip()
    if text.startswith("\\(") and text.endswith("\\)"):
        text = text[2:-2]
    for old, new in _SPELLINGS:
        text = text.replace(old, new)
    text = _WRAPPERS.sub("", text)
    text = _TEXT.sub(lambda m: " " + m.group(1).strip() + " ", text)
    text = text.replace("\\!", "")
    if not re.match(r"^\s*[(\[{\\]", text):  # thousands, but not the commas of a tuple
        text = re.sub(r"(?<=\d)(?:,|\\,|\\ )(?=\d{3}(?!\d))", "", text)
    text = _UNIT_TAIL.sub("", text.strip())
    text = _SPACES.sub(" ", text).strip()
    words = text.replace("\\", "").isascii() and bool(re.fullmatch(r"[(]?[A-Za-z][A-Za-z ,'&-]*[)]?", text))
    if words:
        return text.strip("() ").casefold() if len(text.strip("() ")) > 1 else text.strip("() ")
    text = re.sub(r"(?<=\d) (?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d) (?=\d)", ";", text)  # `2 3` is not 23
    text = text.replace(" ", "")
    text = re.sub(r"(\d*)\.(\d*)\\overline\{?(\d+)\}?$", _repeating, text)
    text = re.sub(r"\\(frac|sqrt)(?=\d)", r"\\\1", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\d)\{", r"\\frac{\1}{", text)
    text = re.sub(r"\\frac\{([^{}]*)\}(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\w.}])(-?\d+)/(\d+)$", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\{-([^{}]+)\}", r"-\\frac{\1}", text)
    text = re.sub(r"\^\{(\w)\}", r"^\1", text)
    text = re.sub(r"_\{(\w)\}", r"_\1", text)
    text = re.sub(r"(?<![\d])\.(\d)", r"0.\1", text)
    text = re.sub(r"(\d)\.0+(?!\d)", r"\1", text)
    text = re.sub(r"(\.\d*?[1-9])0+(?!\d)", r"\1", text)
    text = _ASSIGN.sub("", text).removeprefix("+")
    text = re.sub(r"^[a-zA-Z]\\in(?![a-z])", "", text)
    return text.rstrip("%") if re.fullmatch(r"-?[\d.,]+%", text) else text


def _repeating(match: re.Match[str]) -> str:
    """`0.1\\overline{6}` as a fraction."""
    whole, fixed, again = match.groups()
    value = Fraction(int((whole + fixed) or 0)) + Fraction(int(again), 10 ** len(again) - 1)
    value /= 10 ** len(fixed)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


_NAME = re.compile(r"(?<![\\a-zA-Z])(?!(?:sin|cos|tan|log|exp|sqrt)\b)[a-zA-Z]{3,}")


def is_words(latex: str) -> bool:
    """Is the answer a word or name (`\\text{even}`, `June 20`), to be compared as text and not as a product of letters?"""
    pure = re.fullmatch(r"\W*\\(?:text|mbox|mathrm)\s*\{[^{}\d]*[a-zA-Z]{2}[^{}\d]*\}\W*", latex.strip())
    return bool(pure or _NAME.search(re.sub(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+", " ", canonical(latex))))


def squeezed(latex: str) -> str:
    """Text without spaces, dollars and sizes, to find an answer in its question."""
    text = _WRAPPERS.sub("", latex)
    for old in ("\\dfrac", "\\tfrac"):
        text = text.replace(old, "\\frac")
    return re.sub(r"[\s$]|\\[,;:! ]", "", text)


def assigned(latex: str) -> str | None:
    """The variable of `x = 5`: x; None when the text is no assignment."""
    match = _ASSIGN.match(latex.strip().strip("$").replace(" ", ""))
    return match.group()[0] if match else None


def split_top(text: str) -> list[str]:
    """The items of a list at its outermost commas."""
    items, depth, start = [], 0, 0
    for i, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            items.append(text[start:i])
            start = i + 1
    return [*items, text[start:]]
