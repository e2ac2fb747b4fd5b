"""A measured number with its uncertainty."""

from __future__ import annotations

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
