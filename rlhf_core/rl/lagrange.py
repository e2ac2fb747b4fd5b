"""A bound on the mean cost of answers, kept by a price on it: max over policies, min over multipliers >= 0, of
E[R] - multiplier (E[C] - limit).
"""

from __future__ import annotations

import math

from torch import Tensor


def priced(scores: Tensor, costs: Tensor, multiplier: float, *, limit: float) -> Tensor:
    """(R - lambda (C - limit)) / (1 + lambda) of [B] scores and costs (Dai et al. 2023, "Safe RLHF", equation 12).

    Divided by 1 + lambda so that a high price does not make the steps larger.
    """
    return (scores - multiplier * (costs - limit)) / (1 + multiplier)


def next_multiplier(multiplier: float, cost: float, *, limit: float, rate: float, most: float) -> float:
    """The price after a batch of mean `cost`: ln lambda <- ln lambda + rate lambda (cost - limit), at most `most`.

    A gradient step on ln lambda, which keeps lambda positive (Dai et al. 2023, appendix B.3): it rises while the bound
    is broken and falls while there is room.
    """
    return min(math.exp(min(math.log(multiplier) + rate * multiplier * (cost - limit), math.log(most))), most)
