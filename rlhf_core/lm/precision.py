"""Computing in fewer bits than the weights are kept in."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from rlhf_core.lm.sharding import is_spread

ONE_AT_A_TIME = threading.RLock()
"""Held while a model is not what it looks like: two threads may use one model."""


def computing_in(model: Any, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Let `model` compute in `dtype` inside, whatever its weights are kept in.

    Nothing is to be done where they are spread over processes: they are cast as they come together.
    """
    if is_spread(model):
        return contextlib.nullcontext()
    weight = next(model.parameters())
    if dtype == weight.dtype:
        return contextlib.nullcontext()
    if dtype == torch.bfloat16 and not computes_again(model):
        return weights_in(model, dtype)
    return torch.autocast(weight.device.type, dtype)


@contextlib.contextmanager
def weights_in(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """Let `model` compute with copies of its float32 weights in `dtype` inside; gradients reach the weights themselves.

    Unlike autocast this casts each weight once, not at each of the hundreds of calls of a rollout, and keeps what
    flows between the layers in `dtype` too. Gradients are cast back to float32 before they are added up. Backward
    passes may run outside, but not those that compute forward again (gradient checkpointing).
    """
    copies: dict[torch.Tensor, torch.Tensor] = {}
    kept: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    with ONE_AT_A_TIME:
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None and weight.dtype == torch.float32:
                    if weight not in copies:  # tied weights stay tied
                        copies[weight] = weight.to(dtype)
                    kept.append((module._parameters, name, weight))
                    module._parameters[name] = copies[weight]
        try:
            yield
        finally:
            for parameters, name, weight in kept:
                parameters[name] = weight


def computes_again(model: Any) -> bool:
    """Whether a backward pass through `model` runs parts of the forward pass once more: by the models' own gradient
    checkpointing, or by `lm.recompute`.
    """
    return any(
        getattr(part, "gradient_checkpointing", False) or getattr(part, "computes_again", False)
        for part in model.modules()
    )
