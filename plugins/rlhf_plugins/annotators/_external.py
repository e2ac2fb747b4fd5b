"""People who answer in another program."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar, Literal, NamedTuple

from rlhf_core import TEXT, Comparison, Demonstration, Feedback, Question, Ranking, Rating
from rlhf_core.feedback.forms import Form, View
from rlhf_core.feedback.lettered import (
    ANSWER,
    BETTER,
    COMMENT,
    EDITED,
    RANKING,
    Said,
    Unreadable,
    by_letter,
    feedback_of,
    rating_field,
    shown_text,
)
from rlhf_core.plugins import DeferredAnnotator
from rlhf_core.records import Modality, content_id
from rlhf_plugins.annotators._asking import form_of

Look = tuple[View, int]
"""What a question looks like there: the sort of page, and the number of samples on it."""


class Asked(NamedTuple):
    """One thing that people are asked about a question."""

    field: str
    """Its name among the answer's fields."""
    kind: Literal["choice", "ranking", "scale", "text"]
    """What the answer is: one of `CHOICES`, an order of the letters, a step of the form's scale, or words."""
    words: str
    """The question."""
    description: str = ""
    letter: str = ""
    """Of the one sample that it is about; empty where it is about all of them."""
    optional: bool = False


def asked_about(form: Form, look: Look) -> Iterator[Asked]:
    """All that people are asked about such a question, in order."""
    view, size = look
    if view == "pair":
        yield Asked(BETTER, "choice", "Which answer is better?")
    if view == "ranking":
        yield Asked(RANKING, "ranking", "Rank the answers")
    if view == "rating":
        for letter in letters_of(size):
            for number, criterion in enumerate(form.criteria):
                words = f"{letter}: {criterion.name}"
                yield Asked(rating_field(letter, number), "scale", words, criterion.description, letter)
    if view == "writing":
        yield Asked(ANSWER, "text", "Your answer")
    else:
        yield Asked(EDITED, "text", "A better answer, if you have one", optional=True)
    yield Asked(COMMENT, "text", "Comment", optional=True)


def letters_of(size: int) -> str:
    """The letters of so many samples."""
    return string.ascii_uppercase[:size]


class ExternalAnnotator(DeferredAnnotator):
    """Base of annotators that ask in another program. Its `Config` is an `AskingConfig`."""

    modality: ClassVar[frozenset[Modality]] = TEXT
    yields = frozenset({Comparison, Ranking, Rating, Demonstration})

    @property
    def form(self) -> Form:
        """What the annotators are asked."""
        return form_of(self.config)

    def by_look(self, questions: Iterable[Question]) -> dict[Look, list[Question]]:
        """The questions by what they look like, since the programs show all tasks of a project alike."""
        groups: dict[Look, list[Question]] = {}
        for question in questions:
            view = self.form.view(question)
            groups.setdefault((view, 0 if view == "writing" else len(question.samples)), []).append(question)
        return groups

    def shown(self, question: Question) -> dict[str, str]:
        """The texts of the samples by letter; none where people write an answer of their own."""
        if self.form.view(question) == "writing":
            return {}
        return {letter: shown_text(sample.text) for letter, sample in by_letter(question).items()}

    def place(self, name: str, look: Look) -> str:
        """Name of the project, dataset or queue where such questions are asked. Another scale is another place: an
        answer there would mean something else.
        """
        view, size = look
        scale = [[criterion.name for criterion in self.form.criteria], self.form.low, self.form.high]
        return f"{name} {view}" + (f" of {size}" if size else "") + (f" {content_id(scale)[:6]}" * (view == "rating"))

    def said(self, questions: Mapping[str, Question]) -> Iterator[Said]:
        """Everything that was answered so far; answers to other questions may be among them."""
        raise NotImplementedError

    def collect(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """The newest answer of each annotator to each question; unreadable ones are left out, with a note."""
        by_id = {question.id: question for question in questions}
        newest: dict[tuple[str, str], Said] = {}
        for said in self.said(by_id):
            key = (said.question_id, said.who)
            if said.question_id in by_id and (key not in newest or _when(said) >= _when(newest[key])):
                newest[key] = said
        unreadable: list[str] = []
        for said in newest.values():
            question = by_id[said.question_id]
            try:
                yield from feedback_of(self.form, question, by_letter(question), said)
            except Unreadable as error:
                unreadable.append(f"{said.who} on {said.question_id}: {error}")
        if unreadable:
            self.run.note(f"{len(unreadable)} answers cannot be read (the first is {unreadable[0]})")


def _when(said: Said) -> datetime:
    return said.at or datetime.min.replace(tzinfo=UTC)
