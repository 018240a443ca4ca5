"""The phrases that mark a refusal, another assistant's identity, a cut-off answer: kept apart so that they can be read and argued with.

All are Rust regular expressions (no look-around), matched against answers only. `MENTION` is the published keyword filter of Tülu 3
(arXiv 2411.15124, data scripts: 18 strings, case-insensitive, word boundaries); `CLAIM` asks for more: the answer must speak of itself,
because "OpenAI released ChatGPT in 2022" is a good answer to a fair question.
"""

from __future__ import annotations

MENTION = r"(?i)\b(?:open ?ai|chat ?gpt|gpt[- ]?3(?:\.5)?|gpt[- ]?4|bing ?chat|laion|open ?assistant)\b"
MENTION_AI = r"(?i)\bas an? (?:\w+ ){0,2}?(?:ai|artificial intelligence|language model)\b"

_NAME = (
    r"(?:open ?ai|chat ?gpt|gpt[- ]?[34](?:\.5|o)?|bing ?chat|laion|open ?assistant|anthropic|google bard|deepseek|qwen|alibaba cloud"
    r"|mistral ai)"
)
_GIVEN_NAME = r"(?:claude|bard|gemini|llama|vicuna|copilot|grok)"  # also words and people: only right after "I am"
_MADE = r"(?:created|developed|trained|built|made|designed|programmed)"


def _words(most: int) -> str:
    return rf"(?:[\w-]+,?\s+){{0,{most}}}?"


CLAIM = (
    "(?i)(?:"
    + "|".join(
        [
            rf"\b(?:i am|i'm|i’m|my name is|you can call me|this is)\s+{_words(8)}{_NAME}\b",
            rf"\bi\s+(?:was|am|have been)\s+{_words(3)}{_MADE}\s+{_words(3)}by\s+{_words(4)}{_NAME}\b",
            rf"\b(?:i am|i'm|i’m|my name is)\s+(?:called |named )?{_GIVEN_NAME}(?:[,.!]|\s+(?:and|by|from|made|created)\b|$)",
            rf"\bas\s+{_words(6)}{_NAME}(?:\s+\w+){{0,3}},?\s+i\b",
            rf"\bmy\s+(?:creators?|developers?|makers?)\s+(?:at|is|are)\s+{_words(2)}{_NAME}\b",
        ]
    )
    + ")"
)

_CANNOT = r"(?:can't|can’t|cannot|can not|won't|won’t|will not|am unable to|am not able to|am not allowed to|am not comfortable)"
_HELPING = (
    r"(?:help|assist|provide|answer|comply|fulfil|fulfill|engage|support|generate|create|write|give|share|offer|discuss|do that|do this"
    r"|continue|participate|recommend|advise|access|browse|perform|complete|respond|promote|encourage|say|tell|be of)"
)
REFUSAL = (
    r"(?i)^\W{0,4}(?:"
    + "|".join(
        [
            rf"(?:i'm|i’m|i am)\s+(?:\w+\s+)?(?:sorry|afraid)\b[^.\n]{{0,60}}\bi?\s*(?:{_CANNOT}|do not|don't|don’t|unable|not able)\b",
            rf"(?:sorry|apologies|my apologies|unfortunately)\b[^.\n]{{0,60}}\bi\s+{_CANNOT}\b",
            rf"i\s+(?:{_CANNOT})\s+(?:\w+\s+){{0,2}}?{_HELPING}\b",
            r"i\s+(?:must|have to|will have to)\s+(?:respectfully\s+)?(?:decline|refuse)\b",
            rf"as\s+an?\s+(?:\w+\s+){{0,3}}?(?:ai|language model|assistant)\b[^.\n]{{0,120}}\bi\s+(?:{_CANNOT}|must decline)\b",
        ]
    )
    + ")"
)

UNFINISHED = r"(?:^|\n)[^\n*•0-9-][^\n]{80,}[\p{Ll},;(\[{–-]\s*$"
CODE = r"(?m)^```|^\s{0,3}(?:def |class |import |from \w+ import |#include|function \w+\(|public (?:static|class) |SELECT .+ FROM )"
LIST = r"(?m)^\s*(?:[-*•]|\d{1,2}[.)])\s+\S"
MARKDOWN = r"(?m)^#{1,4} \S|\*\*[^*\n]+\*\*|^\|.+\|\s*$"
