"""Selector `predictive_information`: ask what helps most with the comparisons that the policy ordinarily raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from rlhf_plugins.selectors._active import ActiveConfig, Choice, Pair
from rlhf_plugins.selectors.uncertainty import Committee

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST = 16
"""Members from which covariances say more than chance: that of two unrelated pairs is seen as 1 / sqrt(M)."""


class PredictiveInformation(Committee):
    """Asks about the pairs whose answers say most about the answers to pairs drawn by lot.

    What the committee is most unsure about is often what hardly ever matters: rare words, odd answers. The expected
    predictive information gain (EPIG; Bickford Smith et al. 2023) asks how much an answer would tell about the answers
    that matter, a random sample of the candidates' own pairs. Questions are chosen one after the other, each as if
    those before it were answered already, so that no two ask for the same thing (as BatchBALD; Kirsch et al. 2019).
    Opinions count as normally distributed, with the covariance of the members' score differences. That takes many
    members: a `bayesian` reward model has them for nothing, an `ensemble` of four knows next to none of it.
    """

    class Config(ActiveConfig):
        """How much is left to chance, and what questions should help with."""

        targets: int = Field(128, ge=1)
        """Pairs drawn by lot whose answers are to be predicted."""

    def spread_out(self, pairs: Sequence[Pair], differences: Floats, count: int) -> list[Choice]:
        """One pair after the other."""
        import numpy as np

        from rlhf_plugins.selectors._information import after, beliefs, predictive_information

        if differences.shape[1] < FEWEST:
            self.run.note(
                f"predictive_information sees covariances of {differences.shape[1]} members, which are mostly chance: "
                f"use a reward model with {FEWEST} or more (`bayesian`, or an `ensemble` with `copies`)"
            )
        deviations, noise = beliefs(differences)
        rng = np.random.default_rng(self.run.seed)
        targets = rng.choice(len(pairs), min(self.config.targets, len(pairs)), replace=False)
        names = np.array([pair.candidate.prompt.id for pair in pairs])
        open_ = np.ones(len(pairs), dtype=bool)
        covariance, variance = deviations @ deviations[targets].T, (deviations**2).sum(axis=1) + noise
        chosen: list[Choice] = []
        while len(chosen) < count and open_.any():
            values = predictive_information(covariance, variance, variance[targets])
            place = int(np.argmax(np.where(open_, values, -1.0)))
            chosen.append(Choice(pairs[place], f"predictive: {1000 * values[place]:.2f} millinats about other pairs"))
            open_ &= names != names[place]
            learnt = deviations @ deviations[place]
            covariance -= np.outer(learnt, learnt[targets] / variance[place])
            deviations, variance = after(deviations, noise, place), variance - learnt**2 / variance[place]
        return chosen
