"""Making the policy better, by the reward or by the feedback itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rlhf_core.errors import TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins.base import Plugin
from rlhf_core.plugins.policy import Policy
from rlhf_core.plugins.reward_model import RewardModel
from rlhf_core.records import Answer, Feedback, Prompt

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet


@dataclass(frozen=True)
class OptimizeJob:
    """What a policy is optimised with. A dataclass, so that fields can join without breaking plugins."""

    policy: Policy
    """Trained in place."""
    reference: Policy
    """Stays as it is; what the KL divergence is measured against."""
    reward: RewardModel | None
    """Any reward model; the optimizer may only call `score`, and `share_base` and `value_start` before. None where the
    pipeline has none, for optimizers that can do without."""
    prompts: Sequence[Prompt]
    """Training prompts."""
    demonstrations: Sequence[Answer] = ()
    """Expert answers on training prompts, for optimizers that mix in imitation."""
    previous: Path | None = None
    """What this optimizer left in `keep` in the last round (a value model, a replay buffer)."""
    keep: Path | None = None
    """An existing, empty folder to leave things for the next round in."""
    feedback: FeedbackSet | None = None
    """What people said about training prompts, for optimizers whose `feedback_wanted` is not empty."""
    validation: FeedbackSet | None = None
    """The same about validation prompts, to decide when to stop and what to report."""

    def need_reward(self) -> RewardModel:
        """The reward model. Raises TrainingError where there is none."""
        if self.reward is None:
            raise TrainingError(
                "this optimizer trains on a reward, and the pipeline has no reward model.",
                where="optimize",
                remedy="Add `reward: {use: ...}`, or choose an optimizer that learns from the feedback itself.",
            )
        return self.reward

    def need_feedback(self) -> FeedbackSet:
        """The training feedback. Raises TrainingError where there is none to learn from."""
        if self.feedback is None or not len(self.feedback):
            raise TrainingError(
                "no feedback is on training prompts, and there is no reward model to learn from instead.",
                where="optimize",
                remedy="Collect more feedback, or check the data's splits.",
            )
        return self.feedback


class Optimizer(Plugin):
    """Trains a policy on a reward, on feedback, or on both."""

    kind: ClassVar[str] = "optimizers"
    trains: ClassVar[type[Policy]] = Policy
    """The class of policies it can train."""
    needs_reward: ClassVar[bool] = True
    """Whether it cannot do without a reward model. One that can `learns_from` feedback."""
    learns_from: ClassVar[Iterable[type[Feedback]]] = frozenset()
    """The kinds of feedback it can use itself; empty for one that looks at the reward alone."""

    @classmethod
    def feedback_wanted(cls, *, reward: bool) -> frozenset[type[Feedback]]:
        """The kinds of feedback of which it is handed what there is, and needs some, in a pipeline with or without a
        reward model. An optimizer that learns from either overrides it to be empty with one.
        """
        return frozenset(cls.learns_from)

    def optimize(self, job: OptimizeJob) -> dict[str, Metric]:
        """Train `job.policy` in place; log every step through `self.run`, checkpoint through `self.run.checkpoints`.

        Raises TrainingError on non-finite rewards or losses, before they reach the weights.
        """
        raise NotImplementedError
