"""What people prefer, learnt or written down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rlhf_core.metrics import Metric
from rlhf_core.plugins.base import Saved
from rlhf_core.records import Feedback, Prompt, Sample

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet
    from rlhf_core.lm.heads import ScalarHead
    from rlhf_core.plugins.policy import Policy


@dataclass(frozen=True)
class Scores:
    """Scores of n samples; higher is better."""

    mean: list[float]
    """n rewards."""
    spread: list[float] | None = None
    """n standard deviations, from models that know how unsure they are."""
    criteria: dict[str, list[float]] = field(default_factory=dict)
    """n scores for each named criterion or principle, from models that have several."""
    members: list[list[float]] = field(default_factory=list)
    """n scores of each member, from ensembles: `spread` is their standard deviation, but whether two samples differ
    beyond doubt only the members' own differences say."""


@dataclass(frozen=True)
class FitJob:
    """What a reward model is fitted on. A dataclass, so that fields can join without breaking plugins."""

    train: FeedbackSet
    validation: FeedbackSet
    """Feedback on prompts that `train` does not contain; for early stopping and calibration."""
    previous: RewardModel | None = None
    """The same plugin as it stood after the last round."""
    base: Policy | None = None
    """The warm-started policy, whose weights a reward model may start from."""


class RewardModel(Saved):
    """Scores samples. One that learns from nothing (a rule, a word list, a finished model) needs no `fit`."""

    kind: ClassVar[str] = "reward_models"
    learns_from: ClassVar[Iterable[type[Feedback]]] = frozenset()
    """The kinds of feedback that `fit` can use; empty for one that does not learn."""

    def fit(self, job: FitJob) -> dict[str, Metric]:
        """Learn in place; the metrics are measured on `job.validation`."""
        return {}

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Score `samples[i]` as an answer to `prompts[i]`. The score of one does not depend on the others."""
        raise NotImplementedError

    def share_base(self, policy: Policy) -> None:
        """Called before `policy` is trained on the scores, by optimizers that hold both in one process.

        A model that is adapters on the policy's frozen base may compute on that one from now on and give its own
        free. The scores stay what they are, and the policy may be trained meanwhile. Nothing, unless overridden.
        """

    def value_start(self, policy: Policy) -> ScalarHead | None:
        """A network that gives this model's score, to be trained further as a value model of `policy` (Huang et al.
        2024). None where the scores come from elsewhere, or from a network that reads other tokens than the policy's.
        """
        return None

    def save(self, folder: Path) -> None:
        """Nothing to keep, unless overridden."""

    def load(self, folder: Path) -> None:
        """Nothing to load, unless overridden."""
