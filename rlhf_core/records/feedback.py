"""The kinds of feedback that annotators give."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, field_validator, model_validator

from rlhf_core.records.record import Record
from rlhf_core.records.samples import Trajectory

Source = Literal["person", "simulated", "model", "program", "data"]


class Feedback(Record):
    """One answer of one annotator to one question."""

    beside_identity = frozenset({"created_at", "seconds", "source"})

    question_id: str
    annotator: str = ""
    """Who answered; the collecting flow fills in the plugin's name where a plugin leaves it empty."""
    source: Source = "program"
    """Whether a person, a simulated rater, a model, a program or existing data answered: never mixed silently."""
    revision: int = Field(0, ge=0)
    """A later revision by the same annotator to the same question replaces the earlier one; both stay stored."""
    comment: str = ""
    reasons: dict[str, float] = {}
    """Named principles or criteria behind the answer, each with its score."""
    created_at: datetime | None = Field(default_factory=lambda: datetime.now(UTC))
    """When it was given; None where data does not say."""
    seconds: float | None = Field(None, ge=0)
    """How long the annotator took."""

    @property
    def given_at(self) -> str:
        """When, as ISO 8601 in UTC with microseconds, which sorts; naive times are UTC. Empty where unknown."""
        if self.created_at is None:
            return ""
        naive = self.created_at.tzinfo is None
        moment = self.created_at.replace(tzinfo=UTC) if naive else self.created_at.astimezone(UTC)
        return moment.isoformat(timespec="microseconds")

    @property
    def named(self) -> tuple[str, ...]:
        """Ids of the samples that it is about."""
        return ()


class Comparison(Feedback):
    """Which of two samples is better."""

    kind: Literal["comparison"] = "comparison"
    first: str
    """Id of the sample shown first."""
    second: str
    """Id of the sample shown second."""
    choice: Literal["first", "second", "tie"]
    strength: float = Field(1.0, gt=0, le=1)
    """How sure: 1 means certainly, 0.5 half way to a tie."""
    both_bad: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """Both."""
        return self.first, self.second

    @property
    def probability(self) -> float:
        """P(first is better) that this answer states, in [0, 1]."""
        if self.choice == "tie":
            return 0.5
        return 0.5 + (self.strength if self.choice == "first" else -self.strength) / 2


class Ranking(Feedback):
    """An order of k samples; equal ranks are ties."""

    kind: Literal["ranking"] = "ranking"
    samples: tuple[str, ...] = Field(min_length=2)
    ranks: tuple[int, ...]
    """Rank of each sample, 1 is best."""

    @property
    def named(self) -> tuple[str, ...]:
        """All of them."""
        return self.samples

    @model_validator(mode="after")
    def _one_rank_each(self) -> Self:
        if len(self.ranks) != len(self.samples) or any(rank < 1 for rank in self.ranks):
            raise ValueError("a ranking gives every sample one rank, and ranks start at 1")
        return self


class Rating(Feedback):
    """A score of one sample on a scale."""

    kind: Literal["rating"] = "rating"
    sample: str
    score: float
    low: float = 1.0
    high: float = 5.0
    criterion: str = "overall"

    @property
    def named(self) -> tuple[str, ...]:
        """The one."""
        return (self.sample,)

    @model_validator(mode="after")
    def _on_the_scale(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"a scale's low end is below its high end, unlike {self.low:g} and {self.high:g}")
        if not self.low <= self.score <= self.high:
            raise ValueError(f"score {self.score:g} is outside its scale {self.low:g} to {self.high:g}")
        return self


class Demonstration(Feedback):
    """An expert's own answer to the prompt."""

    kind: Literal["demonstration"] = "demonstration"
    text: str | None = None
    trajectory: Trajectory | None = None
    weight: float = Field(1.0, gt=0)
    """How much it counts in imitation; expert answers may weigh more."""
    edited: str = ""
    """Id of the sample that it is an edited version of; empty where it was written from nothing, or nobody knows."""

    def identity(self) -> Any:
        """Without `edited` where that is empty, as it was before there were edits."""
        return self.model_dump(mode="json", exclude={*self.beside_identity, *(() if self.edited else ("edited",))})

    @property
    def named(self) -> tuple[str, ...]:
        """The sample that was edited, if it is known."""
        return (self.edited,) if self.edited else ()

    @field_validator("text")
    @classmethod
    def _not_blank(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("empty demonstration")
        return text


class Reaction(Feedback):
    """Implicit feedback: how often people who were shown the sample did something."""

    kind: Literal["reaction"] = "reaction"
    sample: str
    action: Literal["click", "like", "dislike", "share", "edit"] = "click"
    count: int = Field(ge=0)
    exposures: int = Field(ge=1)

    @property
    def named(self) -> tuple[str, ...]:
        """The one."""
        return (self.sample,)

    @model_validator(mode="after")
    def _no_more_than_shown(self) -> Self:
        if self.count > self.exposures:
            raise ValueError(f"{self.count} {self.action}s out of only {self.exposures} exposures")
        return self


class Skip(Feedback):
    """The annotator looked and declined to answer; counted, never learnt from."""

    kind: Literal["skip"] = "skip"
    reason: str = ""


AnyFeedback = Annotated[
    Comparison | Ranking | Rating | Demonstration | Reaction | Skip,
    Field(discriminator="kind"),
]
FEEDBACK_KINDS: dict[str, type[Feedback]] = {
    "comparison": Comparison,
    "ranking": Ranking,
    "rating": Rating,
    "demonstration": Demonstration,
    "reaction": Reaction,
    "skip": Skip,
}
feedback_from: TypeAdapter[AnyFeedback] = TypeAdapter(AnyFeedback)
"""Validates any kind of feedback from Python objects or JSON."""
