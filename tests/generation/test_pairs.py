"""Pairs: every rule, and by name every defect of the published pipelines that it excludes.

The letters are those of the list of defects in docs/generation.md.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columnar.config import parse as parse_config
from columnar.errors import ConfigError
from columnar.record import normalise, validate
from generation.judge import Judgement
from generation.pairs import PairsConfig, pair_rows, pairs_of
from generation.scores import apply, of_judge


def row(
    *scores: float | None,
    texts: list[str] | None = None,
    models: list[str] | None = None,
    outcomes: list[str] | None = None,
    row_id: str = "r",
) -> dict:
    candidates = [
        {
            "model": (models or [f"m{i}" for i in range(len(scores))])[i],
            "content": (texts or [f"answer number {i}" for i in range(len(scores))])[i],
            "thinking": None,
            "finish_reason": "stop",
            "params": json.dumps({"outcome": (outcomes or ["ok"] * len(scores))[i]}),
            "ratings": [],
            "score": score,
        }
        for i, score in enumerate(scores)
    ]
    made = {"id": row_id, "kind": "candidates", "source": "s", "license": None, "meta": None, "parents": [], "tools": None}
    origin = {"uri": "u", "revision": None, "split": None, "row": 0}
    return {**made, "origin": origin, "prompt": [{"role": "user", "content": "question"}], "candidates": candidates}


def rules(**more: object) -> PairsConfig:
    return PairsConfig(**more)  # type: ignore[arg-type]


def places(made: dict, **more: object) -> list[tuple[int, int]]:
    return [(p.chosen.place, p.rejected.place) for p in pairs_of(made, rules(**more))[0]]


def why(made: dict, **more: object) -> str:
    return pairs_of(made, rules(**more))[1]


def said(
    aspect: str, candidate: int, rating: float | None, outcome: str = "ok", other: int | None = None, mode: str = "aspects"
) -> Judgement:
    return Judgement("judge", mode, "j", aspect, 0, candidate, other, 1, rating, None, "why", outcome, "", False, "")


# --- what the published pipelines do wrong ---


def test_c_d_an_unparsable_or_missing_aspect_penalises_nobody():
    judgements = [said(a, i, r) for a in ("helpfulness", "honesty") for i, r in enumerate([3.0, 5.0])]
    judgements += [said("truthfulness", i, None, "unparsable") for i in range(2)]
    scored = apply(row(None, None), judgements, ["judge"])["candidates"]
    assert [c["score"] for c in scored] == [3.0, 5.0]
    assert [r["rating"] for r in scored[0]["ratings"]] == [3.0, 3.0, None], "missing is null, not 1 and not 0"


def test_e_not_applicable_is_left_out_of_the_mean():
    first = [said(a, 0, r) for a, r in zip("abcd", [5.0, 5.0, 5.0, None], strict=True)]
    second = [said(a, 1, r) for a, r in zip("abcd", [4.0, 4.0, 4.0, 3.0], strict=True)]
    made = apply(row(None, None), first + second, ["judge"])
    assert [c["score"] for c in made["candidates"]] == [5.0, 3.75]
    assert places(made) == [(0, 1)]


def test_f_ties_are_never_pairs_and_the_first_place_is_not_always_the_first_answer():
    chosen = Counter()
    for seed in range(300):
        ((pair,), _) = pairs_of(row(4, 4, 4, 2), rules(), seed)
        assert pair.rejected.place == 3
        chosen[pair.chosen.place] += 1
    assert all(70 < chosen[i] < 130 for i in range(3))
    assert why(row(3, 3, 3, 3)) == "all scores equal"


def test_f_the_rejected_answer_is_drawn_evenly_from_those_strictly_lower():
    rejected = Counter(places(row(5, 4, 3, 2, row_id=str(i)))[0][1] for i in range(600))
    assert set(rejected) == {1, 2, 3} and all(150 < n < 250 for n in rejected.values())


def test_g_answers_stay_with_their_prompt_whatever_is_missing():
    rows = [row(5, 1, row_id=str(i), texts=[f"good {i}", f"bad {i}"]) for i in range(20)]
    for i in range(0, 20, 3):
        rows[i]["candidates"] = rows[i]["candidates"][:1]
    for i, one in enumerate(rows):
        made, reason = pair_rows(one, rules(), 0, "pairs")
        assert (reason != "") == (i % 3 == 0)
        assert all(
            p["parents"] == [str(i)] and p["chosen"][0]["content"] == f"good {i}" and p["rejected"][0]["content"] == f"bad {i}"
            for p in made
        )


def test_i_the_same_seed_gives_the_same_pairs_and_another_seed_others():
    rows = [row(5, 4, 4, 1, row_id=str(i)) for i in range(50)]
    once, twice, other = ([pair_rows(r, rules(), seed, "p")[0][0] for r in rows] for seed in (1, 1, 2))
    assert once == twice and once != other


def test_j_system_prompts_and_history_are_kept():
    made = row(5, 1)
    made["prompt"] = [{"role": r, "content": r} for r in ("system", "user", "assistant", "user")]
    (pair,), _ = pair_rows(made, rules(), 0, "p")
    assert pair["prompt"] == made["prompt"] and validate(pair) == []


def test_k_equal_texts_are_never_a_pair():
    assert why(row(5, 1, texts=["the same  text", "The same text"])) == "equal texts"
    assert places(row(5, 1, 1, texts=["x y", "X  y", "other"])) == [(0, 2)]


def test_l_ratings_of_both_sides_and_the_margin_are_kept():
    made = row(4.5, 2.0)
    made["candidates"][0]["ratings"] = [{"aspect": "honesty", "rating": 4.0, "rationale": "x"}]
    (pair,), _ = pair_rows(made, rules(), 0, "p")
    told = json.loads(pair["meta"])
    assert told["margin"] == 2.5 == pair["chosen_score"] - pair["rejected_score"] and told["chosen_ratings"] == {"honesty": 4.0}
    assert (pair["chosen_model"], pair["rejected_model"]) == ("m0", "m1")


def test_n_the_verdict_decides_not_the_position():
    for winner in (0, 1):
        both = [said("pairwise", 0, 1.0 - winner, other=1, mode="pairwise"), said("pairwise", 1, float(winner), other=0, mode="pairwise")]
        assert places(apply(row(None, None), both, ["judge"])) == [(winner, 1 - winner)]


def test_orders_that_disagree_are_a_tie():
    first_wins_always = [said("pairwise", 0, 1.0, other=1, mode="pairwise"), said("pairwise", 1, 1.0, other=0, mode="pairwise")]
    assert [c["score"] for c in apply(row(None, None), first_wins_always, ["judge"])["candidates"]] == [0.5, 0.5]
    graded = [("helpfulness", 0, 1, 3.0), ("helpfulness", 1, 0, 1.0)]  # A much better, then A (the other) slightly better
    assert of_judge("strength", graded, 2) == [0.0, 0.0]
    assert of_judge("strength", [("helpfulness", 0, 1, 3.0), ("helpfulness", 1, 0, -1.0)], 2) == [2.0, -2.0]
    assert of_judge("pairwise", [("pairwise", 0, 1, 1.0), ("pairwise", 1, 0, None)], 2) == [None, None], "half a comparison is none"


def test_ultrafeedback_a_score_of_one_is_the_worst():
    assert places(row(1, 10), rule="best_vs_worst") == [(1, 0)]


# --- what may be a side ---


def test_truncated_refused_and_empty_answers_are_no_side_unless_asked_for():
    for outcome in ("truncated", "refused", "empty"):
        made = row(5, 3, 1, outcomes=[outcome, "ok", "ok"])
        assert places(made) == [(1, 2)]
        assert (0, 1) in places(made, rule="all", chosen_may_be=[outcome])
        low = row(5, 1, outcomes=["ok", outcome])
        assert why(low) == "fewer than two usable answers" and places(low, rejected_may_be=[outcome]) == [(0, 1)]
        assert pair_rows(made, rules(output="sft"), 0, "p")[0][0]["messages"][-1]["content"] == "answer number 1"


# --- the rules ---


def test_rules():
    made = row(2, 5, 4, 1, models=["a", "b", "policy", "a"])
    assert places(made, rule="best_vs_worst") == [(1, 3)]
    assert places(made, rule="all") == [(0, 3), (1, 0), (1, 2), (1, 3), (2, 0), (2, 3)]
    assert places(made, rule="all", min_margin=2, max_margin=3) == [(1, 0), (2, 0), (2, 3)]
    assert places(made, rule="on_vs_off_policy", on_policy="policy") == [(1, 2)]
    assert places(made, rule="strong_vs_weak", strong=["b"], weak=["policy"]) == [(1, 2)]
    assert places(row(None, None, models=["w", "s"]), rule="strong_vs_weak", strong=["s"], weak=["w"]) == [(1, 0)]
    assert places(made, rule="moderate", min_margin=2, max_margin=3, min_score=5) == [(1, 0)]
    assert why(made, rule="moderate", min_margin=2, max_margin=3, min_score=6) == "margin or score outside the limits"
    assert why(row(None, None)) == "no scores"


def test_tie_policies():
    texts = ["a long answer with many words", "short", "bad"]
    assert places(row(5, 5, 1, texts=texts), ties="shortest") == [(1, 2)]
    assert why(row(5, 5, 1), ties="drop") == "the first place is shared"


def test_length_control_and_cross_check():
    made = row(5, 4, 3, texts=["x" * 100, "y" * 10, "z" * 90])
    assert places(made, max_length_ratio=2) == [(0, 2)]
    for candidate, reward in zip(made["candidates"], [0.1, 0.9, -1.0], strict=True):
        candidate["ratings"] = [{"aspect": "reward", "rating": reward, "rationale": None}]
    assert places(made, cross_check="reward") == [(0, 2)], "the reward model sees answer 1 above the chosen one"
    assert why(made, cross_check="another") == "another disagrees or is missing"


def test_ranking_by_some_aspects_only():
    made = row(5, 1)
    for candidate, rating in zip(made["candidates"], [2.0, 4.0], strict=True):
        candidate["ratings"] = [{"aspect": "honesty", "rating": rating, "rationale": None}]
    assert places(made, aspects=["honesty"]) == [(1, 0)]
    assert why(made, aspects=["honesty", "helpfulness"]) == "no scores"


def test_best_answers_as_sft_rows():
    made = row(3, 5, 5, 1, texts=["a", "best", "Best", "d"])
    rows, _ = pair_rows(made, rules(output="sft", keep=2), 0, "p")
    assert [r["messages"][-1]["content"] for r in rows][1] == "a" and all(validate(r) == [] for r in rows)
    assert len({r["id"] for r in rows}) == 2
    assert pair_rows(made, rules(output="sft", min_score=6), 0, "p") == ([], "no answer reaches min_score")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"rule": "moderate"}, "max_margin, min_score: missing"),
        ({"rule": "strong_vs_weak"}, "strong, weak: missing"),
        ({"rule": "on_vs_off_policy"}, "on_policy: missing"),
        ({"min_margin": 2, "max_margin": 1}, "below min_margin"),
        ({"rule": "best_vs_random"}, "rule"),
        ({"min_margn": 2}, "did you mean 'min_margin'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(bad, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(PairsConfig, bad, "pairs")


scores = st.lists(st.one_of(st.none(), st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0])), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(
    scores,
    st.lists(st.sampled_from(["a", "b ", "B", "c c", "longer text here"]), min_size=5, max_size=5),
    st.lists(st.sampled_from(["ok", "ok", "ok", "truncated", "refused", "empty"]), min_size=5, max_size=5),
    st.sampled_from(["best_vs_random_lower", "best_vs_worst", "all"]),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 5),
)
def test_whatever_comes_in_no_pair_breaks_the_promises(values, texts, outcomes, rule, margin, seed):
    made = row(*values, texts=texts, outcomes=outcomes)
    found, reason = pairs_of(made, rules(rule=rule, min_margin=margin), seed)
    assert bool(found) != bool(reason)
    for pair in found:
        assert pair.margin is not None and pair.margin > 0 and pair.margin >= margin
        assert normalise(pair.chosen.text) != normalise(pair.rejected.text)
        assert pair.chosen.outcome == pair.rejected.outcome == "ok"
    if rule == "best_vs_worst" and found and margin == 0:
        usable = [v for v, o in zip(values, outcomes, strict=False) if v is not None and o == "ok"]
        assert found[0].rejected.score == min(usable) or any(normalise(t) == normalise(found[0].chosen.text) for t in texts)
