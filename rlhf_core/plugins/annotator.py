"""Whoever answers questions: people, simulated raters, written principles, models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from rlhf_core.plugins.base import Plugin
from rlhf_core.records import Feedback, Question, Source


class Annotator(Plugin):
    """Answers at once. A question may get several answers, each by another `Feedback.annotator`."""

    kind: ClassVar[str] = "annotators"
    yields: ClassVar[Iterable[type[Feedback]]] = frozenset()
    """The kinds of feedback it gives."""
    source: ClassVar[Source] = "program"
    """What it is: a person, a simulated rater, a model or a program. Stored with every answer."""

    def annotate(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """Answer each question, up to `question.wanted` times.

        The answer to a question depends on that question alone, not on the others of the call.
        """
        raise NotImplementedError


class DeferredAnnotator(Annotator):
    """Answers later: people. The loop posts, waits without running, and collects."""

    source: ClassVar[Source] = "person"

    def post(self, questions: Sequence[Question]) -> None:
        """Make the questions available; posting one twice changes nothing."""
        raise NotImplementedError

    def collect(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """The answers that exist by now."""
        raise NotImplementedError

    def annotate(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """Post, then collect what is there."""
        self.post(questions)
        yield from self.collect(questions)
