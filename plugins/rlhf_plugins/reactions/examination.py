"""How much of an exposure each position is worth, learnt from the log itself. Pure functions on plain counts.

People look at the first entry of a list more often than at the fifth, so that equal click rates at the two do not mean
equal liking. The position-based model says so in one product: P(reaction | item i at position k) = t_k g_i, where t_k
is the chance that position k is looked at at all and g_i that of a reaction by somebody who looks (Richardson,
Dominowska and Ragno, "Predicting Clicks", 2007; Craswell et al., "An Experimental Comparison of Click Position-Bias
Models", 2008). Items that were shown at several positions tell the t_k apart from the g_i without any experiment.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np

Counts = tuple[float, float]
"""(reactions, impressions)."""
TOLERANCE = 1e-10
MOST_SWEEPS = 20_000


class Examination(NamedTuple):
    """What positions are worth."""

    shares: dict[int, float]
    """Position -> t_k, as a share of the most examined position that it can be compared with, in [0, 1]."""
    linked: dict[int, int]
    """Position -> number of its group. Only within a group did items stand at several positions, so that positions, and
    the items there, can be compared."""


def examination(cells: Mapping[tuple[Hashable, int], Counts]) -> Examination:
    """Estimates t_k from the (reactions, impressions) of each (item, position).

    Solves sum_k c_ik = g_i sum_k n_ik t_k for all items and sum_i c_ik = t_k sum_i n_ik g_i for all positions, by
    turns. These hold in expectation under the model whatever the rates are, and are the conditions of the maximum of
    the Poisson likelihood, to which the turns climb. A position without any reaction is worth 0.
    """
    items = {item: number for number, item in enumerate(dict.fromkeys(item for item, _ in cells))}
    positions = {position: number for number, position in enumerate(sorted({position for _, position in cells}))}
    if not cells:
        return Examination({}, {})
    item = np.array([items[name] for name, _ in cells])
    place = np.array([positions[position] for _, position in cells])
    reactions, impressions = np.array(list(cells.values()), dtype=float).T
    groups = _linked(item, place, len(items), len(positions))
    by_item = np.bincount(item, reactions, len(items))
    by_place = np.bincount(place, reactions, len(positions))
    worth = np.ones(len(positions))
    for _ in range(MOST_SWEEPS):
        liking = _ratio(by_item, np.bincount(item, impressions * worth[place], len(items)))
        new = _ratio(by_place, np.bincount(place, impressions * liking[item], len(positions)))
        for group in range(groups.max() + 1):
            highest = new[groups == group].max()
            new[groups == group] /= highest or 1.0
        done = np.abs(new - worth).max() < TOLERANCE
        worth = new
        if done:
            break
    return Examination(
        {position: float(worth[number]) for position, number in positions.items()},
        {position: int(groups[number]) for position, number in positions.items()},
    )


def examined(count: float, impressions: Mapping[int, float], shares: Mapping[int, float]) -> float:
    """The exposures of an item that count as looked at: sum_k n_ik t_k, never fewer than its `count` of reactions.

    Reactions over them, "clicks over expected clicks" up to a constant (Zhang and Jones, "Comparing Click Logs and
    Editorial Labels for Training Query Rewriting", 2007), estimate g_i with less variance than weighing each reaction
    by 1 / t_k (Joachims, Swaminathan and Schnabel, "Unbiased Learning-to-Rank with Biased Feedback", 2017), whose
    expectation is the same.
    """
    return max(count, sum(n * shares[position] for position, n in impressions.items()))


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)


def _linked(item: np.ndarray, place: np.ndarray, items: int, places: int) -> np.ndarray:
    """For each position the number of its group: positions that share an item, or a neighbour, share it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = items + places
    edges = coo_array((np.ones(len(item)), (item, items + place)), shape=(nodes, nodes))
    labels = connected_components(edges, directed=False)[1][items:]
    return np.unique(labels, return_inverse=True)[1]
