"""Proving that a policy became better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import JsonValue

from rlhf_core.errors import RlhfError
from rlhf_core.metrics import Metric
from rlhf_core.plugins.base import Plugin
from rlhf_core.plugins.policy import Policy
from rlhf_core.plugins.reward_model import RewardModel
from rlhf_core.records import Prompt, Sample


@dataclass(frozen=True)
class PastRound:
    """A finished round, for evaluators that look back."""

    round: int
    """0 is the warm start."""
    samples: Sequence[Sequence[Sample]]
    """Its policy's samples on the same prompts."""
    metrics: Mapping[str, Metric]
    """What was measured of it."""


@dataclass(frozen=True)
class EvaluateJob:
    """What is evaluated. A dataclass, so that fields can join without breaking plugins.

    `samples` holds one entry a policy: `challenger`, `champion`, `warm_start`; each has a list of n samples for each
    of `prompts`, drawn once and shared by all evaluators.
    """

    prompts: Sequence[Prompt]
    """Held-out prompts: nothing was ever trained on them."""
    samples: Mapping[str, Sequence[Sequence[Sample]]]
    policy: Policy
    """The challenger."""
    reference: Policy
    """The warm-started policy, which KL is reported against."""
    reward: RewardModel | None
    """The proxy: what the challenger was optimised on. None before the first round, and in pipelines without a reward
    model."""
    gold: RewardModel | None
    """The held-back judge that training never sees, where the pipeline names one."""
    past: Sequence[PastRound] = ()
    """All finished rounds, oldest first; for evaluators with `looks_back` only."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluator found."""

    metrics: dict[str, Metric]
    tables: dict[str, list[dict[str, JsonValue]]] = field(default_factory=dict)
    """Rows by table name, shown in the report and stored as JSON."""


class Evaluator(Plugin):
    """Measures a policy on held-out prompts."""

    kind: ClassVar[str] = "evaluators"
    looks_back: ClassVar[bool] = False
    """Whether it needs `EvaluateJob.past`. One that does not is not measured again when the past changes."""

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """Names of the metrics that `evaluate` returns with this config; gates refer to them."""
        raise NotImplementedError

    @classmethod
    def needs_reward(cls, config: Any) -> bool:
        """Whether it cannot work in a pipeline without a reward model."""
        return False

    @classmethod
    def of_reward(cls, config: Any) -> frozenset[str]:
        """Those of the metrics it produces that only a pipeline with a reward model has; gates may not read them
        in another.
        """
        return cls.produces(config) if cls.needs_reward(config) else frozenset()

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Metrics with confidence intervals; tables for the report."""
        raise NotImplementedError

    def score_predictions(self, predictions: Path) -> Evaluation:
        """The same metrics of predictions that another program made (`rlhf evaluate`).

        Raises RlhfError where the evaluator only measures policies, and DataError for a file that it cannot read.
        """
        raise RlhfError(
            f"`{type(self).__name__}` measures policies only, not files of predictions",
            remedy="`rlhf evaluate --help` names the evaluators that read files.",
        )
