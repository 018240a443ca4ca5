"""PPO's arithmetic against a second computation that shares nothing with it: plain Python floats and the definitions as sums."""

from __future__ import annotations

import math
import random
import statistics

import pytest

pytest.importorskip("torch")

import torch

from training import ppo_math as ppo

LENGTHS = [1, 3, 7, 5]
WIDTH = 7


def made(seed: int) -> list[list[float]]:
    rng = random.Random(seed)
    return [[rng.gauss(0, 1) for _ in range(WIDTH)] for _ in LENGTHS]


def mask() -> torch.Tensor:
    return torch.tensor([[1.0] * n + [0.0] * (WIDTH - n) for n in LENGTHS])


def flat(rows: list[list[float]]) -> list[float]:
    return [row[t] for row, n in zip(rows, LENGTHS, strict=True) for t in range(n)]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_are_the_discounted_sum_of_all_later_errors(gamma: float, lam: float) -> None:
    rewards, values = made(1), made(2)
    found, returns = ppo.advantages(torch.tensor(rewards), torch.tensor(values), mask(), gamma, lam)
    for i, n in enumerate(LENGTHS):
        for t in range(WIDTH):
            expected = 0.0
            for later in range(t, n):  # the definition: sum over l of (gamma lam)^l delta_{t+l}, nothing after the answer's end
                after = values[i][later + 1] if later + 1 < n else 0.0
                expected += (gamma * lam) ** (later - t) * (rewards[i][later] + gamma * after - values[i][later])
            assert found[i, t].item() == pytest.approx(expected, abs=1e-5)
            assert returns[i, t].item() == pytest.approx(expected + values[i][t] if t < n else 0.0, abs=1e-5)


def test_what_stands_in_the_padding_changes_nothing() -> None:
    rewards, values, m = torch.tensor(made(1)), torch.tensor(made(2)), mask()
    clean = ppo.advantages(rewards * m, values * m, m, 0.9, 0.95)
    dirty = ppo.advantages(rewards + 99 * (1 - m), values - 99 * (1 - m), m, 0.9, 0.95)
    assert all(torch.allclose(a, b) for a, b in zip(clean, dirty, strict=True))


def test_one_verified_answer_without_discount_gives_every_token_the_same_return() -> None:
    rewards = ppo.token_rewards(torch.tensor([10.0] * 4), torch.zeros(4, WIDTH), mask(), beta=0.05)
    _, returns = ppo.advantages(rewards, torch.tensor(made(3)), mask(), gamma=1.0, lam=1.0)
    assert torch.allclose(returns, 10 * mask(), atol=1e-4)


def test_the_score_comes_on_the_last_token_and_the_divergence_on_every_one() -> None:
    kl, scores = made(4), [1.0, -2.0, 3.0, 0.5]
    found = ppo.token_rewards(torch.tensor(scores), torch.tensor(kl), mask(), beta=0.1)
    for i, n in enumerate(LENGTHS):
        for t in range(WIDTH):
            assert found[i, t].item() == pytest.approx((-0.1 * kl[i][t] if t < n else 0) + (scores[i] if t == n - 1 else 0), abs=1e-6)
    nothing_said = ppo.token_rewards(torch.tensor([5.0]), torch.zeros(1, 3), torch.zeros(1, 3), beta=0.1)
    assert nothing_said.sum() == 0


def test_policy_loss_is_the_clipped_objective_token_by_token() -> None:
    new, old, advantage, clip = made(5), made(6), made(7), 0.2
    found = ppo.policy_loss(torch.tensor(new), torch.tensor(old), torch.tensor(advantage), mask(), clip)
    terms, clipped, far = [], [], []
    for a, b, gain in zip(flat(new), flat(old), flat(advantage), strict=True):
        ratio = math.exp(a - b)
        held = min(max(ratio, 1 - clip), 1 + clip)
        terms.append(-min(gain * ratio, gain * held))
        clipped.append(gain * held < gain * ratio)
        far.append((a - b) ** 2 / 2)
    assert found.loss.item() == pytest.approx(statistics.fmean(terms), rel=1e-5)
    assert found.clipped.item() == pytest.approx(statistics.fmean(clipped))
    assert found.approx_kl.item() == pytest.approx(statistics.fmean(far), rel=1e-5)


