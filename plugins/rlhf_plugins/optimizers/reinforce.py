"""REINFORCE with a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlhf_plugins.optimizers.text.optimizer import TextOptimizer
from rlhf_plugins.optimizers.text.settings import CriticSettings, GradientSettings

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.learner import Learner
    from rlhf_plugins.optimizers.text.task import Task


class Reinforce(TextOptimizer):
    """Monte-Carlo policy gradient (Williams 1992): each token by the reward that came after it, less a baseline."""

    class Config(GradientSettings, CriticSettings):
        """How long, how fast, how far from the reference."""

        baseline: Literal["moving", "value"] = "moving"
        """`moving`: the moving average of what earlier answers brought. `value`: a value model, as in ppo."""
        decay: float = Field(0.9, ge=0, lt=1)
        """How much of the moving average stays after each batch."""
        gamma: float = Field(1.0, ge=0, le=1)
        """Discount a token."""
        whiten: bool = False
        """Scale the advantages of each batch to mean 0 and variance 1."""

    def learner(self, task: Task) -> Learner:
        """Policy gradients with rewards to go, less the baseline."""
        from rlhf_plugins.optimizers.text.credit import Credit, MovingBaseline
        from rlhf_plugins.optimizers.text.critic import Critic
        from rlhf_plugins.optimizers.text.gradient import PolicyGradient

        config = self.config
        credit: Credit = (
            Critic(task, gamma=config.gamma, lam=1.0, whitened=config.whiten)
            if config.baseline == "value"
            else MovingBaseline(gamma=config.gamma, decay=config.decay, whitened=config.whiten)
        )
        return PolicyGradient(task, credit)
