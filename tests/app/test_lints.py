"""Each lint finds exactly the pair that was planted for it, with measured columns and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.db import open_data
from app.lints import Finding, Lint, counts_sql, findings, length_effect_sql, lints_for
from tests.app.made import write_pairs

EXPECTED = {
    "same": {"same"},
    "same_head": {"same_head"},
    "tie": {"tie"},
    "inverted": {"inverted"},
    "unscored": {"unscored"},
    "earlier": {"earlier"},
    "refusal": {"refusal"},
    "empty": {"empty"},
    "contradicted": {"contradicted", "contradicts"},
    "twice": {"twice"},
    "half": {"half"},
}


@pytest.mark.parametrize("signals", [True, False])
def test_every_lint_leads_to_its_rows(tmp_path: Path, signals: bool) -> None:
    planted = {row["id"]: name for name, row in write_pairs(tmp_path / "d", signals).items()}
    data = open_data(tmp_path / "d")
    lints = lints_for(data.columns["rows"])
    counted = {one.lint.key: one for one in findings(lints, data.run(counts_sql(lints, "rows")).rows[0])}
    assert set(counted) >= set(EXPECTED) - (set() if signals else {"refusal", "empty"})
    for lint in lints:
        found = data.run(f"SELECT id FROM rows WHERE ({lint.of}) AND ({lint.where})").rows
        assert len(found) == counted[lint.key].count
        if lint.key in EXPECTED:
            assert {planted[line["id"]] for line in found} == EXPECTED[lint.key]


def test_a_shorter_length_makes_more_pairs_equal(tmp_path: Path) -> None:
    planted = {row["id"]: name for name, row in write_pairs(tmp_path / "d").items()}
    data = open_data(tmp_path / "d")

    def equal(tokens: int) -> set[str]:
        (lint,) = [one for one in lints_for(data.columns["rows"], tokens) if one.key == "same_head"]
        return {planted[line["id"]] for line in data.run(f"SELECT id FROM rows WHERE {lint.where}").rows}

    assert equal(512) == {"same_head"}
    assert equal(1024) == set()
    assert "good" in equal(2) and "same" not in equal(2)  # nothing is left of the answers after two tokens of the question


def test_the_effect_of_length_has_the_right_sign(tmp_path: Path) -> None:
    write_pairs(tmp_path / "d")
    data = open_data(tmp_path / "d")
    longer = data.run(length_effect_sql(data.columns["rows"], "rows", "len(chosen[1].content) >= len(rejected[1].content)")).rows[0]
    shorter = data.run(length_effect_sql(data.columns["rows"], "rows", "len(chosen[1].content) < len(rejected[1].content)")).rows[0]
    assert longer["ratio"] > 1 > shorter["ratio"]
    assert longer["cohens_d"] > 0 > shorter["cohens_d"]


def test_a_bias_needs_rows_enough_and_a_defect_only_one() -> None:
    bias, defect = Lint("a", "", "", "", bias=True), Lint("b", "", "", "")
    assert not Finding(bias, 7, 10).wrong  # 70 % of ten may be chance
    assert Finding(bias, 700, 1000).wrong
    assert Finding(bias, 300, 1000).wrong
    assert not Finding(bias, 510, 1000).wrong
    assert Finding(defect, 1, 1000).wrong and not Finding(defect, 0, 1000).wrong
    assert Finding(bias, 0, 0).share is None and not Finding(bias, 0, 0).wrong
    low, high = Finding(bias, 0, 20).interval or (1, 1)
    assert low == 0 and high == pytest.approx(0.161, abs=0.001)  # Wilson's interval for 0 of 20
