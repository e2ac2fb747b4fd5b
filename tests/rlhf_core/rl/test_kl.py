import math

import pytest
import torch

from rlhf_core.rl.kl import k1, k2, k3, next_coefficient


def test_by_hand():
    p, q = torch.tensor([0.5, 0.1]).log(), torch.tensor([0.25, 0.2]).log()
    torch.testing.assert_close(k1(p, q), torch.tensor([math.log(2), -math.log(2)]))
    torch.testing.assert_close(k2(p, q), torch.full((2,), math.log(2) ** 2 / 2))
    torch.testing.assert_close(k3(p, q), torch.tensor([0.5 - 1 + math.log(2), 2 - 1 - math.log(2)]))


def test_expectations_over_the_policy():
    """k1 and k3 average to the exact divergence under the policy, k2 does not; k2 and k3 are never negative."""
    random = torch.Generator().manual_seed(0)
    p, q = (torch.randn(12, generator=random, dtype=torch.float64).log_softmax(0) for _ in range(2))
    exact = float((p.exp() * (p - q)).sum())
    means = [float((p.exp() * estimate(p, q)).sum()) for estimate in (k1, k2, k3)]
    assert means[0] == pytest.approx(exact)
    assert means[2] == pytest.approx(exact)
    assert abs(means[1] - exact) > 1e-3
    assert k1(p, q).min() < 0 <= k2(p, q).min()
    assert k3(p, q).min() >= 0


def test_the_gradient_of_k2_is_the_gradient_of_the_divergence():
    """Averaged over samples of the policy, which k1's is not (it is zero)."""
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(9, generator=random, dtype=torch.float64, requires_grad=True)
    q = torch.randn(9, generator=random, dtype=torch.float64).log_softmax(0)
    p = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((p.exp() * (p - q)).sum(), logits, retain_graph=True)
    (of_k2,) = torch.autograd.grad((p.exp().detach() * k2(p, q)).sum(), logits, retain_graph=True)
    (of_k1,) = torch.autograd.grad((p.exp().detach() * k1(p, q)).sum(), logits)
    torch.testing.assert_close(of_k2, exact)
    assert of_k1.abs().max() < 1e-12


def test_controller():
    def step(kl, target=6.0):
        return next_coefficient(0.1, kl, target=target, samples=64, horizon=640)

    assert step(6.0) == pytest.approx(0.1)
    assert step(6.6) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert step(60.0) == pytest.approx(0.1 * (1 + 0.2 * 0.1)), "the error is clipped"
    assert step(-3.0) == pytest.approx(0.1 * (1 - 0.2 * 0.1))
    assert step(60.0, target=None) == 0.1


def test_the_controller_settles_at_its_target():
    """On a plant whose divergence falls as the coefficient rises."""
    coefficient = 0.01
    for _ in range(400):
        coefficient = next_coefficient(coefficient, 1 / coefficient, target=6.0, samples=64, horizon=640)
    assert 1 / coefficient == pytest.approx(6.0, rel=0.01)
