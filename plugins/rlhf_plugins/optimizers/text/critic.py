"""Credit by a value model: generalised advantages, and a fit to the returns after each batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from rlhf_core.errors import TrainingError
from rlhf_core.lm.adapted_head import AdaptedHead
from rlhf_core.rl.advantages import explained_variance, generalised_advantages
from rlhf_core.rl.losses import value_loss
from rlhf_core.rl.masks import whiten
from rlhf_core.rl.rewards import token_rewards
from rlhf_plugins.optimizers.text.credit import Credit
from rlhf_plugins.optimizers.text.experience import Experience
from rlhf_plugins.optimizers.text.grading import Graded, RewardScale
from rlhf_plugins.optimizers.text.learner import accumulate, minibatches, tokens_an_update
from rlhf_plugins.optimizers.text.values import HeadOnReference, Network, ValueModel, all_values, keep, take_over

if TYPE_CHECKING:
    from rlhf_core.lm.heads import ScalarHead
    from rlhf_plugins.optimizers.text.task import Task
    from rlhf_plugins.trainee import Trainee

VALUE_STREAM = 2
"""Which random numbers order the critic's minibatches."""


@dataclass(frozen=True)
class ValueLesson:
    """What a batch teaches the value model; constants [B, T], 0 at masked positions."""

    experience: Experience
    values: Tensor
    """As the value model saw them before this step."""
    returns: Tensor
    """What it should have seen."""
    hidden: Tensor | None
    """[B, T, H] for value models that read the reference's hidden states."""


class Critic(Credit):
    """Advantages against a value model that is trained beside the policy."""

    def __init__(self, task: Task, *, gamma: float, lam: float, whitened: bool) -> None:
        config: Any = task.config
        self.config, self.run = config, task.run
        self.gamma, self.lam, self.whitened = gamma, lam, whitened
        self.model: ValueModel = (
            HeadOnReference(task.reference.lm, task.run.seed)
            if config.value_model == "head"
            else Network(task.policy.lm, adapters=config.value_model == "adapters", start=_start(task))
        )
        self.starts_as_reward = config.value_start == "reward"
        self.reads_hidden = self.model.reads_hidden
        if task.job.previous is not None:
            if take_over(self.model, task.job.previous):
                self.starts_as_reward = False
            else:
                task.run.note("the last round left no value model of this shape: starting from a fresh one")
        self.trainee = self.model.trainee(lr=config.value_lr, max_grad_norm=config.max_grad_norm)

    def begin(self, scale: RewardScale) -> None:
        """A value model that starts as the reward model counts in the scaled reward."""
        if self.starts_as_reward:
            assert isinstance(self.model, Network)
            self.model.scalar.rescale(scale.mean, scale.std)

    def set_rate(self, share: float) -> None:
        """Use `share` of the full learning rate."""
        self.trainee.set_rate(share)

    def advantages(self, batch: Graded, step: int) -> tuple[Tensor, dict[str, float]]:
        """Generalised advantages by the values as they are; then the values are fitted to the returns."""
        experience, mask = batch.experience, batch.experience.mask
        rewards = token_rewards(batch.scores, batch.log_ratio, mask, coefficient=batch.coefficient)
        values = all_values(self.model, experience, batch.hidden, self.config.micro_batch)
        advantages, returns = generalised_advantages(rewards, values, mask, gamma=self.gamma, lam=self.lam)
        lesson = ValueLesson(experience, values, returns, batch.hidden)
        logged = {
            "explained_variance": explained_variance(values, returns, mask).item(),
            **fit_values(self.model, self.trainee, lesson, self.config, seed=self.run.seed, step=step),
        }
        return whiten(advantages, mask) if self.whitened else advantages, logged

    def save(self, folder: Path) -> None:
        """Write the value model and its optimizer."""
        self.trainee.save(folder, "value_model")

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        self.trainee.load(folder, "value_model")

    def keep(self, folder: Path) -> None:
        """Leave the value model for the next round."""
        keep(self.model, folder)


def _start(task: Task) -> ScalarHead | None:
    """What the value model begins as, where that is the reward model."""
    config: Any = task.config
    if config.value_start != "reward":
        return None
    start = task.reward.value_start(task.policy)
    if start is None or isinstance(start, AdaptedHead) != (config.value_model == "adapters"):
        raise TrainingError(
            f"a value model of `{config.value_model}` cannot start as this reward model",
            where=task.name,
            remedy="It takes a reward model on a transformer that gives one number and reads the policy's tokens "
            "(`pairwise` with `model: policy`), with `adapters: true` for a value_model of `adapters` and without for "
            "a `network`. Or set value_start to `policy`.",
        )
    return start


def fit_values(
    model: ValueModel, trainee: Trainee, lesson: ValueLesson, config: Any, *, seed: int, step: int
) -> dict[str, float]:
    """Move the values towards the returns. Raises NotFiniteError before a bad update."""
    tokens = tokens_an_update(lesson.experience, config.minibatches)
    losses: list[float] = []
    norms: list[float] = []

    def loss(part: Experience, index: Tensor) -> Tensor:
        width = part.mask.shape[1]
        hidden = None if lesson.hidden is None else lesson.hidden[index, :width]
        return value_loss(
            model.values(part, hidden),
            lesson.values[index, :width],
            lesson.returns[index, :width],
            part.mask,
            clip=config.value_clip,
            tokens=tokens,
        )

    rows, key = len(lesson.experience.ids), (seed, VALUE_STREAM, step)
    for chunk in minibatches(rows, config.value_epochs, config.minibatches, key):
        total = accumulate(trainee, lesson.experience, chunk, config.micro_batch, loss)
        norms.append(trainee.step(total))
        losses.append(total)
    return {"value_loss": float(np.mean(losses)), "value_grad_norm": float(np.mean(norms))}
