"""Proving that a policy became better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import JsonValue

from rlhf_core.metrics import Metric
from rlhf_core.plugins.base import Plugin
from rlhf_core.plugins.policy import Policy
from rlhf_core.plugins.reward_model import RewardModel
from rlhf_core.records import Prompt, Sample


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
    """The proxy: what the challenger was optimised on. None before the first round."""
    gold: RewardModel | None
    """The held-back judge that training never sees, where the pipeline names one."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluator found."""

    metrics: dict[str, Metric]
    tables: dict[str, list[dict[str, JsonValue]]] = field(default_factory=dict)
    """Rows by table name, shown in the report and stored as JSON."""


class Evaluator(Plugin):
    """Measures a policy on held-out prompts."""

    kind: ClassVar[str] = "evaluators"

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """Names of the metrics that `evaluate` returns with this config; gates refer to them."""
        raise NotImplementedError

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Metrics with confidence intervals; tables for the report."""
        raise NotImplementedError
