"""Where a score becomes a verdict: the threshold for a wanted precision, chosen on labelled examples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Threshold(NamedTuple):
    """A threshold with what it reached on the examples that it was chosen on."""

    value: float
    """Scores at or above it are flagged."""
    precision: float
    """Share of the flagged examples that are positive."""
    recall: float
    """Share of the positive examples that are flagged."""


def threshold_for_precision(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], wanted: float
) -> Threshold | None:
    """The threshold with the highest recall among those of at least the `wanted` precision on N examples.

    None where no threshold reaches it, or where there is no positive example. Equal scores are flagged together.
    """
    if not positive.any():
        return None
    levels, place = np.unique(scores, return_inverse=True)
    hits = np.bincount(place, positive, len(levels))[::-1].cumsum()[::-1]
    flagged = np.bincount(place, minlength=len(levels))[::-1].cumsum()[::-1]
    precision = hits / flagged
    good = np.flatnonzero(precision >= wanted)
    if not len(good):
        return None
    # Recall falls as the threshold rises, so the lowest good one has the most of it.
    at = int(good[0])
    return Threshold(float(levels[at]), float(precision[at]), float(hits[at] / positive.sum()))
