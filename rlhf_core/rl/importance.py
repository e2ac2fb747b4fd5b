"""Answers that were sampled from another distribution than the one that learns from them."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_core.rl.masks import masked_mean


def truncated_weights(logprobs: Tensor, sampled: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """Importance weight of each token, cut off at `cap`, without gradient (Espeholt et al. 2018; Yao et al. 2025).

        w_t = min(pi_trainer(y_t) / pi_sampler(y_t), cap)

    `logprobs` are the trainer's and `sampled` the sampling engine's, both [B, T] in nats, of one and the same policy:
    engines that compute in another number format or with other kernels sample from a slightly different one, and
    w_t A_t corrects for it. The cap bounds the variance at the price of a small bias. 0 at masked positions.
    """
    ratio = torch.exp(torch.where(mask, logprobs - sampled, 0.0)).clamp(max=cap).detach()
    return torch.where(mask, ratio, 0.0)


def mismatch(logprobs: Tensor, sampled: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of two engines' log-probabilities [B, T], nats a token; a scalar."""
    return masked_mean((logprobs - sampled).abs(), mask)
