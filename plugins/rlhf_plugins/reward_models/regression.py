"""A transformer that predicts people's ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from rlhf_core.metrics import Metric
from rlhf_core.records import Prompt, Rating, Sample
from rlhf_plugins.reward_models._transformer import TransformerConfig, TransformerReward

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rlhf_core.feedback.dataset import FeedbackSet, Pair
    from rlhf_plugins.reward_models._objectives import BinnedRatings, Ratings

    Floats = NDArray[np.float64]


class RatedSample(NamedTuple):
    """A sample with its mean rating."""

    prompt: Prompt
    sample: Sample
    score: float
    """In [0, 1]: the low and the high end of the scale."""
    n: int
    """Number of ratings."""


class Regression(TransformerReward):
    """Ratings of single samples: mean squared error, or cross-entropy over ordered bins.

    `criteria["rating"]` is the predicted rating in [0, 1], the ends of the scale. `mean` is the same on the scale of
    preferences, like any other reward model's: centred, and where held-out prompts hold pairs of rated samples divided
    by the temperature at which sigma(difference) is the probability of being rated higher, else by the standard
    deviation on training samples.
    """

    learns_from = frozenset({Rating})
    description = "regression.json"
    remedy = "Ask annotators who rate samples (`ask.annotators`), or bring data with scores."

    class Config(TransformerConfig):
        """What is predicted, and how."""

        loss: Literal["squared", "ordinal"] = "squared"
        """`squared`: one output, mean squared error. `ordinal`: cross-entropy over `bins` ordered bins, the prediction
        is their mean; often better for noisy or skewed ratings (Farebrother et al. 2024)."""
        bins: int = Field(5, ge=2)
        """Bins of `ordinal` and of `balance`, evenly over the scale: 5 for a scale of 1 to 5."""
        balance: bool = False
        """Let all bins weigh the same in training, so that rare ratings are not averaged away."""
        criterion: str | None = None
        """Learn only ratings on this criterion. Left out: the mean over all."""
        threshold: float = Field(0.5, ge=0, le=1)
        """Place on the scale, from 0 to 1, for `reward_threshold_accuracy`: the share of held-out samples that are
        predicted on the right side of it."""

    def _outputs(self, items: Sequence[Any]) -> int:
        return int(self.config.bins) if self.config.loss == "ordinal" else 1

    def _items(self, feedback: FeedbackSet) -> list[RatedSample]:
        return rated_samples(feedback, self.config.criterion)

    def _preferences(self, feedback: FeedbackSet) -> list[Pair]:
        from rlhf_core.feedback.dataset import FeedbackSet

        wanted = self.config.criterion
        rated = FeedbackSet(
            answer
            for answer in feedback.only("rating").answers()
            if isinstance(answer.feedback, Rating) and wanted in (None, answer.feedback.criterion)
        )
        return rated.pairs(tie_below=self.config.tie_below)

    def _objective(self, items: Sequence[Any]) -> Ratings | BinnedRatings:
        import numpy as np

        from rlhf_plugins.reward_models._learning import Asked, text_of
        from rlhf_plugins.reward_models._objectives import BinnedRatings, Ratings, two_hot

        rows = self._rows([Asked(item.prompt, [text_of(item.sample, self)]) for item in items])
        stated, weight = np.array([item.score for item in items]), np.array([float(item.n) for item in items])
        if self.config.loss == "ordinal":
            return BinnedRatings(rows, two_hot(stated, self.config.bins), weight)
        return Ratings(rows, stated[:, None], weight[:, None])

    def _training(self, items: Sequence[Any]) -> Ratings | BinnedRatings:
        import numpy as np

        from rlhf_plugins.reward_models._objectives import class_balance

        plain = self._objective(items)
        if not self.config.balance:
            return plain
        bins = np.rint(np.array([item.score for item in items]) * (self.config.bins - 1)).astype(int)
        factors = class_balance(bins, np.array([float(item.n) for item in items]))
        return replace(plain, weight=plain.weight * factors.reshape(-1, *[1] * (plain.weight.ndim - 1)))

    def _reward(self, values: Floats) -> Floats:
        import numpy as np

        if self.config.loss == "squared":
            return values
        centres = np.linspace(0, 1, self.config.bins)
        shares = np.exp(values - values.max(axis=1, keepdims=True)) if len(values) else values
        rating: Floats = (shares * centres).sum(1) / shares.sum(1)
        return rating

    def _criteria(self, values: Floats) -> dict[str, list[float]]:
        return {"rating": self._reward(values).tolist()}

    def _unit(self, raw: Floats) -> float:
        return float(raw.std()) or 1.0

    def _own_metrics(self, items: Sequence[Any], values: Floats) -> dict[str, Metric]:
        import numpy as np

        from rlhf_core.health import rating_health

        stated = np.array([item.score for item in items])
        prompts = [item.prompt.group or item.prompt.id for item in items]
        threshold = self.config.threshold
        return rating_health(self._reward(values), stated, prompts, threshold=threshold, seed=self.run.seed)

    def _words(self) -> str:
        return "ratings"


def rated_samples(feedback: FeedbackSet, criterion: str | None) -> list[RatedSample]:
    """Each rated sample with the mean of its ratings on one criterion, or on all; in the order of their ids."""
    rated: dict[str, list[Any]] = {}
    for one in feedback.ratings():
        if criterion in (None, one.criterion):
            rated.setdefault(one.sample.id, []).append(one)
    return [
        RatedSample(
            group[0].prompt,
            group[0].sample,
            sum(one.score * one.n for one in group) / sum(one.n for one in group),
            sum(one.n for one in group),
        )
        for _, group in sorted(rated.items())
    ]
