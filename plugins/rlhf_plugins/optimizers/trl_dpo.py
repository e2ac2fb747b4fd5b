"""TRL's DPOTrainer as an optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, LanguageModelPolicy, OptimizeJob, Optimizer, Policy
from rlhf_core.records import Comparison, Feedback, Modality, Ranking, Rating
from rlhf_plugins.optimizers.trl.settings import OfflineSettings


class TrlDpo(Optimizer):
    """TRL's DPOTrainer: learns from answers that the policy gave before, graded by the pipeline's reward model.

    In a pipeline without a reward model it learns from what people said: a row for each pair that is no tie.
    For comparison.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT
    trains: ClassVar[type[Policy]] = LanguageModelPolicy
    needs_reward: ClassVar[bool] = False
    learns_from: ClassVar[Iterable[type[Feedback]]] = {Comparison, Ranking, Rating}

    class Config(OfflineSettings):
        """How long, how fast, how far from the reference."""

    @classmethod
    def feedback_wanted(cls, *, reward: bool) -> frozenset[type[Feedback]]:
        """None where the reward says what is better."""
        return frozenset() if reward else frozenset(cls.learns_from)

    def optimize(self, job: OptimizeJob) -> dict[str, Metric]:
        """Train `job.policy` in place; the metrics are measured on answers after the last step.

        Raises TrainingError where rewards or losses are not finite, for adapters, without prompts, and
        where nothing is better than anything else.
        """
        from rlhf_plugins.optimizers.trl.offline import optimize

        return optimize("dpo", job, self.config, self.run, name=type(self).__name__)
