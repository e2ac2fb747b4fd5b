"""Promote what is proven better and breaks nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from rlhf_core.errors import RlhfError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import Decision, Gate, PluginConfig


class Guard(PluginConfig):
    """Bounds of a metric that promotion must not break; at least one of the four."""

    min: float | None = None
    """Smallest value that the challenger may have."""
    max: float | None = None
    """Largest value that the challenger may have."""
    drop: float | None = Field(None, ge=0)
    """How far the challenger may lie below the champion's own value, in the metric's unit."""
    rise: float | None = Field(None, ge=0)
    """How far the challenger may lie above the champion's own value, in the metric's unit."""

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.min is None and self.max is None and not self.compares:
            raise ValueError("a guard needs at least one of min, max, drop and rise")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    @property
    def compares(self) -> bool:
        """Whether it needs the champion's value."""
        return self.drop is not None or self.rise is not None


class Better(Gate):
    """Promotes a challenger that a judge prefers to the champion beyond doubt, and whose guards all hold."""

    class Config(PluginConfig):
        """What must be better, and what must not become worse."""

        metric: str = "win_rate_vs_champion"
        """What proves that the challenger is better."""
        win_rate: float = 0.5
        """The lower bound of the metric's 95 % interval must lie above it (the value itself, for a metric that has no
        interval)."""
        guards: dict[str, Guard] = {}
        """Metrics that must stay within bounds, such as `kl: {max: 12}`, `eos_rate: {min: 0.9}` or
        `distinct_2: {drop: 0.2}`. Compared by value, not by interval."""

    @classmethod
    def needs(cls, config: Any) -> frozenset[str]:
        """The metric and all guards."""
        return frozenset({config.metric, *config.guards})

    def decide(self, challenger: Mapping[str, Metric], champion: Mapping[str, Metric]) -> Decision:
        """Promote or not; what was decisive stands first. Raises RlhfError where a metric is missing."""
        better, reason = self._is_better(_get(challenger, self.config.metric, "challenger"))
        kept: list[str] = []
        broken: list[str] = []
        for name, guard in self.config.guards.items():
            metric = _get(challenger, name, "challenger")
            before = _get(champion, name, "champion") if guard.compares else None
            for holds, words in _check(name, guard, metric, before):
                (kept if holds else broken).append(words)
        promote = better and not broken
        if promote:
            return Decision(promote=True, reasons=(f"promoted: {reason}", *kept))
        # A challenger that is better but breaks a guard is kept back by the guard, so that is said first.
        decisive = [*broken, reason] if better else [reason, *broken]
        return Decision(promote=False, reasons=(f"kept champion: {decisive[0]}", *decisive[1:], *kept))

    def _is_better(self, metric: Metric) -> tuple[bool, str]:
        found, bar = f"{_words(self.config.metric)} {_number(metric.value)}", f"{self.config.win_rate:g}"
        if metric.low is None or metric.high is None:
            better = metric.value > self.config.win_rate
            return better, f"{found} (no interval known), {'above' if better else 'not above'} {bar}"
        found += f", 95 % interval [{_number(metric.low)}, {_number(metric.high)}]"
        if metric.low > self.config.win_rate:
            return True, f"{found}, above {bar}"
        return False, f"not proven better: {found}, lower bound not above {bar}"


def _check(name: str, guard: Guard, now: Metric, before: Metric | None) -> Iterator[tuple[bool, str]]:
    """Whether each bound of `guard` holds, with the numbers in words."""
    found = f"{_words(name)} {_number(now.value)}"
    limits = [(guard.min, False, ""), (guard.max, True, "")]
    if before is not None:
        of = f" (champion {_number(before.value)}, "
        if guard.drop is not None:
            limits.append((before.value - guard.drop, False, f"{of}drop of {guard.drop:g} allowed)"))
        if guard.rise is not None:
            limits.append((before.value + guard.rise, True, f"{of}rise of {guard.rise:g} allowed)"))
    for limit, upper, why in limits:
        if limit is not None:
            holds = now.value <= limit if upper else now.value >= limit
            words = ("at most" if holds else "above") if upper else ("at least" if holds else "below")
            yield holds, f"{found}, {words} {_number(limit)}{why}"


def _get(metrics: Mapping[str, Metric], name: str, whose: str) -> Metric:
    if name in metrics:
        return metrics[name]
    raise RlhfError(
        f"the gate `better` needs the {whose}'s metric `{name}`, which was not measured",
        remedy=f"Measured are: {', '.join(sorted(metrics)) or 'none'}. Add an evaluator that produces `{name}`, or "
        "take it out of the gate; bounds `min` and `max` need no figure of the champion's.",
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float) -> str:
    """Two decimals, or more digits where two would hide the number."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
