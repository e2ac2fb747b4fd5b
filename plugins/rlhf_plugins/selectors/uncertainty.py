"""Selectors `uncertainty`, `disagreement` and `expected_information`: ask where the reward model does not know."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from rlhf_core import RewardModel
from rlhf_plugins.selectors._active import ActiveConfig, ActiveSelector, Pair, entropy, sigmoid


class Committee(ActiveSelector):
    """A selector that needs an ensemble."""

    class Config(ActiveConfig):
        """How much is left to chance."""

    def check(self, reward: RewardModel, pairs: Sequence[Pair]) -> None:
        """One member disagrees with nobody: then pairs that it finds close are asked about."""
        if pairs and len(pairs[0].members) < 2:
            self.run.note(
                f"the reward model {type(reward).__name__} has no members that could disagree: asking about pairs that "
                "it finds close (use `ensemble`)"
            )

    def value(self, pair: Pair) -> float:
        """`spread` of several members; of one how close it finds the pair, in [0, log 2]."""
        if len(pair.members) < 2:
            (one,) = pair.members
            return entropy(sigmoid(one[0] - one[1]))
        return self.spread(pair)

    def spread(self, pair: Pair) -> float:
        """How far several members are apart."""
        raise NotImplementedError


class Uncertainty(Committee):
    """Asks about the pairs whose difference in reward the members of an ensemble put farthest apart.

    The standard deviation over members of score(first) - score(second). What all members are unsure about alike (two
    answers that are equally good) teaches little and is not asked; a single reward model cannot tell the two apart.
    """

    def spread(self, pair: Pair) -> float:
        """Standard deviation of the difference."""
        return pstdev(a - b for a, b in pair.members)

    def why(self, pair: Pair, value: float) -> str:
        """In words."""
        return f"uncertain: members' differences vary by {value:.2f}"


class Disagreement(Committee):
    """Asks about the pairs that the members of an ensemble vote most evenly about.

    Vote entropy (query by committee; Seung, Opper and Sompolinsky 1992; Dagan and Engelson 1995). Among even votes the
    pair whose members are farthest apart comes first.
    """

    def spread(self, pair: Pair) -> float:
        """Entropy of the votes in nats, and a little of the standard deviation to break ties."""
        votes = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pair.members]
        apart = pstdev(a - b for a, b in pair.members)
        return entropy(fmean(votes)) + 1e-3 * apart / (1 + apart)

    def why(self, pair: Pair, value: float) -> str:
        """In words."""
        first = sum(a > b for a, b in pair.members)
        return f"disagreement: {first} of {len(pair.members)} members prefer one, the others the other"


class ExpectedInformation(Committee):
    """Asks about the pairs whose answer says most about which member is right.

    Mutual information of answer and member, H(mean of p) - mean of H(p) with p = sigma(score difference) (BALD; Houlsby
    et al. 2011): high where members are sure of themselves and contradict one another.
    """

    def spread(self, pair: Pair) -> float:
        """Mutual information in nats."""
        shares = [sigmoid(a - b) for a, b in pair.members]
        return entropy(fmean(shares)) - fmean(map(entropy, shares))

    def why(self, pair: Pair, value: float) -> str:
        """In words."""
        return f"informative: {value:.3f} nats expected"
