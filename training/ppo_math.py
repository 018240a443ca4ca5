"""The arithmetic of PPO on sequences, as pure functions of tensors: rewards per token, advantages, clipped losses, Llama 2's reward.

All tensors are (batch, time) over the tokens of the answers unless said otherwise; `mask` is 1 where a token belongs to the answer
(the EOS included) and 0 on padding. The numbers follow Schulman et al. 2016 (GAE, arXiv 1506.02438), Schulman et al. 2017 (PPO,
arXiv 1707.06347), Llama 2-Chat (arXiv 2307.09288, section 3.2.3) and Tülu 3 (arXiv 2411.15124, section 6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

UNSAFE = 0.15  # Llama 2: below this probability of being safe, the safety model decides (precision .89, recall .55 on their test set)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens that count; 0 when none does."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def masked_variance(x: Tensor, mask: Tensor) -> Tensor:
    """The variance over the tokens that count (biased)."""
    return masked_mean((x - masked_mean(x, mask)) ** 2, mask)


def whiten(x: Tensor, mask: Tensor | None = None, shift: bool = True, total: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """To mean 0 and (unbiased) variance 1 over the values that count; the others become 0.

    Args:
        shift: False keeps the mean, for rewards whose sign means something.
        total: sums a number over all processes.
    """
    mask = torch.ones_like(x) if mask is None else mask
    count = total(mask.sum())
    mean = total((x * mask).sum()) / count.clamp(min=1)
    variance = total(((x - mean) ** 2 * mask).sum()) / (count - 1).clamp(min=1)
    out = (x - mean) * torch.rsqrt(variance + 1e-8)
    return (out if shift else out + mean) * mask


def logprobs_of(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """The log-probability of each token under the logits that predict it: (batch, time, vocabulary), (batch, time) -> (batch, time).

    Args:
        temperature: what the tokens were sampled at; the policy that is trained is the one that spoke.
    """
    scaled = logits.float() / temperature
    return scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(-1)


def kl_per_token(logprobs: Tensor, reference: Tensor, estimator: str = "k1") -> Tensor:
    """An estimate of KL(policy || reference) from the sampled tokens: k1 = log ratio (unbiased), k3 = r - 1 - log r (never negative)."""
    log_ratio = reference - logprobs
    return -log_ratio if estimator == "k1" else log_ratio.exp() - 1 - log_ratio


def up_to_end(tokens: Tensor, ends: list[int]) -> Tensor:
    """1 for every token of an answer up to and with its first end, 0 after: padding may be the same token as the end."""
    is_end = torch.isin(tokens, torch.tensor(ends, device=tokens.device)).long()
    return ((is_end.cumsum(1) - is_end) == 0).float()


def no_end(scores: Tensor, ended: Tensor, reward: float) -> Tensor:
    """Answers that never end get this reward and no other (Tülu 3: -10). (batch,) each."""
    return torch.where(ended.bool(), scores, torch.full_like(scores, reward))


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Reward per token: -beta * KL everywhere, and the answer's score (batch,) on its last token."""
    rewards = -beta * kl * mask
    last = (mask.sum(1).long() - 1).clamp(min=0)
    has_any = (mask.sum(1) > 0).to(scores.dtype)
    return rewards.scatter_add(1, last.unsqueeze(1), (scores * has_any).unsqueeze(1))


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: (advantages, returns), both 0 where mask is 0.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}; after the last token the value is 0. Answers are
    padded on the right, so the sums start at the answer's own end.
    """
    values = values * mask
    out = torch.zeros_like(values)
    later, following = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        later = (delta + gamma * lam * later) * mask[:, t]
        following = values[:, t]
        out[:, t] = later
    return out, (out + values) * mask


class PolicyLoss(NamedTuple):
    """The clipped loss and what it says of the step."""

    loss: Tensor
    clipped: Tensor  # share of tokens where the clip is what counts
    approx_kl: Tensor  # mean of (log ratio)^2 / 2: how far this update has gone from the policy that spoke


def policy_loss(logprobs: Tensor, old: Tensor, advantage: Tensor, mask: Tensor, clip: float) -> PolicyLoss:
    """PPO's clipped objective, as a loss: the mean over tokens of max(-A r, -A clip(r, 1 - clip, 1 + clip))."""
    log_ratio = (logprobs - old) * mask
    ratio = log_ratio.exp()
    plain, held = -advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)
    return PolicyLoss(
        masked_mean(torch.maximum(plain, held), mask),
        masked_mean((held > plain).float(), mask).detach(),
        masked_mean(0.5 * log_ratio**2, mask).detach(),
    )


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error of the values or, where that is worse, of the values held within `clip` of the old ones."""
    held = torch.clamp(values, old - clip, old + clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (held - returns) ** 2), mask)


def llama2_reward(
    helpful: Tensor,
    safe: Tensor,
    about_safety: Tensor,
    threshold: float = UNSAFE,
    total: Callable[[Tensor], Tensor] | None = lambda x: x,
) -> Tensor:
    """Llama 2-Chat's reward of answers from two reward models, whitened over the batch. (batch,) each.

    R_c = R_s where the prompt is about safety or R_s < 0.15, else R_h, on probabilities; the reward is WHITEN(LOGIT(R_c)). A reward
    model's output is that logit already, so the choice is made on sigmoids and the logits are what is whitened.

    Args:
        helpful: logits of the helpfulness model.
        safe: logits of the safety model.
        about_safety: 1 where the prompt is tagged as one that may draw an unsafe answer.
        total: sums a number over all processes; None leaves the reward as it is, not whitened.
    """
    judged_by_safety = about_safety.bool() | (safe.sigmoid() < threshold)
    reward = torch.where(judged_by_safety, safe, helpful)
    return reward if total is None else whiten(reward, total=total)
