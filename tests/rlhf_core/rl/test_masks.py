import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.rl.masks import masked_mean, masked_variance, row_sums, whiten

NAN = float("nan")
MASK = torch.tensor([[True, True, False], [True, False, False]])
VALUES = torch.tensor([[1.0, 2.0, NAN], [6.0, 100.0, NAN]])


def test_padding_does_not_count():
    assert masked_mean(VALUES, MASK) == 3.0
    assert torch.isclose(masked_variance(VALUES, MASK), torch.tensor((4 + 1 + 9) / 3))
    assert row_sums(VALUES, MASK).tolist() == [3.0, 6.0]


def test_the_mean_of_nothing_is_zero():
    assert masked_mean(VALUES, torch.zeros_like(MASK)) == 0.0


def test_whitening_by_hand():
    std = math.sqrt(14 / 3)
    expected = torch.tensor([[-2 / std, -1 / std, 0.0], [3 / std, 0.0, 0.0]])
    torch.testing.assert_close(whiten(VALUES, MASK), expected)


def test_equal_values_whiten_to_zero():
    assert whiten(torch.full((2, 3), 7.0), MASK).abs().max() == 0.0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(-50, 50), scale=st.floats(0.1, 20), rows=st.integers(2, 6))
def test_whitening_knows_neither_unit_nor_origin(seed, shift, scale, rows):
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, 5, generator=random, dtype=torch.float64)
    mask = torch.arange(5) < torch.randint(2, 6, (rows, 1), generator=random)
    white = whiten(values, mask)
    torch.testing.assert_close(whiten(values * scale + shift, mask), white, rtol=1e-4, atol=1e-4)
    assert abs(masked_mean(white, mask)) < 1e-6
    assert abs(masked_variance(white, mask) - 1) < 1e-4
