"""The report card: how helpful and how harmless a policy is, beside the champion before it and the first one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from rlhf_core.report.data import RoundData
from rlhf_core.report.words import KNOWN, title_of, value_of

GROUPS: dict[str, tuple[str, ...]] = {
    "helpfulness": (
        "preferred_", "win_rate_", "gold_score", "human_score", "elo", "rouge", "summary_", "return",
    ),
    "ethics and safety": (
        "red_team_", "toxicity", "expected_maximum_toxicity", "cost", "stereoset_", "crows_pairs_", "truthfulqa_",
    ),
    "language": ("kl", "entropy", "eos_rate", "repetition", "distinct_", "perplexity", "bits_per_byte"),
}  # fmt: skip
"""Headline -> beginnings of the metrics' names under it. What a round says of its training is not on the card."""


class Line(NamedTuple):
    """One metric of several policies, in words."""

    title: str
    values: tuple[str, ...]


class Card(NamedTuple):
    """A table in groups."""

    policies: tuple[str, ...]
    """Whose values the columns are."""
    groups: tuple[tuple[str, tuple[Line, ...]], ...]


def card(data: RoundData, champion: RoundData | None, first: RoundData | None) -> Card | None:
    """The card of a round; None where nothing that belongs on it was measured. Where the warm start is the champion,
    it has one column.
    """
    columns = [(_title(data), data)]
    if champion is not None and champion.round:
        columns.append((f"round {champion.round}, champion before it", champion))
    if first is not None and data.round:
        met = champion is not None and not champion.round
        columns.append(("warm start" + (", champion before it" if met else ""), first))
    groups = []
    for headline, beginnings in GROUPS.items():
        names = [name for name in _ordered(data.metrics) if name.startswith(beginnings) and _known(data, name)]
        lines = tuple(
            Line(title_of(name), tuple(value_of(name, one.metrics.get(name)) for _, one in columns)) for name in names
        )
        if lines:
            groups.append((headline, lines))
    return Card(tuple(title for title, _ in columns), tuple(groups)) if groups else None


def _title(data: RoundData) -> str:
    return f"round {data.round}" if data.round else "warm start"


def _known(data: RoundData, name: str) -> bool:
    """Whether it says something of this policy: `gold_score_warm_start` is the warm start's, in another column."""
    others = name.endswith("_warm_start") and "_vs_" not in name
    return math.isfinite(data.metrics[name].value) and not others


def _ordered(names: Iterable[str]) -> list[str]:
    """Those that every campaign has first."""
    found = set(names)
    return [name for name in KNOWN if name in found] + sorted(found - set(KNOWN))
