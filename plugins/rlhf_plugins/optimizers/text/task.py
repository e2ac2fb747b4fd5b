"""What is to be optimised, with what is found out about it before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_core.errors import TrainingError
from rlhf_core.lm.recompute import recompute_activations
from rlhf_core.lm.shared import share_base
from rlhf_core.plugins import LanguageModelPolicy, OptimizeJob
from rlhf_core.run import Run

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.settings import Settings


class Task:
    """A job, how to do it, and where to report; the models stand in evaluation mode, on one base if they can.

    Raises TrainingError where there are no prompts, or no reward.
    """

    def __init__(self, job: OptimizeJob, config: Settings, run: Run, *, name: str) -> None:
        if not job.prompts:
            raise TrainingError("there are no training prompts", where=name, remedy="Check the pipeline's data.")
        assert isinstance(job.policy, LanguageModelPolicy)
        assert isinstance(job.reference, LanguageModelPolicy)
        self.job, self.config, self.run, self.name = job, config, run, name
        self.policy, self.reference = job.policy, job.reference
        self.temperature = config.temperature or job.policy.temperature
        self.reward = job.need_reward()
        share_base(self.policy.lm, self.reference.lm)
        self.reward.share_base(self.policy)
        if config.gradient_checkpointing:
            recompute_activations(self.policy.lm.model)
        for lm in (self.policy.lm, self.reference.lm):
            lm.model.eval()
