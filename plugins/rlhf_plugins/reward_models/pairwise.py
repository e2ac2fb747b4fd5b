"""A transformer with a scalar head that learns which of two answers people prefer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf_core.records import Comparison, Ranking, Rating
from rlhf_plugins.reward_models._transformer import TransformerConfig, TransformerReward

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet
    from rlhf_plugins.reward_models._objectives import Pairs


class Pairwise(TransformerReward):
    """Bradley-Terry on a transformer: P(first is better) = sigma(score(first) - score(second)).

    Learns from soft labels: comparisons with ties and strengths, and the comparisons that rankings and ratings hold.
    A pair counts as often as people answered it: the loss is the likelihood of all answers. Scores have mean 0 on
    training samples, and one temperature, fitted on the held-out pairs, makes the probabilities calibrated.
    """

    learns_from = frozenset({Comparison, Ranking, Rating})
    description = "pairwise.json"

    class Config(TransformerConfig):
        """What it starts from and how it is trained."""

        weigh_annotators: bool = False
        """Whether the labels count annotators by how reliable they are (Dawid-Skene) instead of equally. Pays where
        several annotators of mixed quality answer each question."""

    def _items(self, feedback: FeedbackSet) -> list[Any]:
        return feedback.pairs(tie_below=self.config.tie_below, weigh=self.config.weigh_annotators)

    def _informative(self, items: Sequence[Any]) -> int:
        return sum(pair.probability != 0.5 for pair in items)

    def _objective(self, items: Sequence[Any]) -> Pairs:
        return self._tensors(items)

    def _nothing(self, answers: int, items: Sequence[Any]) -> str:
        return (
            f"no preference to learn from: {answers} answers on training prompts hold {len(items)} pairs of different "
            "samples, " + ("all tied" if items else "so nothing can be compared")
        )
