"""Data source `gym_episodes`: starts of episodes in a Gymnasium environment, and recorded episodes to imitate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, JsonValue, ValidationError

from rlhf_core import Answer, DataSource, Demonstration, Episode, PluginConfig, Prompt, Question, Trajectory
from rlhf_core.errors import DataError
from rlhf_core.plugins import CONTROL
from rlhf_core.records import Modality
from rlhf_plugins.control.environments import Spaces

EXPERT = "recording"
"""The annotator behind recorded episodes."""


class GymEpisodes(DataSource):
    """One prompt a seed: the environment is reset with it, so that an episode can be begun again exactly.

    A tenth of the seeds is held out for testing like any prompts. Recorded episodes are demonstrations.
    """

    modality: ClassVar[frozenset[Modality]] = CONTROL

    class Config(PluginConfig):
        """Which environment, which starts."""

        environment: str
        """The environment's registered id; `package:Name-v0` imports `package` first, which registers it."""
        episodes: int = Field(1000, ge=1, le=1_000_000)
        """How many different starts."""
        first_seed: int = Field(0, ge=0)
        """Seed of the first start; the others follow on it."""
        options: dict[str, JsonValue] = {}
        """Handed to the environment's `reset`."""
        recorded: Path | None = None
        """A file of recorded episodes to imitate, one JSON object a line: `{"seed": 0, "observations": [[...], ...],
        "actions": [[...], ...], "weight": 1}` (weight may be left out). An action of several is its number, `[1]`."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The recording."""
        return () if config.recorded is None else (config.recorded,)

    def prompts(self) -> Iterator[Prompt]:
        """The starts, in the order of their seeds."""
        Spaces.of(self.config.environment)  # complains at once about an environment that nobody could act in
        first = self.config.first_seed
        return (self._start(seed) for seed in range(first, first + self.config.episodes))

    def demonstrations(self) -> Iterator[Answer]:
        """The recorded episodes. Raises DataError, with the line, where one does not fit the environment."""
        path = self.config.recorded
        if path is None:
            return
        if not path.is_file():
            raise DataError("there is no such file of recorded episodes", where=str(path), remedy="Check `recorded`.")
        spaces = Spaces.of(self.config.environment)
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield self._recorded(line, spaces, f"{path}:{number}")

    def _start(self, seed: int) -> Prompt:
        episode = Episode(environment=self.config.environment, seed=seed, options=self.config.options)
        return Prompt(episode=episode)

    def _recorded(self, line: str, spaces: Spaces, where: str) -> Answer:
        remedy = "A line is an object with seed, observations and actions: one row a step."
        try:
            found = json.loads(line)
            trajectory = Trajectory(observations=found["observations"], actions=found["actions"])
            question = Question(prompt=self._start(found["seed"]))
            demonstration = Demonstration(
                question_id=question.id,
                annotator=EXPERT,
                source="data",
                trajectory=trajectory,
                weight=found.get("weight", 1.0),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            what = (
                error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
            )
            raise DataError(f"not a recorded episode: {what}", where=where, remedy=remedy) from error
        if misfit := _misfit(trajectory, spaces):
            raise DataError(f"the episode does not fit {spaces.environment}: {misfit}", where=where, remedy=remedy)
        return Answer(question=question, feedback=demonstration)


def _misfit(trajectory: Trajectory, spaces: Spaces) -> str:
    """What is wrong with the rows; empty where nothing is."""
    if not trajectory.actions:
        return "it has no steps"
    width = 1 if spaces.kind == "discrete" else spaces.actions
    for rows, wanted, what in (
        (trajectory.observations, spaces.observation, "observations"),
        (trajectory.actions, width, "actions"),
    ):
        if any(len(row) != wanted for row in rows):
            return f"{what} of {wanted} numbers are expected"
    if spaces.kind == "discrete" and any(action[0] not in range(spaces.actions) for action in trajectory.actions):
        return f"actions are whole numbers from 0 to {spaces.actions - 1}"
    return ""
