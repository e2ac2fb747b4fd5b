"""Reward model `principles`: what is right is written down, not learnt. The held-back judge of most pipelines."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_core import PluginConfig, Prompt, RewardModel, Sample, Scores
from rlhf_plugins.values.principles import PrincipleList, load, own_file


class PrinciplesReward(RewardModel):
    """Scores samples by a list of principles. The criteria are the points each earns; they add up to the mean.

    Knows what the policy does not see (`Prompt.facts`, the environment's rewards); use it as `gold` to measure what a
    learnt reward misses, or as the reward to train on where the values can be written down completely.
    """

    class Config(PluginConfig):
        """Which values."""

        list: str | PrincipleList = "newsroom"
        """Name of a packaged list, path of a YAML file, or the list itself (name, version, principles)."""
        weights: dict[str, float] = {}
        """Other weights for some principles, by name."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The list's own file, where it has one."""
        return own_file(config.list)

    def set_up(self) -> None:
        """Read the list."""
        self.principles = load(self.config.list).reweighted(self.config.weights)

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Weighted sums; see `PrincipleList.points`."""
        names = [principle.name for principle in self.principles.principles]
        criteria: dict[str, builtins.list[float]] = {name: [] for name in names}
        mean = []
        for prompt, sample in zip(prompts, samples, strict=True):
            points = self.principles.points(self.principles.scores(prompt, sample))
            for name in names:
                criteria[name].append(points[name])
            mean.append(sum(points.values()))
        return Scores(mean=mean, criteria=criteria)
