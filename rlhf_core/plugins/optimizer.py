"""Making the policy better by the reward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rlhf_core.metrics import Metric
from rlhf_core.plugins.base import Plugin
from rlhf_core.plugins.policy import Policy
from rlhf_core.plugins.reward_model import RewardModel
from rlhf_core.records import Answer, Feedback, Prompt


@dataclass(frozen=True)
class OptimizeJob:
    """What a policy is optimised with. A dataclass, so that fields can join without breaking plugins."""

    policy: Policy
    """Trained in place."""
    reference: Policy
    """Stays as it is; what the KL divergence is measured against."""
    reward: RewardModel
    """Any reward model; the optimizer may only call `score`, and `share_base` and `value_start` before."""
    prompts: Sequence[Prompt]
    """Training prompts."""
    demonstrations: Sequence[Answer] = ()
    """Expert answers on training prompts, for optimizers that mix in imitation."""
    previous: Path | None = None
    """What this optimizer left in `keep` in the last round (a value model, a replay buffer)."""
    keep: Path | None = None
    """An existing, empty folder to leave things for the next round in."""


class Optimizer(Plugin):
    """Trains a policy on a reward."""

    kind: ClassVar[str] = "optimizers"
    trains: ClassVar[type[Policy]] = Policy
    """The class of policies it can train."""
    learns_from: ClassVar[Iterable[type[Feedback]]] = frozenset()
    """Feedback it uses besides the reward; usually none."""

    def optimize(self, job: OptimizeJob) -> dict[str, Metric]:
        """Train `job.policy` in place; log every step through `self.run`, checkpoint through `self.run.checkpoints`.

        Raises TrainingError on non-finite rewards or losses, before they reach the weights.
        """
        raise NotImplementedError
