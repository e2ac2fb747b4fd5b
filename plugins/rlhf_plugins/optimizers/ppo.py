"""Proximal policy optimisation of a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rlhf_plugins.optimizers.text.optimizer import TextOptimizer
from rlhf_plugins.optimizers.text.settings import CriticSettings, GradientSettings

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.learner import Learner
    from rlhf_plugins.optimizers.text.task import Task


class Ppo(TextOptimizer):
    """Proximal policy optimisation (Schulman et al. 2017) for language models (Ziegler 2019, Ouyang 2022, Huang 2024).

    A value model says what every token was expected to bring; several epochs of clipped updates use each batch up.
    """

    class Config(GradientSettings, CriticSettings):
        """How long, how fast, how far from the reference."""

        epochs: int = Field(2, ge=1)
        """Times that the policy goes through each batch."""
        minibatches: int = Field(4, ge=1)
        """Optimizer steps an epoch."""
        gamma: float = Field(1.0, ge=0, le=1)
        """Discount a token."""
        lam: float = Field(0.95, ge=0, le=1)
        """Trust in rewards seen (1) against values predicted (0) in generalised advantage estimation."""
        whiten: bool = True
        """Scale the advantages of each batch to mean 0 and variance 1."""

    def learner(self, task: Task) -> Learner:
        """Policy gradients with a critic's advantages."""
        from rlhf_plugins.optimizers.text.critic import Critic
        from rlhf_plugins.optimizers.text.gradient import PolicyGradient

        config = self.config
        return PolicyGradient(task, Critic(task, gamma=config.gamma, lam=config.lam, whitened=config.whiten))
