"""Reward models made of others, each of which can be fitted by itself."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from rlhf_core.metrics import Metric
from rlhf_core.plugins.reward_model import FitJob, RewardModel


class CompositeRewardModel(RewardModel):
    """A reward model of several parts, fitted each by itself and then joined.

    A pipeline fits each part in a stage of its own, side by side where there are workers. `fit` does the same one after
    the other, with the same result to the bit: a part must learn from its job and its own seed alone, and score after
    it was saved and loaded as it did before.
    """

    @classmethod
    @abstractmethod
    def learners(cls, config: Any) -> tuple[int, ...]:
        """Numbers of the parts that learn, from the configuration alone."""

    @abstractmethod
    def part(self, number: int) -> RewardModel:
        """A part: it can be saved and loaded by itself."""

    @abstractmethod
    def fit_part(self, number: int, job: FitJob) -> dict[str, Metric]:
        """Fit one part in place; its own metrics. `job` is that of the whole, `job.previous` too."""

    @abstractmethod
    def join(self, job: FitJob) -> dict[str, Metric]:
        """Make one model of the fitted parts; the metrics of the whole on `job.validation`."""

    def fit(self, job: FitJob) -> dict[str, Metric]:
        """Fit the parts that learn one after the other, and join them."""
        for number in self.learners(self.config):
            self.fit_part(number, job)
        return self.join(job)
