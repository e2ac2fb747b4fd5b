import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.rl.losses import imitation_loss, policy_loss, value_loss

MASK = torch.tensor([[True, True, False]])


def test_policy_loss_by_hand():
    ratio = torch.tensor([[1.5, 0.9, 7.0]])
    advantages = torch.tensor([[2.0, -1.0, 5.0]])
    result = policy_loss(ratio.log(), torch.zeros(1, 3), advantages, MASK, clip=0.2, tokens=4)
    assert float(result.loss) == pytest.approx(-(1.2 * 2.0 - 0.9) / 4)
    torch.testing.assert_close(result.ratio, torch.tensor([[1.5, 0.9, 1.0]]))
    assert result.clipped.tolist() == [[True, False, False]]


@pytest.mark.parametrize(("ratio", "advantage", "moves"), [
    (1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False), (1.1, 1.0, True),
])  # fmt: skip
def test_clipping_stops_only_moves_further_away(ratio, advantage, moves):
    logprobs = torch.tensor([[ratio]]).log().requires_grad_()
    one = torch.ones(1, 1)
    result = policy_loss(logprobs, 0 * one, advantage * one, one.bool(), clip=0.2, tokens=1)
    result.loss.backward()
    assert bool(logprobs.grad.abs() > 0) is moves
    assert bool(result.clipped) is not moves


def test_value_loss_by_hand():
    values, old = torch.tensor([[3.0, 1.1, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    returns = torch.tensor([[4.0, 2.0, 0.0]])
    # bounded: 1.2 -> (1.2 - 4)^2 is worse than (3 - 4)^2;  1.1 -> .9^2 both ways
    assert float(value_loss(values, old, returns, MASK, clip=0.2, tokens=2)) == pytest.approx((2.8**2 + 0.9**2) / 4)
    assert float(value_loss(values, old, returns, MASK, clip=None, tokens=2)) == pytest.approx((1 + 0.9**2) / 4)


def test_imitation_loss_is_a_weighted_mean_over_tokens():
    logprobs = torch.tensor([[-1.0, -2.0, -50.0], [-4.0, -50.0, -50.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    loss = imitation_loss(logprobs, mask, torch.tensor([1.0, 3.0]), tokens=1 + 1 + 3)
    assert float(loss) == pytest.approx((1 + 2 + 3 * 4) / (1 + 1 + 3))


def losses(mask, old, targets):
    """The three losses as functions of one [B, T] tensor; at these inputs no term sits on a kink."""
    weights = torch.linspace(0.5, 2, len(mask), dtype=torch.float64)
    return {
        "policy": lambda x: policy_loss(x, old, targets, mask, clip=0.2, tokens=7).loss,
        "value": lambda x: value_loss(x, old, targets, mask, clip=0.2, tokens=7),
        "imitation": lambda x: imitation_loss(x, mask, weights, tokens=7),
    }


def inputs(seed):
    random = torch.Generator().manual_seed(seed)
    x, old, targets = (torch.randn(3, 4, generator=random, dtype=torch.float64) for _ in range(3))
    return x, old, targets, torch.arange(4) < torch.randint(1, 5, (3, 1), generator=random)


@pytest.mark.parametrize("name", ["policy", "value", "imitation"])
def test_gradients_equal_finite_differences(name):
    x, old, targets, mask = inputs(0)
    assert torch.autograd.gradcheck(losses(mask, old, targets)[name], x.requires_grad_(), eps=1e-7, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), garbage=st.sampled_from([1e30, float("inf"), float("nan")]))
def test_padding_never_leaks_into_loss_or_gradient(seed, garbage):
    x, old, targets, mask = inputs(seed)
    dirty = [torch.where(mask, y, garbage) for y in (x, old, targets)]
    for name in ("policy", "value", "imitation"):
        clean_x, dirty_x = x.clone().requires_grad_(), dirty[0].clone().requires_grad_()
        clean = losses(mask, old, targets)[name](clean_x)
        leaky = losses(mask, dirty[1], dirty[2])[name](dirty_x)
        assert clean.item() == leaky.item(), name
        clean.backward()
        leaky.backward()
        assert torch.equal(clean_x.grad, dirty_x.grad), name


@pytest.mark.parametrize("name", ["policy", "value"])
def test_micro_batches_add_up(name):
    x, old, targets, mask = inputs(3)
    whole = losses(mask, old, targets)[name](x)
    parts = sum(losses(mask[i : i + 1], old[i : i + 1], targets[i : i + 1])[name](x[i : i + 1]) for i in range(3))
    torch.testing.assert_close(whole, parts)
