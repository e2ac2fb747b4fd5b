"""How accuracy grows with the number of labels, and how many a wanted accuracy takes. Pure functions.

The curve is the power law  accuracy(n) = ceiling - gap * n^-rate  (Cortes et al. 1993; Hestness et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RATES = np.geomspace(0.1, 2.0, 120)
"""Rates that are tried."""


class Curve(NamedTuple):
    """A fitted power law."""

    ceiling: float
    gap: float
    rate: float

    def at(self, n: float) -> float:
        """Accuracy after `n` labels."""
        return self.ceiling - self.gap * math.pow(n, -self.rate)

    def needed(self, target: float) -> float:
        """The labels after which the accuracy is `target`; infinite where it never is."""
        if self.gap <= 0:
            return 1.0 if self.ceiling >= target else math.inf
        if self.ceiling <= target:
            return math.inf
        return max(1.0, math.pow(self.gap / (self.ceiling - target), 1 / self.rate))


def fit_curve(sizes: Sequence[float], accuracies: Sequence[float]) -> Curve:
    """The least-squares power law with a ceiling of at most 1 that does not fall. Two points or more."""
    n, y = np.asarray(sizes, dtype=float), np.asarray(accuracies, dtype=float)
    if len(n) < 2:
        raise ValueError("a curve needs two points")
    x = n[None, :] ** -RATES[:, None]
    x_mean, y_mean = x.mean(1, keepdims=True), y.mean()
    gap = -((x - x_mean) * (y - y_mean)).sum(1) / ((x - x_mean) ** 2).sum(1)
    ceiling = y_mean + gap * x_mean[:, 0]
    falling = gap < 0
    gap, ceiling = np.where(falling, 0.0, gap), np.where(falling, y_mean, ceiling)
    above = ceiling > 1
    gap = np.where(above, ((1 - y) * x).sum(1) / (x**2).sum(1), gap)
    ceiling = np.where(above, 1.0, ceiling)
    error = ((ceiling[:, None] - gap[:, None] * x - y) ** 2).sum(1)
    best = int(error.argmin())
    return Curve(float(ceiling[best]), float(gap[best]), float(RATES[best]))


def resampled_curves(
    sizes: Sequence[float], right: Sequence[NDArray[Any]], *, resamples: int = 400, seed: int = 0
) -> list[Curve]:
    """Curves through bootstrap resamples of both what was repeated and what it was measured on (`resampled_means`)."""
    means = resampled_means(right, resamples=resamples, seed=seed)
    return [fit_curve(sizes, row) for row in means]


def resampled_means(right: Sequence[NDArray[Any]], *, resamples: int = 400, seed: int = 0) -> NDArray[np.float64]:
    """[resamples, sizes] mean accuracies. `right[i]` is [repeats, pairs] in {0, 0.5, 1} for size i, on the same
    independent pairs for all sizes. A resample draws pairs, one draw for all sizes, and for each size repeats.
    """
    rng = np.random.default_rng(seed)
    pairs = right[0].shape[1]
    counts = rng.multinomial(pairs, np.full(pairs, 1 / pairs), size=resamples) / pairs
    means = np.empty((resamples, len(right)))
    for i, one in enumerate(right):
        repeats = rng.multinomial(len(one), np.full(len(one), 1 / len(one)), size=resamples) / len(one)
        means[:, i] = ((counts @ one.T) * repeats).sum(1)
    return means
