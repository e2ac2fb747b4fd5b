"""Deep Q-learning on replayed steps whose rewards are labelled by the current reward model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from rlhf_plugins.optimizers.control.learned_reward import StepReward

REPLAY = "replay.safetensors"
WHAT_HAPPENED = ("observations", "next_observations", "actions", "dones", "timeouts")


class DoubleDqn(DQN):
    """DQN with the target of van Hasselt et al. (2016), which the library leaves out."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """`gradient_steps` updates on batches of replayed steps."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        assert self.replay_buffer is not None
        losses = []
        for _ in range(gradient_steps):
            batch: ReplayBufferSamples = self.replay_buffer.sample(batch_size)
            with torch.no_grad():
                target = double_target(
                    batch.rewards,
                    batch.dones,
                    self.q_net(batch.next_observations),
                    self.q_net_target(batch.next_observations),
                    batch.discounts,
                )
            found = self.q_net(batch.observations).gather(1, batch.actions.long())
            loss = torch.nn.functional.smooth_l1_loss(found, target)
            losses.append(loss.item())
            self.policy.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
        self._n_updates += gradient_steps
        self.logger.record("train/loss", float(np.mean(losses)))


def double_target(
    rewards: torch.Tensor, dones: torch.Tensor, online: torch.Tensor, target: torch.Tensor, discounts: torch.Tensor
) -> torch.Tensor:
    """R + g (1 - d) Q'(s', argmax_a Q(s', a)), [B, 1]: one network chooses, the other one values.

    With R the discounted rewards until s' and g the discount from there on, [B, 1] like `dones`; `online` Q(s', .) and
    `target` Q'(s', .) are [B, n]. Van Hasselt et al. 2016, equation 4.
    """
    return rewards + discounts * (1 - dones) * target.gather(1, online.argmax(dim=1, keepdim=True))


class LabelledReplay(NStepReplayBuffer):
    """Steps in a ring, replayed as n-step returns.

    Their rewards are what the reward model says; it is asked in batches, before they are next replayed.
    """

    def __init__(self, *arguments: Any, reward: StepReward, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.reward = reward
        self.unlabelled = 0

    def add(self, *arguments: Any, **options: Any) -> None:
        """Remember a step of every environment."""
        super().add(*arguments, **options)
        self.unlabelled = min(self.unlabelled + 1, self.buffer_size)

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """A batch, labelled."""
        self.label()
        return super().sample(batch_size, env)

    def label(self) -> None:
        """Ask the reward model about the steps that it has not seen."""
        if self.unlabelled:
            rows = np.arange(self.pos - self.unlabelled, self.pos) % self.buffer_size
            seen = self.observations[rows].reshape(-1, *self.obs_shape)
            done = self.actions[rows].reshape(-1, self.action_dim).astype(np.float32)
            self.rewards[rows] = self.reward(seen, done).reshape(len(rows), self.n_envs)
            self.unlabelled = 0

    def settle(self) -> None:
        """Label everything, and let no return run on into the episode that begins next."""
        self.label()
        if self.size():
            self.timeouts[self.pos - 1] = 1 - self.dones[self.pos - 1]

    def keep(self, folder: Path) -> None:
        """Write what happened, from the oldest step to the newest, with its labels."""
        order = (np.arange(self.size()) + (self.pos if self.full else 0)) % self.buffer_size
        arrays = {name: getattr(self, name)[order] for name in (*WHAT_HAPPENED, "rewards")}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / REPLAY)

    def take_over(self, folder: Path, *, labels: bool) -> bool:
        """Fill the empty ring with the newest of what `keep` wrote; without `labels` they are asked for anew.

        False, with nothing changed, where the file is missing or of another shape.
        """
        if not (folder / REPLAY).is_file():
            return False
        arrays: dict[str, NDArray[Any]] = load_file(folder / REPLAY)
        if any(arrays[name].shape[1:] != getattr(self, name).shape[1:] for name in WHAT_HAPPENED):
            return False
        count = min(len(arrays["rewards"]), self.buffer_size)
        for name, array in arrays.items():
            getattr(self, name)[:count] = array[-count:] if count else array
        self.pos, self.full = count % self.buffer_size, count == self.buffer_size
        self.unlabelled = 0 if labels else count
        return True
