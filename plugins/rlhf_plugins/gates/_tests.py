"""Statistical decisions from metrics with intervals: pure functions."""

from __future__ import annotations

import math
from statistics import NormalDist

from rlhf_core.metrics import Metric

NORMAL = NormalDist()
Z95 = NORMAL.inv_cdf(0.975)


def spent(alpha: float, look: int) -> float:
    """The error that the challenger number `look` (from 1) may use of `alpha`: alpha * 6 / (pi * look)^2.

    The shares add up to alpha over any number of challengers, so the chance that a campaign ever promotes one that is
    no better stays below alpha however long it runs: the online Bonferroni rule ("alpha-spending") of Foster and Stine
    2008 and Tian and Ramdas 2021 ("Online control of the familywise error rate", section 2).
    """
    if look < 1:
        raise ValueError(f"challengers are counted from 1, not {look}")
    return alpha * 6 / (math.pi * look) ** 2


def lower_bound(metric: Metric, alpha: float) -> float:
    """The one-sided lower bound of level 1 - alpha, from the metric's 95 % interval; its value where it has none.

    The distance from value to lower bound is that of 1.96 standard errors, stretched to the wanted level.
    """
    low = metric.value if metric.low is None else metric.low
    return metric.value - (metric.value - low) * NORMAL.inv_cdf(1 - alpha) / Z95


def upper_bound(metric: Metric, alpha: float) -> float:
    """The one-sided upper bound of level 1 - alpha."""
    high = metric.value if metric.high is None else metric.high
    return metric.value + (high - metric.value) * NORMAL.inv_cdf(1 - alpha) / Z95


def difference(new: Metric, old: Metric) -> Metric:
    """new - old with a 95 % interval, each side's squared reach added (Zou and Donner 2008, "MOVER").

    As if both were measured independently; on the same prompts they vary together, and the interval is too wide rather
    than too narrow.
    """
    value = new.value - old.value
    if None in (new.low, new.high, old.low, old.high):
        return Metric(value=value)
    assert new.low is not None and new.high is not None and old.low is not None and old.high is not None
    down = math.hypot(new.value - new.low, old.high - old.value)
    up = math.hypot(new.high - new.value, old.value - old.low)
    return Metric(value=value, low=value - down, high=value + up)


def negated(metric: Metric) -> Metric:
    """The metric of which less is better, as one of which more is."""
    low = None if metric.high is None else -metric.high
    high = None if metric.low is None else -metric.low
    return Metric(value=-metric.value, low=low, high=high, n=metric.n)
