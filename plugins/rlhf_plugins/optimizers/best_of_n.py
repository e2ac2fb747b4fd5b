"""Rejection sampling, then imitation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rlhf_plugins.optimizers.text.optimizer import TextOptimizer
from rlhf_plugins.optimizers.text.settings import Settings

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.learner import Learner
    from rlhf_plugins.optimizers.text.task import Task


class BestOfN(TextOptimizer):
    """Imitates the best of n answers to each prompt, step after step (RAFT; Dong et al. 2023).

    Stable and simple, and slower than policy gradients: nothing is learnt from the answers that were worse.
    """

    class Config(Settings):
        """How long, how fast, how far from the reference."""

        batch: int = Field(16, ge=1)
        """Prompts a step."""
        answers: int = Field(4, ge=2)
        """Answers to each prompt, of which the best one is imitated; the divergence of the best of n from the policy
        that it was drawn from is at most log n - (n - 1) / n nats."""

        @property
        def examples(self) -> int:
            """What a batch is cut into minibatches of: the best answers."""
            return self.batch

    def learner(self, task: Task) -> Learner:
        """The best answers."""
        from rlhf_plugins.optimizers.text.selection import BestLearner

        return BestLearner(task)
