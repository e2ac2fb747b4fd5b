import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.rl.advantages import explained_variance, generalised_advantages


def naive(rewards, values, lengths, gamma, lam, final_values):
    """Eq. 16 as the double sum it is: A_t = sum_l (gamma lam)^l delta_{t+l}."""
    advantages = torch.zeros_like(rewards)
    for row, length in enumerate(lengths):
        states = [*values[row, :length].tolist(), float(final_values[row])]
        delta = [float(rewards[row, t]) + gamma * states[t + 1] - states[t] for t in range(length)]
        for t in range(length):
            advantages[row, t] = sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, length))
    return advantages


def test_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 2.0], [3.0, 99.0, 99.0]])
    values = torch.tensor([[0.5, 1.0, 1.5], [1.0, 99.0, 99.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=0.5, lam=0.5)
    # delta = 1 + .5*1 - .5 = 1;  0 + .5*1.5 - 1 = -.25;  2 - 1.5 = .5
    expected = torch.tensor([[1 - 0.0625 + 0.03125, -0.25 + 0.125, 0.5], [2.0, 0.0, 0.0]])
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(returns, torch.tensor([[0.96875 + 0.5, 0.875, 2.0], [3.0, 0.0, 0.0]]))


def test_the_extra_state_of_a_cut_episode_is_bootstrapped():
    rewards, values = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 50.0]])
    mask = torch.tensor([[True, False]])
    advantages, _ = generalised_advantages(
        rewards, values, mask, gamma=0.9, lam=0.95, final_values=torch.tensor([10.0])
    )
    torch.testing.assert_close(advantages, torch.tensor([[1 + 9.0 - 2.0, 0.0]]))


def test_without_discount_and_with_lambda_one_it_is_return_minus_value():
    rewards, values = torch.tensor([[0.1, 0.2, 0.7]]), torch.tensor([[0.4, 0.3, 0.2]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[1.0, 0.9, 0.7]]))
    torch.testing.assert_close(advantages, torch.tensor([[0.6, 0.6, 0.5]]))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    garbage=st.sampled_from([1e30, float("nan")]),
)
def test_equals_the_double_sum_and_padding_changes_nothing(seed, gamma, lam, garbage):
    random = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(4, 6, generator=random, dtype=torch.float64) for _ in range(2))
    final = torch.randn(4, generator=random, dtype=torch.float64)
    lengths = torch.randint(1, 7, (4,), generator=random)
    mask = torch.arange(6) < lengths[:, None]
    dirty = [torch.where(mask, x, garbage) for x in (rewards, values)]
    advantages, returns = generalised_advantages(*dirty, mask, gamma=gamma, lam=lam, final_values=final)
    expected = naive(rewards, values, lengths.tolist(), gamma, lam, final)
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(returns, torch.where(mask, expected + values, 0.0))


def test_explained_variance():
    mask = torch.tensor([[True, True, True, False]])
    returns = torch.tensor([[1.0, 2.0, 6.0, float("nan")]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.full_like(returns, 5.0), returns, mask).abs() < 1e-6
    assert explained_variance(-returns, returns, mask) < 0
    assert explained_variance(torch.randn(1, 4), torch.ones(1, 4), mask) == 0.0


def test_explained_variance_agrees_with_scikit_learn():
    from sklearn.metrics import explained_variance_score

    random = torch.Generator().manual_seed(0)
    returns = torch.randn(5, 7, generator=random)
    values = returns + 0.5 * torch.randn(5, 7, generator=random)
    mask = torch.rand(5, 7, generator=random) < 0.7
    expected = explained_variance_score(returns[mask].numpy(), values[mask].numpy())
    assert abs(float(explained_variance(values, returns, mask)) - expected) < 1e-5
