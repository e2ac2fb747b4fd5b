"""Which tokens deserve credit: from the scores of whole answers to an advantage at every token."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from rlhf_core.rl.advantages import generalised_advantages
from rlhf_core.rl.baselines import next_baseline
from rlhf_core.rl.groups import Scale, group_relative, leave_one_out, spread_over_tokens
from rlhf_core.rl.masks import row_sums, whiten
from rlhf_core.rl.rewards import token_rewards
from rlhf_plugins.optimizers.text.grading import Graded, RewardScale


class Credit:
    """Finds advantages; one that learns something itself overrides the rest as well."""

    reads_hidden = False
    """Whether `Graded.hidden` is needed."""

    def advantages(self, batch: Graded, step: int) -> tuple[Tensor, dict[str, float]]:
        """Advantages [B, T], 0 at masked positions, and what to log."""
        raise NotImplementedError

    def begin(self, scale: RewardScale) -> None:
        """Called before the first step, with the reward's zero and unit; not where a checkpoint is gone on from."""

    def set_rate(self, share: float) -> None:
        """Use `share` of the full learning rate."""

    def save(self, folder: Path) -> None:
        """Write a checkpoint's part into `folder`."""

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""

    def keep(self, folder: Path) -> None:
        """Leave things for the next round."""


class LeaveOneOut(Credit):
    """Each answer against the others to its prompt; the divergence is part of its reward."""

    def advantages(self, batch: Graded, step: int) -> tuple[Tensor, dict[str, float]]:
        """The answer's advantage at each of its tokens."""
        return spread_over_tokens(leave_one_out(batch.penalised, batch.group), batch.experience.mask), {}


class GroupRelative(Credit):
    """Each answer's score against the mean of its group; the divergence is left to the loss."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale

    def advantages(self, batch: Graded, step: int) -> tuple[Tensor, dict[str, float]]:
        """The answer's advantage at each of its tokens. Logs the share of groups whose scores are all equal."""
        relative = group_relative(batch.scores, batch.group, scale=self.scale)
        silent = (relative.reshape(-1, batch.group).abs().amax(dim=1) == 0).float().mean().item()
        return spread_over_tokens(relative, batch.experience.mask), {"silent_groups": silent}


class MovingBaseline(Credit):
    """What is still to come of an answer's reward, less the moving average of what earlier answers brought in all."""

    def __init__(self, *, gamma: float, decay: float, whitened: bool) -> None:
        self.gamma, self.decay, self.whitened = gamma, decay, whitened
        self.baseline: float | None = None

    def advantages(self, batch: Graded, step: int) -> tuple[Tensor, dict[str, float]]:
        """Rewards to go less the baseline."""
        mask = batch.experience.mask
        rewards = token_rewards(batch.scores, batch.log_ratio, mask, coefficient=batch.coefficient)
        _, to_go = generalised_advantages(rewards, torch.zeros_like(rewards), mask, gamma=self.gamma, lam=1.0)
        whole = row_sums(rewards, mask)
        if self.baseline is None:
            # Nothing earlier to go by: the mean of the other answers, which is as independent of an answer's own.
            expected = whole - leave_one_out(whole, len(whole)) if len(whole) > 1 else torch.zeros_like(whole)
        else:
            expected = torch.full_like(whole, self.baseline)
        mean = whole.mean().item()
        logged = {"baseline": expected.mean().item()}
        self.baseline = mean if self.baseline is None else next_baseline(self.baseline, mean, decay=self.decay)
        advantages = torch.where(mask, to_go - expected[:, None], 0.0)
        return whiten(advantages, mask) if self.whitened else advantages, logged

    def save(self, folder: Path) -> None:
        """Write the baseline."""
        (folder / "baseline.json").write_text(json.dumps(self.baseline), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read it."""
        self.baseline = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
