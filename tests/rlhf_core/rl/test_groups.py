import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.rl.baselines import next_baseline
from rlhf_core.rl.groups import best_and_worst, group_relative, leave_one_out, spread_over_tokens, token_weights

SCORES = torch.tensor([1.0, 2.0, 6.0, 4.0, 4.0, 4.0])


def test_leave_one_out_by_hand():
    expected = [1 - 4.0, 2 - 3.5, 6 - 1.5, 0.0, 0.0, 0.0]
    torch.testing.assert_close(leave_one_out(SCORES, 3), torch.tensor(expected))


def test_group_relative_by_hand():
    std = 7**0.5  # of 1, 2, 6: (4 + 1 + 9) / 2
    expected = torch.tensor([-2.0, -1.0, 3.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(group_relative(SCORES, 3, scale="none"), expected)
    torch.testing.assert_close(group_relative(SCORES, 3, epsilon=0.0)[:3], expected[:3] / std)
    assert group_relative(SCORES, 3)[3:].abs().max() == 0, "equal scores teach nothing, and divide by nothing"
    torch.testing.assert_close(group_relative(SCORES, 3, scale="batch", epsilon=0.0), expected / SCORES.std())


def test_token_weights_by_hand():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    weights = {name: token_weights(mask, name, 8).tolist() for name in ("answer", "token", "limit")}
    # 4 tokens in 2 answers: each answer of 3 tokens is worth a half of the batch, so is the one of 1.
    assert weights["answer"] == [[pytest.approx(2 / 3)] * 3, [2.0, 0.0, 0.0]]
    assert weights["token"] == [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    assert weights["limit"] == [[0.25, 0.25, 0.25], [0.25, 0.0, 0.0]]


def test_best_and_worst_and_spread():
    best, worst = best_and_worst(SCORES, 3)
    assert (best.tolist(), worst.tolist()) == ([2, 3], [0, 3])
    mask = torch.tensor([[True, False], [True, True]])
    assert spread_over_tokens(torch.tensor([3.0, 5.0]), mask).tolist() == [[3.0, 0.0], [5.0, 5.0]]


@pytest.mark.parametrize("advantages", [leave_one_out, group_relative, best_and_worst])
@pytest.mark.parametrize(("group", "said"), [(1, "no others"), (4, "not groups of 4")])
def test_what_is_no_group_is_refused(advantages, group, said):
    with pytest.raises(ValueError, match=said):
        advantages(SCORES, group)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31), groups=st.integers(1, 5), size=st.integers(2, 6),
    shift=st.floats(-100, 100), scale=st.floats(0.1, 50),
)  # fmt: skip
def test_invariances(seed, groups, size, shift, scale):
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(groups * size, generator=random, dtype=torch.float64)
    shifts = (shift * torch.randn(groups, generator=random, dtype=torch.float64)).repeat_interleave(size)
    close = {"rtol": 1e-6, "atol": 1e-6}
    for advantages in (lambda x: leave_one_out(x, size), lambda x: group_relative(x, size, scale="none")):
        plain = advantages(scores)
        torch.testing.assert_close(advantages(scores + shifts), plain, **close)
        torch.testing.assert_close(advantages(scores * scale), plain * scale, **close)
        assert plain.reshape(groups, size).sum(dim=1).abs().max() < 1e-9, "no group is better than itself"
    normed = group_relative(scores, size, epsilon=0.0)
    torch.testing.assert_close(group_relative(scores * scale + shifts, size, epsilon=0.0), normed, **close)
    # The other answers' baseline, written out.
    rows = scores.reshape(groups, size)
    for i in range(size):
        others = torch.cat([rows[:, :i], rows[:, i + 1 :]], dim=1).mean(dim=1)
        torch.testing.assert_close(leave_one_out(scores, size).reshape(groups, size)[:, i], rows[:, i] - others)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_weighted_token_sums_are_the_three_normalisations(seed):
    random = torch.Generator().manual_seed(seed)
    losses = torch.randn(5, 7, generator=random)
    mask = torch.arange(7) < torch.randint(1, 8, (5, 1), generator=random)
    kept = torch.where(mask, losses, 0.0)
    dirty = torch.where(mask, losses, float("nan"))

    def weighted(name):
        weights = token_weights(mask, name, 9)
        return torch.where(mask, weights * dirty, 0.0).sum() / mask.sum()

    torch.testing.assert_close(weighted("answer"), (kept.sum(1) / mask.sum(1)).mean())
    torch.testing.assert_close(weighted("token"), losses[mask].mean())
    torch.testing.assert_close(weighted("limit"), kept.sum() / (5 * 9))


def test_the_leave_one_out_gradient_is_unbiased():
    """Averaged over every pair of answers a policy can draw, it is the gradient of the expected score."""
    logits = torch.tensor([0.3, -0.5, 1.1], dtype=torch.float64, requires_grad=True)
    scores = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    log_p = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((log_p.exp() * scores).sum(), logits, retain_graph=True)
    estimate = torch.zeros_like(exact)
    for i in range(3):
        for j in range(3):
            advantages = leave_one_out(scores[[i, j]], 2)
            surrogate = (advantages * log_p[[i, j]]).mean()
            (gradient,) = torch.autograd.grad(surrogate, logits, retain_graph=True)
            estimate += (log_p[i] + log_p[j]).exp().detach() * gradient
    torch.testing.assert_close(estimate, exact)


def test_the_moving_baseline_follows_the_mean():
    assert next_baseline(2.0, 4.0, decay=0.75) == 2.5
    baseline = 0.0
    for _ in range(200):
        baseline = next_baseline(baseline, 3.0, decay=0.9)
    assert baseline == pytest.approx(3.0, abs=1e-6)
