"""A transformer with a scalar head that learns which of two answers people prefer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rlhf_core.records import Comparison, Prompt, Ranking, Rating
from rlhf_plugins.reward_models._learning import PreferenceConfig
from rlhf_plugins.reward_models._transformer import TransformerConfig, TransformerReward

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet, Pair
    from rlhf_plugins.reward_models._objectives import Pairs


Template = Annotated[str, Field(pattern=r"\{prompt\}")]


class Pairwise(TransformerReward):
    """Bradley-Terry on a transformer: P(first is better) = sigma(score(first) - score(second)).

    Learns from soft labels: comparisons with ties and strengths, and the comparisons that rankings and ratings hold.
    A pair counts as often as people answered it: the loss is the likelihood of all answers. Scores have mean 0 on
    training samples, and one temperature, fitted on the held-out pairs, makes the probabilities calibrated.
    """

    learns_from = frozenset({Comparison, Ranking, Rating})
    description = "pairwise.json"

    class Config(TransformerConfig, PreferenceConfig):
        """What it starts from and how it is trained."""

        paraphrases: tuple[Template, ...] = ()
        """Other ways to ask, such as `Please: {prompt}`: every training pair is learnt with its prompt in these words
        too, so that the wording of a prompt matters less. Each costs as much as the pairs themselves. Prompts that are
        chats stay as they are."""

    def _items(self, feedback: FeedbackSet) -> list[Any]:
        return feedback.pairs(tie_below=self.config.tie_below)

    def _lessons(self, feedback: FeedbackSet) -> list[Any]:
        pairs = feedback.pairs(tie_below=self.config.tie_below, weigh=self.config.weigh_annotators)
        return paraphrased(pairs, self.config.paraphrases)

    def _informative(self, items: Sequence[Any]) -> int:
        return sum(pair.probability != 0.5 for pair in items)

    def _objective(self, items: Sequence[Any]) -> Pairs:
        return self._tensors(items)

    def _training(self, items: Sequence[Any]) -> Pairs:
        from rlhf_plugins.reward_models._preferences import for_training

        return for_training(self._tensors(items), items, self.config)

    def _nothing(self, answers: int, items: Sequence[Any]) -> str:
        return (
            f"no preference to learn from: {answers} answers on training prompts hold {len(items)} pairs of different "
            "samples, " + ("all tied" if items else "so nothing can be compared")
        )


def paraphrased(pairs: Sequence[Pair], templates: Sequence[str]) -> list[Pair]:
    """N pairs, and each again with its prompt in the words of each template; all of a pair weigh as much as it did."""
    if not templates:
        return list(pairs)
    found = []
    for pair in pairs:
        prompts = [pair.prompt]
        if pair.prompt.text is not None:
            texts = [template.replace("{prompt}", pair.prompt.text) for template in templates]
            prompts += [Prompt(text=text, group=pair.prompt.group or pair.prompt.id) for text in texts]
        found += [pair._replace(prompt=prompt, weight=pair.weight / len(prompts)) for prompt in prompts]
    return found
