"""What feedback of one kind says in the words of another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from rlhf_core.plugins.base import Plugin
from rlhf_core.records import Answer, Feedback


class Converter(Plugin):
    """Derives feedback that a reward model can learn from, such as comparisons from clicks.

    What people said stays in the store as they said it; what follows from it is worked out for each snapshot, so that
    a revised or withdrawn answer takes along what followed from it. Rankings and ratings need no converter: every
    `FeedbackSet` reads them as comparisons.
    """

    kind: ClassVar[str] = "converters"
    takes: ClassVar[Iterable[type[Feedback]]] = frozenset()
    """The kinds of feedback that it understands; it is given no others."""
    yields: ClassVar[Iterable[type[Feedback]]] = frozenset()
    """The kinds that it derives."""

    def convert(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """What follows from `answers`, on their own prompts and by their own annotators; the same for any order."""
        raise NotImplementedError
