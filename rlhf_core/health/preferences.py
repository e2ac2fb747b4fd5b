"""How well predicted preferences agree with stated ones: pure functions of arrays.

N pairs of samples, each with `p`, the predicted probability that its first sample is better, `y` in [0, 1], the stated
one (0.5 is a tie), and `w`, its weight. Swapping the samples of a pair turns (p, y) into (1 - p, 1 - y), so a figure
that changes under a swap would be an accident of the order in which a pair happens to be stored:

- accuracy, Brier score and log loss don't change under a swap;
- AUC and calibration are taken over both orders of every pair;
- precision, recall and F1 would all equal the accuracy over both orders. They are taken over every pair with its longer
  sample first, where they mean something: precision is how often the model is right when it says that the longer one
  is better, recall how many of the longer ones that are better it finds. A model that has only learnt to like length
  shows as a recall near 1 with a precision near the share of pairs that the longer one wins.

Ties have no winner to be found: they don't count for accuracy, precision, recall, F1 and AUC, but do count for
calibration, Brier score and log loss, which compare probabilities. A prediction of exactly 0.5 is half right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_core.metrics import Metric

Floats = NDArray[np.float64]
BINS = 10
RESAMPLES = 1000


@dataclass(frozen=True)
class Predictions:
    """Predicted and stated preferences of N pairs."""

    predicted: Floats
    """N probabilities that the first sample is better, as predicted."""
    stated: Floats
    """N probabilities that the first sample is better, as people said."""
    weight: Floats
    """N positive weights."""
    longer: Floats
    """N lengths of the first sample minus those of the second, in characters or steps."""
    prompts: Sequence[str]
    """N ids of the prompts, the units that intervals are drawn over."""


def accuracy(p: Floats, y: Floats, w: Floats) -> float:
    """Weighted share of untied pairs whose winner is predicted; NaN where every pair is a tie."""
    counted = np.where(y == 0.5, 0.0, w)
    return _ratio(float((counted * _right(p, y)).sum()), float(counted.sum()))


def confusion(p: Floats, y: Floats, w: Floats) -> tuple[float, float, float]:
    """Weights of true positives, false positives and false negatives in the order given; ties don't count."""
    said, true, w = p > 0.5, y > 0.5, np.where(y == 0.5, 0.0, w)
    return float(w[said & true].sum()), float(w[said & ~true].sum()), float(w[~said & true].sum())


def auc(p: Floats, y: Floats, w: Floats) -> float:
    """Area under the ROC curve of "the first is better" in the order given; ties don't count, NaN with one class only.

    The probability that a random positive is predicted higher than a random negative, equal predictions counting half.
    """
    kept = y != 0.5
    p, won, w = p[kept], y[kept] > 0.5, w[kept]
    # Rounded, because 1 - p of a swapped pair must stay equal to an equal prediction.
    levels, place = np.unique(p.round(12), return_inverse=True)
    positive = np.bincount(place, w * won, len(levels))
    negative = np.bincount(place, w * ~won, len(levels))
    if not positive.any() or not negative.any():
        return float("nan")
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def brier(p: Floats, y: Floats, w: Floats) -> float:
    """Weighted mean of (p - y)^2 (Brier 1950). Against soft labels, so perfect predictions reach 0."""
    return float(np.average((p - y) ** 2, weights=w))


def log_loss(p: Floats, y: Floats, w: Floats) -> float:
    """Weighted cross-entropy in nats. Perfect predictions of soft labels reach their entropy, not 0."""
    return float(np.average(_cross_entropy(p, y), weights=w))


def calibration_table(p: Floats, y: Floats, w: Floats, bins: int = BINS) -> list[dict[str, float]]:
    """One row for each non-empty bin of equal width, in the order given: its borders, weighted mean prediction
    (`predicted`), weighted mean label (`stated`), share of the weight, and number of pairs.
    """
    place = np.minimum((p * bins).astype(int), bins - 1)
    rows = []
    for bin_ in np.unique(place):
        here = place == bin_
        rows.append(
            {
                "low": bin_ / bins,
                "high": (bin_ + 1) / bins,
                "predicted": float(np.average(p[here], weights=w[here])),
                "stated": float(np.average(y[here], weights=w[here])),
                "share": float(w[here].sum() / w.sum()),
                "pairs": int(here.sum()),
            }
        )
    return rows


def ece(p: Floats, y: Floats, w: Floats, bins: int = BINS) -> float:
    """Expected calibration error (Naeini et al. 2015): mean gap of prediction and label over bins of equal width."""
    return sum(row["share"] * abs(row["predicted"] - row["stated"]) for row in calibration_table(p, y, w, bins))


