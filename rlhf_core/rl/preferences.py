"""Losses that learn from pairs of answers instead of scores.

`margin` [P] is how much more the policy prefers the first answer of each pair than the reference does, in nats:

    margin = (log pi(y_1|x) - log pi_ref(y_1|x)) - (log pi(y_2|x) - log pi_ref(y_2|x))

`first_wins` [P] is the probability, in [0, 1], that the first answer is the better one: 1 is a certain label, 0.9 one
that is wrong one time in ten (label smoothing; Mitchell 2023, "cDPO"), 0.5 a tie. The losses are expectations over it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_core.rl.masks import row_sums


def margins(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """The margin of each pair, [P]: rows 0..P-1 of the [2P, T] log-probabilities are the first answers, the rest the
    second answers in the same order."""
    first, second = row_sums(logprobs - reference, mask).chunk(2)
    return first - second


def dpo_loss(margin: Tensor, first_wins: Tensor, *, beta: float) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7), one loss a pair: [P].

        loss = -p log sigmoid(beta margin) - (1 - p) log sigmoid(-beta margin)

    Where p is the Bradley-Terry probability sigmoid(r_1 - r_2), the minimum over all policies is
    pi(y) ~ pi_ref(y) exp(r(y) / beta), the optimum of the KL-regularised reward.
    """
    return -first_wins * logsigmoid(beta * margin) - (1 - first_wins) * logsigmoid(-beta * margin)


def ipo_loss(margin: Tensor, first_wins: Tensor, *, beta: float) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, eq. 17), one loss a pair: [P]; `beta` is their tau.

        loss = p (margin - 1 / (2 beta))^2 + (1 - p) (margin + 1 / (2 beta))^2

    The margin it wants is finite also where a label is certain, (2p - 1) / (2 beta) at its minimum, so a reference is
    not left behind for a pair that never loses.
    """
    wanted = 1 / (2 * beta)
    return first_wins * (margin - wanted) ** 2 + (1 - first_wins) * (margin + wanted) ** 2


def bradley_terry(first: Tensor, second: Tensor) -> Tensor:
    """P(first is better) = sigmoid(first - second) for scores in nats [P] (Bradley and Terry 1952)."""
    return torch.sigmoid(first - second)
