"""How far people are with the questions of the queue."""

from __future__ import annotations

from typing import NamedTuple


class Standing(NamedTuple):
    """How far an annotator is."""

    answered: int
    """Questions answered so far."""
    today: int
    """Those of the last 24 hours."""
    remaining: int
    """Questions still open that the annotator has not answered."""


class Progress(NamedTuple):
    """How far everybody together is."""

    wanted: int
    """Answers that were asked for, gold and repeats not counted."""
    answered: int
    """Those that are there; more than wanted of one question count once each."""
    open: int
    """Questions that want more answers."""
    hour: int
    """Answers of the last hour, all of them."""
    day: int
    """Answers of the last 24 hours."""

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the pace of the last hour, else of the last day; None without a pace."""
        left = self.wanted - self.answered
        pace = self.hour / 3600 or self.day / 86_400
        return 0.0 if left <= 0 else left / pace if pace else None
