"""Root-mean-square norms and rotary positions in few operations, with gradients by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RmsNorm(torch.autograd.Function):
    """With r = (mean x^2 + eps)^-1/2 and n = r x:  y = w n,  dx = r (w dy - n mean(w dy n)),  dw = sum dy n."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        scaled, rate = _scaled(states, eps)
        ctx.save_for_backward(scaled.to(states.dtype, copy=True), weight, rate)
        return scaled.mul_(weight.float()).to(states.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, weight, rate = ctx.saved_tensors
        slope, scaled, weights = gradient.to(torch.float32, copy=True), normed.float(), weight.float()
        each = slope * scaled
        shared = (each @ weights).unsqueeze(-1).div_(-normed.shape[-1])
        slope = slope.mul_(weights).addcmul_(scaled, shared).mul_(rate)
        return slope.to(gradient.dtype), each.flatten(0, -2).sum(0).to(weight.dtype), None


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`states` [..., H] over the root of their mean square, times `weight` [H] (Zhang and Sennrich 2019).

    Computed in float32, where eager torch is faster than in bf16, and rounded once.
    """
    if torch.is_grad_enabled():
        normed: Tensor = _RmsNorm.apply(states, weight, eps)  # type: ignore[no-untyped-call]
        return normed
    return _scaled(states, eps)[0].mul_(weight.float()).to(states.dtype)


def _scaled(states: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`states` over the root of their mean square, float32, and one over that root [..., 1]."""
    scaled = states.to(torch.float32, copy=True)
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    rate = torch.addcmul(length.new_tensor(eps), length, length, value=1 / states.shape[-1]).rsqrt_()
    return scaled.mul_(rate), rate


class _Turned(torch.autograd.Function):
    """The gradient of a rotation is turned back by it."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, cos: Tensor, sin: Tensor, width: int) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.width = width
        return _turn(vectors.clone(), cos, sin, width)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(gradient.clone(), cos, -sin, ctx.width), None, None, None


def turn(vectors: Tensor, cos: Tensor, sin: Tensor, width: int) -> Tensor:
    """Rotary positions (Su et al. 2021) for the first C columns of `vectors` [..., D], heads of `width` side by side.

    `cos` and `sin` [..., C] are written out for every head, because eager torch takes twice as long where it must
    repeat them itself; `sin` is negated in the first half of each head, so that x cos + roll(x, width / 2) sin is what
    the models compute by `rotate_half`. Without gradients `vectors` themselves are changed.
    """
    if torch.is_grad_enabled():
        turned: Tensor = _Turned.apply(vectors, cos, sin, width)  # type: ignore[no-untyped-call]
        return turned
    return _turn(vectors, cos, sin, width)


def _turn(vectors: Tensor, cos: Tensor, sin: Tensor, width: int) -> Tensor:
    part = vectors[..., : cos.shape[-1]]
    across = part.view(*part.shape[:-1], -1, width).roll(width // 2, -1).flatten(-2)
    part.mul_(cos).add_(across.mul_(sin))
    return vectors


def softmax(scores: Tensor, *more: Tensor) -> Tensor:
    """Softmax over the last dimension of `scores` [..., W] and `more` of them beside; zeros may stand after the end.

    Where numbers have two bytes torch takes what is beyond the last 32 of a row one by one: rows are filled up.
    """
    parts = [scores, *more]
    spare = -sum(part.shape[-1] for part in parts) % 32 if scores.element_size() == 2 else 0
    if spare:
        parts.append(scores.new_full((1,), -torch.inf).expand(*scores.shape[:-1], spare))
    return (torch.cat(parts, dim=-1) if len(parts) > 1 else scores).softmax(-1)
