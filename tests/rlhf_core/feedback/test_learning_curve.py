"""Learning curves against SciPy's least squares, and what they say about a target."""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit

from rlhf_core.feedback.learning_curve import Curve, fit_curve, resampled_curves

SIZES = [25, 50, 100, 200, 400, 800]


def test_a_power_law_comes_back():
    true = Curve(0.85, 1.2, 0.5)
    found = fit_curve(SIZES, [true.at(n) for n in SIZES])
    assert found.at(1600) == pytest.approx(true.at(1600), abs=0.003)
    assert found.needed(0.8) == pytest.approx((1.2 / 0.05) ** 2, rel=0.1)


def test_it_fits_as_well_as_scipy():
    rng = np.random.default_rng(0)
    for _ in range(10):
        y = [0.8 - 0.9 * n**-0.4 + rng.normal(0, 0.01) for n in SIZES]
        ours = fit_curve(SIZES, y)
        parameters, _ = curve_fit(
            lambda n, a, b, c: a - b * n**-c, SIZES, y, p0=[0.8, 1, 0.5], bounds=([0, 0, 0.1], [1, np.inf, 2])
        )
        theirs = Curve(*parameters)
        error = [sum((c.at(n) - v) ** 2 for n, v in zip(SIZES, y, strict=True)) for c in (ours, theirs)]
        assert error[0] <= error[1] * 1.02 + 1e-9


def test_what_is_out_of_reach_is_never_reached():
    assert Curve(0.7, 1.0, 0.5).needed(0.75) == math.inf
    assert Curve(0.9, 1.0, 0.5).needed(0.8) == pytest.approx(100)
    assert fit_curve(SIZES, [0.7] * 6).needed(0.75) == math.inf
    assert fit_curve(SIZES, [0.7] * 6).needed(0.65) == 1


def test_a_falling_series_is_flat_and_none_rises_above_one():
    flat = fit_curve([10, 20, 40], [0.8, 0.7, 0.6])
    assert (flat.gap, flat.ceiling) == (0, pytest.approx(0.7))
    assert fit_curve([10, 20, 40], [0.5, 0.8, 0.99]).ceiling <= 1


def test_resampled_curves_cover_the_truth():
    true = Curve(0.85, 1.2, 0.5)
    covered = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        right = [(rng.random((3, 300)) < true.at(n)).astype(float) for n in SIZES]
        values = [curve.at(400) for curve in resampled_curves(SIZES, right, resamples=100, seed=seed)]
        low, high = np.quantile(values, [0.025, 0.975])
        covered += low <= true.at(400) <= high
        assert high - low < 0.08
    assert covered >= 16
