"""Stages of one's own at named places of a round: a check, a cleaning, a message to people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import ConfigDict, JsonValue, model_validator

from rlhf_core.metrics import Metric
from rlhf_core.plugins.base import Plugin, Use

EventName = Literal["waiting", "promoted", "kept", "failed"]
EVENTS: tuple[EventName, ...] = ("waiting", "promoted", "kept", "failed")
"""What happens to a campaign: it waits for people, a challenger was promoted, the champion was kept, a run failed."""


class StepPlace(NamedTuple):
    """What a step finds at its place."""

    stands: str
    """The kind of artifact that the place is about: what a step may replace."""
    kinds: frozenset[str]
    """The kinds of artifacts that exist there."""


PLACES: dict[str, StepPlace] = {
    "after data": StepPlace("data", frozenset({"data"})),
    "after collect": StepPlace("snapshot", frozenset({"data", "snapshot"})),
    "before reward": StepPlace("snapshot", frozenset({"data", "snapshot"})),
    "after reward": StepPlace("reward", frozenset({"data", "snapshot", "reward"})),
    "after gate": StepPlace("decision", frozenset({"data", "snapshot", "reward", "policy", "decision"})),
}
"""Where steps may stand, in the order of a round. Without a reward model there is no place at it, and no `reward`."""


class StepUse(Use):
    """A step in a pipeline: `{use: NAME, after: data, field: value, ...}`."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    after: Literal["data", "collect", "reward", "gate"] | None = None
    """Runs when this is done: `data` (the data was read), `collect` (the feedback that counts is frozen), `reward` (the
    reward model is fitted), `gate` (the decision fell)."""
    before: Literal["reward"] | None = None
    """Instead of `after`: runs before the reward model is fitted, on the feedback, after all steps `after: collect`."""

    @model_validator(mode="after")
    def _is_at_one_place(self) -> Self:
        if (self.after is None) == (self.before is None):
            raise ValueError(
                "give the step one place: `after: data`, `collect`, `reward` or `gate`, or `before: reward`"
            )
        return self

    @property
    def place(self) -> str:
        """The place in words, a key of `PLACES`."""
        return f"after {self.after}" if self.after else f"before {self.before}"


@dataclass(frozen=True)
class StepJob:
    """What a step works on. A dataclass, so that fields can join without breaking plugins."""

    inputs: Mapping[str, Path]
    """The folders of the artifacts that it takes, by kind; they are only read."""
    out: Path
    """An existing, empty folder for what it gives."""
    pipeline: str
    """Name of the pipeline."""
    round: int
    """Number of the round; 0 before the first."""
    info: Mapping[str, JsonValue] = field(default_factory=dict)
    """What is known of the inputs, such as the gate's `promote` and `reasons`."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """What was measured of the inputs: with a `decision` all that was measured of the challenger."""
    uses: Mapping[str, Use] = field(default_factory=dict)
    """The plugins that `policy` and `reward` among the inputs are loaded with, as they are configured, by kind of the
    artifact: `Registry().create("reward_models", job.uses["reward"])`, then its `load`."""


@dataclass(frozen=True)
class StepOutcome:
    """What a step found."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    summary: str = ""
    """A few words for the progress display and the report."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a campaign."""

    name: EventName
    pipeline: str
    """Name of the pipeline."""
    round: int
    text: str
    """A sentence for people."""
    key: str
    """Unique for what happened: whoever calls `hear` calls it once for each key."""
    data: Mapping[str, JsonValue] = field(default_factory=dict)
    """Facts, such as the gate's reasons, or how many answers are missing."""


class Step(Plugin):
    """A stage of one's own: it runs at its place in each round, or hears what happens, or both.

    Its result is cached and tracked like any stage's, and depends on its code, its config and what it takes. The
    options `use`, `after` and `before` are the pipeline's. The folders of artifacts hold: `data` the files that
    `rlhf_core.records.files` names and reads; `snapshot` what `FeedbackSet.open` opens and `write_snapshot` writes;
    `reward` and `policy` a folder of that name for the plugin's `load`; `decision` a `Decision` as `decision.json`.
    """

    kind: ClassVar[str] = "steps"
    takes: ClassVar[Iterable[str]] = frozenset()
    """The kinds of artifacts that it reads: `data`, `snapshot`, `reward`, `policy`, `decision`."""
    gives: ClassVar[str] = ""
    """The kind of artifact that it writes, which takes the place of the one that stands where the step does; empty for
    a step that changes nothing."""
    hears: ClassVar[Iterable[EventName]] = frozenset()
    """The events that it wants to be told."""

    @classmethod
    def runs(cls) -> bool:
        """Whether it works at its place; one that hears events only leaves `step` as it is."""
        return cls.step is not Step.step

    def step(self, job: StepJob) -> StepOutcome:
        """Read the inputs; where the step gives something, fill `job.out` with an artifact of that kind."""
        raise NotImplementedError

    def hear(self, event: Event) -> None:
        """Take notice. What it raises is noted and stops nothing."""