def test_policy_gradient_before_any_step_is_the_plain_one() -> None:
    logprobs = torch.tensor(made(5), requires_grad=True)
    advantage = torch.tensor(made(7))
    ppo.policy_loss(logprobs, logprobs.detach(), advantage, mask(), 0.2).loss.backward()
    assert torch.allclose(logprobs.grad, -advantage * mask() / mask().sum(), atol=1e-6)


def test_a_token_beyond_the_clip_is_not_pushed_further() -> None:
    logprobs = torch.tensor([[0.5, -0.5]], requires_grad=True)  # ratios 1.65 and 0.61 against old log-probabilities of 0
    ppo.policy_loss(logprobs, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), torch.ones(1, 2), 0.2).loss.backward()
    assert torch.equal(logprobs.grad, torch.zeros(1, 2))


def test_value_loss_takes_the_worse_of_moved_and_held() -> None:
    values, old, returns, clip = made(8), made(9), made(10), 0.2
    found = ppo.value_loss(torch.tensor(values), torch.tensor(old), torch.tensor(returns), mask(), clip)
    terms = []
    for v, o, r in zip(flat(values), flat(old), flat(returns), strict=True):
        held = min(max(v, o - clip), o + clip)
        terms.append(max((v - r) ** 2, (held - r) ** 2) / 2)
    assert found.item() == pytest.approx(statistics.fmean(terms), rel=1e-5)


def test_whitening_over_what_counts() -> None:
    values = made(11)
    mean, deviation = statistics.fmean(flat(values)), statistics.stdev(flat(values))
    found = ppo.whiten(torch.tensor(values), mask())
    kept = ppo.whiten(torch.tensor(values), mask(), shift=False)
    for i, n in enumerate(LENGTHS):
        for t in range(WIDTH):
            expected = (values[i][t] - mean) / deviation if t < n else 0.0
            assert found[i, t].item() == pytest.approx(expected, abs=1e-4)
            assert kept[i, t].item() == pytest.approx(expected + mean if t < n else 0.0, abs=1e-4)


def test_logprobs_and_divergences() -> None:
    rng = random.Random(12)
    logits = [[rng.gauss(0, 2) for _ in range(5)] for _ in range(3)]
    found = ppo.logprobs_of(torch.tensor([logits]), torch.tensor([[4, 0, 2]]), temperature=0.7)
    for t, token in enumerate([4, 0, 2]):
        total = sum(math.exp(x / 0.7) for x in logits[t])
        assert found[0, t].item() == pytest.approx(math.log(math.exp(logits[t][token] / 0.7) / total), abs=1e-5)
    policy, reference = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    exact = sum(p * math.log(p / q) for p, q in zip(policy, reference, strict=True))
    log_p, log_q = torch.tensor(policy).log(), torch.tensor(reference).log()
    for estimator in ("k1", "k3"):  # both estimators are unbiased: their mean under the policy is the divergence
        assert (torch.tensor(policy) * ppo.kl_per_token(log_p, log_q, estimator)).sum().item() == pytest.approx(exact, abs=1e-6)
    assert (ppo.kl_per_token(log_p, log_q, "k3") >= 0).all()


def test_llama2_reward_lets_safety_decide_where_it_must() -> None:
    def logit(p: float) -> float:
        return math.log(p / (1 - p))

    #            helpful, safe, about safety -> which of the two counts
    cases = [(0.9, 0.8, 0, 0.9), (0.9, 0.8, 1, 0.8), (0.95, 0.14, 0, 0.14), (0.3, 0.16, 0, 0.3), (0.6, 0.5, 0, 0.6)]
    combined = [logit(c[3]) for c in cases]
    mean, deviation = statistics.fmean(combined), statistics.stdev(combined)
    found = ppo.llama2_reward(
        torch.tensor([logit(c[0]) for c in cases]), torch.tensor([logit(c[1]) for c in cases]), torch.tensor([c[2] for c in cases])
    )
    assert found.tolist() == pytest.approx([(x - mean) / deviation for x in combined], abs=1e-4)


def test_an_answer_without_an_end_has_the_penalty_whatever_it_scored() -> None:
    assert ppo.no_end(torch.tensor([10.0, 0.0, 10.0]), torch.tensor([1, 1, 0]), -10.0).tolist() == [10.0, 0.0, -10.0]
