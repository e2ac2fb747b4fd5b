import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from rlhf_core.health import fit_temperature


def test_temperature_equals_scipy():
    rng = np.random.default_rng(0)
    margins, weight = rng.normal(size=200) * 3, rng.integers(1, 4, 200).astype(float)
    stated = (rng.random(200) < 1 / (1 + np.exp(-margins / 2.5))).astype(float)

    def loss(log_t):
        scaled = margins / np.exp(log_t)
        return np.average(np.logaddexp(0, -scaled) * stated + np.logaddexp(0, scaled) * (1 - stated), weights=weight)

    expected = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert fit_temperature(margins, stated, weight) == pytest.approx(expected, rel=1e-4)
    assert fit_temperature(margins, 1.0 - (margins > 0), weight) == pytest.approx(20)
    assert fit_temperature(margins, 1.0 * (margins > 0), weight) == pytest.approx(0.05)
