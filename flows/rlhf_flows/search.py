"""Hyper-parameter search with Optuna that is the same whether or not it was interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from rlhf_core.pipeline import Span

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Trial:
    """One fit with some settings."""

    number: int
    values: dict[str, JsonValue] = field(default_factory=dict)
    """Field -> value; empty for the settings as they are written."""
    score: float | None = None
    """What it is judged by; None where the fit failed or was given up."""
    error: str = ""
    """Why it failed."""
    curve: tuple[float, ...] = ()
    """What it was judged by after each epoch that another one followed, where the search asks for it."""
    pruned: bool = False
    """Whether it was given up after the last of these epochs."""


class Search:
    """Proposes settings by the tree-structured Parzen estimator (Bergstra et al. 2011), after a few random ones.

    A proposal and a verdict on a trial's curve follow from the seed and the trials before it alone: Optuna keeps
    nothing between two of them.
    """

    def __init__(self, space: Mapping[str, Span], seed: int, *, maximize: bool, trials: Sequence[Trial] = ()) -> None:
        self.space = space
        self.seed = seed
        self.maximize = maximize
        self.trials = list(trials)

    def propose(self) -> dict[str, JsonValue]:
        """Settings for the next trial; none for the first, which is what is written."""
        if not self.trials:
            return {}
        space = self._distributions()
        found = self._study().ask(space).params
        return {name: _value(self.space[name], found[name]) for name in self.space}

    def hopeless(self, curve: Sequence[float]) -> bool:
        """Whether the next trial, with this curve so far, is worse than most were at the same epoch.

        The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2) as Optuna has it: the trial's best
        is worse than the median of what at least five trials that went to their end had after so many epochs.
        """
        trial = self._study().ask()
        for epoch, score in enumerate(curve, start=1):
            trial.report(score, epoch)
        return trial.should_prune()

    def _study(self) -> Study:
        """A study that knows the trials so far."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        digest = hashlib.sha256(f"{self.seed}/trial {len(self.trials)}".encode()).digest()
        sampler = optuna.samplers.TPESampler(seed=int.from_bytes(digest[:4], "big"))
        study = optuna.create_study(
            direction="maximize" if self.maximize else "minimize", sampler=sampler, pruner=optuna.pruners.MedianPruner()
        )
        space = self._distributions()
        study.add_trials([self._known(trial, space) for trial in self.trials])
        return study

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {name: distribution(span) for name, span in self.space.items()}

    def known(self, values: Mapping[str, JsonValue]) -> Trial | None:
        """The trial that had just these settings, where there was one: the seed is the same, so is the result."""
        return next((trial for trial in self.trials if trial.values == values), None)

    @property
    def best(self) -> Trial | None:
        """The trial with the best score, the earliest of equals; None where none was fitted to its end."""
        scored = [trial for trial in self.trials if trial.score is not None]
        sign = -1.0 if self.maximize else 1.0
        return min(scored, key=lambda trial: sign * (trial.score or 0.0), default=None)

    def to_json(self) -> str:
        """The trials so far."""
        return json.dumps([asdict(trial) for trial in self.trials], indent=1) + "\n"

    def read(self, text: str) -> None:
        """Take over what `to_json` gave."""
        self.trials = trials_of(text)

    def _known(self, trial: Trial, space: Mapping[str, BaseDistribution]) -> Any:
        from optuna.trial import TrialState, create_trial

        ended = TrialState.COMPLETE if trial.score is not None else TrialState.FAIL
        return create_trial(
            state=TrialState.PRUNED if trial.pruned else ended,
            value=trial.score,
            intermediate_values=dict(enumerate(trial.curve, start=1)),
            params={name: _asked(self.space[name], value) for name, value in trial.values.items()},
            distributions={name: space[name] for name in trial.values},
        )


def trials_of(text: str) -> list[Trial]:
    """What `Search.to_json` gave."""
    return [Trial(**row | {"curve": tuple(row["curve"])}) for row in json.loads(text)]


def distribution(span: Span) -> BaseDistribution:
    """A span as Optuna's; the values to choose from as JSON texts, because Optuna takes no lists."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if span.among is not None:
        return CategoricalDistribution([json.dumps(value) for value in span.among])
    low, high = span.low, span.high
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=span.log)
    assert low is not None and high is not None
    return FloatDistribution(low, high, log=span.log)


def _asked(span: Span, value: JsonValue) -> Any:
    return value if span.among is None else json.dumps(value)


def _value(span: Span, asked: Any) -> JsonValue:
    found: JsonValue = asked if span.among is None else json.loads(asked)
    return found
