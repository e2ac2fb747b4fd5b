"""What the newsroom needs to know of a language: words for each fact, sentences for articles, headlines by style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Style = Literal["neutral", "sensational", "one_sided", "false"]


class Action(NamedTuple):
    """A verb in the forms that texts use; `present` is its name in the facts."""

    present: str
    past: str
    base: str


@dataclass(frozen=True)
class Language:
    """Words and templates. A template's slots are the facts' names; an initial capital in a slot capitalises."""

    code: str
    places: tuple[str, ...]
    bodies: tuple[str, ...]
    """Who acts."""
    measures: tuple[str, ...]
    """What is decided about."""
    costs: tuple[str, ...]
    days: tuple[str, ...]
    supporters: tuple[str, ...]
    critics: tuple[str, ...]
    benefits: tuple[str, ...]
    """What supporters say it does."""
    harms: tuple[str, ...]
    """What critics say it does."""
    actions: tuple[Action, ...]
    frame: str
    """The prompt around the article's `{body}`."""
    joint: str
    """What stands between two sentences."""
    openings: tuple[str, ...]
    prices: tuple[str, ...]
    opinions: tuple[str, ...]
    headlines: dict[str, tuple[str, ...]]
    """Templates of the true styles: neutral, sensational, one_sided. False headlines use the neutral ones."""
    references: tuple[str, ...]
    """Templates of good headlines."""

    def values(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Fact -> value -> the forms in which a headline may state it."""
        plain: dict[str, tuple[str, ...]] = {
            "place": self.places,
            "who": self.bodies,
            "what": self.measures,
            "cost": self.costs,
            "day": self.days,
            "supporters": self.supporters,
            "critics": self.critics,
        }
        forms: dict[str, dict[str, tuple[str, ...]]] = {
            fact: {value: (value,) for value in values} for fact, values in plain.items()
        }
        forms["action"] = {action.present: tuple(dict.fromkeys(action)) for action in self.actions}
        return forms


SLOTS = {
    "place": "place", "who": "who", "acts": "action", "acted": "action", "what": "what", "cost": "cost", "day": "day",
    "supporters": "supporters", "critics": "critics",
}  # fmt: skip
"""Slot of a headline template -> the fact it states."""
