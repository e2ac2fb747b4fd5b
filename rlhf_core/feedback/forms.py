"""How people are asked: which form a question is shown with, and what belongs beside it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf_core.records import Comparison, Demonstration, Feedback, Question, Ranking, Rating, Record, Skip

View = Literal["pair", "ranking", "rating", "writing"]
"""What the page of one question looks like."""


class Criterion(Record):
    """What samples are rated by."""

    name: str = Field(min_length=1)
    description: str = ""
    """What it means, for the annotators."""


class Form(Record):
    """What people are asked about a question, with the guidelines that stand beside it.

    Its identity is what is asked: new words beside it, or another share of gold, ask nobody again.
    """

    kind: Literal["preference", "rating", "writing"] = "preference"
    """Preference: two samples are compared, more are ranked. Rating: every sample on every criterion. Writing: the
    annotator's own answer to the prompt. Without samples, every kind is writing."""
    title: str = ""
    guidelines: str = ""
    """Plain text."""
    criteria: tuple[Criterion, ...] = (Criterion(name="overall"),)
    low: int = 1
    high: int = 5
    """Ends of the rating scale, whose steps are whole numbers."""
    gold_every: int = Field(0, ge=0)
    """After how many answers a question with a known answer is mixed in; 0 for never."""
    repeat_every: int = Field(0, ge=0)
    """After how many answers a pair that the annotator compared before is asked again; 0 for never."""

    def identity(self) -> list[object]:
        """The kind, and for ratings the criteria's names and the scale."""
        scale = [[criterion.name for criterion in self.criteria], self.low, self.high]
        return [self.kind, *(scale if self.kind == "rating" else ())]

    @model_validator(mode="after")
    def _a_scale(self) -> Self:
        if not self.low < self.high <= self.low + 10:
            raise ValueError(f"a scale has two to eleven steps, unlike {self.low} to {self.high}")
        if len({criterion.name for criterion in self.criteria}) != len(self.criteria):
            raise ValueError("two criteria have the same name")
        return self

    def view(self, question: Question) -> View:
        """The page that `question` is shown on."""
        if not question.samples or self.kind == "writing":
            return "writing"
        if self.kind == "rating" or len(question.samples) == 1:
            return "rating"
        return "pair" if len(question.samples) == 2 else "ranking"

    @property
    def yields(self) -> tuple[type[Feedback], ...]:
        """The kinds of feedback that an answer may hold."""
        kinds: dict[str, tuple[type[Feedback], ...]] = {
            "preference": (Comparison, Ranking, Demonstration, Skip),
            "rating": (Rating, Demonstration, Skip),
            "writing": (Demonstration, Skip),
        }
        return kinds[self.kind]
