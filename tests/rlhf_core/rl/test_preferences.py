import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.rl.preferences import bradley_terry, dpo_loss, ipo_loss, margins

SURE = torch.ones(1)


def test_by_hand():
    margin = torch.tensor([2.0])
    assert float(dpo_loss(margin, SURE, beta=0.5)) == pytest.approx(math.log(1 + math.exp(-1)))
    assert float(dpo_loss(margin, 0 * SURE, beta=0.5)) == pytest.approx(math.log(1 + math.exp(1)))
    smooth = 0.9 * math.log(1 + math.exp(-1)) + 0.1 * math.log(1 + math.exp(1))
    assert float(dpo_loss(margin, 0.9 * SURE, beta=0.5)) == pytest.approx(smooth)
    assert float(ipo_loss(margin, SURE, beta=0.5)) == pytest.approx(1.0)
    assert float(ipo_loss(margin, 0.75 * SURE, beta=0.5)) == pytest.approx(0.75 * 1 + 0.25 * 9)


def test_margins_by_hand_and_without_padding():
    nan = float("nan")
    logprobs = torch.tensor([[-1.0, -2.0], [-3.0, nan]])
    reference = torch.tensor([[-2.0, -2.5], [-1.0, nan]])
    mask = torch.tensor([[True, True], [True, False]])
    assert margins(logprobs, reference, mask).tolist() == [pytest.approx(1.5 + 2.0)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), garbage=st.sampled_from([1e30, float("inf"), float("nan")]))
def test_padding_never_leaks(seed, garbage):
    random = torch.Generator().manual_seed(seed)
    logprobs, reference = (torch.randn(6, 4, generator=random, dtype=torch.float64) for _ in range(2))
    mask = torch.arange(4) < torch.randint(1, 5, (6, 1), generator=random)
    wins = torch.rand(3, generator=random, dtype=torch.float64)
    gradients = []
    for fill in (0.0, garbage):
        x = torch.where(mask, logprobs, fill).requires_grad_()
        margin = margins(x, torch.where(mask, reference, fill), mask)
        (dpo_loss(margin, wins, beta=0.3) + ipo_loss(margin, wins, beta=0.3)).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss])
def test_gradients_equal_finite_differences_and_swapping_a_pair_swaps_its_label(loss):
    random = torch.Generator().manual_seed(3)
    margin = torch.randn(5, generator=random, dtype=torch.float64, requires_grad=True)
    wins = torch.rand(5, generator=random, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, wins, beta=0.4), margin)
    torch.testing.assert_close(loss(margin, wins, beta=0.4), loss(-margin, 1 - wins, beta=0.4))


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss])
def test_a_shift_of_all_log_probabilities_changes_nothing(loss):
    """The normaliser of the policy cancels within a pair."""
    random = torch.Generator().manual_seed(4)
    logprobs, reference = (torch.randn(4, 1, generator=random) for _ in range(2))
    mask = torch.ones(4, 1, dtype=torch.bool)
    wins = torch.rand(2, generator=random)
    shifted = loss(margins(logprobs - 7.0, reference + 3.0, mask), wins, beta=0.2)
    torch.testing.assert_close(shifted, loss(margins(logprobs, reference, mask), wins, beta=0.2), rtol=1e-4, atol=1e-5)


def test_dpo_with_bradley_terry_labels_has_the_kl_regularised_optimum():
    """pi*(y) ~ pi_ref(y) exp(r(y) / beta), found by descent on all pairs of five answers."""
    random = torch.Generator().manual_seed(0)
    reference = torch.randn(5, generator=random, dtype=torch.float64).log_softmax(0)
    reward = torch.randn(5, generator=random, dtype=torch.float64)
    beta = 0.5
    first, second = torch.triu_indices(5, 5, offset=1)
    wins = bradley_terry(reward[first], reward[second])
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)

    def descend():
        optimizer.zero_grad()
        gain = logits.log_softmax(0) - reference
        loss = dpo_loss(gain[first] - gain[second], wins, beta=beta).mean()
        loss.backward()
        return loss

    optimizer.step(descend)
    optimum = (reference + reward / beta).softmax(0)
    assert 0.5 * (logits.softmax(0) - optimum).abs().sum() < 1e-6


def test_the_margin_that_ipo_wants_is_finite():
    margin = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([margin], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        ipo_loss(margin, 0.9 * SURE, beta=0.25).sum().backward()
        optimizer.step()
    assert margin.item() == pytest.approx(0.8 / 0.5, abs=1e-4)
