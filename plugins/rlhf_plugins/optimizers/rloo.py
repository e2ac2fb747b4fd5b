"""REINFORCE leave-one-out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rlhf_plugins.optimizers.text.optimizer import TextOptimizer
from rlhf_plugins.optimizers.text.settings import GradientSettings

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.learner import Learner
    from rlhf_plugins.optimizers.text.task import Task


class Rloo(TextOptimizer):
    """REINFORCE leave-one-out (Ahmadian et al. 2024): several answers to each prompt, each judged against the others.

    No value model; unbiased for the reward less the divergence from the reference.
    """

    class Config(GradientSettings):
        """How long, how fast, how far from the reference."""

        batch: int = Field(16, ge=1)
        """Prompts a step."""
        answers: int = Field(4, ge=2)
        """Answers to each prompt of a step."""

    def learner(self, task: Task) -> Learner:
        """Policy gradients with the other answers as the baseline."""
        from rlhf_plugins.optimizers.text.credit import LeaveOneOut
        from rlhf_plugins.optimizers.text.gradient import PolicyGradient

        return PolicyGradient(task, LeaveOneOut())
