"""Annotator `people`: real ones, who answer in the browser (`rlhf annotate`) when they have the time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rlhf_core import (
    Answer,
    Comparison,
    Demonstration,
    Feedback,
    Question,
    Ranking,
    Rating,
)
from rlhf_core.errors import DataError
from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.plugins import DeferredAnnotator
from rlhf_plugins.annotators._asking import AskingConfig, form_of


class People(DeferredAnnotator):
    """Posts the questions to the queue of the feedback store and takes the answers from there.

    The campaign stops while it waits and holds nothing; the same `rlhf run`, or `rlhf serve`, goes on with it when
    enough is answered. Two samples are compared, more are ranked, and a question without samples is answered in the
    annotator's own words. A skip counts as an answer, so that one that nobody can answer holds nobody up.
    """

    yields = frozenset({Comparison, Ranking, Rating, Demonstration})

    class Config(AskingConfig):
        """What the annotators see, and how long the campaign waits for them."""

        gold: Path | None = None
        """Questions whose right answer is known, as JSON Lines of answers, such as the lead's page exports."""
        gold_every: int = Field(20, ge=2)
        """How often a gold question is mixed in: one after this many answers of an annotator."""
        repeat_every: int = Field(0, ge=0)
        """After how many answers a pair is asked again, the other way round, to see how steady an annotator is."""
        enough: float = Field(1.0, gt=0, le=1)
        """The share of the wanted answers that the campaign waits for."""
        deadline_hours: float | None = Field(None, gt=0)
        """The campaign goes on after this time with the answers there are, if there are any."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The gold questions."""
        return () if config.gold is None else (config.gold,)

    @property
    def form(self) -> Form:
        """What the annotators see."""
        gold_every = self.config.gold_every if self.config.gold is not None else 0
        return form_of(self.config, gold_every=gold_every, repeat_every=self.config.repeat_every)

    def post(self, questions: Sequence[Question]) -> None:
        """Put the questions into the queue."""
        with self._store() as store:
            gold = () if self.config.gold is None else _gold(self.config.gold)
            queue = QuestionQueue(store)
            queue.post(self.form, questions, campaign=self.run.pipeline, round=self.run.round, gold=gold)

    def collect(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """What people have said about these questions, as it counts now."""
        kinds = self.form.yields
        with self._store() as store:
            for answer in store.answers([question.id for question in questions]):
                if answer.feedback.source == "person" and isinstance(answer.feedback, kinds):
                    yield answer.feedback

    def missing(self, questions: Sequence[Question], given: Sequence[Feedback]) -> int:
        """None once `enough` are there, or the deadline has passed and there is something to learn from."""
        missing = super().missing(questions, given)
        wanted = sum(question.wanted for question in questions)
        left = max(0, missing - math.floor(wanted * (1 - self.config.enough) + 1e-9))
        return 0 if left and given and self._is_late(questions) else left

    def _is_late(self, questions: Sequence[Question]) -> bool:
        if self.config.deadline_hours is None:
            return False
        with self._store() as store:
            since = QuestionQueue(store).posted_at(self.form, questions)
        return since is not None and datetime.now(UTC) - since > timedelta(hours=self.config.deadline_hours)

    def _store(self) -> FeedbackStore:
        if not self.run.store_url:
            raise DataError("`people` waits for answers in a feedback store, and this run has none.")
        return FeedbackStore.open(self.run.store_url)


def _gold(path: Path) -> Iterator[Answer]:
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield Answer.model_validate(json.loads(line))
                except (ValueError, ValidationError) as error:
                    first = str(error).splitlines()[0]
                    raise DataError(f"this is no answer: {first}", where=f"{path}:{number}") from error
    except OSError as error:
        raise DataError(f"the gold questions cannot be read: {error.strerror}", where=str(path)) from error
