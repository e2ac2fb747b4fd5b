"""From score differences to probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SHARPEST, BLUNTEST = 0.05, 20.0
"""Borders of the temperature; at the blunt one even large differences of reward say next to nothing."""


def fit_temperature(margins: Floats, stated: Floats, weight: Floats) -> float:
    """The T > 0 for which sigma(margins / T) has the least log loss (temperature scaling; Guo et al. 2017).

    The loss is convex in 1/T, so bisecting its derivative finds the minimum. It ends at `BLUNTEST` where the margins
    say nothing or the contrary of what is stated, and at `SHARPEST` where they separate without an error.
    """
    low, high = np.log(1 / BLUNTEST), np.log(1 / SHARPEST)
    for _ in range(60):
        middle = (low + high) / 2
        slope = np.average((sigmoid(np.exp(middle) * margins) - stated) * margins, weights=weight)
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(x / 2))
