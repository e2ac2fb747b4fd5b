"""How often each competing text was shown and reacted to, by position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from rlhf_core.records import Prompt
from rlhf_plugins.reactions.examination import Examination, examination, examined

IMPRESSION = "impression"
ACTIONS = ("click", "like", "dislike", "share")
"""What is counted over exposures. An edit is no count: it says by itself what is better than what."""


class Shown(NamedTuple):
    """A text where it competes."""

    group: str
    """What it competes in: an A/B test, a list, a prompt."""
    text: str


@dataclass
class Tally:
    """The counts of one text by position; position 0 where nobody recorded any."""

    impressions: Counter[int] = field(default_factory=Counter)
    reactions: dict[str, Counter[int]] = field(default_factory=dict)
    """By action."""

    @property
    def total(self) -> int:
        """Impressions at all positions."""
        return self.impressions.total()

    def add(self, action: str, position: int, count: int = 1) -> None:
        """Count `count` reactions, or impressions."""
        counter = self.impressions if action == IMPRESSION else self.reactions.setdefault(action, Counter())
        counter[position] += count


class Tallies:
    """The tallies of a whole log, filled one record at a time.

    Holds one entry for each different text, and one for each impression of a log that has their ids.
    """

    def __init__(self) -> None:
        self.prompts: dict[str, Prompt] = {}
        """Group -> its first prompt."""
        self.texts: dict[str, dict[str, Tally]] = {}
        """Group -> text -> tally, both in the order in which they first came."""
        self._positions: dict[tuple[str, Shown], int] = {}
        self._reacted: dict[tuple[str, Shown, str], None] = {}

    def add(self, prompt: Prompt, shown: Shown, action: str, position: int = 0, count: int = 1) -> None:
        """Count `count` impressions or reactions."""
        self._tally(prompt, shown).add(action, position, count)

    def note(self, prompt: Prompt, shown: Shown, action: str, impression: str, position: int = 0) -> None:
        """One line of a log: the impression with this id, or a reaction to it. What comes twice counts once.

        Reactions count when `settle` is called, since they may come before their impression.
        """
        if action != IMPRESSION:
            self._reacted[impression, shown, action] = None
        elif (impression, shown) not in self._positions:
            self._positions[impression, shown] = position
            self.add(prompt, shown, action, position)

    def settle(self) -> int:
        """Count the reactions noted; the number of those whose impression is not in the log, which count nothing."""
        strays = 0
        for impression, shown, action in self._reacted:
            position = self._positions.get((impression, shown))
            if position is None:
                strays += 1
            else:
                self.texts[shown.group][shown.text].add(action, position)
        self._reacted.clear()
        return strays

    def examination(self) -> Examination:
        """What positions are worth, by all actions together: whoever looks does each with some chance of its own."""
        return examined_log(
            (Shown(group, text), tally) for group, texts in self.texts.items() for text, tally in texts.items()
        )

    def _tally(self, prompt: Prompt, shown: Shown) -> Tally:
        self.prompts.setdefault(shown.group, prompt)
        return self.texts.setdefault(shown.group, {}).setdefault(shown.text, Tally())


def examined_log(tallies: Iterable[tuple[Hashable, Tally]]) -> Examination:
    """What positions are worth by these (item, tally)."""
    cells = {}
    for item, tally in tallies:
        for position, shown in tally.impressions.items():
            reacted = sum(counter[position] for counter in tally.reactions.values())
            cells[item, position] = (float(reacted), float(shown))
    return examination(cells)


class Standing(NamedTuple):
    """One text's reactions of one kind, positions accounted for."""

    reactions: int
    exposures: float
    """Impressions that count as looked at."""
    linked: int
    """Texts of different numbers never shared a position, not even through others: they cannot be compared."""


def standing(tally: Tally, action: str, found: Examination) -> Standing:
    """What `tally` says about `action`."""
    count = tally.reactions.get(action, Counter()).total()
    linked = found.linked[next(iter(tally.impressions))]
    return Standing(count, examined(count, tally.impressions, found.shares), linked)
