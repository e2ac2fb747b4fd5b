"""How stated preferences are learnt from: how firmly, with which weight, by how much the better one should lead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import Pair
    from rlhf_plugins.reward_models._learning import PreferenceConfig
    from rlhf_plugins.reward_models._objectives import Pairs

Floats = NDArray[np.float64]


def smoothed(stated: Floats, share: float) -> Floats:
    """(1 - e) y + e / 2 for N labels y in [0, 1] (Szegedy et al. 2016, section 7, with two classes)."""
    return (1 - share) * stated + share / 2


def leads(stated: Floats, margin: float) -> Floats:
    """m (2 y - 1): by how much the first of each pair should lead, below 0 where the second should.

    The margin of Touvron et al. 2023 ("Llama 2", equation 2), loss = -log sigma(r_chosen - r_rejected - m), with an m
    that grows with how distinct the answers are; here with how sure people were.
    """
    return margin * (2 * stated - 1)


def length_balance(stated: Floats, longer: Floats, weight: Floats) -> Floats:
    """Factors [N] for `weight` [N] that make "the longer one is better" as heavy as its contrary.

    `longer` [N] is the first length minus the second. A label y of a pair whose first is longer gives y of its weight
    to the one class and 1 - y to the other. Pairs of equal length keep their weight, and so does the whole.
    """
    said = np.where(longer > 0, stated, 1 - stated)
    unequal = longer != 0
    long, short = (float((weight * share)[unequal].sum()) for share in (said, 1 - said))
    if not long or not short:
        return np.ones_like(weight)
    half = (long + short) / 2
    return np.where(unequal, said * half / long + (1 - said) * half / short, 1.0)


def for_training(objective: Pairs, pairs: Sequence[Pair], config: PreferenceConfig) -> Pairs:
    """The objective of `pairs` with the options of `config`."""
    from rlhf_core.health import length

    stated, weight = objective.stated, objective.weight
    if config.balance_length:
        longer = np.array([float(length(pair.first) - length(pair.second)) for pair in pairs])
        weight = weight * length_balance(stated, longer, weight)
    return replace(
        objective,
        stated=smoothed(stated, config.label_smoothing),
        lead=leads(stated, config.margin) if config.margin else None,
        weight=weight,
    )
