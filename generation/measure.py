"""How well a judge agrees with people: judged items in, figures with bootstrap intervals out. Pure; no model is asked here.

    figures(judgements, seed=1)["accuracy"]      # Estimate(value=0.61, low=0.56, high=0.66, n=419)

What each figure is, and over what (items without a verdict, of the people or of the judge, are left out and counted):

    accuracy        pairs of answers that the people tell apart: 1 when the judge has the same order, 0.5 when it sees a tie, 0 otherwise
    exact           items: the judge's whole order, ties included, is the people's
    kappa           pairs: agreement on first / second / tie beyond chance (Cohen)
    spearman, kendall   items of three or more answers, correlation within the item, mean over items
    five_best       answers the judge gave a perfect 5: the share that the people rank best (Self-Rewarding, arXiv 2401.10020, section 3.3)
    rating_spearman all answers of all items together, for judges that rate single answers
    first           verdicts with a winner: the answer shown first won (0.5 = no position bias)
    flips           pairs asked in both orders: another winner when the order changes
    longer, humans_longer   decided pairs of unequal length: the judge, the people chose the longer answer
    when_longer, when_shorter   accuracy where the people prefer the longer, the shorter answer
    missing         share of items the judge gave no usable verdict for
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from generation.gold import Item
from generation.statistics import Estimate, bootstrap, kappa, kendall, spearman

NAN = float("nan")


class Judgement(NamedTuple):
    """What a judge made of one item.

    Attributes:
        scores: one for each answer in the item's order, higher is better; None when there is no usable verdict.
        shown: for each call that showed two answers: did the one shown first win (1.0), lose (0.0), tie (0.5), or None.
        flipped: for a pair asked in both orders: did another answer win when the order changed; None when not asked, or not read.
    """

    item: Item
    scores: tuple[float, ...] | None
    shown: tuple[float | None, ...] = ()
    flipped: bool | None = None


def verdict(scores: tuple[float, ...]) -> float:
    """A pair's scores as: 1.0 the first is better, 0.0 the second, 0.5 a tie."""
    return 0.5 if scores[0] == scores[1] else float(scores[0] > scores[1])


def figures(judgements: list[Judgement], seed: int = 1, draws: int = 1000) -> dict[str, Estimate]:
    """All figures of one judge on one set; those that do not apply have n = 0."""
    judged = [j for j in judgements if j.scores is not None]
    labelled = [(j.item, j.item.human, j.scores) for j in judged if j.item.human is not None and j.scores is not None]

    def estimate(name: str, values: list[float], groups: list[str] | None = None) -> Estimate:
        return bootstrap(values, seed, name, draws, groups)

    agree, longer_human, longer_judge, when_longer, when_shorter, group, length_group = [], [], [], [], [], [], []
    for item, human, scores in labelled:
        for a in range(len(human)):
            for b in range(a + 1, len(human)):
                if human[a] == human[b]:
                    continue
                right = 0.5 if scores[a] == scores[b] else float((scores[a] > scores[b]) == (human[a] > human[b]))
                agree.append(right)
                group.append(item.id)
                lengths = len(item.answers[a]), len(item.answers[b])
                if lengths[0] == lengths[1]:
                    continue
                a_longer = lengths[0] > lengths[1]
                human_longer = (human[a] > human[b]) == a_longer
                longer_human.append(float(human_longer))
                longer_judge.append(NAN if scores[a] == scores[b] else float((scores[a] > scores[b]) == a_longer))
                when_longer.append(right if human_longer else NAN)
                when_shorter.append(NAN if human_longer else right)
                length_group.append(item.id)
    pairs = [(item, human, scores) for item, human, scores in labelled if len(human) == 2]
    many = [(human, scores) for _, human, scores in labelled if len(human) > 2]
    five = [(float(h == max(human)), i.id) for i, human, scores in labelled for h, s in zip(human, scores, strict=True) if s == 5]
    return {
        "accuracy": estimate("accuracy", agree, group),
        "exact": estimate("exact", [float(_order(h) == _order(s)) for _, h, s in labelled]),
        "kappa": _kappa([verdict(s) for _, _, s in pairs], [verdict(h) for _, h, _ in pairs], seed, draws),
        "spearman": estimate("spearman", [spearman(h, s) for h, s in many]),
        "kendall": estimate("kendall", [kendall(h, s) for h, s in many]),
        "five_best": estimate("five_best", [f for f, _ in five], [g for _, g in five]),
        "first": estimate("first", [NAN if s is None or s == 0.5 else s for j in judgements for s in j.shown]),
        "flips": estimate("flips", [float(j.flipped) for j in judgements if j.flipped is not None]),
        "longer": estimate("longer", longer_judge, length_group),
        "humans_longer": estimate("humans_longer", longer_human, length_group),
        "when_longer": estimate("when_longer", when_longer, length_group),
        "when_shorter": estimate("when_shorter", when_shorter, length_group),
        "missing": estimate("missing", [float(j.scores is None) for j in judgements]),
    }


