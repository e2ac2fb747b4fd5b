"""Behaviour cloning: a policy for control learns to act as recorded episodes did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import Field

from rlhf_core.errors import DataError, TrainingError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import CONTROL, PluginConfig, Policy, WarmStart
from rlhf_core.records import Answer, Demonstration, Modality
from rlhf_plugins.policies.gym_policy import GymPolicy

if TYPE_CHECKING:
    import torch


class BehaviourCloning(WarmStart):
    """Maximum likelihood of the recorded actions (Pomerleau 1991): cross-entropy where actions are chosen, the normal
    distribution's log-density, with its deviation, where they are vectors.
    """

    modality: ClassVar[frozenset[Modality]] = CONTROL
    trains: ClassVar[type[Policy]] = GymPolicy

    class Config(PluginConfig):
        """How long and how fast."""

        epochs: int = Field(20, ge=1)
        """Passes over the recorded steps."""
        batch: int = Field(64, ge=1)
        """Steps in one update."""
        lr: float = Field(1e-3, gt=0)
        """Learning rate of Adam."""
        checkpoint_every: int = Field(5, ge=1)
        """Epochs between checkpoints. Has no influence on the result."""

    def start(
        self, policy: GymPolicy, demonstrations: Sequence[Answer], validation: Sequence[Answer]
    ) -> dict[str, Metric]:
        """Train `policy` in place; `bc_loss` is in nats per held-out step, the interval is over episodes.

        A demonstration of weight w counts w times. Raises DataError where there is nothing to imitate and TrainingError
        where the loss is not finite. Goes on from the newest checkpoint, to the bit.
        """
        import torch

        from rlhf_plugins.trainee import NotFiniteError, Trainee

        steps = _steps(demonstrations)
        if steps is None:
            raise DataError(
                "behaviour_cloning has no recorded episodes to imitate",
                remedy="Use a data source that yields some (`gym_episodes` with `recorded`), or drop warm_start.",
            )
        learner = _Learner(policy)
        trainee = Trainee(learner.module, lr=self.config.lr, max_grad_norm=1.0)
        first = 0
        if saved := self.run.checkpoints.latest():
            first, folder = saved
            trainee.load(folder, "policy")
        for epoch in range(first, self.config.epochs):
            order = torch.randperm(len(steps.weight), generator=torch.Generator().manual_seed(self.run.seed + epoch))
            losses = []
            for rows in order.split(self.config.batch):
                loss = (steps.weight[rows] * learner.losses(steps.take(rows))).mean()
                loss.backward()
                losses.append(loss.item())
                try:
                    trainee.step(losses[-1])
                except NotFiniteError:
                    raise TrainingError(
                        f"behaviour_cloning: the loss became {losses[-1]}",
                        remedy="Lower lr, or look for odd numbers in the recorded episodes.",
                    ) from None
            mean = sum(losses) / len(losses)
            self.run.log({"loss": mean}, epoch)
            self.run.progress(epoch + 1, self.config.epochs, f"loss {mean:.3f}")
            if (epoch + 1) % self.config.checkpoint_every == 0:
                self.run.checkpoints.save(epoch + 1, lambda folder: trainee.save(folder, "policy"))
        held_out = [found for answer in validation if (found := _steps([answer])) is not None]
        if not held_out:
            return {}
        with torch.no_grad():
            return {"bc_loss": bootstrap([learner.losses(each).mean().item() for each in held_out], seed=self.run.seed)}


class Steps(NamedTuple):
    """N recorded steps."""

    observations: torch.Tensor
    """[N, O]"""
    actions: torch.Tensor
    """[N, 1] or [N, A], as records hold them."""
    weight: torch.Tensor
    """[N], mean 1."""

    def take(self, rows: torch.Tensor) -> Steps:
        """Some of them."""
        return Steps(*(each[rows] for each in self))


def _steps(answers: Sequence[Answer]) -> Steps | None:
    import torch

    shown = [
        (answer.feedback.trajectory, answer.feedback.weight)
        for answer in answers
        if isinstance(answer.feedback, Demonstration) and answer.feedback.trajectory is not None
    ]
    if not shown:
        return None
    weight = torch.cat([torch.full((len(trajectory.actions),), weight) for trajectory, weight in shown])
    return Steps(
        torch.cat([torch.tensor(trajectory.observations) for trajectory, _ in shown]),
        torch.cat([torch.tensor(trajectory.actions) for trajectory, _ in shown]),
        weight / weight.mean(),
    )


class _Learner:
    """The policy as something with a loss."""

    def __init__(self, policy: GymPolicy) -> None:
        import torch

        self.module = torch.nn.Module()
        self.module.add_module("network", policy.network)
        if policy.log_std is not None:
            # The policy keeps the very tensor that is trained.
            policy.log_std = torch.nn.Parameter(policy.log_std)
            self.module.register_parameter("log_std", policy.log_std)
        self.policy = policy

    def losses(self, steps: Steps) -> torch.Tensor:
        """Negative log-likelihood of each step's action in nats, [N]."""
        return action_losses(self.policy.network(steps.observations), self.policy.log_std, steps.actions)


def action_losses(outputs: torch.Tensor, log_std: torch.Tensor | None, actions: torch.Tensor) -> torch.Tensor:
    """-log pi(a|s) in nats [N], from outputs [N, n], the deviations [A] of action vectors, and actions [N, 1 or A].

    Actions that are chosen have pi = softmax(outputs); vectors have a normal density around the outputs.
    """
    import torch

    if log_std is None:
        return torch.nn.functional.cross_entropy(outputs, actions[:, 0].long(), reduction="none")
    # Numbers that are none are for the caller to notice, in the loss.
    return -torch.distributions.Normal(outputs, log_std.exp(), validate_args=False).log_prob(actions).sum(dim=1)
