"""TRL's DPOTrainer as an optimizer."""

from __future__ import annotations

from typing import ClassVar

from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, LanguageModelPolicy, OptimizeJob, Optimizer, Policy
from rlhf_core.records import Modality
from rlhf_plugins.optimizers.trl.settings import OfflineSettings


class TrlDpo(Optimizer):
    """TRL's DPOTrainer: learns from answers that the policy gave before, graded by the pipeline's reward model.

    For comparison.
    """

    modality: ClassVar[frozenset[Modality]] = TEXT
    trains: ClassVar[type[Policy]] = LanguageModelPolicy

    class Config(OfflineSettings):
        """How long, how fast, how far from the reference."""

    def optimize(self, job: OptimizeJob) -> dict[str, Metric]:
        """Train `job.policy` in place; the metrics are measured on answers after the last step.

        Raises TrainingError where rewards or losses are not finite, for adapters, and without prompts.
        """
        from rlhf_plugins.optimizers.trl.offline import optimize

        return optimize("dpo", job, self.config, self.run, name=type(self).__name__)
