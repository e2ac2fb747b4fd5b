"""A small network that acts in a Gymnasium environment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from rlhf_core.errors import DataError, TrainingError
from rlhf_core.plugins import CONTROL, PluginConfig, Policy
from rlhf_core.records import Answer, Modality, Prompt, Sample
from rlhf_plugins.control.environments import Spaces, environment_of, episode_of, make
from rlhf_plugins.control.episodes import Act, play
from rlhf_plugins.policies._streams import row_seed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"


class GymPolicy(Policy):
    """A multilayer perceptron from observations to actions; its samples are whole episodes.

    Where there are n actions to choose from, the outputs are their logits, or, once a value-based optimizer has set
    `epsilon`, their values: the best one is taken, and with probability `epsilon` any. Where actions are vectors, the
    outputs are the mean of a normal distribution with a learnt standard deviation, cut at the environment's bounds.
    """

    modality: ClassVar[frozenset[Modality]] = CONTROL

    class Config(PluginConfig):
        """Size and start of the network."""

        hidden: tuple[int, ...] = (64, 64)
        """Width of each hidden layer."""
        activation: Literal["tanh", "relu"] = "tanh"
        """Between the layers."""
        initial_std: float = Field(1.0, gt=0)
        """Standard deviation of action vectors before any training, in the actions' own unit."""
        max_steps: int | None = Field(None, ge=1)
        """Episodes are cut after so many steps. None: where the environment itself ends them."""

    network: torch.nn.Sequential
    """[N, O] -> [N, actions]."""
    log_std: torch.Tensor | None = None
    """Logarithm of the standard deviation of each number of an action vector, [A]; None where actions are chosen."""
    epsilon: float | None = None
    """Probability of a random action; None where actions are drawn from the logits."""
    spaces: Spaces

    def prepare(self, prompts: Iterable[Prompt], demonstrations: Iterable[Answer]) -> None:
        """An untrained network of the shape that the prompts' environment needs; the seed decides its weights."""
        from rlhf_plugins.control.network import orthogonal

        self._build(Spaces.of(environment_of(prompts)))
        orthogonal(self.network, head=0.01, seed=self.run.seed)

    def sample(self, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Sample]]:
        """`n` whole episodes from each start, with random streams named by `seed`, the prompt and a number.

        Samples carry the environment's own rewards, for simulated raters and evaluators. `finished` is False where a
        time limit cut the episode. Raises DataError where a prompt starts an episode in another environment and
        TrainingError where the outputs are not finite.
        """
        if not prompts:
            return []
        asked = environment_of(prompts)
        if asked != self.spaces.environment:
            raise DataError(
                f"a policy for {self.spaces.environment} cannot act in {asked}",
                remedy="Train one for it in a pipeline of its own.",
            )
        env = make(asked)
        try:
            return [[self._episode(env, prompt, k, row_seed(seed, prompt, k)) for k in range(n)] for prompt in prompts]
        finally:
            env.close()

    def save(self, folder: Path) -> None:
        """Weights as safetensors, the rest as JSON."""
        from safetensors.torch import save_file

        deviations = {} if self.log_std is None else {"log_std": self.log_std.detach().clone()}
        save_file({**self.network.state_dict(), **deviations}, folder / WEIGHTS)
        description = {"spaces": self.spaces.model_dump(mode="json"), "epsilon": self.epsilon}
        (folder / DESCRIPTION).write_text(json.dumps(description) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """What `save` wrote."""
        from safetensors.torch import load_file

        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        self._build(Spaces.model_validate(description["spaces"]))
        weights = load_file(folder / WEIGHTS)
        self.log_std = weights.pop("log_std", None)
        self.network.load_state_dict(weights)
        self.epsilon = description["epsilon"]

    def _build(self, spaces: Spaces) -> None:
        import math

        import torch

        from rlhf_plugins.control.network import perceptron

        self.spaces = spaces
        self.network = perceptron([spaces.observation, *self.config.hidden, spaces.actions], self.config.activation)
        self.epsilon = None
        self.log_std = (
            torch.full((spaces.actions,), math.log(self.config.initial_std)) if spaces.kind == "box" else None
        )

    def _episode(self, env: Any, prompt: Prompt, number: int, seed: int) -> Sample:
        played = play(env, episode_of(prompt), self.actor(seed), self.config.max_steps)
        return Sample(
            prompt_id=prompt.id,
            trajectory=played.trajectory,
            policy=self.version or "data",
            round=self.round,
            finished=played.terminated,
        )

    def actor(self, seed: int) -> Act:
        """The policy as it acts with one random stream: from an observation [O] to an action as records hold it."""
        import numpy as np

        from rlhf_plugins.control.network import Forward

        outputs, rng = Forward(self.network), np.random.default_rng(seed)

        def act(observation: NDArray[np.float32]) -> NDArray[np.float32]:
            found = outputs(observation)
            if not np.isfinite(found).all():
                raise TrainingError(
                    "the policy's outputs are not finite", remedy="Its weights are damaged: go back to an earlier one."
                )
            return choose(found, rng)

        choose = self._chosen if self.spaces.kind == "discrete" else self._drawn
        return act

    def _chosen(self, outputs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        import numpy as np

        luck = rng.random()
        if self.epsilon is None:
            odds = np.exp(outputs - outputs.max()).cumsum()
            action = int(np.searchsorted(odds, luck * odds[-1], side="right"))
        elif luck < self.epsilon:
            action = int(rng.integers(len(outputs)))
        else:
            action = int(outputs.argmax())
        return np.array([action], dtype=np.float32)

    def _drawn(self, outputs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        import numpy as np

        assert self.log_std is not None
        drawn = outputs + np.exp(self.log_std.detach().numpy()) * rng.standard_normal(len(outputs), dtype=np.float32)
        return np.clip(drawn, self.spaces.low, self.spaces.high).astype(np.float32)
