"""Intervals of shares against SciPy's."""

import pytest
from scipy.stats import binomtest

from rlhf_core.metrics import mean_share, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (7, 10), (97, 100), (150, 200)])
def test_the_interval_of_a_share_is_wilsons(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)
    found = mean_share([1.0] * hits + [0.0] * (n - hits))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert (found.value, found.n) == (hits / n, n)


def test_halves_count_half_and_nothing_has_no_share():
    assert mean_share([1.0, 0.5, 0.0, 0.5]).value == 0.5
    with pytest.raises(ValueError, match="no outcomes"):
        mean_share([])