def rating_spearman(judgements: list[Judgement]) -> float:
    """Correlation of the judge's ratings with the people's over all answers of all items."""
    pairs = [(h, s) for j in judgements if j.scores and j.item.human for h, s in zip(j.item.human, j.scores, strict=True)]
    return spearman([h for h, _ in pairs], [s for _, s in pairs]) if pairs else NAN


def _order(scores: tuple[float, ...]) -> tuple[int, ...]:
    """Scores as places: the best 0, equal scores the same place."""
    places = sorted(set(scores), reverse=True)
    return tuple(places.index(s) for s in scores)


def _kappa(judge: list[float], human: list[float], seed: int, draws: int) -> Estimate:
    """Cohen's kappa of pairs' verdicts, interval by drawing pairs."""
    if not judge:
        return Estimate(NAN, NAN, NAN, 0)
    from generation.statistics import generator

    codes = 3 * np.array([int(2 * v) for v in judge]) + np.array([int(2 * v) for v in human])
    table = np.bincount(codes, minlength=9) / len(judge)
    drawn = generator(seed, "kappa").multinomial(len(judge), table, draws) / len(judge)
    values = [_kappa_of(t.reshape(3, 3)) for t in drawn]
    low, high = np.nanpercentile(values, [2.5, 97.5]) if not np.all(np.isnan(values)) else (NAN, NAN)
    return Estimate(kappa(judge, human), float(low), float(high), len(judge))


def _kappa_of(table: np.ndarray) -> float:
    chance = float(table.sum(0) @ table.sum(1))
    return (float(np.trace(table)) - chance) / (1 - chance) if chance < 1 else NAN


def annotator_agreement(judgements: list[Judgement]) -> list[dict[str, Any]]:
    """Each annotator beside the judge, and the annotators beside each other (what a judge can at best be expected to reach).

    Agreement is on first / second / tie, over the pairs that every one of them judged.
    """
    rated = [j for j in judgements if j.item.annotators and j.scores is not None]
    if not rated:
        return []
    raters = len(rated[0].item.annotators)
    people = [[verdict(j.item.annotators[k]) for j in rated] for k in range(raters)]
    judge = [verdict(j.scores) for j in rated if j.scores is not None]
    out = []
    for k in range(raters):
        others = [m for m in range(raters) if m != k]
        same = [np.mean([a == b for a, b in zip(people[k], people[m], strict=True)]) for m in others]
        out.append(
            {
                "annotator": k + 1,
                "n": len(rated),
                "judge_agreement": float(np.mean([a == b for a, b in zip(judge, people[k], strict=True)])),
                "judge_kappa": kappa(judge, people[k]),
                "other_people_agreement": float(np.mean(same)),
                "other_people_kappa": float(np.mean([kappa(people[k], people[m]) for m in others])),
            }
        )
    return out
