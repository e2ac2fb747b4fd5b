"""Group-relative policy optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlhf_plugins.optimizers.text.optimizer import TextOptimizer
from rlhf_plugins.optimizers.text.settings import GradientSettings

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.learner import Learner
    from rlhf_plugins.optimizers.text.task import Task


class Grpo(TextOptimizer):
    """Group-relative policy optimisation (Shao et al. 2024): answers against the mean of their group.

    As published it is `scale: group, divergence: k3`; the defaults here do not overrun the reward as soon, see there.
    Dr. GRPO (Liu et al. 2025) is `normalise: limit`; DAPO (Yu et al. 2025) is `scale: group, normalise: token,
    clip_high: 0.28, overlong_margin: ...` with `kl: {coefficient: 0}`. The group's mean holds the answer's own share,
    so of k answers rewards count (k - 1) / k against the divergence; rloo has no such factor.
    """

    class Config(GradientSettings):
        """How long, how fast, how far from the reference."""

        batch: int = Field(16, ge=1)
        """Prompts a step."""
        answers: int = Field(4, ge=2)
        """Answers to each prompt of a step."""
        scale: Literal["group", "batch", "none"] = "none"
        """Whose standard deviation advantages are divided by. With `group` prompts whose answers hardly differ count as
        much as the others, and the divergence counts for less and less as the policy becomes sure. On the demo's task
        three seeds ended 51 steps at gold scores of 7.5 to 8.0 with `group`, two at 8.9 and 9.1 with `batch`, three at
        9.1 to 9.5 with `none`."""
        normalise: Literal["answer", "token", "limit"] = "answer"
        """Over what losses are averaged: `answer` first within each answer, then over answers; `token` over all tokens;
        `limit` sums over tokens at the constant scale of the length limit, which favours no length."""
        divergence: Literal["k2", "k3"] = "k2"
        """Estimator of the divergence in the loss. What counts is its gradient on the policy's answers p (Tang and
        Munos 2025, "On a few pitfalls in KL divergence gradient estimation for RL"): of `k2` log(p/q) grad log p, on
        average that of each token's KL(policy || reference), which `kl` in the log reports. Of `k3`, GRPO's own,
        (1 - q/p) grad log p, that of KL(reference || policy): however far a token has risen above the reference q, it
        is pulled back with 1 at most, so that long runs exploit the reward's mistakes. On the demo's task two seeds
        ended 36 steps with `scale: group` at gold scores of 7.8 and 8.3 with `k3`, of 8.5 and 8.8 with `k2`."""

    def learner(self, task: Task) -> Learner:
        """Policy gradients with the group's mean as the baseline."""
        from rlhf_plugins.optimizers.text.credit import GroupRelative
        from rlhf_plugins.optimizers.text.gradient import PolicyGradient

        config = self.config
        return PolicyGradient(task, GroupRelative(config.scale), normalise=config.normalise, pull=config.divergence)
