"""Proximal policy optimisation of a policy for control: what can be set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from rlhf_core.metrics import Metric
from rlhf_core.plugins import CONTROL, OptimizeJob, Optimizer, PluginConfig, Policy
from rlhf_core.records import Modality
from rlhf_plugins.control.environments import of_extra
from rlhf_plugins.policies.gym_policy import GymPolicy

if TYPE_CHECKING:
    from stable_baselines3.common.policies import ActorCriticPolicy

VALUES = "values.safetensors"


class ControlPpo(Optimizer):
    """Proximal policy optimisation (Schulman et al. 2017) on the learnt reward alone, by Stable-Baselines3.

    For actions that are chosen and for action vectors. The value network stays from round to round.
    """

    modality: ClassVar[frozenset[Modality]] = CONTROL
    trains: ClassVar[type[Policy]] = GymPolicy

    class Config(PluginConfig):
        """How long, how fast, how much at a time."""

        steps: int = Field(90_000, ge=1)
        """Environment steps; rounded up to whole rollouts."""
        environments: int = Field(8, ge=1)
        """Played side by side."""
        rollout: int = Field(256, ge=2)
        """Steps of each environment between two trainings."""
        batch: int = Field(64, ge=2)
        """Steps in one update."""
        epochs: int = Field(10, ge=1)
        """Times that each rollout is gone through."""
        lr: float = Field(5e-4, gt=0)
        """Learning rate of Adam, falling linearly to 0."""
        clip: float = Field(0.2, gt=0)
        """How far the probability ratio of an action may leave 1 before its gradient stops."""
        gamma: float = Field(0.998, ge=0, le=1)
        """Discount a step. The learnt reward varies between states that are equally good: with a short horizon,
        1 / (1 - gamma) steps, such a difference outweighs an end of the episode that lies beyond it."""
        lam: float = Field(0.98, ge=0, le=1)
        """Trust in rewards seen (1) against values predicted (0) in generalised advantage estimation."""
        entropy: float = Field(0.0, ge=0)
        """Weight of the bonus for undecided policies."""
        max_grad_norm: float = Field(0.5, gt=0)
        """Gradients are cut to this norm."""
        checkpoint_every: int = Field(20_000, ge=1)
        """Steps between checkpoints. Episodes under way begin anew there, which is a small part of the result."""

    def optimize(self, job: OptimizeJob) -> dict[str, Metric]:
        """Train `job.policy`; `learned_return` is the mean score of whole episodes afterwards, and before.

        Leaves the value network in `job.keep`. Raises TrainingError where a reward, a loss or a weight is not finite:
        the policy then stays as it was.
        """
        of_extra("stable_baselines3")
        import torch
        from stable_baselines3 import PPO

        from rlhf_plugins.control.network import copy_layers, linears
        from rlhf_plugins.optimizers.control.rewarded_rollouts import RewardedRollouts
        from rlhf_plugins.optimizers.control.stable_baselines import Engine, own_randomness

        config, policy = self.config, job.policy
        assert isinstance(policy, GymPolicy)
        engine = Engine(self.run, job, environments=config.environments, where="control_ppo")
        before = engine.learned_return()
        with own_randomness():
            torch.manual_seed(self.run.seed)
            model: PPO = PPO(
                "MlpPolicy",
                engine.environments,
                learning_rate=config.lr,
                n_steps=config.rollout,
                batch_size=min(config.batch, config.rollout * config.environments),
                n_epochs=config.epochs,
                gamma=config.gamma,
                gae_lambda=config.lam,
                clip_range=config.clip,
                ent_coef=config.entropy,
                max_grad_norm=config.max_grad_norm,
                rollout_buffer_class=RewardedRollouts,
                rollout_buffer_kwargs={"reward": engine.reward},
                policy_kwargs=engine.network(),
                device="cpu",
            )
        actor_critic = model.policy
        actor = [*linears(actor_critic.mlp_extractor.policy_net), actor_critic.action_net]
        copy_layers(linears(policy.network), actor)
        if policy.log_std is not None:
            actor_critic.log_std.data.copy_(policy.log_std)
        if job.previous is not None and not _take_values(actor_critic, job.previous):
            self.run.note("the last round left no value network of this shape: starting from a fresh one")
        rollout = config.rollout * config.environments
        engine.learn(model, steps=config.steps, lr=config.lr, chunk=-(-config.checkpoint_every // rollout) * rollout)
        copy_layers(actor, linears(policy.network))
        policy.epsilon = None
        if policy.log_std is not None:
            policy.log_std = actor_critic.log_std.detach().clone()
        if job.keep is not None:
            _keep_values(actor_critic, job.keep)
        return {"learned_return": engine.learned_return(), "learned_return_before": before}


def _values(actor_critic: ActorCriticPolicy) -> dict[str, Any]:
    return {name: weight for name, weight in actor_critic.named_parameters() if "value_net" in name}


def _keep_values(actor_critic: ActorCriticPolicy, folder: Path) -> None:
    from rlhf_plugins.trainee import write_weights

    write_weights(_values(actor_critic), folder / VALUES)


def _take_values(actor_critic: ActorCriticPolicy, folder: Path) -> bool:
    from rlhf_plugins.trainee import read_weights

    return (folder / VALUES).is_file() and read_weights(_values(actor_critic), folder / VALUES)
