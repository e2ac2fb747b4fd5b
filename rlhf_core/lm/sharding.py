"""Models whose weights are spread over the processes that train them together (fully sharded data parallelism).

Each process keeps a part of every weight, of its gradient and of its moments (Zhao et al. 2023; torch's `fully_shard`).
Outside its computations such a model's parameters are `DTensor`s, of which each process sees its own part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from torch import Tensor

from rlhf_core.lm.shared import Wearing

SPREAD = "_spread_after_forward"
"""Where a spread model keeps whether its layers give their weights back after a forward pass."""


def spread(model: Any, *, after_forward: bool) -> None:
    """Take `model`, to which `fully_shard` was applied, into use: gradients become sums over the processes, as losses
    here are divided by the tokens of all processes; `after_forward` says whether layers then give their weights back.
    """
    for part in _parts(model):
        part.set_gradient_divide_factor(1.0)
        # A sum in the collective itself: not every backend can scale, and gloo cannot average.
        part.set_force_sum_reduction_for_comms(True)
    model.set_reshard_after_forward(after_forward)
    setattr(model, SPREAD, after_forward)


def is_spread(model: Any) -> bool:
    """Whether the weights of `model`, or of the base it shares, are spread."""
    return dist.is_available() and dist.is_initialized() and hasattr(_own(model), SPREAD)


@contextlib.contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Every process holds all weights of `model` inside, in the type it computes in, and may run it alone.

    For sampling, in which processes take different numbers of steps. All processes must enter. Nothing happens where
    the weights are not spread.
    """
    if not is_spread(model):
        yield
        return
    model = _own(model)
    for part in _parts(model):
        part.unshard()
    model.set_reshard_after_forward(False)
    try:
        yield
    finally:
        model.set_reshard_after_forward(getattr(model, SPREAD))
        give_back(model)


def give_back(model: Any) -> None:
    """Let each process keep its part alone of all weights in `model`, as before and after computations."""
    if dist.is_available() and dist.is_initialized():
        for part in _parts(model):
            part.reshard()


def is_part(tensor: Tensor) -> bool:
    """Whether each process holds a part of `tensor` alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread, in every process; all processes must ask."""
    return tensor.full_tensor() if is_part(tensor) else tensor  # type: ignore[attr-defined]


def like(weight: Tensor, value: Tensor) -> Tensor:
    """`value`, which every process holds whole, spread as `weight` is."""
    if not is_part(weight) or is_part(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = weight.device_mesh, weight.placements  # type: ignore[attr-defined]
    return distribute_tensor(value.to(weight.device), mesh, placements, src_data_rank=None)


def kept(weight: Tensor) -> Tensor:
    """A copy of `weight` to come back to: on the CPU, of one that is spread each process's part where it is."""
    return weight.detach().clone() if is_part(weight) else weight.detach().to("cpu", copy=True)


def _parts(model: Any) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    return [part for part in model.modules() if isinstance(part, FSDPModule)]


def _own(model: Any) -> Any:
    return model._shared if isinstance(model, Wearing) else model
