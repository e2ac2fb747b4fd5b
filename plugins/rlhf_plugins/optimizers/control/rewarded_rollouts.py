"""Rollouts for on-policy learning whose rewards come from the reward model, a whole rollout at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer

from rlhf_plugins.optimizers.control.learned_reward import StepReward


class RewardedRollouts(RolloutBuffer):
    """A rollout that is scored once it is complete, just before its advantages are computed."""

    def __init__(self, *arguments: Any, reward: StepReward, **options: Any) -> None:
        self.reward = reward
        super().__init__(*arguments, **options)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Score, then the library's generalised advantages.

        The rewards are 0 before, but for the value that the library adds where a time limit cut an episode.
        """
        actions = self.actions.reshape(-1, self.action_dim)
        low, high = getattr(self.action_space, "low", None), getattr(self.action_space, "high", None)
        if low is not None and high is not None:
            # What was done is the cut action, as the environment got it.
            actions = np.clip(actions, low.ravel(), high.ravel())
        seen = self.observations.reshape(-1, *self.obs_shape)
        self.rewards += self.reward(seen, actions.astype(np.float32)).reshape(self.rewards.shape)
        super().compute_returns_and_advantage(last_values, dones)
