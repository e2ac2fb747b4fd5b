import math

import pytest

from rlhf_core.rl.overoptimisation import GaoCurve, fit_gao


def test_by_hand():
    curve = GaoCurve(a=2.0, b=0.5)
    assert curve.gain(1.0) == 2.0
    assert curve.gain(math.e**2) == pytest.approx(math.e * 1.5)
    assert curve.gain(0.0) == 0.0
    assert curve.turn == pytest.approx(math.exp(6.0))


def test_the_turn_is_the_maximum():
    curve = GaoCurve(a=1.0, b=0.7)
    assert curve.turn is not None
    assert all(curve.gain(curve.turn) > curve.gain(curve.turn * factor) for factor in (0.9, 1.1))
    assert GaoCurve(a=1.0, b=0.0).turn is None
    assert GaoCurve(a=1.0, b=-1.0).turn is None


def test_a_fit_finds_the_curve_it_was_made_from():
    truth = GaoCurve(a=1.7, b=0.4)
    kl = [0.0, 0.5, 2.0, 5.0, 11.0, 30.0]
    found = fit_gao(kl, [truth.gain(k) for k in kl])
    assert found == pytest.approx(truth)
    assert fit_gao([0.0, -0.1, 1.0, 2.0], [0.0, 0.0, 1.0, 2.0]) is None
