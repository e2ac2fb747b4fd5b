"""The plugin under test, with ways to make and train instances of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from rlhf_core.errors import RlhfError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.metrics import Metric
from rlhf_core.plugins import FitJob, Plugin, Policy, RewardModel, Saved
from rlhf_core.records import Modality
from rlhf_core.run import Run
from rlhf_core.testing.materials import ToyPolicy, answers, demonstrations, prompts

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy")


class Skipped(Exception):
    """A point cannot be tried here; says why."""


class Subject:
    """A plugin class with the options to make instances of it."""

    def __init__(self, plugin: type[Plugin], options: dict[str, Any], policy: Callable[[], Policy] | None) -> None:
        self.plugin = plugin
        self.options = options
        self._policy = policy
        self._folder = tempfile.TemporaryDirectory(prefix="rlhf-conformance-")

    @cached_property
    def modality(self) -> Modality:
        """The world it is tried in: text where it can."""
        return "text" if "text" in self.plugin.modality else "control"

    def make(self, seed: int = 7) -> Any:
        """A fresh instance. Its run has stores of its own, for annotators who wait for people."""
        run = Run(seed)
        run.store_url = f"sqlite:///{self._folder.name}/feedback.db"
        run.mlflow_uri = f"sqlite:///{self._folder.name}/mlflow.db"
        return self.plugin(self.plugin.Config.model_validate(self.options), run=run)

    def policy(self, trains: type[Policy]) -> Policy:
        """A fresh policy that a trainer of `trains` can train. Raises Skipped where there is none."""
        if issubclass(ToyPolicy, trains):
            return ToyPolicy()
        if self._policy is None:
            raise Skipped(f"needs a {trains.__name__}; pass policy=")
        return self._policy()

    def any_policy(self) -> Policy:
        """A fresh policy to be looked at, not trained: the one given, else a toy."""
        return self._policy() if self._policy else ToyPolicy()

    def prepared(self) -> Any:
        """A fresh instance of a policy, prepared on the kit's prompts."""
        policy = self.make()
        policy.prepare(prompts(self.modality), demonstrations(self.modality))
        return policy

    @cached_property
    def fitted(self) -> Any:
        """A reward model that has learnt, made once."""
        return self.fit()

    def fit(self) -> Any:
        """A fresh reward model, fitted on the kit's feedback where it learns."""
        model: RewardModel = self.make()
        if model.learns_from:
            given = answers(model.learns_from, self.modality)
            held_out = {prompt.id for prompt in prompts(self.modality)[::4]}
            train = FeedbackSet.of(answer for answer in given if answer.question.prompt.id not in held_out)
            validation = FeedbackSet.of(answer for answer in given if answer.question.prompt.id in held_out)
            base = self._policy() if self._policy else None
            with self.excused():
                model.fit(FitJob(train=train, validation=validation, base=base))
        return model

    @contextmanager
    def excused(self) -> Iterator[None]:
        """Where no policy was given, a plugin may refuse politely to work with a toy or with none."""
        try:
            yield
        except RlhfError as error:
            if self._policy is not None:
                raise
            raise Skipped(f"without policy= it says: {error.what}") from error

    def reloaded(self, trained: Saved) -> Any:
        """A fresh instance that loads what `trained` saves."""
        with tempfile.TemporaryDirectory() as folder:
            trained.save(Path(folder))
            fresh = self.make()
            fresh.load(Path(folder))
            return fresh

    def pickles(self, trained: Saved) -> list[str]:
        """Files that `trained` saves in formats that may execute code."""
        with tempfile.TemporaryDirectory() as folder:
            trained.save(Path(folder))
            return sorted(path.name for path in Path(folder).rglob("*") if path.suffix in PICKLES)


def close(left: Sequence[float], right: Sequence[float], tolerance: float = 1e-3) -> bool:
    """Equal up to the rounding that another batch shape brings."""
    return len(left) == len(right) and all(
        abs(a - b) <= tolerance * max(1.0, abs(a)) for a, b in zip(left, right, strict=True)
    )


def ids(records: Iterable[Any]) -> list[str]:
    """The ids of records, in order."""
    return [record.id for record in records]


def bad_metrics(metrics: dict[str, Metric]) -> Iterator[str]:
    """What is wrong with reported metrics."""
    for name, metric in metrics.items():
        low = metric.value if metric.low is None else metric.low
        high = metric.value if metric.high is None else metric.high
        if not all(map(math.isfinite, (low, metric.value, high))):
            yield f"the metric {name} is not finite"
        elif not low <= metric.value <= high:
            yield f"the metric {name} lies outside its own interval: {metric}"
