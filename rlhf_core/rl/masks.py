"""Means over valid tokens: padding never counts, whatever it holds.

In all of `rlhf_core.rl`, B is the number of answers, T the length of the longest, and `mask` [B, T] is True at tokens
the policy chose (the end-of-sequence token included) and False at padding. Masked positions may hold anything, NaN
included.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of `values` where `mask`, both [B, T]; a scalar."""
    return torch.where(mask, values, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`, both [B, T]; a scalar, 0 where nothing is valid."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Population variance (divided by n) of `values` where `mask`, both [B, T]; a scalar."""
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def row_sums(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over each row's valid positions: [B, T] -> [B]."""
    return torch.where(mask, values, 0.0).sum(dim=1)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """`values` [B, T] shifted and scaled to mean 0 and variance 1 over all valid tokens; 0 at masked positions.

    Whiten a whole batch before splitting it: minibatches whitened one by one disagree about what an average token is.
    """
    scaled = (values - masked_mean(values, mask)) * torch.rsqrt(masked_variance(values, mask) + 1e-8)
    return torch.where(mask, scaled, 0.0)
