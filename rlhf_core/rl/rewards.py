"""From one score an answer to a reward a token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of all numbers seen so far."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def after(self, values: Tensor) -> Moments:
        """With a batch [B] of further numbers, as if all had come at once (Chan et al. 1983)."""
        seen, batch = self.count, values.double()
        total = seen + len(batch)
        difference = float(batch.mean()) - self.mean
        squares = float(((batch - batch.mean()) ** 2).sum())
        return Moments(
            count=total,
            mean=self.mean + difference * len(batch) / total,
            squares=self.squares + squares + difference**2 * seen * len(batch) / total,
        )

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return float((self.squares / max(self.count, 1)) ** 0.5)


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


def length_excess(lengths: Tensor, *, limit: int, margin: int) -> Tensor:
    """How far answers of `lengths` [B] tokens reach into the last `margin` tokens before `limit`: 0 to 1, [B].

    Soft overlong punishment takes it, times a weight, from the score (Yu et al. 2025, eq. 13): answers learn to come
    to an end before they are cut. A margin of 0 is all zeros.
    """
    if margin == 0:
        return torch.zeros_like(lengths, dtype=torch.float32)
    return ((lengths - (limit - margin)) / margin).clamp(0.0, 1.0)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, coefficient: float) -> Tensor:
    """Rewards of all tokens: a KL penalty at each, the score at the last (Ziegler et al. 2019, eq. 2).

        r_t = -coefficient kl_t + (score where t is the answer's last token)

    `scores` [B], `kl` and `mask` [B, T]. The last token is the last valid one (the end of sequence where there is one),
    not the last column; every row has one. 0 at masked positions.
    """
    rewards = torch.where(mask, -coefficient * kl, 0.0)
    last = mask.long().cumsum(dim=1).argmax(dim=1, keepdim=True)
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))
