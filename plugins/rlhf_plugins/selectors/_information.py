"""What an answer about one pair would teach about others, from how a committee's opinions vary together.

N pairs with `deviations` [N, M]: each member's score difference less the committee's mean, over sqrt(M - 1), so that
deviations @ deviations.T is the covariance of the differences. An answer is taken for a measurement of its pair's
difference with `noise` [N], 1 / (p (1 - p)): the inverse Fisher information of a preference of probability p in logits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SUREST = 1e-4
"""p (1 - p) is at least this: no answer is known for certain."""


def beliefs(differences: Floats) -> tuple[Floats, Floats]:
    """Deviations [N, M] and noise [N] of a committee's score differences [N, M], M > 1."""
    mean = differences.mean(axis=1, keepdims=True)
    p = 0.5 * (1 + np.tanh(mean[:, 0] / 2))
    deviations: Floats = (differences - mean) / (differences.shape[1] - 1) ** 0.5
    return deviations, 1 / np.maximum(p * (1 - p), SUREST)


def predictive_information(covariance: Floats, variance: Floats, targets: Floats) -> Floats:
    """[N]: nats that an answer about each pair says about an answer about a target, the mean over T targets.

    `covariance` [N, T] with the targets' differences; `variance` [N] and `targets` [T] are those of the answers, the
    differences' own plus the noise. For normal variables the mutual information is -log(1 - rho^2) / 2.
    """
    rho = covariance**2 / (variance[:, None] * targets)
    found: Floats = -0.5 * np.log1p(-np.minimum(rho, 1 - 1e-9)).mean(axis=1)
    return found


def after(deviations: Floats, noise: Floats, asked: int) -> Floats:
    """The deviations [N, M] once pair number `asked` will have been answered, whatever the answer.

    A square root of the conditional covariance K - k k' / (v + r) with k = K[:, asked], v = k[asked] and the noise r
    (Potter's update of the Kalman filter).
    """
    one = deviations[asked]
    v, r = float(one @ one), float(noise[asked])
    if v == 0:
        return deviations
    share = (1 - (r / (r + v)) ** 0.5) / v
    found: Floats = deviations - share * np.outer(deviations @ one, one)
    return found
