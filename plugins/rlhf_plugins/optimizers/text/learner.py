"""What a step learns from its graded answers: the one part in which the optimizers differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlhf_plugins import world
from rlhf_plugins.optimizers.text.experience import Experience
from rlhf_plugins.optimizers.text.grading import Graded, RewardScale
from rlhf_plugins.sharding import shard, trained

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.task import Task
    from rlhf_plugins.trainee import Trainee

POLICY_STREAM = 3
"""Which random numbers order the policy's minibatches; the course and the critic use others."""


class Learner:
    """Holds what is trained, at least the policy, and changes it batch by batch."""

    reads_hidden = False
    """Whether `Graded.hidden` is needed."""

    def __init__(self, task: Task) -> None:
        self.config: Any = task.config
        self.run, self.lm, self.temperature = task.run, task.policy.lm, task.temperature
        self.actor = trained(
            self.lm.model,
            self.lm.model,
            self.lm.compute_dtype,
            lr=self.config.lr,
            max_grad_norm=self.config.max_grad_norm,
        )
        shard(task.reference.lm.model, task.reference.lm.compute_dtype)

    def begin(self, scale: RewardScale) -> None:
        """Called before the first step, with the reward's zero and unit; not where a checkpoint is gone on from."""

    def set_rate(self, share: float) -> None:
        """Use `share` of the full learning rates."""
        self.actor.set_rate(share)

    def learn(self, batch: Graded, step: int) -> dict[str, float]:
        """Update on one batch; what to log, `logprob_mismatch` included. Raises NotFiniteError before a bad update."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write a checkpoint's part into `folder`."""
        self.actor.save(folder, "policy")

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        self.actor.load(folder, "policy")

    def keep(self, folder: Path) -> None:
        """Leave things for the next round."""


def minibatches(rows: int, epochs: int, parts: int, key: tuple[int, ...]) -> Iterator[Tensor]:
    """Every row once an epoch, in an order that follows from `key` alone."""
    for epoch in range(epochs):
        order = np.random.default_rng([*key, epoch]).permutation(rows)
        yield from torch.from_numpy(order).tensor_split(parts)


def accumulate(
    trainee: Trainee,
    experience: Experience,
    rows: Tensor,
    size: int | None,
    loss: Callable[[Experience, Tensor], Tensor],
) -> float:
    """Add up the gradients of `loss(part, index)` over this process's share of `rows`, at most `size` rows at a time.

    Returns the sum over all of them, of all processes.
    """
    total = 0.0
    for index, part in experience.pieces(size, rows.to(experience.ids.device)):
        value = loss(part, index)
        trainee.backward(value)
        total += value.item()
    return world.totals(total)[0]


def tokens_an_update(experience: Experience, parts: int) -> float:
    """The batch's tokens an optimizer step: a token weighs the same in whatever minibatch and company it falls."""
    return float(experience.mask.sum()) / parts
