"""Annotator `mlflow_review`: people who answer in MLflow's review queues."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

from rlhf_core import Question
from rlhf_core.errors import DataError
from rlhf_core.feedback.forms import Form, View
from rlhf_core.feedback.lettered import CHOICES, COMMENT, RANKING, Said, shown_prompt
from rlhf_core.tracking.reviews import Field, Item, ReviewQueue
from rlhf_plugins.annotators._asking import AskingConfig
from rlhf_plugins.annotators._external import ExternalAnnotator, asked_about, letters_of

CHOOSABLE = 4
"""Up to so many samples, their orders are a choice; more are ranked by writing down the letters."""


class MlflowReview(ExternalAnnotator):
    """Logs each question as a trace of the pipeline's experiment and puts it into a review queue.

    Reviewers answer in the user interface of MLflow 3.14 or newer (`rlhf ui`). What they said counts when the item is
    marked as complete; a declined item is a skip. A queue has one state an item, so that with an `overlap` of several
    the item is best completed by the last of them.
    """

    where = "People answer in MLflow's review queues (`rlhf ui`)"

    class Config(AskingConfig):
        """Who reviews."""

        queue: str = ""
        """Name of the queues; that of the pipeline where empty."""
        reviewers: tuple[str, ...] = ()
        """MLflow's names of the people assigned to the queues."""

    def post(self, questions: Sequence[Question]) -> None:
        """Put the questions into the queue of their kind."""
        beside = {"task": self.config.title, "guidelines": self.config.guidelines}
        told = {name: text for name, text in beside.items() if text}
        for look, group in self.by_look(questions).items():
            items = [
                Item(
                    question.id,
                    {**told, "prompt": shown_prompt(question)},
                    self.shown(question),
                )
                for question in group
            ]
            self._queue(*look).add(items)

    def said(self, questions: Mapping[str, Question]) -> Iterator[Said]:
        """The assessments of the queues' traces."""
        for look in self.by_look(questions.values()):
            names = {asked.name: name for name, asked in fields_of(self.form, *look).items()}
            for found in self._queue(*look).reviewed():
                values = {names[name]: value for name, value in found.values.items() if name in names}
                if comment := "\n".join(found.comments.values()):
                    values[COMMENT] = comment
                if isinstance(values.get(RANKING), str):
                    values[RANKING] = re.findall("[A-Z]", values[RANKING].upper())
                yield Said(found.key, found.reviewer, values, found.declined, found.at)

    def _queue(self, view: View, size: int) -> ReviewQueue:
        if not self.run.mlflow_uri:
            raise DataError("`mlflow_review` asks in an MLflow store, and this run has none.")
        name = self.place(self.config.queue or self.run.pipeline or "rlhf", (view, size))
        fields = list(fields_of(self.form, view, size).values())
        return ReviewQueue(self.run.mlflow_uri, self.run.pipeline or "rlhf", name, fields, self.config.reviewers)


def fields_of(form: Form, view: View, size: int) -> dict[str, Field]:
    """Our field -> what reviewers are asked."""
    letters = letters_of(size)
    orders = tuple(" > ".join(order) for order in permutations(letters)) if size <= CHOOSABLE else ()
    fields: dict[str, Field] = {}
    for asked in asked_about(form, (view, size)):
        # An experiment has each field once, so that what differs between queues stands in its name. Comments have no
        # field: a reviewer can write one beside the main question.
        if asked.kind == "choice":
            fields[asked.field] = Field(asked.words, options=tuple(CHOICES), comment=True)
        elif asked.kind == "ranking":
            example = f"Best first: {' > '.join(letters)}"
            fields[asked.field] = Field(f"Rank {size} answers", example, orders, comment=True)
        elif asked.kind == "scale":
            name = f"{asked.words} ({form.low} to {form.high})"
            fields[asked.field] = Field(name, asked.description, (), form.low, form.high)
        elif asked.field != COMMENT:
            fields[asked.field] = Field(asked.words, comment=not asked.optional)
    return fields
