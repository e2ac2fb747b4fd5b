"""How well predicted ratings agree with stated ones: N samples, both as numbers, higher is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rlhf_core.metrics import Metric

Floats = NDArray[np.float64]
RESAMPLES = 500


def pearson(x: Floats, y: Floats) -> float:
    """Linear correlation; NaN where either is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation (Spearman 1904): the linear correlation of the ranks, ties sharing their mean rank."""
    return pearson(ranks(x), ranks(y))


def ranks(x: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Floats = (ends - (counts - 1) / 2)[place]
    return means


def threshold_accuracy(predicted: Floats, stated: Floats, threshold: float) -> float:
    """Share of samples that both put on the same side of `threshold` (at or above it, or below)."""
    return float(((predicted >= threshold) == (stated >= threshold)).mean())


def rating_health(
    predicted: Floats, stated: Floats, prompts: Sequence[str], *, threshold: float = 0.5, seed: int = 0
) -> dict[str, Metric]:
    """`reward_spearman`, `reward_pearson`, `reward_rating_mse`, `reward_threshold_accuracy` with 95 % bootstrap
    intervals over prompts; `n` counts samples. What is undefined is left out.

    Ratings are in [0, 1], 0 the low and 1 the high end of the scale.
    """
    if len(predicted) < 2:
        return {}
    figures: dict[str, Callable[[Floats, Floats], float]] = {
        "spearman": spearman,
        "pearson": pearson,
        "rating_mse": lambda p, y: float(((p - y) ** 2).mean()),
        "threshold_accuracy": lambda p, y: threshold_accuracy(p, y, threshold),
    }
    found = {name: cluster_bootstrap(figure, predicted, stated, prompts, seed) for name, figure in figures.items()}
    return {f"reward_{name}": metric for name, metric in found.items() if metric is not None}


def cluster_bootstrap(
    figure: Callable[[Floats, Floats], float], x: Floats, y: Floats, prompts: Sequence[str], seed: int = 0
) -> Metric | None:
    """`figure(x, y)` with a 95 % percentile interval over prompts, which are drawn with all their samples."""
    value = figure(x, y)
    if np.isnan(value):
        return None
    _, unit = np.unique(np.asarray(prompts), return_inverse=True)
    order = np.argsort(unit, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(unit))[:-1])
    if len(groups) < 2:
        # All samples answer one prompt (posts without a question): the samples are the units.
        groups = [np.array([i]) for i in range(len(x))]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        picked = np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        found.append(figure(x[picked], y[picked]))
    kept = [one for one in found if not np.isnan(one)]
    low, high = np.quantile(kept, [0.025, 0.975]) if kept else (value, value)
    return Metric(value=value, low=float(min(low, value)), high=float(max(high, value)), n=len(x))
