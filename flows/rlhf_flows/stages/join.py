"""Fitting a reward model in one go, or from parts that stages of their own fitted."""

from __future__ import annotations

from pathlib import Path

from rlhf_core.metrics import Metric
from rlhf_core.plugins import FitJob, RewardModel
from rlhf_core.plugins.composite import CompositeRewardModel
from rlhf_flows.stages.context import StageContext

MEMBER = "member_"
"""What the names of the inputs begin with that hold fitted parts; their number follows."""


def fit_or_join(context: StageContext, model: RewardModel, job: FitJob) -> dict[str, Metric]:
    """Fit `model`; where the stage is given fitted parts of it, take these and join them."""
    parts = {number: context.need(f"{MEMBER}{number}") for number in _numbers(context)}
    if not parts:
        return dict(model.fit(job))
    assert isinstance(model, CompositeRewardModel), f"{context.node.id} is given parts of what has none"
    for number, folder in parts.items():
        model.part(number).load(part_folder(folder))
    return dict(model.join(job))


def part_folder(folder: Path) -> Path:
    """Where a stage leaves a fitted part in its artifact: where any reward model's stage leaves the model."""
    return folder / "reward"


def _numbers(context: StageContext) -> list[int]:
    return sorted(int(name.removeprefix(MEMBER)) for name in context.results if name.startswith(MEMBER))
