"""A bound on harm while the reward rises: what answers cost, by a rater of its own or by the pipeline's reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_core.errors import TrainingError
from rlhf_core.plugins import RewardModel
from rlhf_core.records import Prompt, Sample

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.settings import Constraint
    from rlhf_plugins.optimizers.text.task import Task


class Bound:
    """Knows the costs of answers. Raises TrainingError where its rater learns from feedback and nobody fitted it."""

    def __init__(self, task: Task, config: Constraint) -> None:
        self.name, self.criterion = task.name, config.criterion
        self.rater: RewardModel = task.reward
        if config.by is None:
            return
        from rlhf_core.plugins.registry import Registry

        self.rater = Registry().create("reward_models", config.by, task.run)
        if config.folder is not None:
            self.rater.load(config.folder)
        elif self.rater.learns_from:
            raise TrainingError(
                f"constraint.by: `{config.by.use}` learns from feedback, and nobody has fitted it",
                where=self.name,
                remedy="Name the `folder` where a fitted one was saved, or a rater that needs no feedback.",
            )

    def costs(self, prompts: Sequence[Prompt], samples: Sequence[Sample], *, when: str) -> list[float]:
        """One cost a sample. Raises TrainingError where the rater has no such criterion, or one that isn't finite."""
        criteria = self.rater.score(prompts, samples).criteria
        if self.criterion not in criteria:
            raise TrainingError(
                f"constraint: {type(self.rater).__name__} has no criterion `{self.criterion}`",
                where=self.name,
                remedy=f"It has: {', '.join(criteria) or 'none; name a rater in `constraint.by`, such as cost'}.",
            )
        found = [float(value) for value in criteria[self.criterion]]
        if not all(map(math.isfinite, found)):
            raise TrainingError(
                f"{when}: a cost is not finite", where=self.name, remedy="Repair the rater of `constraint`."
            )
        return found
