import math

import pytest
import torch

from rlhf_core.rl.lagrange import next_multiplier, priced


def test_priced_by_hand():
    scores, costs = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])
    assert priced(scores, costs, 3.0, limit=1.0).tolist() == pytest.approx([(1 - 6) / 4, (-2 + 1.5) / 4])
    assert priced(scores, costs, 0.0, limit=1.0).tolist() == scores.tolist()


def test_the_price_rises_while_the_bound_is_broken():
    step = {"limit": 1.0, "rate": 0.1, "most": 10.0}
    assert next_multiplier(2.0, 3.0, **step) == pytest.approx(2 * math.exp(0.1 * 2 * 2))
    assert next_multiplier(2.0, 0.0, **step) == pytest.approx(2 * math.exp(-0.1 * 2))
    assert next_multiplier(2.0, 1.0, **step) == pytest.approx(2)
    assert next_multiplier(9.0, 50.0, **step) == 10
    assert next_multiplier(9.0, 1e6, **step) == 10, "not an overflow"
    assert next_multiplier(1e-9, -5.0, **step) > 0


def test_price_and_policy_meet_where_the_bound_is_kept():
    """Taking a risk p has reward 2 p - p^2 and cost p: within 0.3 the best is p = 0.3, at a price of 2 - 2 p = 1.4."""
    risk, price = torch.tensor(0.9, requires_grad=True), 0.1
    for _ in range(3000):
        (gradient,) = torch.autograd.grad(priced(2 * risk - risk**2, risk, price, limit=0.3), risk)
        with torch.no_grad():
            risk += 0.1 * gradient
        price = next_multiplier(price, risk.item(), limit=0.3, rate=0.1, most=10.0)
    assert risk.item() == pytest.approx(0.3, abs=1e-3)
    assert price == pytest.approx(1.4, abs=1e-2)
