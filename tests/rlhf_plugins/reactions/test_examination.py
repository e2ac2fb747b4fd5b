import numpy as np
import pytest

from rlhf_plugins.reactions.examination import examination, examined

BY_HAND = {("a", 1): (20, 100), ("a", 2): (10, 100), ("b", 2): (10, 100)}
"""`a` gets half as many clicks at the second position, so half of the people look there: b is liked as much as a."""


def test_by_hand():
    found = examination(BY_HAND)
    assert found.shares == pytest.approx({1: 1.0, 2: 0.5})
    assert found.linked == {1: 0, 2: 0}
    assert examined(20 + 10, {1: 100, 2: 100}, found.shares) == pytest.approx(150)
    assert examined(10, {2: 100}, found.shares) == pytest.approx(50)  # 10 / 50 = 30 / 150


def test_one_position_is_worth_all():
    assert examination({("a", 0): (3, 10), ("b", 0): (0, 10)}).shares == {0: 1.0}
    assert examination({}) == ({}, {})


def test_reactions_are_never_more_than_exposures():
    assert examined(10, {1: 100}, {1: 0.05}) == 10


def test_positions_that_no_item_links_are_told_apart():
    cells = {("a", 1): (1, 10), ("b", 2): (5, 10), ("b", 3): (5, 10), ("c", 7): (0, 10)}
    found = examination(cells)
    assert found.linked[2] == found.linked[3]
    assert len({found.linked[1], found.linked[2], found.linked[7]}) == 3
    assert found.shares == {1: 1.0, 2: 1.0, 3: 1.0, 7: 0.0}


def simulated(seed):
    """Clicks drawn from the model; each item mostly stands at positions of its own."""
    dice = np.random.default_rng(seed)
    looks = np.array([1.0, 0.6, 0.35, 0.2])
    liking = dice.uniform(0.05, 0.6, 30)
    shown = dice.multinomial(2000, [0.25] * 4, 30)
    shown += dice.integers(0, 4000, shown.shape)
    return looks, liking, shown, dice.binomial(shown, liking[:, None] * looks)


def test_it_is_the_maximum_of_the_poisson_likelihood():
    """As scikit-learn finds it: log rate = log t_k + log g_i."""
    from sklearn.linear_model import PoissonRegressor

    _, _, shown, clicked = simulated(1)
    cells = {(i, k): (int(clicked[i, k]), int(shown[i, k])) for i in range(30) for k in range(4)}
    one_hot = np.array([[*(i == j for j in range(30)), *(k == j for j in range(1, 4))] for i, k in cells], dtype=float)
    counts, impressions = np.array(list(cells.values()), dtype=float).T
    model = PoissonRegressor(alpha=0, fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=500)
    model.fit(one_hot, counts / impressions, sample_weight=impressions)
    theirs = np.exp([0, *model.coef_[30:]])
    assert [examination(cells).shares[k] for k in range(4)] == pytest.approx(list(theirs / theirs.max()), rel=1e-5)


def test_it_finds_what_the_clicks_were_drawn_from():
    looks, liking, shown, clicked = simulated(2)
    cells = {(i, k): (int(clicked[i, k]), int(shown[i, k])) for i in range(30) for k in range(4)}
    shares = examination(cells).shares
    assert [shares[k] for k in range(4)] == pytest.approx(list(looks), rel=0.05)
    corrected = [clicked[i].sum() / examined(0, dict(enumerate(shown[i])), shares) for i in range(30)]
    assert corrected == pytest.approx(list(liking), rel=0.1)
