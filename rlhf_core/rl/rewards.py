"""From one score an answer to a reward a token."""

from __future__ import annotations

import torch
from torch import Tensor


def standardise(scores: Tensor, mean: float, std: float, *, clip: float | None = None) -> Tensor:
    """(score - mean) / std of [B] scores, then limited to [-clip, clip].

    With the mean and standard deviation of the scores of reference answers, one KL coefficient suits any reward model
    (Ziegler et al. 2019, sec. 2.1; Stiennon et al. 2020).
    """
    scaled = (scores - mean) / std
    return scaled if clip is None else scaled.clamp(-clip, clip)


def penalise_unfinished(scores: Tensor, finished: Tensor, penalty: float) -> Tensor:
    """Scores [B] less `penalty` where `finished` [B] is False: no end of sequence before the length limit.

    The "EOS trick" of Huang et al. 2024: without it the policy learns to run on wherever the reward model likes length.
    """
    return torch.where(finished, scores, scores - penalty)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, coefficient: float) -> Tensor:
    """Rewards of all tokens: a KL penalty at each, the score at the last (Ziegler et al. 2019, eq. 2).

        r_t = -coefficient kl_t + (score where t is the answer's last token)

    `scores` [B], `kl` and `mask` [B, T]. The last token is the last valid one (the end of sequence where there is one),
    not the last column; every row has one. 0 at masked positions.
    """
    rewards = torch.where(mask, -coefficient * kl, 0.0)
    last = mask.long().cumsum(dim=1).argmax(dim=1, keepdim=True)
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))
