"""Selectors `uncertainty`, `disagreement` and `expected_information`: ask where the reward model does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_plugins.selectors._active import ActiveConfig, ActiveSelector, Choice, Pair, entropy, highest, sigmoid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Committee(ActiveSelector):
    """A selector that needs several members to compare; of one it asks about pairs that the one finds close."""

    class Config(ActiveConfig):
        """How much is left to chance."""

    def best(self, pairs: Sequence[Pair], differences: Floats, count: int) -> list[Choice]:
        """The pairs with the highest `spread`."""
        if differences.shape[1] > 1:
            return self.spread_out(pairs, differences, count)
        self.run.note(
            "the reward model has no members that could disagree: asking about pairs that it finds close "
            "(use `ensemble` or `bayesian`)"
        )
        values = entropy(sigmoid(differences[:, 0]))
        return [Choice(pairs[i], f"close: {values[i]:.2f} nats") for i in highest(pairs, values, count)]

    def spread_out(self, pairs: Sequence[Pair], differences: Floats, count: int) -> list[Choice]:
        """What several members are least at one about."""
        values = self.spread(differences)
        return [Choice(pairs[i], self.why(differences[i], values[i])) for i in highest(pairs, values, count)]

    def spread(self, differences: Floats) -> Floats:
        """How far several members are apart about each pair, [N] of [N, M]."""
        raise NotImplementedError

    def why(self, differences: Floats, value: float) -> str:
        """The reason in words, of the [M] members' differences."""
        raise NotImplementedError


class Uncertainty(Committee):
    """Asks about the pairs whose difference in reward the members of an ensemble put farthest apart.

    The standard deviation over members of score(first) - score(second). What all members are unsure about alike (two
    answers that are equally good) teaches little and is not asked; a single reward model cannot tell the two apart.
    What members differ most about may hardly ever matter (rare words, odd answers): `benchmarks/selection.py` finds it
    to learn slower than by lot where `predictive_information` learns faster.
    """

    def spread(self, differences: Floats) -> Floats:
        """Standard deviation of the difference."""
        found: Floats = differences.std(axis=1)
        return found

    def why(self, differences: Floats, value: float) -> str:
        """In words."""
        return f"uncertain: members' differences vary by {value:.2f}"


class Disagreement(Committee):
    """Asks about the pairs that the members of an ensemble vote most evenly about.

    Vote entropy (query by committee; Seung, Opper and Sompolinsky 1992; Dagan and Engelson 1995). Among even votes the
    pair whose members are farthest apart comes first.
    """

    def spread(self, differences: Floats) -> Floats:
        """Entropy of the votes in nats, and a little of the standard deviation to break ties."""
        import numpy as np

        votes = (np.sign(differences).mean(axis=1) + 1) / 2
        apart = differences.std(axis=1)
        return entropy(votes) + 1e-3 * apart / (1 + apart)

    def why(self, differences: Floats, value: float) -> str:
        """In words."""
        first = int((differences > 0).sum())
        return f"disagreement: {first} of {len(differences)} members prefer one, the others the other"


class ExpectedInformation(Committee):
    """Asks about the pairs whose answer says most about which member is right.

    Mutual information of answer and member, H(mean of p) - mean of H(p) with p = sigma(score difference) (BALD; Houlsby
    et al. 2011): high where members are sure of themselves and contradict one another.
    """

    def spread(self, differences: Floats) -> Floats:
        """Mutual information in nats."""
        shares = sigmoid(differences)
        found: Floats = entropy(shares.mean(axis=1)) - entropy(shares).mean(axis=1)
        return found

    def why(self, differences: Floats, value: float) -> str:
        """In words."""
        return f"informative: {value:.3f} nats expected"
