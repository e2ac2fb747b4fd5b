"""How a true reward rises and turns while a proxy of it is optimised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class GaoCurve(NamedTuple):
    """R(d) = d (a - b log d) with d = sqrt(KL): the gain in true reward under RL (Gao et al. 2022, eq. 1)."""

    a: float
    b: float

    def gain(self, kl: float) -> float:
        """The true reward above that of the reference at a divergence of `kl` nats."""
        return math.sqrt(kl) * (self.a - self.b * math.log(kl) / 2) if kl > 0 else 0.0

    @property
    def turn(self) -> float | None:
        """The divergence in nats beyond which the true reward falls: d = exp(a / b - 1). None where it never does."""
        return math.exp(2 * (self.a / self.b - 1)) if self.b > 0 and self.a / self.b < 300 else None


def fit_gao(kl: Sequence[float], gain: Sequence[float]) -> GaoCurve | None:
    """The least-squares curve through `gain`s in true reward at divergences `kl` in nats.

    None for fewer than three different positive divergences: two would be met by a curve that says nothing.
    """
    import numpy as np

    points = [(math.sqrt(k), g) for k, g in zip(kl, gain, strict=True) if k > 0]
    if len({d for d, _ in points}) < 3:
        return None
    d, y = (np.array(column) for column in zip(*points, strict=True))
    (a, b), *_ = np.linalg.lstsq(np.stack([d, -d * np.log(d)], axis=1), y, rcond=None)
    return GaoCurve(float(a), float(b))
