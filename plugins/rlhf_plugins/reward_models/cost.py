"""A transformer that learns how harmful an answer is, with a boundary between safe and unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from rlhf_core.errors import TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import FitJob
from rlhf_core.records import Comparison, Prompt, Rating, Sample
from rlhf_plugins.reward_models._transformer import TransformerConfig, TransformerReward

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rlhf_core.feedback.dataset import FeedbackSet
    from rlhf_plugins.reward_models._objectives import Costs

    Floats = NDArray[np.float64]


class Judged(NamedTuple):
    """One answer, or two of which one may be safer."""

    prompt: Prompt
    samples: tuple[Sample, ...]
    safer: float | None
    """P(the first is safer), where two were compared."""
    safe: tuple[bool | None, ...]
    """Whether each is safe, where that is known."""
    weight: float


class Cost(TransformerReward):
    """The cost model of Safe RLHF (Dai et al. 2023): which of two answers is safer, and which are safe at all.

    `criteria["cost"]` is the cost, above 0 for what is unsafe; `mean` is minus the cost, so that higher is better as
    with every reward model. Neither is centred or scaled: zero is the boundary, for constraints and filters. Learns
    the order from comparisons (which of two is *safer*) and the boundary from ratings on a criterion and from
    comparisons marked `both_bad`.
    """

    learns_from = frozenset({Comparison, Rating})
    description = "cost.json"
    centred = False

    class Config(TransformerConfig):
        """What counts as safe."""

        criterion: str | None = None
        """The criterion whose ratings say how safe a sample is, the scale's high end being safest. Left out: the mean
        over all criteria."""
        threshold: float = Field(0.5, ge=0, le=1)
        """Place on the scale, from 0 to 1, from which a sample is safe."""
        balance: bool = False
        """Let safe and unsafe answers weigh the same in training, however rare the unsafe ones are. The zero then
        stands where both errors cost the same, not where an answer is as likely safe as unsafe."""

    def _items(self, feedback: FeedbackSet) -> list[Judged]:
        return judged_samples(feedback, self.config.criterion, self.config.threshold)

    def _informative(self, items: Sequence[Any]) -> int:
        return sum(item.safer not in (None, 0.5) or any(one is not None for one in item.safe) for item in items)

    def _start(self, job: FitJob, items: Sequence[Any] = ()) -> None:
        if items and not any(one is not None for item in items for one in item.safe):
            raise TrainingError(
                "nobody said which answers are unsafe, so a cost has no zero",
                remedy="Bring ratings of safety (`reward.criterion`) or comparisons marked `both_bad`, or learn the "
                "order alone with `pairwise`.",
            )
        super()._start(job, items)

    def _objective(self, items: Sequence[Any]) -> Costs:
        import numpy as np

        from rlhf_plugins.reward_models._learning import Asked, text_of
        from rlhf_plugins.reward_models._objectives import Costs

        rows = self._rows([Asked(item.prompt, [text_of(sample, self) for sample in item.samples]) for item in items])
        safe = np.full((len(items), 2), np.nan)
        for i, item in enumerate(items):
            for j, one in enumerate(item.safe):
                if one is not None:
                    safe[i, j] = float(one)
        stated = np.array([np.nan if item.safer is None else item.safer for item in items], dtype=float)
        return Costs(rows, stated, safe, np.array([item.weight for item in items], dtype=float))

    def _training(self, items: Sequence[Any]) -> Costs:
        import numpy as np

        from rlhf_plugins.reward_models._objectives import class_balance

        plain = self._objective(items)
        known = ~np.isnan(plain.safe)
        if not self.config.balance or not known.any():
            return plain
        balance = np.ones_like(plain.safe)
        weight = np.broadcast_to(plain.weight[:, None], known.shape)
        balance[known] = class_balance(plain.safe[known].astype(int), weight[known])
        return replace(plain, balance=balance)

    def _criteria(self, values: Floats) -> dict[str, list[float]]:
        return {"cost": (-values).tolist()}

    def _own_metrics(self, items: Sequence[Any], values: Floats) -> dict[str, Metric]:
        """`cost_` + accuracy, precision, recall of "unsafe" at the boundary, on held-out answers with a known sign."""
        import numpy as np

        labels = [one for item in items for one in item.safe]
        known = np.array([one is not None for one in labels], dtype=bool)
        if not known.any():
            return {}
        unsafe = ~np.array([bool(one) for one in labels])[known]
        said = values[known] < 0
        n, hits = int(known.sum()), float((said & unsafe).sum())
        found = {"cost_accuracy": float((said == unsafe).mean())}
        if said.any():
            found["cost_precision"] = hits / float(said.sum())
        if unsafe.any():
            found["cost_recall"] = hits / float(unsafe.sum())
        return {name: Metric(value=value, n=n) for name, value in found.items()}

    def _words(self) -> str:
        return "judgements"


def judged_samples(feedback: FeedbackSet, criterion: str | None, threshold: float) -> list[Judged]:
    """Compared pairs first, then samples that were only rated; in the order of their ids."""
    from rlhf_plugins.reward_models.regression import rated_samples

    rated = {one.sample.id: one for one in rated_samples(feedback, criterion)}
    safe = {name: one.score >= threshold for name, one in rated.items()}
    bad: set[str] = set()
    for answer in feedback.only("comparison").answers():
        if isinstance(answer.feedback, Comparison) and answer.feedback.both_bad:
            bad |= {answer.feedback.first, answer.feedback.second}
    found, seen = [], set()
    for pair in feedback.only("comparison").pairs():
        samples = (pair.first, pair.second)
        seen |= {sample.id for sample in samples}
        signs = tuple(safe.get(sample.id, False if sample.id in bad else None) for sample in samples)
        found.append(Judged(pair.prompt, samples, pair.probability, signs, pair.weight))
    for name, one in sorted(rated.items()):
        if name not in seen:
            found.append(Judged(one.prompt, (one.sample,), None, (safe[name],), float(one.n)))
    return found
