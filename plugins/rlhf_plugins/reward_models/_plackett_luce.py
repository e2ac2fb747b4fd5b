"""The Plackett-Luce model of rankings, with ties (Turner, van Etten, Firth and Kosmidis 2020, "Modelling rankings in R:
the PlackettLuce package", section 2).

A ranking is a sequence of choices: of the items left, the set C is chosen with probability f(C) / sum over the sets S
of at most D items of f(S), with f(S) = delta_|S| * (product of the worths in S)^(1/|S|) and delta_1 = 1. Without ties
(D = 1) it is the model of Plackett (1975) and Luce (1959), for two items Bradley-Terry; for two items with ties it is
Davidson (1970). Worths are exp(value).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

NEVER = -1e9
"""The log-probability of what is impossible: finite, so that its gradient is 0 and not NaN."""


@dataclass(frozen=True)
class Stages:
    """The S choices that many rankings consist of."""

    row: NDArray[np.int64]
    """[S] which row's samples are chosen from."""
    left: NDArray[np.bool_]
    """[S, k] the samples that are left."""
    chosen: NDArray[np.bool_]
    """[S, k] those of them that are chosen together."""
    weight: NDArray[np.float64]
    """[S] how often the ranking was given."""
    first: NDArray[np.bool_]
    """[S] whether it is its ranking's first choice."""

    @classmethod
    def of(cls, orders: Sequence[Sequence[tuple[Sequence[int], float]]]) -> Stages:
        """From the orders of each row: ranks (1 is best, equal ones are ties) with a weight."""
        width = max((len(ranks) for given in orders for ranks, _ in given), default=1)
        rows, left, chosen, weights, first = [], [], [], [], []
        for number, given in enumerate(orders):
            for ranks, weight in given:
                padded = np.full(width, np.iinfo(np.int64).max)
                padded[: len(ranks)] = ranks
                real = np.arange(width) < len(ranks)
                for step, rank in enumerate(sorted(set(ranks))):
                    here = real & (padded >= rank)
                    if here.sum() > 1:
                        rows.append(number)
                        left.append(here)
                        chosen.append(real & (padded == rank))
                        weights.append(weight)
                        first.append(step == 0)
        shape = (-1, width)
        return cls(
            np.array(rows, dtype=np.int64),
            np.array(left, dtype=bool).reshape(shape),
            np.array(chosen, dtype=bool).reshape(shape),
            np.array(weights, dtype=float),
            np.array(first, dtype=bool),
        )

    def pick(self, found: NDArray[np.int64], place: NDArray[np.int64]) -> Stages:
        """Some of the choices, with row i renamed `place[i]`."""
        return Stages(
            place[self.row[found]], self.left[found], self.chosen[found], self.weight[found], self.first[found]
        )

    def order_weight(self, rows: int) -> NDArray[np.float64]:
        """Total weight of the rankings of each row."""
        return np.bincount(self.row[self.first], self.weight[self.first], rows)


def stage_log_probability(
    values: torch.Tensor, left: torch.Tensor, chosen: torch.Tensor, log_tie: torch.Tensor
) -> torch.Tensor:
    """log P of S choices, [S], from the values [S, k] of the samples, masks [S, k] and log delta_1..D [D].

    The sum over all sets of d items is the elementary symmetric polynomial e_d of worth^(1/d), which a recursion over
    the items gives in k * d steps instead of one a set. Raises ValueError for a tie of more than D items.
    """
    most = len(log_tie)
    sizes = chosen.sum(1)
    if sizes.numel() and int(sizes.max()) > most:
        raise ValueError(f"a tie of {int(sizes.max())} items, where at most {most} may tie")
    ours = log_tie[sizes - 1] + (values * chosen).sum(1) / sizes
    open_values = torch.where(left, values, torch.full_like(values, NEVER))
    totals = [log_tie[d - 1] + _log_symmetric(open_values / d, d) for d in range(1, most + 1)]
    return ours - torch.stack(totals).logsumexp(0)


def _log_symmetric(logs: torch.Tensor, degree: int) -> torch.Tensor:
    """log e_d(exp(logs)) along the last dimension: e_d(x_1..x_j) = e_d(x_1..x_{j-1}) + x_j e_{d-1}(x_1..x_{j-1})."""
    if degree == 1:
        return logs.logsumexp(-1)
    none = torch.full_like(logs[..., 0], NEVER)
    sums = [torch.zeros_like(none), *[none] * degree]
    for item in logs.unbind(-1):
        sums = [sums[0], *(torch.logaddexp(sums[d], sums[d - 1] + item) for d in range(1, degree + 1))]
    return sums[degree]
