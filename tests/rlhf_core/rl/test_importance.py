import pytest
import torch

from rlhf_core.rl.importance import mismatch, truncated_weights

NAN = float("nan")
MASK = torch.tensor([[True, True, True, False]])


def test_by_hand():
    trainer = torch.tensor([[0.2, 0.6, 0.1, NAN]]).log()
    sampler = torch.tensor([[0.4, 0.1, 0.1, NAN]]).log()
    torch.testing.assert_close(truncated_weights(trainer, sampler, MASK, cap=2.0), torch.tensor([[0.5, 2.0, 1.0, 0.0]]))
    expected = (torch.tensor(2.0).log() + torch.tensor(6.0).log()) / 3
    torch.testing.assert_close(mismatch(trainer, sampler, MASK), expected)


def test_weights_carry_no_gradient():
    trainer = torch.zeros(1, 4, requires_grad=True)
    assert not truncated_weights(trainer, torch.zeros(1, 4), MASK, cap=2.0).requires_grad


def test_corrected_gradients_of_another_sampler_are_those_of_the_trainer():
    """Averaged over everything the sampler can say. A cap that bites leaves a bias, and a smaller one."""
    logits = torch.tensor([0.2, 0.4, -0.3], dtype=torch.float64, requires_grad=True)
    sampler = (logits.detach() + torch.tensor([0.3, -0.4, 0.2])).log_softmax(0)
    advantages = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    log_p, one = logits.log_softmax(0), torch.ones(3, dtype=torch.bool)

    def gradient(weights, probabilities):
        return torch.autograd.grad((probabilities * weights * advantages * log_p).sum(), logits, retain_graph=True)[0]

    exact = gradient(torch.ones(3), log_p.exp().detach())
    wrong = gradient(torch.ones(3), sampler.exp())
    corrected = gradient(truncated_weights(log_p, sampler, one, cap=10.0), sampler.exp())
    capped = gradient(truncated_weights(log_p, sampler, one, cap=1.2), sampler.exp())
    torch.testing.assert_close(corrected, exact)
    assert (wrong - exact).norm() > (capped - exact).norm() > 1e-3
    assert truncated_weights(log_p, sampler, one, cap=1.2).max() == pytest.approx(1.2)
