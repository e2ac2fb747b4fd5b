"""Environments for training whose only reward is the learnt one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlhf_core.errors import TrainingError
from rlhf_core.plugins import RewardModel
from rlhf_core.records import Prompt, Sample, Trajectory
from rlhf_plugins.control.environments import episode_of, make
from rlhf_plugins.policies.gym_policy import GymPolicy

Floats = NDArray[np.float32]
MEASURED = 16
"""Episodes of the untrained policy that the reward's scale is taken from."""


class TrainingEpisodes(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Begins episodes as the training prompts say, in random order, and keeps the environment's own rewards back."""

    def __init__(self, env: gymnasium.Env[Any, Any], prompts: Sequence[Prompt]) -> None:
        super().__init__(env)
        self.prompts = prompts
        self.rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The next start. `seed` decides which ones follow from here on."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        episode = episode_of(self.prompts[self.rng.integers(len(self.prompts))])
        return self.env.reset(seed=episode.seed, options=dict(episode.options) or None)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The environment's step, rewarded with 0 and without its remarks, which may tell the reward."""
        observation, _, terminated, truncated, _ = self.env.step(action)
        return observation, 0.0, bool(terminated), bool(truncated), {}


def training_environment(environment: str, prompts: Sequence[Prompt], max_steps: int | None) -> Callable[[], Any]:
    """What makes one such environment."""

    def made() -> gymnasium.Env[Any, Any]:
        env = make(environment)
        if max_steps is not None:
            env = gymnasium.wrappers.TimeLimit(env, max_steps)
        return TrainingEpisodes(env, prompts)

    return made


class StepReward:
    """The learnt reward of single steps: the score of a segment of one step, divided by a scale.

    Models of segments add up their steps' rewards, so the reward of a step is the score of the step alone.
    """

    def __init__(self, reward: RewardModel, prompt: Prompt) -> None:
        self.reward = reward
        self.prompt = prompt
        self.scale = 1.0

    def __call__(self, observations: Floats, actions: Floats) -> Floats:
        """[N, O], [N, 1 or A] -> [N]. Raises TrainingError where a score is not finite."""
        samples = [
            Sample(prompt_id=self.prompt.id, trajectory=Trajectory(observations=(seen,), actions=(done,)))
            for seen, done in zip(map(tuple, observations.tolist()), map(tuple, actions.tolist()), strict=True)
        ]
        scores = np.asarray(self.reward.score([self.prompt] * len(samples), samples).mean, dtype=np.float64)
        if not np.isfinite(scores).all():
            raise TrainingError(
                f"{int((~np.isfinite(scores)).sum())} of {len(scores)} steps have a reward that is not finite",
                remedy="Nothing was learnt from them. Look at the reward model's training.",
            )
        return (scores / self.scale).astype(np.float32)

    def measure(self, policy: GymPolicy, prompts: Sequence[Prompt], seed: int) -> None:
        """Set the scale to the root mean square of the reward over steps of the policy as it is.

        Rewards of about 1 suit the optimizers' defaults. Nothing is subtracted: where episodes can end, the sign of a
        reward decides whether going on is worth while.
        """
        played = [samples[0].trajectory for samples in policy.sample(prompts[:MEASURED], 1, seed)]
        steps = [trajectory for trajectory in played if trajectory is not None]
        rewards = self(
            np.concatenate([np.asarray(each.observations, dtype=np.float32) for each in steps]),
            np.concatenate([np.asarray(each.actions, dtype=np.float32) for each in steps]),
        )
        self.scale = float(np.sqrt(np.mean(rewards.astype(np.float64) ** 2))) or 1.0
