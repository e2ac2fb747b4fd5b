import pytest
import torch

from rlhf_plugins.trainee import NotFiniteError, Trainee


@pytest.mark.parametrize(("loss", "gradient"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_an_update_that_is_not_finite_is_refused(loss, gradient):
    layer = torch.nn.Linear(1, 1, bias=False)
    before = layer.weight.item()
    trainee = Trainee(layer, lr=0.1, max_grad_norm=1.0)
    layer.weight.grad = torch.full((1, 1), gradient)
    with pytest.raises(NotFiniteError):
        trainee.step(loss)
    assert layer.weight.item() == before
    assert layer.weight.grad is None
    layer.weight.grad = torch.full((1, 1), 8.0)
    assert trainee.step(1.0) == 8.0, "the norm before clipping"
    assert layer.weight.item() == pytest.approx(before - 0.1, abs=1e-5)


def test_a_trainee_is_the_same_after_a_trip_to_the_disk(tmp_path):
    def fresh():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, Trainee(layer, lr=0.1, max_grad_norm=1.0)

    def step(layer, trainee):
        layer(torch.ones(1, 3)).pow(2).sum().backward()
        trainee.step(1.0)

    layer, trainee = fresh()
    step(layer, trainee)
    trainee.save(tmp_path, "it")
    step(layer, trainee)
    other, again = fresh()
    again.load(tmp_path, "it")
    step(other, again)
    assert torch.equal(other.weight, layer.weight)
    with pytest.raises(ValueError, match="other weights"):
        Trainee(torch.nn.Linear(4, 2), lr=0.1, max_grad_norm=1.0).load(tmp_path, "it")
