"""Playing episodes, and the segments that they are cut into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf_core.records import Episode, Trajectory

if TYPE_CHECKING:
    import gymnasium
    import numpy as np
    from numpy.typing import NDArray

Act = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]
"""From an observation [O] to an action [1] or [A] as records hold it."""


class Played(NamedTuple):
    """A whole episode."""

    trajectory: Trajectory
    terminated: bool
    """True where the environment ended it; False where a time limit cut it."""


def begin(env: gymnasium.Env[Any, Any], episode: Episode) -> NDArray[np.float32]:
    """Reset to the start of `episode`; the first observation [O]."""
    import numpy as np

    observation, _ = env.reset(seed=episode.seed, options=dict(episode.options) or None)
    return np.asarray(observation, dtype=np.float32)


def native(env: gymnasium.Env[Any, Any], action: Sequence[float] | NDArray[np.float32]) -> Any:
    """An action as records hold it, in the form that the environment takes."""
    import numpy as np

    space = env.action_space
    if space.shape == ():
        return int(action[0])
    return np.asarray(action, dtype=space.dtype).reshape(space.shape)


def play(env: gymnasium.Env[Any, Any], episode: Episode, act: Act, max_steps: int | None = None) -> Played:
    """One episode from its start to its end, or to `max_steps`."""
    import numpy as np

    observation = begin(env, episode)
    observations, actions, rewards = [], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = act(observation)
        observations.append(tuple(observation.tolist()))
        actions.append(tuple(action.tolist()))
        found, reward, terminated, truncated, _ = env.step(native(env, action))
        observation = np.asarray(found, dtype=np.float32)
        rewards.append(float(reward))
        truncated = truncated or len(actions) == max_steps
    trajectory = Trajectory(
        observations=tuple(observations), actions=tuple(actions), environment_rewards=tuple(rewards)
    )
    return Played(trajectory, bool(terminated))
