"""The clipped losses of proximal policy optimisation.

Each divides by a given token count and not by the tokens at hand, so that the gradients of micro-batches add up to the
gradient of the whole, and a token weighs the same in a batch of short answers as in one of long ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_core.rl.masks import masked_sum


class PolicyLoss(NamedTuple):
    """The policy's loss and what to watch it by."""

    loss: Tensor
    """Scalar with gradient."""
    ratio: Tensor
    """[B, T] probability ratios new/old, without gradient; 1 at masked positions."""
    clipped: Tensor
    """[B, T] True at valid tokens whose gradient the clipping took away."""


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, clip: float, tokens: float
) -> PolicyLoss:
    """The clipped surrogate, negated (Schulman et al. 2017, eq. 7).

        ratio_t = exp(logprob_t - old_logprob_t)
        loss    = -sum_t min(ratio_t A_t, clip(ratio_t, 1 - clip, 1 + clip) A_t) / tokens

    All [B, T]; `old_logprobs` and `advantages` are constants.
    """
    ratio = torch.exp(torch.where(mask, logprobs - old_logprobs, 0.0))
    advantages = torch.where(mask, advantages, 0.0)
    plain = ratio * advantages
    bounded = ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = -masked_sum(torch.minimum(plain, bounded), mask) / tokens
    return PolicyLoss(loss, ratio.detach(), mask & (bounded < plain).detach())


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


def imitation_loss(logprobs: Tensor, mask: Tensor, weights: Tensor, *, tokens: float) -> Tensor:
    """Weighted negative log-likelihood of demonstrated tokens: the ptx term (Ouyang et al. 2022, eq. 2).

        loss = -sum_bt weight_b logprob_bt / tokens

    `logprobs` and `mask` are [B, T], `weights` [B] says how much each demonstration counts; with the weighted token
    count sum_bt weight_b as `tokens` it is a mean. A scalar, nats a token.
    """
    return -masked_sum(logprobs * weights[:, None], mask) / tokens
