"""Kernel tokens and n-grams against the plain-Python twin, on any Unicode."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram_oracle import tokens, words

from decontam import ngrams

TRICKY = (
    "aZ9 .,'\"_-\n\t’“—éÉẞßﬁⅣ²½①ＡｂａｱがｶﾞかゞГрςΣİıǅ한글\u1112\u1161\u11ab中文々〇𠀀"
    "กำก็ราမြន្ទहिन्दीعَ\u0301\u200b\u200d\u00ad\ufeff\ufe0f\U000e0100😀👩‍💻\u3099゛"
)
any_text = st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=("Cs",))), max_size=60)


def spans(texts: list[str]) -> list[list[tuple[str, int, int]]]:
    """The kernel's tokens as (original text, character start, end)."""
    column = pa.array(texts, pa.large_string())
    table = ngrams.token_table(column)
    out = []
    for i, text in enumerate(texts):
        raw, part = text.encode(), slice(table.bounds[i], table.bounds[i + 1])
        out.append(
            [
                (raw[s:e].decode(), len(raw[:s].decode()), len(raw[:e].decode()))
                for s, e in zip(table.starts[part], table.ends[part], strict=True)
            ]
        )
    return out


@settings(max_examples=300, deadline=None)
@given(st.lists(any_text, min_size=1, max_size=5))
def test_kernel_tokens_are_those_of_the_definition(texts: list[str]) -> None:
    for text, found in zip(texts, spans(texts), strict=True):
        assert found == [(text[t.start : t.end], t.start, t.end) for t in tokens(text)]


LENGTHS = (1, 2, 7, 8, 9, 15, 16, 17, 62, 63, 64, 65, 128)  # around the bytes that are read at once
long_text = st.lists(
    st.tuples(st.sampled_from(LENGTHS), st.sampled_from("aZ9 ."), st.sampled_from(["", " ", "é", "中", "’", "\u0301"])), max_size=12
).map(lambda parts: "".join(letter * length + end for length, letter, end in parts))


@settings(max_examples=300, deadline=None)
@given(st.lists(long_text, min_size=1, max_size=3))
def test_long_texts_have_the_tokens_of_the_definition(texts: list[str]) -> None:
    for text, found in zip(texts, spans(texts), strict=True):
        assert found == [(text[t.start : t.end], t.start, t.end) for t in tokens(text)]


@settings(max_examples=100, deadline=None)
@given(long_text)
def test_a_token_has_the_same_hash_wherever_it_stands(text: str) -> None:
    said = words(text)
    table = ngrams.token_table(pa.array([text, *said], pa.large_string()))
    alone = [table.hashes[table.bounds[1 + i]] for i in range(len(said))]
    assert table.hashes[: len(said)].tolist() == [int(h) for h in alone]


@settings(max_examples=200, deadline=None)
@given(any_text, any_text)
def test_equal_hashes_mean_equal_tokens(left: str, right: str) -> None:
    table = ngrams.token_table(pa.array([left, right], pa.large_string()))
    a, b = words(left), words(right)
    for i, word in enumerate(a + b):
        for j, other in enumerate(a + b):
            assert (table.hashes[i] == table.hashes[j]) == (word == other)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 13))
def test_rolling_hashes_are_equal_exactly_for_equal_ngrams(text: list[str], n: int) -> None:
    table = ngrams.token_table(pa.array([" ".join(text)], pa.large_string()))
    grams = np.empty(len(text) + 1, np.uint64)
    count = ngrams.roll(table.hashes, 0, len(text), n, grams)
    plain = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    assert count == len(plain)
    assert len(set(grams[:count].tolist())) == len(set(plain))
    assert [int(g) for g in grams[:count]] == [{p: int(g) for p, g in zip(plain, grams[:count], strict=True)}[p] for p in plain]


def test_what_is_left_out_of_the_fold_table_is_nothing() -> None:
    table = ngrams.fold_table()
    for code in [*range(0x80, 0x3000, 7), *range(0x323B0, 0xE0000, 997), *range(0xE0200, ngrams.CODE_POINTS, 997)]:
        assert table.kind[code] == ngrams.fold_code_point(code)[0]
    beyond = {ngrams.fold_code_point(code)[0] for code in [*range(0x323B0, 0xE0000), *range(0xE0200, ngrams.CODE_POINTS)]}
    assert beyond == {ngrams.SEPARATOR}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't STOP: e.g. x_1+y²", ["don", "t", "stop", "e", "g", "x", "1", "y2"]),
        ("Ｆｕｌｌ－ｗｉｄｔｈ　ｔｅｘｔ！", ["full", "width", "text"]),
        ("“curly” — it’s", ["curly", "it", "s"]),
        ("naïve CAFÉ Straße", ["naive", "cafe", "strasse"]),
        ("soft\u00adhy\u200bphen", ["softhyphen"]),
        ("什么是GPT-4?", ["什", "么", "是", "gpt", "4"]),
        ("日本語のテスト", ["日", "本", "語", "の", "テ", "ス", "ト"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("한국어 문장", [unicodedata.normalize("NFD", "한국어"), unicodedata.normalize("NFD", "문장")]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("( [ { < ] } 😀 →", []),
        ("", []),
    ],
)
def test_what_a_token_is(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    assert len(spans([text])[0]) == len(expected)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_canonical_forms_and_case_do_not_matter(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    assert words(composed) == words(unicodedata.normalize("NFD", text))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_wrong_utf8_is_safe(junk: bytes) -> None:
    data = np.frombuffer(junk, np.uint8) if junk else np.zeros(0, np.uint8)
    room = ngrams.room_for(len(junk))
    count = ngrams.tokenise(data, 0, len(junk), ngrams.fold_table(), room, 0)
    assert count <= len(room.hashes)
    assert all(0 <= s < e <= len(junk) for s, e in zip(room.starts[:count], room.ends[:count], strict=True))


def test_slices_nulls_and_chunks_read_the_same() -> None:
    column = pa.chunked_array([pa.array(["skip", "one two", None]), pa.array(["three"])])[1:]
    table = ngrams.token_table(column)
    assert table.bounds.tolist() == [0, 2, 2, 3]
    assert table.starts.tolist() == [0, 4, 0]
