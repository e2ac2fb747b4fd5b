import math

import pytest
import torch
from torch.testing import assert_close
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from rlhf_core.lm.functions import rms_norm, softmax, turn


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_norm_by_hand():
    states = torch.tensor([[3.0, 4.0]], requires_grad=True)
    normed = rms_norm(states, torch.tensor([1.0, 2.0]), 0.0)
    root = math.sqrt(12.5)
    assert_close(normed, torch.tensor([[3.0, 8.0]]) / root)
    normed[0, 0].backward()
    # d (x / r) / dx = 1 / r - x^2 / (2 r^3),  d (x / r) / dy = -x y / (2 r^3)
    assert_close(states.grad, torch.tensor([[1 / root - 9 / (2 * root**3), -12 / (2 * root**3)]]))


def norm_and_gradients(norm, states, weight, slope):
    states, weight = (part.clone().requires_grad_() for part in (states, weight))
    normed = norm(states, weight)
    normed.backward(slope)
    return normed.detach(), states.grad, weight.grad


def own_norm(states, weight):
    module = LlamaRMSNorm(len(weight), eps=1e-5)
    module.weight = torch.nn.Parameter(weight)
    normed = torch.func.functional_call(module, {"weight": weight}, (states,))
    assert isinstance(normed, torch.Tensor)
    return normed


def test_norms_and_their_gradients_are_the_models_own():
    given = drawn(2, 7, 24) * 3, drawn(24, seed=1), drawn(2, 7, 24, seed=2)
    ours = norm_and_gradients(lambda x, w: rms_norm(x, w, 1e-5), *given)
    for our, own in zip(ours, norm_and_gradients(own_norm, *given), strict=True):
        assert_close(our, own, atol=1e-5, rtol=1e-5)


def test_in_bfloat16_they_are_nearer_to_the_truth_than_the_models_own():
    given = [part.bfloat16() for part in (drawn(400, 64) * 3, drawn(64, seed=1), drawn(400, 64, seed=2))]
    truth = norm_and_gradients(own_norm, *(part.double() for part in given))
    ours = norm_and_gradients(lambda x, w: rms_norm(x, w, 1e-5), *given)
    own = norm_and_gradients(own_norm, *given)
    for our, theirs, true in zip(ours, own, truth, strict=True):
        assert our.dtype == torch.bfloat16
        error, before = ((part.double() - true).norm() / true.norm() for part in (our, theirs))
        assert error <= 1.05 * before
        assert error < 0.005


def test_without_gradients_norms_are_the_same():
    states, weight = drawn(5, 16), drawn(16, seed=1)
    with torch.no_grad():
        found = rms_norm(states, weight, 1e-6)
    assert torch.equal(found, rms_norm(states, weight.requires_grad_(), 1e-6).detach())


def test_turning_is_the_models_own_and_leaves_the_rest():
    heads, width, tokens = 3, 8, 5
    vectors = drawn(1, tokens, (heads + 1) * width).requires_grad_()
    angles = drawn(1, tokens, width // 2, seed=1).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    signed = torch.cat([-sin[..., : width // 2], sin[..., width // 2 :]], dim=-1)
    turned = turn(vectors, cos.repeat(1, 1, heads), signed.repeat(1, 1, heads), width)
    split = vectors.view(1, tokens, heads + 1, width).transpose(1, 2)
    own, _ = apply_rotary_pos_emb(split[:, :heads], split[:, :heads], cos, sin)
    own = torch.cat([own, split[:, heads:]], dim=1).transpose(1, 2).reshape(vectors.shape)
    assert_close(turned, own)
    slope = drawn(*vectors.shape, seed=2)
    (ours,) = torch.autograd.grad(turned, vectors, slope, retain_graph=True)
    (theirs,) = torch.autograd.grad(own, vectors, slope)
    assert_close(ours, theirs)
    with torch.no_grad():
        assert_close(turn(vectors.clone(), cos.repeat(1, 1, heads), signed.repeat(1, 1, heads), width), own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_softmax_of_pieces_is_one_of_all(dtype):
    first, second = drawn(3, 4, 40).to(dtype), drawn(3, 4, 7, seed=1).to(dtype)
    found = softmax(first, second)
    expected = torch.cat([first, second], dim=-1).softmax(-1)
    assert_close(found[..., :47], expected)
    assert not found[..., 47:].any()
    assert_close(softmax(torch.tensor([[0.0, math.log(3.0)]]))[:, :2], torch.tensor([[0.25, 0.75]]))


def test_gradients_go_through_the_pieces():
    first, second = (drawn(4, size).bfloat16().requires_grad_() for size in (40, 7))
    slope = drawn(4, 47, seed=1).bfloat16()
    ours = torch.autograd.grad(softmax(first, second)[:, :47], [first, second], slope)
    own = torch.autograd.grad(torch.cat([first, second], dim=-1).softmax(-1), [first, second], slope)
    for our, theirs in zip(ours, own, strict=True):
        assert_close(our, theirs)
