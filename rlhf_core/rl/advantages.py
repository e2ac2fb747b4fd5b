"""How much better an action was than expected: generalised advantage estimation."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_core.rl.masks import masked_variance


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam: float,
    final_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages and value targets of every token (Schulman et al. 2016, eq. 16).

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
        A_t     = delta_t + gamma lam A_{t+1}
        R_t     = A_t + V(s_t)

    `rewards`, `values` and `mask` are [B, T]; `values[:, t]` is V(s_t), the value *before* token t. An answer of n
    tokens has n + 1 states, one more than it has actions: V(s_n) is `final_values` [B], or 0 where it is None because
    the episode ended there. Rows are valid from the left, without gaps. Returns two [B, T] without gradient, 0 at
    masked positions.
    """
    rewards, values = (torch.where(mask, x.detach(), 0.0) for x in (rewards, values))
    after = torch.zeros_like(values[:, 0]) if final_values is None else final_values.detach()
    advantage = torch.zeros_like(after)
    columns: list[Tensor] = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * after - values[:, t]
        valid = mask[:, t]
        advantage = torch.where(valid, delta + gamma * lam * advantage, 0.0)
        after = torch.where(valid, values[:, t], after)
        columns.append(advantage)
    advantages = torch.stack(columns[::-1], dim=1)
    return advantages, advantages + values


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over valid tokens of [B, T]; a scalar.

    1 is a perfect value model, 0 one as good as a constant, below 0 worse than that; 0 where all returns are equal.
    """
    total = masked_variance(returns, mask)
    explained = 1 - masked_variance(returns - values, mask) / total.clamp(min=1e-12)
    return torch.where(total > 1e-12, explained, 0.0)
