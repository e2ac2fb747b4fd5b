"""Stable-Baselines3 as an engine: in chunks that can be resumed to the bit, from and to our own files."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rlhf_core.errors import TrainingError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import OptimizeJob
from rlhf_core.run import Run
from rlhf_plugins.control.environments import environment_of
from rlhf_plugins.optimizers.control.learned_reward import MEASURED, StepReward, training_environment
from rlhf_plugins.policies.gym_policy import GymPolicy
from rlhf_plugins.trainee import write_weights

LOGGED = 100
"""Points of a training curve, about."""
POLICY, MOMENTS = "policy.safetensors", "optimizer.safetensors"


class Engine:
    """One optimisation: environments without rewards, the learnt reward, and the course of the training.

    An algorithm learns in chunks. Each begins with fresh episodes and with random numbers that follow from the seed and
    the chunk's place alone, so weights, moments and buffers are all that a checkpoint must hold.
    """

    def __init__(self, run: Run, job: OptimizeJob, *, environments: int, where: str) -> None:
        if not job.prompts:
            raise TrainingError("there are no training prompts", where=where, remedy="Check the pipeline's data.")
        assert isinstance(job.policy, GymPolicy)
        self.run, self.job, self.policy, self.where = run, job, job.policy, where
        self.reward = StepReward(job.need_reward(), job.prompts[0])
        self.reward.measure(job.policy, job.prompts, run.seed)
        made = training_environment(environment_of(job.prompts), job.prompts, job.policy.config.max_steps)
        self.environments: VecEnv = DummyVecEnv([made] * environments)

    def network(self) -> dict[str, Any]:
        """The shape of the policy's network, as Stable-Baselines3 is told it."""
        from rlhf_plugins.control.network import ACTIVATIONS

        config = self.policy.config
        return {"net_arch": list(config.hidden), "activation_fn": ACTIVATIONS[config.activation]}

    def learn(
        self,
        model: BaseAlgorithm,
        *,
        steps: int,
        chunk: int,
        lr: float,
        save: Callable[[Path], None] = lambda folder: None,
        load: Callable[[Path], None] = lambda folder: None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        """Train `model` for `steps` environment steps, or what is left of them after the newest checkpoint.

        The learning rate falls from `lr` linearly to 0. `save` and `load` carry what the algorithm has besides its
        weights and moments; `settle` ends every chunk.
        """
        model.set_logger(Logger(None, []))
        # The library's own schedules only know the progress within one chunk.
        model.lr_schedule = lambda _: lr * max(1 - model.num_timesteps / steps, 0.0)
        watch = Watch(self.run, steps, self.where)

        def write(folder: Path) -> None:
            save_weights(model, folder)
            save(folder)

        done = 0
        with own_randomness():
            if saved := self.run.checkpoints.latest():
                done, folder = saved
                load_weights(model, folder)
                load(folder)
                model.num_timesteps = done
            while done < steps:
                model.set_env(self.environments, force_reset=True)
                model.set_random_seed(int(np.random.SeedSequence([self.run.seed, done]).generate_state(1)[0] >> 1))
                model.learn(min(chunk, steps - done), watch, log_interval=None, reset_num_timesteps=False)  # type: ignore[call-arg]
                settle()
                check_finite(model, self.where)
                done = model.num_timesteps
                if done < steps:
                    self.run.checkpoints.save(done, write)
        self.environments.close()

    def learned_return(self) -> Metric:
        """Mean score of whole episodes of the policy as it is, with an interval over starts."""
        prompts = self.job.prompts[:MEASURED]
        samples = [found[0].blind() for found in self.policy.sample(prompts, 1, self.run.seed)]
        return bootstrap(self.job.need_reward().score(prompts, samples).mean, seed=self.run.seed)


class Watch(BaseCallback):
    """Hands what the algorithm logs on to the run, and stops it where a loss is not finite."""

    def __init__(self, run: Run, steps: int, where: str) -> None:
        super().__init__()
        self.run, self.steps, self.where = run, steps, where
        self.ended = self.since = self.shown = 0

    def _on_step(self) -> bool:
        self.ended += int(self.locals["dones"].sum())
        self.since += self.training_env.num_envs
        return True

    def _on_rollout_end(self) -> None:
        found = {name.rpartition("/")[2]: float(value) for name, value in self.logger.name_to_value.items()}
        if not np.isfinite(found.get("loss", 0.0)):
            raise TrainingError(
                f"the loss became {found['loss']} after {self.num_timesteps} of {self.steps} steps",
                where=self.where,
                remedy="The policy stays as it was. A lower lr usually helps.",
            )
        if self.num_timesteps - self.shown < self.steps / LOGGED and self.num_timesteps < self.steps:
            return
        # Without the end of an episode its length is only known to be at least the steps since the last one.
        length = self.since / max(self.ended, 1)
        self.run.log({**found, "episode_steps": length}, self.num_timesteps)
        self.run.progress(min(self.num_timesteps, self.steps), self.steps, f"{length:.0f} steps an episode")
        self.shown, self.ended, self.since = self.num_timesteps, 0, 0


@contextmanager
def own_randomness() -> Iterator[None]:
    """The library draws from the process's generators; they are given back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def save_weights(model: BaseAlgorithm, folder: Path) -> None:
    """Weights and moments, as safetensors."""
    write_weights(model.policy.state_dict(), folder / POLICY)
    moments = model.policy.optimizer.state_dict()["state"]
    write_weights(
        {f"{number}|{name}": value for number, state in moments.items() for name, value in state.items()},
        folder / MOMENTS,
    )


def load_weights(model: BaseAlgorithm, folder: Path) -> None:
    """What `save_weights` wrote."""
    model.policy.load_state_dict(load_file(folder / POLICY))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for full, value in load_file(folder / MOMENTS).items():
        number, _, name = full.partition("|")
        state.setdefault(int(number), {})[name] = value
    optimizer = model.policy.optimizer
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def check_finite(model: BaseAlgorithm, where: str) -> None:
    """Raise TrainingError for weights that are no numbers."""
    if not all(torch.isfinite(weight).all() for weight in model.policy.state_dict().values()):
        raise TrainingError(
            "the weights are not finite", where=where, remedy="The policy stays as it was. A lower lr usually helps."
        )
