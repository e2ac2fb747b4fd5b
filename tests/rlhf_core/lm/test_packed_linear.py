import pytest
import torch
from torch.nn import Linear

from rlhf_core.lm.packed_linear import PackedLinear


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def maps(request):
    torch.manual_seed(0)
    return [Linear(32, width, bias=bias).to(request.param) for width, bias in ((48, True), (5, False), (16, True))]


@pytest.mark.parametrize("blocks", [True, False], ids=["in blocks", "plain"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), ()], ids=str)
def test_one_product_gives_what_the_maps_give(maps, shape, blocks, monkeypatch):
    if not blocks:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    dtype = maps[0].weight.dtype
    packed = PackedLinear(maps)
    assert blocks or packed.weight is not None
    states = torch.randn(*shape, 32).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    found = packed(states).split(packed.widths, dim=-1)
    for part, own in zip(found, maps, strict=True):
        torch.testing.assert_close(part, own(states), atol=tolerance, rtol=tolerance)


def test_a_row_is_the_same_in_any_company(maps):
    packed = PackedLinear(maps)
    states = torch.randn(64, 32).to(maps[0].weight.dtype)
    together = packed(states)
    if packed.blocks is None:
        pytest.skip("this processor has no products with weights in blocks")
    for rows in (1, 7, 40):
        assert torch.equal(packed(states[:rows].clone()), together[:rows])


def test_it_keeps_the_weights_of_when_it_was_made(maps):
    packed = PackedLinear(maps)
    states = torch.randn(4, 32).to(maps[0].weight.dtype)
    before = packed(states)
    with torch.no_grad():
        maps[0].weight.mul_(2)
    assert torch.equal(packed(states), before)
    assert not torch.allclose(PackedLinear(maps)(states), before)
    assert not packed(states).requires_grad
