"""A transformer that learns from whole rankings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf_core.records import Comparison, Prompt, Ranking, Rating, Sample
from rlhf_plugins.reward_models._learning import WeighingConfig
from rlhf_plugins.reward_models._transformer import TransformerConfig, TransformerReward

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet
    from rlhf_plugins.reward_models._objectives import Rankings


class RankedSamples(NamedTuple):
    """Samples of one prompt, with all the orders that people put them in."""

    prompt: Prompt
    samples: tuple[Sample, ...]
    orders: tuple[tuple[tuple[int, ...], float], ...]
    """Ranks of the samples (1 is best, equal ones are ties) and how many answers said so."""


class RankingReward(TransformerReward):
    """Plackett-Luce with ties on a transformer; see `_plackett_luce` for the model.

    A ranking of k samples is k - 1 choices, each the best of what is left, instead of k (k - 1) / 2 pairs that repeat
    one another; how readily samples tie is learnt with the network. Comparisons are rankings of two; ratings enter as
    the comparisons that they hold.
    """

    learns_from = frozenset({Ranking, Comparison, Rating})
    description = "ranking.json"

    class Config(TransformerConfig, WeighingConfig):
        """What it starts from and how it is trained."""

    def set_up(self) -> None:
        """No model, and no tie parameter, before `fit` or `load`."""
        super().set_up()
        self.log_tie: Any = None

    def _items(self, feedback: FeedbackSet) -> list[RankedSamples]:
        return ranked_samples(feedback, self.config.tie_below)

    def _lessons(self, feedback: FeedbackSet) -> list[RankedSamples]:
        return ranked_samples(feedback, self.config.tie_below, weigh=self.config.weigh_annotators)

    def _informative(self, items: Sequence[Any]) -> int:
        return sum(any(len(set(ranks)) > 1 for ranks, _ in item.orders) for item in items)

    def _start(self, job: Any, items: Sequence[Any] = ()) -> None:
        import torch

        super()._start(job, items)
        assert self.scalar is not None
        tied = [size for item in items for ranks, _ in item.orders for size in Counter(ranks).values()]
        device = next(self.scalar.parameters()).device
        self.log_tie = torch.nn.Parameter(torch.zeros(max(tied, default=1) - 1, device=device))
        if len(self.log_tie):
            # With the network, so that it is trained, checkpointed and restored with it.
            self.scalar.log_tie = self.log_tie

    def _objective(self, items: Sequence[Any]) -> Rankings:
        import numpy as np

        from rlhf_plugins.reward_models._learning import Asked, text_of
        from rlhf_plugins.reward_models._objectives import Rankings
        from rlhf_plugins.reward_models._plackett_luce import Stages

        rows = self._rows([Asked(item.prompt, [text_of(sample, self) for sample in item.samples]) for item in items])
        sizes = np.array([len(item.samples) for item in items], dtype=np.int64)
        return Rankings(rows, sizes, Stages.of([item.orders for item in items]), self.log_tie)

    def _more(self) -> dict[str, Any]:
        return {"log_tie": [] if self.log_tie is None else self.log_tie.tolist()}

    def _words(self) -> str:
        return "rankings"


def ranked_samples(feedback: FeedbackSet, tie_below: float, weigh: bool = False) -> list[RankedSamples]:
    """All answers about one set of samples together; the samples in the order of their ids, so is the list.

    With `weigh`, annotators count by their reliability: see `annotator_weights`, and `FeedbackSet.pairs` for ratings.
    """
    from rlhf_core.feedback.aggregate import annotator_weights

    reliable = annotator_weights(feedback.answers()) if weigh else {}
    found: dict[tuple[str, ...], tuple[Prompt, tuple[Sample, ...], Counter[tuple[int, ...]]]] = {}

    def add(prompt: Prompt, samples: Sequence[Sample], ranks: Sequence[int], weight: float) -> None:
        if not weight:
            return
        order = sorted(range(len(samples)), key=lambda i: samples[i].id)
        kept = tuple(samples[i] for i in order)
        entry = found.setdefault(tuple(sample.id for sample in kept), (prompt, kept, Counter()))
        entry[2][tuple(ranks[i] for i in order)] += weight  # type: ignore[assignment]

    def add_pair(prompt: Prompt, first: Sample, second: Sample, probability: float, weight: float) -> None:
        if first.text == second.text:
            return
        if probability == 0.5:
            add(prompt, (first, second), (1, 1), weight)
            return
        for ranks, share in (((1, 2), probability), ((2, 1), 1 - probability)):
            if share:
                add(prompt, (first, second), ranks, share * weight)

    for answer in feedback.only("ranking", "comparison").answers():
        question, given = answer.question, answer.feedback
        counts = reliable.get(given.annotator, 1.0)
        samples = {sample.id: sample for sample in question.samples}
        if isinstance(given, Comparison):
            add_pair(question.prompt, samples[given.first], samples[given.second], given.probability, counts)
        elif isinstance(given, Ranking):
            add(question.prompt, [samples[name] for name in given.samples], given.ranks, counts)
    for pair in feedback.only("rating").pairs(tie_below=tie_below, weigh=weigh):
        add_pair(pair.prompt, pair.first, pair.second, pair.probability, pair.weight)
    return [
        RankedSamples(prompt, samples, tuple(sorted(orders.items())))
        for _, (prompt, samples, orders) in sorted(found.items())
    ]
