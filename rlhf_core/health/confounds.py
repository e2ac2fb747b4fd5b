"""What else a predicted preference goes along with: length, and words that sound good or bad."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_core.health.preferences import Predictions
from rlhf_core.health.ratings import spearman
from rlhf_core.metrics import Metric

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import Pair

Floats = NDArray[np.float64]

_LATIN = re.compile(r"[a-z]+")


class _Words(NamedTuple):
    """The word lists of `sentiment.yaml`."""

    value: dict[str, int]
    """Word -> 1 or -1."""
    chinese: re.Pattern[str]
    """Any Chinese one of them, which no white space parts from its neighbours."""


@cache
def _words() -> _Words:
    import yaml

    lists = yaml.safe_load(Path(__file__).with_name("sentiment.yaml").read_text(encoding="utf-8"))
    value = {word: sign for name, sign in (("positive", 1), ("negative", -1)) for word in lists[name].split()}
    longest_first = sorted((word for word in value if not word.isascii()), key=lambda word: (-len(word), word))
    return _Words(value, re.compile("|".join(longest_first)))


@lru_cache(maxsize=4096)
def sentiment(text: str) -> int:
    """Words that sound good less words that sound bad. Negation is not understood: "not good" counts as good."""
    known = _words()
    return sum(known.value.get(word, 0) for word in [*_LATIN.findall(text.lower()), *known.chinese.findall(text)])


def confounds(found: Predictions, pairs: Sequence[Pair]) -> dict[str, Metric]:
    """`reward_length_correlation`, `reward_sentiment_correlation`: rank correlations of the predicted preference with
    the difference in length and in `sentiment`; `people_` + the same, of what people said of the same pairs.

    What a model has above the people it learnt from, it made up. Undefined ones are left out: where no two texts
    differ in it. Trajectories have no words.
    """
    mood = np.array([float(sentiment(p.first.text or "") - sentiment(p.second.text or "")) for p in pairs])
    metrics = {}
    for who, preferred in (("reward", found.predicted), ("people", found.stated)):
        for name, difference in (("length", found.longer), ("sentiment", mood)):
            value = pair_correlation(preferred, difference)
            if not np.isnan(value):
                metrics[f"{who}_{name}_correlation"] = Metric(value=value, n=len(pairs))
    return metrics


def pair_correlation(preferred: Floats, difference: Floats) -> float:
    """Spearman's correlation of P(first is better) with a difference of the first from the second, over both orders of
    every pair, so that the order in which it is stored does not matter. NaN where either is constant.
    """
    if not len(preferred):
        return float("nan")
    gaps = np.concatenate([preferred - 0.5, 0.5 - preferred])
    # Rounded, because 1 - p of a swapped pair must stay equal to an equal prediction.
    return spearman(gaps.round(12), np.concatenate([difference, -difference]))
