"""Deep Q-learning of a policy for control: what can be set."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import CONTROL, OptimizeJob, Optimizer, PluginConfig, Policy
from rlhf_core.records import Modality
from rlhf_plugins.control.environments import of_extra
from rlhf_plugins.policies.gym_policy import GymPolicy


class Epsilon(PluginConfig):
    """How often an action is random."""

    start: float = Field(1.0, ge=0, le=1)
    """Before anything is learnt. Where the last round left its steps, exploration starts at `end`."""
    end: float = Field(0.05, ge=0, le=1)
    """After the decay."""
    decay: float = Field(0.2, gt=0, le=1)
    """Share of the steps in which it falls linearly."""
    acting: float = Field(0.02, ge=0, le=1)
    """In the trained policy, which is asked about and evaluated: a little variety makes answers differ."""


class ControlDqn(Optimizer):
    """Deep Q-learning (Mnih et al. 2015) on the learnt reward alone, by Stable-Baselines3.

    The replayed steps stay from round to round, and whatever the last reward model said about them is replaced by what
    the new one says.
    """

    modality: ClassVar[frozenset[Modality]] = CONTROL
    trains: ClassVar[type[Policy]] = GymPolicy

    class Config(PluginConfig):
        """How long, how fast, how much is remembered."""

        steps: int = Field(20_000, ge=1)
        """Environment steps."""
        lr: float = Field(1e-3, gt=0)
        """Learning rate of Adam, falling linearly to 0."""
        batch: int = Field(128, ge=1)
        """Replayed steps in one update."""
        buffer: int = Field(100_000, ge=1)
        """Steps that are remembered."""
        learning_starts: int = Field(1000, ge=0)
        """Steps before the first update, where the last round left none."""
        train_every: int = Field(64, ge=1)
        """Steps between two trainings."""
        updates: int = Field(32, ge=1)
        """Updates in each training."""
        target_every: int = Field(128, ge=1)
        """Steps between two copies of the network into the target network."""
        double: bool = True
        """Let the network choose the next action and the target network value it (van Hasselt et al. 2016)."""
        gamma: float = Field(0.99, ge=0, le=1)
        """Discount a step."""
        n_steps: int = Field(10, ge=1)
        """Rewards seen before the target network's value is trusted: more spread what the end of an episode teaches
        sooner, and are biased by exploration (Hessel et al. 2018)."""
        epsilon: Epsilon = Epsilon()
        """Exploration."""
        max_grad_norm: float = Field(10.0, gt=0)
        """Gradients are cut to this norm."""
        checkpoint_every: int = Field(10_000, ge=1)
        """Steps between checkpoints. Episodes under way begin anew there, which is a small part of the result."""

    def optimize(self, job: OptimizeJob) -> dict[str, Metric]:
        """Train `job.policy`; `learned_return` is the mean score of whole episodes afterwards, and before.

        Leaves the replayed steps in `job.keep`. Raises DataError where actions are vectors, and TrainingError where a
        reward, a loss or a weight is not finite: the policy then stays as it was.
        """
        of_extra("stable_baselines3")
        from rlhf_plugins.control.network import copy_layers, linears
        from rlhf_plugins.optimizers.control.double_dqn import DQN, DoubleDqn, LabelledReplay
        from rlhf_plugins.optimizers.control.stable_baselines import Engine, own_randomness

        config, policy = self.config, job.policy
        assert isinstance(policy, GymPolicy)
        if policy.spaces.kind != "discrete":
            raise DataError(
                f"control_dqn chooses among actions, and those of {policy.spaces.environment} are vectors",
                remedy="Use control_ppo.",
            )
        engine = Engine(self.run, job, environments=1, where="control_dqn")
        # Values of about 1: there the Huber loss is quadratic, so the few steps that end an episode weigh their due.
        engine.reward.scale /= max(1 - config.gamma, 1e-3)
        before = engine.learned_return()
        with own_randomness():
            model: DQN = (DoubleDqn if config.double else DQN)(
                "MlpPolicy",
                engine.environments,
                learning_rate=config.lr,
                buffer_size=config.buffer,
                learning_starts=config.learning_starts,
                batch_size=config.batch,
                gamma=config.gamma,
                train_freq=config.train_every,
                gradient_steps=config.updates,
                target_update_interval=config.target_every,
                max_grad_norm=config.max_grad_norm,
                replay_buffer_class=LabelledReplay,
                replay_buffer_kwargs={"reward": engine.reward, "n_steps": config.n_steps, "gamma": config.gamma},
                policy_kwargs=engine.network(),
                device="cpu",
            )
        replay = model.replay_buffer
        assert isinstance(replay, LabelledReplay)
        remembers = job.previous is not None and replay.take_over(job.previous, labels=False)
        replay.label()
        if remembers:
            model.learning_starts = 0
        start = config.epsilon.end if remembers else config.epsilon.start
        decay = config.epsilon.decay * config.steps
        model.exploration_schedule = lambda _: epsilon_at(model.num_timesteps, start, config.epsilon.end, decay)
        for network in (model.q_net, model.q_net_target):
            copy_layers(linears(policy.network), linears(network))
        engine.learn(
            model,
            steps=config.steps,
            lr=config.lr,
            chunk=whole(config.checkpoint_every, config.train_every, config.target_every),
            save=replay.keep,
            load=lambda folder: replay.take_over(folder, labels=True),
            settle=replay.settle,
        )
        copy_layers(linears(model.q_net), linears(policy.network))
        policy.epsilon = config.epsilon.acting
        if job.keep is not None:
            replay.keep(job.keep)
        return {"learned_return": engine.learned_return(), "learned_return_before": before}


def epsilon_at(step: int, start: float, end: float, decay: float) -> float:
    """Probability of a random action in step number `step`: from `start` linearly to `end` within `decay` steps."""
    return end + (start - end) * max(1 - step / decay, 0.0)


def whole(steps: int, *divisors: int) -> int:
    """The smallest number not below `steps` that all `divisors` divide, so that a chunk ends where their work does."""
    common = math.lcm(*divisors)
    return -(-steps // common) * common
