import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.rl.losses import divergence_loss, imitation_loss, policy_loss, value_loss

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


def test_clip_higher_and_dual_clip_by_hand():
    one = torch.ones(1, 4)
    ratio = torch.tensor([[1.25, 1.5, 5.0, 1.1]])
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    options = {"clip": 0.2, "clip_high": 0.28, "tokens": 1}
    plain = policy_loss(ratio.log(), 0 * one, advantages, one.bool(), **options)
    assert float(plain.loss) == pytest.approx(-(1.25 + 1.28 - 5.0 - 1.1))
    assert plain.clipped.tolist() == [[False, True, False, False]]
    dual = policy_loss(ratio.log(), 0 * one, advantages, one.bool(), **options, dual_clip=3.0)
    assert float(dual.loss) == pytest.approx(-(1.25 + 1.28 - 3.0 - 1.1))
    assert dual.clipped.tolist() == [[False, True, True, False]]


def test_divergence_loss_by_hand():
    logprobs, reference = torch.tensor([[0.5, 0.1, 0.9]]).log(), torch.tensor([[0.25, 0.2, 0.9]]).log()
    half = 0.5 * (0.6931472**2 * 2)
    assert float(divergence_loss(logprobs, reference, MASK, estimator="k2", tokens=4)) == pytest.approx(half / 4)
    k3 = (0.5 - 1 + 0.6931472) + (2 - 1 - 0.6931472)
    assert float(divergence_loss(logprobs, reference, MASK, estimator="k3", tokens=4)) == pytest.approx(k3 / 4)


def test_which_divergence_the_estimators_pull_along():
    """Averaged over the policy: k2 along KL(policy || reference), k3 along KL(reference || policy)."""
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(6, generator=random, dtype=torch.float64, requires_grad=True)
    q = torch.randn(6, generator=random, dtype=torch.float64).log_softmax(0)
    p, one = logits.log_softmax(0), torch.ones(1, 1, dtype=torch.bool)
    exact = {"k2": (p.exp() * (p - q)).sum(), "k3": (q.exp() * (q - p)).sum()}
    for estimator, divergence in exact.items():
        (expected,) = torch.autograd.grad(divergence, logits, retain_graph=True)
        pulls = [
            p[y].exp().detach() * divergence_loss(p[y].view(1, 1), q[y].view(1, 1), one, estimator=estimator, tokens=1)
            for y in range(6)
        ]
        (gradient,) = torch.autograd.grad(sum(pulls), logits, retain_graph=True)
        torch.testing.assert_close(gradient, expected)


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
    """The losses as functions of one [B, T] tensor; at these inputs no term sits on a kink."""
    weights = torch.linspace(0.5, 2, len(mask), dtype=torch.float64)
    return {
        "policy": lambda x: policy_loss(x, old, targets, mask, clip=0.2, tokens=7).loss,
        "dual": lambda x: policy_loss(x, old, targets, mask, clip=0.2, clip_high=0.4, dual_clip=1.5, tokens=7).loss,
        "divergence": lambda x: divergence_loss(x, old, mask, estimator="k3", tokens=7),
        "value": lambda x: value_loss(x, old, targets, mask, clip=0.2, tokens=7),
        "imitation": lambda x: imitation_loss(x, mask, weights, tokens=7),
    }


def inputs(seed):
    random = torch.Generator().manual_seed(seed)
    x, old, targets = (torch.randn(3, 4, generator=random, dtype=torch.float64) for _ in range(3))
    return x, old, targets, torch.arange(4) < torch.randint(1, 5, (3, 1), generator=random)


@pytest.mark.parametrize("name", ["policy", "dual", "value", "divergence", "imitation"])
def test_gradients_equal_finite_differences(name):
    x, old, targets, mask = inputs(0)
    assert torch.autograd.gradcheck(losses(mask, old, targets)[name], x.requires_grad_(), eps=1e-7, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), garbage=st.sampled_from([1e30, float("inf"), float("nan")]))
def test_padding_never_leaks_into_loss_or_gradient(seed, garbage):
    x, old, targets, mask = inputs(seed)
    dirty = [torch.where(mask, y, garbage) for y in (x, old, targets)]
    for name in ("policy", "dual", "value", "divergence", "imitation"):
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
