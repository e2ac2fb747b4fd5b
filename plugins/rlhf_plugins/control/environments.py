"""Gymnasium environments as the loop sees them: rows of numbers in, rows of numbers out."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from rlhf_core.errors import DataError, RlhfError
from rlhf_core.records import Episode, Prompt

if TYPE_CHECKING:
    import gymnasium
    import numpy as np
    from numpy.typing import NDArray


def of_extra(package: str) -> Any:
    """A package that comes with the extra `control`. Raises RlhfError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise RlhfError(
            f"control needs the package {package}, which is not installed",
            remedy="Install the extra `control`: pip install 'rlhf-pipeline[control]'.",
        ) from error


def make(environment: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """The environment registered as `environment`, whose observations are flat float vectors.

    Raises DataError where there is none of that name, where it cannot be made, and for actions of a kind that policies
    do not have.
    """
    library = of_extra("gymnasium")
    try:
        env = library.make(environment, **options)
    except (library.error.Error, ImportError) as error:
        raise DataError(
            f"the environment {environment!r} cannot be made: {error}",
            remedy="Name one that is registered with Gymnasium; `package:Name-v0` imports the package that registers.",
        ) from error
    if not (isinstance(env.observation_space, library.spaces.Box) and len(env.observation_space.shape) == 1):
        env = library.wrappers.FlattenObservation(env)
    return env


def environment_of(prompts: Iterable[Prompt]) -> str:
    """The one environment that all prompts start episodes of. Raises DataError where there is none, or several."""
    names = {episode_of(prompt).environment for prompt in prompts}
    if len(names) != 1:
        raise DataError(
            f"a policy acts in one environment, and the prompts name {', '.join(sorted(names)) or 'none'}",
            remedy="Give each environment a pipeline of its own.",
        )
    return names.pop()


def episode_of(prompt: Prompt) -> Episode:
    """The episode that the prompt starts. Raises DataError for a text."""
    if prompt.episode is None:
        raise DataError(
            f"not the start of an episode: {prompt.content[:80]!r}", remedy="Use a data source of episodes."
        )
    return prompt.episode


class Spaces(BaseModel):
    """The shapes of an environment's observations and actions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    observation: int
    """Numbers in a flat observation."""
    kind: Literal["discrete", "box"]
    """Whether an action is one of several, or a vector."""
    actions: int
    """How many actions there are to choose from; numbers in an action vector."""
    low: tuple[float, ...] = ()
    """Lower bounds of an action vector."""
    high: tuple[float, ...] = ()
    """Upper bounds of an action vector."""

    @classmethod
    def of(cls, environment: str) -> Spaces:
        """Ask the environment. Raises DataError for actions that are neither one of several nor a bounded vector."""
        library = of_extra("gymnasium")
        env = make(environment)
        try:
            observed, acted = env.observation_space, env.action_space
        finally:
            env.close()
        size = int(observed.shape[0])
        if isinstance(acted, library.spaces.Discrete) and acted.start == 0:
            return cls(environment=environment, observation=size, kind="discrete", actions=int(acted.n))
        if isinstance(acted, library.spaces.Box) and acted.is_bounded():
            low, high = (tuple(map(float, bound.ravel())) for bound in (acted.low, acted.high))
            return cls(environment=environment, observation=size, kind="box", actions=len(low), low=low, high=high)
        raise DataError(
            f"the actions of {environment} are {acted}",
            remedy="Policies choose among n actions, numbered from 0, or give a vector within bounds (Discrete, Box).",
        )

    def encode(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions as records hold them, [N, 1] or [N, A], as features: one-hot [N, n], or scaled to [-1, 1] [N, A]."""
        import numpy as np

        if self.kind == "discrete":
            return np.eye(self.actions, dtype=np.float32)[actions[:, 0].astype(int)]
        low, high = (np.asarray(bound, dtype=np.float32) for bound in (self.low, self.high))
        return 2 * (actions - low) / (high - low) - 1
