"""How far an answerer can stand in for people: agreement on questions that people have answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_core.feedback.aggregate import Pairing
from rlhf_core.metrics import Metric, mean_share

SIDES = {"lower": 1, "higher": -1, "tie": 0}


@dataclass(frozen=True)
class Trust:
    """What the comparison with people found, over the pairs on which people lean to one side."""

    agreement: Metric
    """How often the judge prefers what most people prefer; a tie or no answer of the judge counts one half, which is
    what guessing gives."""
    decided: Metric
    """How often the judge has a preference at all."""
    among_people: Metric | None
    """How often one person prefers what most of the others prefer, counted the same way, a pair weighing one: as much
    as can be asked of a judge. None where nobody answered what others did."""

    def __str__(self) -> str:
        people = "" if self.among_people is None else f" (people among themselves {self.among_people.value:.2f})"
        return f"{self.agreement} with people{people}, a preference on {self.decided.value:.0%} of {self.agreement.n}"


def majority(labels: Mapping[str, str]) -> int:
    """The side that most of `labels` (annotator -> lower, higher, tie) take: 1 for lower, -1 for higher, 0 for none."""
    leaning = sum(SIDES[label] for label in labels.values())
    return (leaning > 0) - (leaning < 0)


def trust(judged: Mapping[Pairing, str], people: Mapping[Pairing, Mapping[str, str]]) -> Trust:
    """Compare the labels of a judge with those of people (see `aggregate.preference_labels`).

    Only pairs in `people` with a majority count. The intervals take pairs to be independent: give one a prompt. Raises
    ValueError where no pair counts.
    """
    sides = {pair: side for pair, said in people.items() if (side := majority(said))}
    right = [(1 + side * SIDES[judged.get(pair, "tie")]) / 2 for pair, side in sides.items()]
    if not right:
        raise ValueError("people lean to a side nowhere: there is nothing to compare with")
    decided = [float(judged.get(pair, "tie") != "tie") for pair in sides]
    left_out = [share for said in people.values() if (share := _among(said)) is not None]
    return Trust(mean_share(right), mean_share(decided), mean_share(left_out) if left_out else None)


def _among(said: Mapping[str, str]) -> float | None:
    """How often each one agrees with the majority of the others, where they have one; the mean over the persons."""
    shares = []
    for name, label in said.items():
        side = majority({other: theirs for other, theirs in said.items() if other != name})
        if side:
            shares.append((1 + side * SIDES[label]) / 2)
    return sum(shares) / len(shares) if shares else None
