"""Every kind of preference as comparisons: rankings, ratings and clicks. Pure functions on plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple


class Implied(NamedTuple):
    """A comparison of items number `first` and `second` (first < second) that other feedback implies."""

    first: int
    second: int
    probability: float
    """P(first is better), in [0, 1]; 0.5 is a tie."""


def ranking_pairs(ranks: Sequence[int]) -> list[Implied]:
    """All k(k-1)/2 comparisons in a ranking of k items; rank 1 is best, equal ranks are ties."""
    return [
        Implied(i, j, 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j]))
        for i, j in combinations(range(len(ranks)), 2)
    ]


def rating_pairs(scores: Sequence[float], *, partners: int, tie_below: float = 0.0) -> list[Implied]:
    """The comparisons in n ratings by one person on one scale; differences of at most `tie_below` are ties.

    Up to 2 * `partners` + 1 ratings give all n(n-1)/2 pairs. Of more, each is paired with the `partners` that follow it
    in a ring, which gives n * `partners` pairs in which every item takes part equally often.
    """
    n = len(scores)
    if n <= 2 * partners + 1:
        places = list(combinations(range(n), 2))
    else:
        ring = ((i, (i + step) % n) for i in range(n) for step in range(1, partners + 1))
        places = sorted((min(pair), max(pair)) for pair in ring)
    pairs = []
    for i, j in places:
        difference = scores[i] - scores[j]
        pairs.append(Implied(i, j, 0.5 if abs(difference) <= tie_below else float(difference > 0)))
    return pairs


def two_proportion_z(count_a: float, exposures_a: float, count_b: float, exposures_b: float) -> float:
    """The two-proportion z statistic with pooled variance (the square root of Pearson's chi-squared), positive where
    a's rate is higher; 0 where nobody or everybody reacted, so that nothing tells the two apart. Exposures that are
    weighed by how often their position is looked at need not be whole numbers.
    """
    pooled = (count_a + count_b) / (exposures_a + exposures_b)
    variance = pooled * (1 - pooled) * (1 / exposures_a + 1 / exposures_b)
    if variance <= 0:
        return 0.0
    return (count_a / exposures_a - count_b / exposures_b) / math.sqrt(variance)


def clicks_to_probability(count_a: float, exposures_a: float, count_b: float, exposures_b: float) -> float:
    """P(a's true rate is above b's) in [0, 1]: the normal approximation Phi(z), with `two_proportion_z`.

    A few hundred exposures with a handful of clicks are needed for the approximation; with fewer it stays near 0.5,
    which is the safe side for a soft label.
    """
    return 0.5 * math.erfc(-two_proportion_z(count_a, exposures_a, count_b, exposures_b) / math.sqrt(2))
