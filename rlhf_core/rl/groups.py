"""Advantages from several answers to one prompt: each is judged against the others, so no value model is needed.

In all of them `scores` [B] holds the answers to one prompt side by side, `group` of them a prompt: B is a multiple.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["group", "batch", "none"]
Normalise = Literal["answer", "token", "limit"]


def leave_one_out(scores: Tensor, group: int) -> Tensor:
    """Score less the mean score of the *other* answers to the prompt (Kool et al. 2019; Ahmadian et al. 2024, eq. 7).

        A_i = r_i - sum_{j != i} r_j / (group - 1)

    The baseline does not depend on answer i, so the policy gradient stays unbiased. [B] -> [B]. Raises ValueError for a
    group of one or a B that is no multiple of it.
    """
    rows = _grouped(scores, group)
    return ((rows - rows.mean(dim=1, keepdim=True)) * (group / (group - 1))).reshape(-1)


def group_relative(scores: Tensor, group: int, *, scale: Scale = "group", epsilon: float = 1e-4) -> Tensor:
    """Score less the mean of its group, in standard deviations (GRPO; Shao et al. 2024, sec. 4.1.2). [B] -> [B].

        A_i = (r_i - mean(group)) / (std + epsilon)

    `scale` says whose standard deviation (with Bessel's correction): that of the `group`; that of the whole `batch`,
    which weighs easy and hard prompts alike (Hu et al. 2025); or `none`: no division (Dr. GRPO; Liu et al. 2025), which
    leaves the gradient that of the expected score. Raises ValueError like `leave_one_out`.
    """
    rows = _grouped(scores, group)
    centred = rows - rows.mean(dim=1, keepdim=True)
    if scale == "group":
        centred = centred / (rows.std(dim=1, keepdim=True) + epsilon)
    elif scale == "batch":
        centred = centred / (rows.std() + epsilon)
    return centred.reshape(-1)


def spread_over_tokens(advantages: Tensor, mask: Tensor) -> Tensor:
    """Each answer's advantage [B] at each of its tokens: [B, T], 0 where `mask` [B, T] is False."""
    return torch.where(mask, advantages[:, None], 0.0)


def token_weights(mask: Tensor, normalise: Normalise, limit: int) -> Tensor:
    """How much each token counts, [B, T] for `mask` [B, T], for losses that are divided by the batch's N tokens.

        answer   N / (B n_b)    the mean over answers of means over their n_b tokens (GRPO; Shao et al. 2024, eq. 3)
        token    1              the mean over all tokens (DAPO; Yu et al. 2025, eq. 8)
        limit    N / (B limit)  sums over tokens at a constant scale (Dr. GRPO; Liu et al. 2025)

    `answer` makes a token of a long answer count less, so long wrong answers are hardly punished; the others do not.
    Losses are homogeneous in the advantages, so multiplying these by the weights does it. 0 at masked positions.
    """
    rows, tokens = mask.shape[0], mask.sum()
    if normalise == "answer":
        weights = tokens / (rows * mask.sum(dim=1, keepdim=True).clamp(min=1))
    elif normalise == "limit":
        weights = tokens / (rows * limit)
    else:
        weights = torch.ones((), device=mask.device)
    return torch.where(mask, weights.float(), 0.0)


def best_and_worst(scores: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Row numbers [B / group] of each group's highest and lowest score; the first of equal ones. Raises ValueError."""
    rows = _grouped(scores, group)
    first = torch.arange(len(rows), device=scores.device) * group
    return first + rows.argmax(dim=1), first + rows.argmin(dim=1)


def _grouped(scores: Tensor, group: int) -> Tensor:
    if group < 2:
        raise ValueError(f"a group of {group} has no others to compare with")
    if len(scores) % group:
        raise ValueError(f"{len(scores)} scores are not groups of {group}")
    return scores.reshape(-1, group)
