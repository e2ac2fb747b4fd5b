"""Bayesian logistic regression: the posterior of linear weights as a normal distribution around its mode."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_core.health import sigmoid

Floats = NDArray[np.float64]
STEPS = 50
"""Newton steps at most; a handful are enough, as the log posterior is concave."""


class Posterior(NamedTuple):
    """N(mode, precision^-1) over D weights."""

    mode: Floats
    """[D]"""
    root: Floats
    """[D, D], lower triangular, with precision = root @ root.T."""
    evidence: float
    """Log of the probability of what was observed under the prior, in nats (Laplace's approximation)."""

    def draws(self, normal: Floats) -> Floats:
        """[D, M] deviations from the mode, made of standard normal numbers [D, M]: root^-T z has this covariance."""
        from scipy.linalg import solve_triangular

        found: Floats = solve_triangular(self.root, normal, lower=True, trans="T")
        return found


def laplace(x: Floats, stated: Floats, weight: Floats, variance: float) -> Posterior:
    """The posterior of w under w ~ N(0, variance I) and P(y = 1 | x) = sigma(w . x) (MacKay 1992; Bishop 2006, 4.5).

    `x` is [N, D], `stated` [N] in [0, 1] and `weight` [N] the number of answers behind each. The mode maximises
    L(w) = sum weight * [y log sigma(w.x) + (1 - y) log sigma(-w.x)] - |w|^2 / (2 variance); the precision is
    X' diag(weight p (1 - p)) X + I / variance, and log evidence = L(mode) - D/2 log variance - 1/2 log |precision|.
    """
    from scipy.linalg import cho_solve

    d = x.shape[1]
    w = np.zeros(d)

    def objective(w: Floats) -> float:
        f = x @ w
        return float(weight @ (stated * f - np.logaddexp(0, f)) - w @ w / (2 * variance))

    def root(p: Floats) -> Floats:
        found: Floats = np.linalg.cholesky((x.T * (weight * p * (1 - p))) @ x + np.eye(d) / variance)
        return found

    value = objective(w)
    for _ in range(STEPS):
        p = sigmoid(x @ w)
        step = cho_solve((root(p), True), x.T @ (weight * (stated - p)) - w / variance)
        size = 1.0
        while (found := objective(w + size * step)) < value and size > 1e-6:
            size /= 2
        w, gained, value = w + size * step, found - value, found
        if gained < 1e-9 * (1 + abs(value)):
            break
    factor = root(sigmoid(x @ w))
    return Posterior(w, factor, value - d / 2 * np.log(variance) - float(np.log(np.diag(factor)).sum()))
