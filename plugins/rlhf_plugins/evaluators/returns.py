"""The true return of held-out episodes, which training never sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import JsonValue

from rlhf_core.errors import DataError
from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.plugins import CONTROL, EvaluateJob, Evaluation, Evaluator
from rlhf_core.records import Modality, Sample


class Returns(Evaluator):
    """Sums the environment's own rewards over whole held-out episodes.

    `true_return` and `true_return_warm_start`: mean over episodes. `return_gain_vs_champion` and
    `return_gain_vs_warm_start`: mean difference on the same starts, with an interval that a gate can ask to lie above
    0. `episode_steps`: mean length. Intervals are over starts.
    """

    modality: ClassVar[frozenset[Modality]] = CONTROL

    @classmethod
    def produces(cls, config: Any) -> frozenset[str]:
        """All that a round with a champion and a warm start has; before the first round there is no gain."""
        gains = {f"return_gain_vs_{other}" for other in ("champion", "warm_start")}
        return frozenset({"true_return", "true_return_warm_start", "episode_steps"} | gains)

    def evaluate(self, job: EvaluateJob) -> Evaluation:
        """Metrics over the held-out starts with 95 % intervals, and the table `returns`."""
        found = {
            name: [sum(map(true_return, samples)) / len(samples) for samples in groups]
            for name, groups in job.samples.items()
        }
        ours, seed = found["challenger"], self.run.seed
        steps = [sum(map(_steps, samples)) / len(samples) for samples in job.samples["challenger"]]
        metrics = {"true_return": bootstrap(ours, seed=seed), "episode_steps": bootstrap(steps, seed=seed)}
        if "warm_start" in found:
            metrics["true_return_warm_start"] = bootstrap(found["warm_start"], seed=seed)
        for other in ("champion", "warm_start"):
            if other in found:
                gains = [after - before for after, before in zip(ours, found[other], strict=True)]
                metrics[f"return_gain_vs_{other}"] = bootstrap(gains, seed=seed)
        return Evaluation(metrics, {"returns": _table(found, metrics["true_return"])})


def true_return(sample: Sample) -> float:
    """The sum of the environment's own rewards. Raises DataError where they were taken out, or for a text."""
    if sample.trajectory is None or (sample.trajectory.actions and not sample.trajectory.environment_rewards):
        raise DataError(
            "an episode to evaluate carries no rewards of its environment",
            remedy="Evaluators need them: let the policy sample it with its rewards.",
        )
    return math.fsum(sample.trajectory.environment_rewards)


def _steps(sample: Sample) -> int:
    assert sample.trajectory is not None
    return len(sample.trajectory.actions)


def _table(found: dict[str, list[float]], overall: Metric) -> list[dict[str, JsonValue]]:
    """For each policy the spread of its returns over the starts."""
    return [{"policy": name, "episodes": overall.n, **_quantiles(values)} for name, values in found.items()]


def _quantiles(values: Sequence[float]) -> dict[str, JsonValue]:
    import numpy as np

    names = ("lowest", "quarter", "median", "three quarters", "highest")
    return dict(zip(names, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist(), strict=True))