def both_orders(p: Floats, y: Floats, w: Floats) -> tuple[Floats, Floats, Floats]:
    """Every pair as it is and swapped: 2N."""
    return np.concatenate([p, 1 - p]), np.concatenate([y, 1 - y]), np.concatenate([w, w])


def surer_first(p: Floats, y: Floats, w: Floats) -> tuple[Floats, Floats, Floats]:
    """Every pair with the sample first that is predicted to win: p >= 0.5. For showing calibration by confidence."""
    swap = p < 0.5
    return np.where(swap, 1 - p, p), np.where(swap, 1 - y, y), w


def longer_first(pairs: Predictions) -> tuple[Floats, Floats, Floats]:
    """Every pair with its longer sample first; pairs of equal length are left out."""
    swap, kept = pairs.longer < 0, pairs.longer != 0
    p = np.where(swap, 1 - pairs.predicted, pairs.predicted)
    y = np.where(swap, 1 - pairs.stated, pairs.stated)
    return p[kept], y[kept], pairs.weight[kept]


def length_rule(pairs: Predictions, longer_wins: bool) -> Floats:
    """What length alone predicts: 1 where the first sample has the winning length, 0.5 where both are equally long."""
    return 0.5 + 0.5 * np.sign(pairs.longer) * (1.0 if longer_wins else -1.0)


def longer_wins(pairs: Predictions) -> bool:
    """Whether "the longer one is better" holds for at least half of the weight of the untied pairs."""
    return not accuracy(length_rule(pairs, True), pairs.stated, pairs.weight) < 0.5


def preference_health(pairs: Predictions, *, longer_is_better: bool = True, seed: int = 0) -> dict[str, Metric]:
    """How good the predictions are, as `reward_` + accuracy, precision, recall, f1, auc, ece, brier, log_loss and
    length_accuracy (of length alone, in the direction that `longer_wins` found on the training pairs).

    The averages (both accuracies, Brier score, log loss) have 95 % percentile-bootstrap intervals over prompts, because
    pairs of one prompt aren't independent; `n` counts prompts. What is undefined is left out: the accuracy where every
    pair is a tie, everything where there is no pair.
    """
    p, y, w = pairs.predicted, pairs.stated, pairs.weight
    if not len(p):
        return {}
    counted = np.where(y == 0.5, 0.0, w)
    length = length_rule(pairs, longer_is_better)
    hits, false, missed = confusion(*longer_first(pairs))
    averages = {
        "accuracy": (_right(p, y), counted),
        "length_accuracy": (_right(length, y), counted),
        "brier": ((p - y) ** 2, w),
        "log_loss": (_cross_entropy(p, y), w),
    }
    figures = {
        "precision": _ratio(hits, hits + false),
        "recall": _ratio(hits, hits + missed),
        "f1": _ratio(2 * hits, 2 * hits + false + missed),
        "auc": auc(*both_orders(p, y, w)),
        "ece": ece(*both_orders(p, y, w)),
    }
    prompts = len(set(pairs.prompts))
    found = {
        name: weighted_mean(*value, pairs.prompts, seed=seed) for name, value in averages.items() if value[1].any()
    }
    found |= {name: Metric(value=value, n=prompts) for name, value in figures.items() if not np.isnan(value)}
    return {f"reward_{name}": metric for name, metric in found.items()}


def weighted_mean(values: Floats, weight: Floats, prompts: Sequence[str], *, seed: int = 0) -> Metric:
    """Weighted mean of N `values` with a 95 % percentile-bootstrap interval over prompts, which are drawn with all
    their pairs (cluster bootstrap; Davison and Hinkley 1997). `n` counts the prompts that carry weight.
    """
    _, unit = np.unique(np.asarray(prompts)[weight > 0], return_inverse=True)
    values, weight = values[weight > 0], weight[weight > 0]
    units = int(unit.max()) + 1
    above, below = np.bincount(unit, values * weight, units), np.bincount(unit, weight, units)
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        picked = rng.integers(0, units, size=units)
        means[resample] = above[picked].sum() / below[picked].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return Metric(value=float(above.sum() / below.sum()), low=float(low), high=float(high), n=units)


def _right(p: Floats, y: Floats) -> Floats:
    """1 where the winner is predicted, 0.5 where the prediction is undecided, else 0."""
    return np.where(p == 0.5, 0.5, ((p > 0.5) == (y > 0.5)).astype(float))


def _cross_entropy(p: Floats, y: Floats) -> Floats:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
