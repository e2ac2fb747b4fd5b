"""A reference that follows the policy: what holds it back is then where it lately was, not where it began."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlhf_core.errors import TrainingError
from rlhf_core.lm.sharding import fill, give_back, shape, whole
from rlhf_core.lm.wearing import OWN, worn_by
from rlhf_plugins.trainee import read_weights, trainable, write_weights

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.settings import Sync
    from rlhf_plugins.optimizers.text.task import Task

FILE = "reference.safetensors"


class MovingReference:
    """Moves the reference's weights towards the policy's every few steps, in place.

        reference <- (1 - alpha) reference + alpha policy

    (Gorbatovski et al. 2024, eq. 5; with alpha 1 their eq. 6.) Raises TrainingError where the two are not alike.
    """

    def __init__(self, task: Task, config: Sync) -> None:
        self.config = config
        self.policy = trainable(task.policy.lm.model)
        wearer = worn_by(task.reference.lm.model)
        every = dict(task.reference.lm.model.named_parameters())
        names = {name: name.replace(f".{OWN}.", f".{wearer}.") for name in self.policy}
        if any(own not in every or shape(every[own]) != shape(self.policy[name]) for name, own in names.items()):
            raise TrainingError(
                "the reference is another model than the policy, and cannot follow it",
                where=task.name,
                remedy="Drop kl.sync, or start both from one model.",
            )
        if any(every[own].dtype != torch.float32 for own in names.values()):
            raise TrainingError(
                "the reference's weights are kept in few bits, and small moves would be lost",
                where=task.name,
                remedy="Drop kl.sync; of DeepSpeed's stages use 2, which leaves the reference as it is.",
            )
        self.model = task.reference.lm.model
        self.weights: dict[str, torch.nn.Parameter] = {name: every[own] for name, own in names.items()}
        """The reference's, by the policy's names."""

    @torch.no_grad()
    def follow(self, steps: int) -> None:
        """Move, where that is due after so many steps."""
        if steps % self.config.every == 0:
            give_back(self.model)
            for name, weight in self.weights.items():
                fill(weight, whole(weight).lerp(whole(self.policy[name]).to(weight.dtype), self.config.alpha))

    def save(self, folder: Path) -> None:
        """Write where the reference is."""
        write_weights(self.weights, folder / FILE)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote. Raises ValueError where it is of another shape."""
        if not read_weights(self.weights, folder / FILE):
            raise ValueError(f"{folder / FILE} holds other weights than this reference has")
