"""Rewards from verifiers, for RLVR and PPO: 10 when right, -10 without an end, a reward model's score added when asked for.

In: prompts with `verifier` and `ground_truth` (columns of training.data), answers, whether each one ended.
Out: a `Judged` each. An answer that no verifier could judge (it hung, crashed, or the ground truth is broken) has reward None: it
moves nothing, and is counted; when most cannot be judged the run ends with the reason. Verifiers run in processes of their own.

Tülu 3 (arXiv 2411.15124, section 6): reward 10 if verified else 0, -10 if the answer never ends, no reward-model score added.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import Field

from columnar.config import Config
from columnar.errors import CaravanError
from generation.verifiers import check_rows
from generation.verifiers.verdict import Verdict

ENOUGH = 64  # answers before a share of unverified ones means something


class VerifiedReward(Config):
    """How an answer becomes a number.

    Attributes:
        right: the reward of a verified answer; a wrong one has 0.
        partial_credit: reward the share of constraints or tests that hold, instead of all or nothing.
        no_eos: the reward of an answer that never ends, whatever it says; null rewards it like any other.
        reward_model: a reward model whose score, times `reward_model_weight`, is added.
        own: verifiers of your own, name -> module:function (see docs/verifiers.md).
        processes: how many verify at once.
        max_unverified: share of answers without a verdict at which the run ends.
    """

    right: float = 10.0
    partial_credit: bool = False
    no_eos: float | None = -10.0
    reward_model: str | None = None
    reward_model_weight: float = 0.1
    own: dict[str, str] = Field(default_factory=dict)
    processes: int = Field(2, ge=1)
    max_unverified: float = Field(0.5, gt=0, le=1)


class Judged(NamedTuple):
    """What an answer is worth, and why."""

    reward: float | None
    verdict: Verdict | None
    model_score: float | None
    ended: bool


@dataclass
class Verifier:
    """The reward of a run; counts what could not be verified."""

    config: VerifiedReward
    seen: int = 0
    unverified: Counter[str] = field(default_factory=Counter)

    def check(self, rows: Sequence[dict[str, Any]]) -> Counter[str]:
        """Every row names verifiers that there are; how many rows use each. Before any work.

        Raises:
            ConfigError: a row without one, or with an unknown one.
        """
        return check_rows(rows, self.config.own)

    def judge(self, rows: Sequence[dict[str, Any]], answers: Sequence[str], ended: Sequence[bool]) -> list[Judged]:
        """The reward of each answer to its row.

        Raises:
            CaravanError: most answers could not be verified.
        """
        from generation.verify import judge_batch

        numbered = [{**row, "id": str(i)} for i, row in enumerate(rows)]
        given = {str(i): [answer] for i, answer in enumerate(answers)}
        verdicts = [found[0] if found else None for _, found in judge_batch(numbered, given, self.config.own, self.config.processes)]
        scores = self._scores(rows, answers)
        out = [self._one(*each) for each in zip(verdicts, scores, ended, strict=True)]
        self._count(verdicts)
        return out

    def _one(self, verdict: Verdict | None, score: float | None, ended: bool) -> Judged:
        config = self.config
        if not ended and config.no_eos is not None:
            return Judged(config.no_eos, verdict, score, ended)
        if verdict is None or math.isnan(verdict.score):
            return Judged(None, verdict, score, ended)
        reward = config.right * (verdict.score if config.partial_credit else float(verdict.passed))
        return Judged(reward + (config.reward_model_weight * score if score is not None else 0.0), verdict, score, ended)

    def _scores(self, rows: Sequence[dict[str, Any]], answers: Sequence[str]) -> list[float | None]:
        if self.config.reward_model is None:
            return [None] * len(answers)
        from generation.judge_local import reward_scores

        talks = [[*row["prompt"], {"role": "assistant", "content": answer}] for row, answer in zip(rows, answers, strict=True)]
        return list(reward_scores(self.config.reward_model, talks))

    def _count(self, verdicts: Sequence[Verdict | None]) -> None:
        self.seen += len(verdicts)
        for verdict in verdicts:
            if verdict is not None and verdict.error:
                self.unverified[verdict.error[:200]] += 1
        lost = self.unverified.total()
        if self.seen >= ENOUGH and lost > self.config.max_unverified * self.seen:
            reason, n = self.unverified.most_common(1)[0]
            raise CaravanError(
                f"{lost:,} of {self.seen:,} answers could not be verified; most often ({n:,}): {reason}",
                "mend the verifier or the ground truth (python -m generation.verify DIR --completions FILE tries it alone)",
            )


def breakdown(judged: Sequence[Judged], answers: Sequence[str], groups: Sequence[str]) -> dict[str, float]:
    """What to watch besides the reward: pass rate and failures of each verifier, ends, sameness within each prompt's answers.

    Args:
        groups: the prompt's id for each answer.
    """
    passes: dict[str, list[float]] = defaultdict(list)
    broken: Counter[str] = Counter()
    for one in judged:
        for part in one.verdict.parts if one.verdict else ():
            broken[part.name] += bool(part.error)
            if not part.error:
                passes[part.name].append(float(part.passed))
    out = {f"verified/{name}": fmean(values) for name, values in sorted(passes.items())}
    out |= {f"unverified/{name}": float(n) for name, n in sorted(broken.items())}
    out["answers/without_end"] = fmean(not one.ended for one in judged)
    out["answers/characters"] = fmean(len(answer) for answer in answers)
    by_prompt: dict[str, list[str]] = defaultdict(list)
    for group, answer in zip(groups, answers, strict=True):
        by_prompt[group].append(answer)
    shares = [len(set(said)) / len(said) for said in by_prompt.values() if len(said) > 1]
    if shares:
        out["answers/distinct"] = fmean(shares)
    scored = [one.model_score for one in judged if one.model_score is not None]
    if scored:
        out["reward_model"] = fmean(scored)
    return out


def reward_function(verifier: Verifier, ends: set[int], keep: Callable[..., None] | None = None) -> Callable[..., list[float | None]]:
    """The reward as TRL's trainers call it; None = not applicable, which their baselines leave out.

    Args:
        ends: the token ids that end an answer.
        keep: told (step, rows, answers, judged) for every batch, for samples to look at.
    """

    def verified(
        prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], log_metric: Any = None, **columns: Any
    ) -> list[float | None]:
        answers = [said if isinstance(said, str) else said[-1].get("content") or "" for said in completions]
        names = ("id", "source", "verifier", "ground_truth")
        rows = [{"prompt": prompt, **{n: columns[n][i] for n in names}} for i, prompt in enumerate(prompts)]
        judged = verifier.judge(rows, answers, [bool(ids) and ids[-1] in ends for ids in completion_ids])
        if log_metric is not None:
            for name, value in breakdown(judged, answers, columns["id"]).items():
                log_metric(name, value)
        if keep is not None:
            keep(columns["trainer_state"].global_step, rows, answers, judged)
        return [one.reward for one in judged]

    return verified
