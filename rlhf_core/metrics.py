"""A measured number with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class Metric(BaseModel):
    """A value, its 95 % confidence interval where one is known, and the number of independent units behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3g}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share of `n` trials (Wilson 1927)."""
    z = 1.959963984540054
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def mean_share(outcomes: Sequence[float]) -> Metric:
    """Mean of n independent outcomes in {0, 0.5, 1} with the 95 % score interval of a share.

    Halves vary less than the interval supposes, so that it is rather too wide than too narrow. Raises ValueError where
    there are none.
    """
    if not outcomes:
        raise ValueError("cannot average no outcomes")
    value, n = sum(outcomes) / len(outcomes), len(outcomes)
    low, high = wilson(value, n)
    return Metric(value=value, low=low, high=high, n=n)


def bootstrap(values: Sequence[float], *, seed: int = 0, resamples: int = 2000) -> Metric:
    """Mean of independent `values` with a 95 % percentile-bootstrap interval (Efron 1979).

    One value a unit of resampling (a prompt, not a sample of it). Raises ValueError where there are none.
    """
    import numpy as np

    if not len(values):
        raise ValueError("cannot average no values")
    data = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(0, len(data), size=(resamples, len(data)))
    low, high = np.quantile(data[picks].mean(axis=1), [0.025, 0.975])
    return Metric(value=float(data.mean()), low=float(low), high=float(high), n=len(data))
