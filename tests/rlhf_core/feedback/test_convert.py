import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.feedback.convert import clicks_to_probability, ranking_pairs, rating_pairs, two_proportion_z


def test_a_ranking_holds_all_its_pairs_and_ties():
    assert ranking_pairs([2, 1, 2]) == [(0, 1, 0.0), (0, 2, 0.5), (1, 2, 1.0)]


def test_few_ratings_are_all_compared():
    assert rating_pairs([0.2, 0.9, 0.25], partners=4) == [(0, 1, 0.0), (0, 2, 0.0), (1, 2, 1.0)]
    assert rating_pairs([0.2, 0.9, 0.25], partners=4, tie_below=0.05 + 1e-9)[1] == (0, 2, 0.5)


@given(st.integers(2, 40), st.integers(1, 4))
def test_many_ratings_get_a_bounded_number_of_different_partners(n, partners):
    pairs = rating_pairs([float(i) for i in range(n)], partners=partners)
    places = [(pair.first, pair.second) for pair in pairs]
    assert len(set(places)) == len(places)
    assert all(first < second for first, second in places)
    assert all(pair.probability == 0.0 for pair in pairs)
    degrees = Counter(i for place in places for i in place)
    assert set(degrees.values()) == {min(n - 1, 2 * partners)}


def test_z_by_hand():
    # 30 of 1000 against 10 of 1000: pooled 0.02, variance 0.02 * 0.98 * 0.002 = 0.0000392, z = 0.02 / 0.006261.
    assert two_proportion_z(30, 1000, 10, 1000) == pytest.approx(3.19438, abs=1e-5)
    assert clicks_to_probability(30, 1000, 10, 1000) == pytest.approx(0.999299, abs=1e-6)


@pytest.mark.parametrize("counts", [(0, 10, 0, 20), (10, 10, 20, 20)])
def test_nothing_tells_apart_where_nobody_or_everybody_clicked(counts):
    assert clicks_to_probability(*counts) == 0.5


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_z_squared_is_pearsons_chi_squared(exposures_a, exposures_b, rate_a, rate_b):
    from scipy.stats import chi2_contingency, norm

    a, b = round(rate_a * exposures_a), round(rate_b * exposures_b)
    if a + b in (0, exposures_a + exposures_b):
        return
    chi2 = chi2_contingency([[a, exposures_a - a], [b, exposures_b - b]], correction=False).statistic
    z = two_proportion_z(a, exposures_a, b, exposures_b)
    assert z * z == pytest.approx(chi2, abs=1e-9, rel=1e-9)
    assert clicks_to_probability(a, exposures_a, b, exposures_b) == pytest.approx(norm.cdf(z), abs=1e-12)
    swapped = clicks_to_probability(b, exposures_b, a, exposures_a)
    assert math.isclose(swapped, 1 - norm.cdf(z), abs_tol=1e-12)
