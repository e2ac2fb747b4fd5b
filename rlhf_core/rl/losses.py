"""The losses of policy gradients: clipped surrogate and values, divergence from the reference, imitation.

Each divides by a given token count and not by the tokens at hand, so that the gradients of micro-batches add up to the
gradient of the whole, and a token weighs the same in a batch of short answers as in one of long ones.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlhf_core.rl.kl import k2, k3
from rlhf_core.rl.masks import masked_sum

Divergence = Literal["k2", "k3"]
ESTIMATORS = {"k2": k2, "k3": k3}


class PolicyLoss(NamedTuple):
    """The policy's loss and what to watch it by."""

    loss: Tensor
    """Scalar with gradient."""
    ratio: Tensor
    """[B, T] probability ratios new/old, without gradient; 1 at masked positions."""
    clipped: Tensor
    """[B, T] True at valid tokens whose gradient the clipping took away."""


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    tokens: float,
    clip_high: float | None = None,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """The clipped surrogate, negated (Schulman et al. 2017, eq. 7).

        ratio_t = exp(logprob_t - old_logprob_t)
        gain_t  = min(ratio_t A_t, clip(ratio_t, 1 - clip, 1 + clip_high) A_t)
        loss    = -sum_t gain_t / tokens

    All [B, T]; `old_logprobs` and `advantages` are constants. `clip_high` is `clip` where it is None; a larger one lets
    unlikely tokens rise further ("clip-higher"; Yu et al. 2025, eq. 10). With a `dual_clip` c > 1, gain_t is at least
    c A_t where A_t < 0: a token that became far more likely since it was sampled cannot throw the policy off (Ye et al.
    2020, eq. 5).
    """
    ratio = torch.exp(torch.where(mask, logprobs - old_logprobs, 0.0))
    advantages = torch.where(mask, advantages, 0.0)
    plain = ratio * advantages
    bounded = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * advantages
    gain, clipped = torch.minimum(plain, bounded), bounded < plain
    if dual_clip is not None:
        floor = dual_clip * advantages
        below = (advantages < 0) & (gain < floor)
        gain, clipped = torch.where(below, floor, gain), clipped | below
    return PolicyLoss(-masked_sum(gain, mask) / tokens, ratio.detach(), mask & clipped.detach())


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float | None, tokens: float
) -> Tensor:
    """Half the squared error of the values, the worse of plain and clipped (Schulman's PPO2; Huang et al. 2024).

        bounded_t = old_value_t + clip(value_t - old_value_t, -clip, clip)
        loss      = sum_t max((value_t - R_t)^2, (bounded_t - R_t)^2) / (2 tokens)

    All [B, T]; `old_values` and `returns` are constants. A `clip` of None is the plain squared error.
    """
    values, old_values, returns = (torch.where(mask, x, 0.0) for x in (values, old_values, returns))
    errors = (values - returns) ** 2
    if clip is not None:
        bounded = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.maximum(errors, (bounded - returns) ** 2)
    return masked_sum(errors, mask) / (2 * tokens)


def divergence_loss(
    logprobs: Tensor,
    reference: Tensor,
    mask: Tensor,
    *,
    estimator: Divergence,
    tokens: float,
    weights: Tensor | None = None,
) -> Tensor:
    """The pull towards the reference as a loss of its own, nats a token: sum_t w_t k(logprob_t, reference_t) / tokens.

    All [B, T], `weights` 1 where they are None; a scalar with gradient. On answers of the policy itself the gradient of
    `k2` is on average that of the token's KL(policy || reference), that of `k3`, which GRPO uses (Shao et al. 2024,
    eq. 4), that of its KL(reference || policy): a pull to cover the reference, with another optimum. Neither sees that
    a token leads to places where the divergence is large, as a penalty in the reward does.
    """
    # Differences first: garbage at masked positions would otherwise turn into NaN gradients.
    difference = torch.where(mask, logprobs - reference, 0.0)
    divergence = ESTIMATORS[estimator](difference, torch.zeros_like(difference))
    return masked_sum(divergence if weights is None else weights * divergence, mask) / tokens


def imitation_loss(logprobs: Tensor, mask: Tensor, weights: Tensor, *, tokens: float) -> Tensor:
    """Weighted negative log-likelihood of demonstrated tokens: the ptx term (Ouyang et al. 2022, eq. 2).

        loss = -sum_bt weight_b logprob_bt / tokens

    `logprobs` and `mask` are [B, T], `weights` [B] says how much each demonstration counts; with the weighted token
    count sum_bt weight_b as `tokens` it is a mean. A scalar, nats a token.
    """
    return -masked_sum(logprobs * weights[:, None], mask) / tokens
