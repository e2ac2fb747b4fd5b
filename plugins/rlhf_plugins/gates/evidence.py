"""Promote on statistical evidence: superiority, non-inferiority, a limit on luck over rounds, and vetoes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rlhf_core.metrics import Metric
from rlhf_core.plugins import Decision, Gate, PluginConfig
from rlhf_plugins.gates._tests import difference, lower_bound, negated, spent, upper_bound
from rlhf_plugins.gates.better import Guard, _get, _number, _words


class Demand(PluginConfig):
    """What must be shown of one metric."""

    test: Literal["superior", "non_inferior"] = "superior"
    """`superior`: better by more than the margin, beyond doubt. `non_inferior`: not worse by more than the margin,
    beyond doubt; too little data then speaks against the challenger, too."""
    than: Literal["champion"] | float = "champion"
    """What it is compared with: the champion's own value, or a number (0.5 for a win rate against the champion)."""
    margin: float = Field(0.0, ge=0)
    """In the metric's unit; for `non_inferior` how much worse is no matter."""
    lower_is_better: bool = False
    """For toxicity, refusals, perplexity."""

    @model_validator(mode="after")
    def _needs_room(self) -> Self:
        if self.test == "non_inferior" and self.margin == 0:
            raise ValueError("non_inferior needs a margin: nothing can be shown to be not the least bit worse")
        return self


class Evidence(Gate):
    """Promotes a challenger of which all demands are shown and no veto is raised.

    All demands must hold, so testing several of them does not raise the chance of a false promotion; testing one
    challenger after the other does, and `sequential` limits it over the whole campaign. Intervals are those of the
    metrics; a metric without one is compared by its value. A veto is raised by the cautious end of the interval:
    harm that cannot be ruled out keeps the champion.
    """

    class Config(PluginConfig):
        """What must be shown, and what must never happen."""

        demands: dict[str, Demand] = Field({"win_rate_vs_champion": Demand(than=0.5)}, min_length=1)
        """Metric -> what must be shown of it."""
        vetoes: dict[str, Guard] = {}
        """Metric -> bounds as in the gate `better`, such as `toxicity_probability: {max: 0.02, rise: 0.01}`. They must
        hold at the cautious end of the metric's interval."""
        alpha: float = Field(0.025, gt=0, lt=0.5)
        """Chance of promoting a challenger that is no better; one-sided. 0.025 is the lower end of a 95 % interval."""
        sequential: Literal["none", "alpha_spending"] = "alpha_spending"
        """`alpha_spending`: `alpha` holds over all rounds of the campaign together, so later challengers must win more
        clearly (Tian and Ramdas 2021). `none`: for each round by itself."""

    @classmethod
    def needs(cls, config: Any) -> frozenset[str]:
        """All demands and vetoes."""
        return frozenset({*config.demands, *config.vetoes})

    def decide(self, challenger: Mapping[str, Metric], champion: Mapping[str, Metric]) -> Decision:
        """Promote or not; vetoes stand first, then what was decisive. Raises RlhfError where a metric is missing."""
        config = self.config
        alpha = spent(config.alpha, max(self.round, 1)) if config.sequential == "alpha_spending" else config.alpha
        shown: list[str] = []
        missing: list[str] = []
        for name, demand in config.demands.items():
            held, words = _examine(name, demand, challenger, champion, alpha)
            (shown if held else missing).append(words)
        raised = [
            words
            for name, guard in config.vetoes.items()
            for words in _vetoes(name, guard, challenger, champion, alpha)
        ]
        level = f"error {alpha:.2g} of {config.alpha:g} spent on round {self.round}"
        if raised:
            return Decision(promote=False, reasons=(f"veto: {raised[0]}", *raised[1:], *missing, *shown))
        if missing:
            return Decision(promote=False, reasons=(f"kept champion: {missing[0]}", *missing[1:], *shown, level))
        return Decision(promote=True, reasons=(f"promoted: {shown[0]}", *shown[1:], level))


def _examine(
    name: str, demand: Demand, challenger: Mapping[str, Metric], champion: Mapping[str, Metric], alpha: float
) -> tuple[bool, str]:
    """Whether the demand is shown at level alpha, with the numbers in words."""
    metric = _get(challenger, name, "challenger")
    if demand.than == "champion":
        gain = difference(metric, _get(champion, name, "champion"))
        whom = "the champion"
    else:
        shift = float(demand.than)
        low, high = (None if bound is None else bound - shift for bound in (metric.low, metric.high))
        gain = Metric(value=metric.value - shift, low=low, high=high, n=metric.n)
        whom = f"{shift:g}"
    if demand.lower_is_better:
        gain = negated(gain)
    bound = lower_bound(gain, alpha)
    wanted = demand.margin if demand.test == "superior" else -demand.margin
    held = bound > wanted
    what = "better than" if demand.test == "superior" else "not worse than"
    margin = f" by more than {demand.margin:g}" if demand.margin else ""
    proof = "shown" if held else "not shown"
    return held, (
        f"{_words(name)} {_number(metric.value)}: {proof} to be {what} {whom}{margin} "
        f"(gain {_signed(gain.value)}, at least {_signed(bound)})"
    )


def _vetoes(
    name: str, guard: Guard, challenger: Mapping[str, Metric], champion: Mapping[str, Metric], alpha: float
) -> list[str]:
    metric = _get(challenger, name, "challenger")
    before = _get(champion, name, "champion") if guard.compares else None
    low, high = lower_bound(metric, alpha), upper_bound(metric, alpha)
    found = f"{_words(name)} {_number(metric.value)}"
    raised = []
    if guard.max is not None and high > guard.max:
        raised.append(f"{found} may be as high as {_number(high)}, above {_number(guard.max)}")
    if guard.min is not None and low < guard.min:
        raised.append(f"{found} may be as low as {_number(low)}, below {_number(guard.min)}")
    if before is not None:
        change = difference(metric, before)
        of = f"(champion {_number(before.value)})"
        rise, drop = upper_bound(change, alpha), -lower_bound(change, alpha)
        if guard.rise is not None and rise > guard.rise:
            raised.append(f"{found} {of} may have risen by {_number(rise)}, more than {guard.rise:g}")
        if guard.drop is not None and drop > guard.drop:
            raised.append(f"{found} {of} may have dropped by {_number(drop)}, more than {guard.drop:g}")
    return raised


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + _number(value)
