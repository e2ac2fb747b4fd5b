"""Whoever answers questions: people, simulated raters, written principles, models."""

from __future__ import annotations

from collections import Counter
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
    where: ClassVar[str] = "People answer with `rlhf annotate`"
    """Where the answers come from, as the beginning of a sentence for whoever waits."""

    def post(self, questions: Sequence[Question]) -> None:
        """Make the questions available; posting one twice changes nothing."""
        raise NotImplementedError

    def collect(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """The answers that exist by now."""
        raise NotImplementedError

    def missing(self, questions: Sequence[Question], given: Sequence[Feedback]) -> int:
        """How many answers the loop still waits for, with `given` there; by default all that are wanted.

        Several pieces of feedback by one annotator on one question are one answer, and so is a skip.
        """
        answered = Counter(question_id for question_id, _ in {(each.question_id, each.annotator) for each in given})
        return sum(max(0, question.wanted - answered[question.id]) for question in questions)

    def annotate(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """Post, then collect what is there."""
        self.post(questions)
        yield from self.collect(questions)
