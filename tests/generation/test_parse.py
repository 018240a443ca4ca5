"""The readers of judges' replies: all or nothing, on real replies and on every malformation known from the published pipelines."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation import parse
from generation.parse import Unparsable


def block(n: int, rating: object, rationale: str = "fine") -> str:
    return f"#### Output for Text {n}\nRating: {rating}\nRationale: {rationale}"


@pytest.mark.parametrize(
    "text",
    [
        '{"answer_1": {"rationale": "x", "rating": 5}, "answer_2": {"rationale": "y", "rating": 4}, "answer_3": {"rating": 3}}',
        'Here:\n```json\n{"ratings": [{"answer": 3, "rating": 3}, {"answer": 1, "rating": 5}, {"answer": 2, "rating": "4/5"}]}\n```',
        "A heading first\n\n" + "\n\n".join(block(i, r) for i, r in ((1, 5), (2, 4), (3, 3))),
        "\n\n".join([block(1, 5), "#### Output for Text 2\n\n**Rating:** 4\n\nRationale: two\n\nparagraphs", block(3, "3")]),
        "\n".join([block(2, 4), block(1, 5), block(3, "**3**")]),
    ],
    ids=["json", "fenced, any order", "a heading", "blank lines inside", "text, any order"],
)
def test_well_meant_forms_are_read(text):
    assert [r.rating for r in parse.ratings(text, 3, 1, 5)] == [5, 4, 3]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("I'm sorry, I cannot rate these.", "no JSON object"),
        ("", "no JSON object"),
        ('{"answer_1": {"rating": 5}, "answer_2": {"rating": 4}}', "no rating for answer 3"),
        ('{"answer_1": {"rating": 5}, "answer_2": {"rating": 9}, "answer_3": {"rating": 1}}', "outside the scale"),
        ('{"answer_1": {"rating": 5}, "answer_2": {"rating": 0}, "answer_3": {"rating": 1}}', "outside the scale"),
        ('{"answer_1": {"rating": "3 or 4"}, "answer_2": {"rating": 4}, "answer_3": {"rating": 1}}', "3 or 4"),
        ('{"answer_1": {"rating": "4/10"}, "answer_2": {"rating": 4}, "answer_3": {"rating": 1}}', "4/10"),
        ('{"answer_1": {"rating": true}, "answer_2": {"rating": 4}, "answer_3": {"rating": 1}}', "True"),
        ('{"answer_1": {"rating": "N/A"}, "answer_2": {"rating": 4}, "answer_3": {"rating": 1}}', "no rating where one"),
        ('{"answer_2": {"rating": 5}, "answer_3": {"rating": 4}, "answer_4": {"rating": 1}}', "answers 1 to 3"),
        ('{"ratings": [{"answer": 1, "rating": 5}, {"answer": 1, "rating": 4}, {"answer": 2, "rating": 4}]}', "two ratings for answer 1"),
        ('{"answer_1": {"rating": 5}} {"answer_1": {"rating": 4}}', "2 JSON objects"),
        ("\n\n".join([block(1, 5), "Rating: 4\nRationale: whose?", block(3, 3)]), "two ratings for answer 1"),
        ("\n\n".join([block(1, 5), block(2, "three"), block(3, 3)]), "three"),
    ],
)
def test_everything_else_is_unparsable_and_says_why(text, why):
    with pytest.raises(Unparsable, match=why.replace("/", r"\/")):
        parse.ratings(text, 3, 1, 5)


def test_not_applicable_is_missing_never_a_number():
    text = '{"answer_1": {"rating": "N/A"}, "answer_2": {"rating": 5}}'
    assert [r.rating for r in parse.ratings(text, 2, 1, 5, may_be_missing=True)] == [None, 5.0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.randoms())
def test_no_order_and_no_form_moves_a_rating(values, random):
    numbered = list(enumerate(values, 1))
    random.shuffle(numbered)
    as_json = json.dumps({f"answer_{i}": {"rationale": "because", "rating": v} for i, v in numbered})
    as_text = "\n\n".join(block(i, v, "first line\n\nand a second paragraph") for i, v in numbered)
    assert (
        [r.rating for r in parse.ratings(as_json, len(values), 1, 5)]
        == values
        == [r.rating for r in parse.ratings(as_text, len(values), 1, 5)]
    )


@given(st.text(max_size=200))
def test_any_text_gives_ratings_in_range_or_unparsable(text):
    try:
        found = parse.ratings(text, 2, 1, 5)
    except Unparsable:
        return
    assert len(found) == 2 and all(r.rating is not None and 1 <= r.rating <= 5 for r in found)


def test_half_a_surrogate_pair_can_be_written_to_a_file():
    said = parse.ratings('{"answer_1": {"rating": 4, "rationale": "\\udabb good \\ud83d\\ude00"}}', 1, 1, 5)
    assert said[0].rationale.encode("utf-8").decode("utf-8") == "\ufffd good \U0001f600"


def test_a_score_of_one_stays_one():
    assert parse.score("Reasons.\nScore: 1", 0, 10).rating == 1  # the label bug of UltraFeedback made it 10
    assert parse.score('{"rationale": "poor", "score": 1}', 1, 10) == parse.Rated(1.0, "poor")
    with pytest.raises(Unparsable, match="found 2"):
        parse.score("Score: 3\nno, wait\nScore: 4", 0, 5)


def test_verdicts():
    for text in ("A", "[[A]]", '{"rationale": "x", "verdict": "A"}', "Both fine.\nVerdict: A"):
        assert parse.verdict(text, ("A", "B", "TIE"))[0] == "A"
    for text in ("A or B", "Verdict: A\nVerdict: B", '{"verdict": "C"}', "the first"):
        with pytest.raises(Unparsable):
            parse.verdict(text, ("A", "B", "TIE"))


def test_recorded_replies_of_real_judges_are_all_read(shared):
    for name in ("just_eval_multi_aspect_gpt35", "just_eval_safety_ratings"):
        for row in pq.read_table(shared / "preferences" / f"{name}.parquet", columns=["result", "parsed_result"]).to_pylist():
            theirs = {k: None if v["score"] == "N/A" else float(v["score"]) for k, v in json.loads(row["parsed_result"]).items()}
            assert {k: v.rating for k, v in parse.aspects(row["result"], 1, 5, may_be_missing=True).items()} == theirs
    read = ties = 0
    columns = ["raw_completion", "referenced_models", "preference"]
    for row in pq.read_table(shared / "completions" / "alpaca_eval_judge_cot.parquet", columns=columns).to_pylist():
        if row["raw_completion"] is None:
            continue
        names = json.loads(row["referenced_models"])
        ranks = parse.ranking(row["raw_completion"], ("m", "M"))
        read += 1
        if len(set(ranks.values())) == 1:
            ties += 1
            continue
        assert names[min(ranks, key=ranks.__getitem__)] == ("output_1" if row["preference"] == 1.0 else "output_2")
    assert (read, ties) == (1605, 1)
