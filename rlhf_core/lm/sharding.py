"""Models whose weights are spread over the processes that train them together (fully sharded data parallelism).

Each process keeps a part of every weight, of its gradient and of its moments (Zhao et al. 2023; torch's `fully_shard`).
Outside its computations such a model's parameters are `DTensor`s, of which each process sees its own part. Whoever
spreads weights in another way says so by an `Engine` on the model and on each of its weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from rlhf_core.lm.wearing import Wearing

SPREAD = "_spread"
"""Where a spread model keeps who spreads it, and a weight that is no `DTensor` who has its true value."""


class Spread(Protocol):
    """How the weights of a model are spread."""

    def gathered(self, model: Any) -> contextlib.AbstractContextManager[None]:
        """See the function."""
        ...


class Engine(Spread, Protocol):
    """What runs a model in its place and has the true values of its weights; all processes must ask at once."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """A forward pass of the model."""
        ...

    def shape(self, weight: Tensor) -> torch.Size:
        """Of all of `weight`."""
        ...

    def whole(self, weight: Tensor) -> Tensor:
        """All of `weight`, a copy in float32, in every process."""
        ...

    def fill(self, weight: Tensor, value: Tensor) -> None:
        """Give `weight` the `value` that every process holds whole."""
        ...


class FullyShared:
    """Spread by torch's `fully_shard`; layers keep their weights after a forward pass or not."""

    def __init__(self, *, after_forward: bool) -> None:
        self.after_forward = after_forward

    @contextlib.contextmanager
    def gathered(self, model: Any) -> Iterator[None]:
        """All layers keep all weights inside."""
        for part in _parts(model):
            part.unshard()
        model.set_reshard_after_forward(False)
        try:
            yield
        finally:
            model.set_reshard_after_forward(self.after_forward)
            give_back(model)


def spread(model: Any, *, after_forward: bool) -> None:
    """Take `model`, to which `fully_shard` was applied, into use: gradients become sums over the processes, as losses
    here are divided by the tokens of all processes; `after_forward` says whether layers then give their weights back.
    """
    for part in _parts(model):
        part.set_gradient_divide_factor(1.0)
        # A sum in the collective itself: not every backend can scale, and gloo cannot average.
        part.set_force_sum_reduction_for_comms(True)
    model.set_reshard_after_forward(after_forward)
    setattr(model, SPREAD, FullyShared(after_forward=after_forward))


def run_by(model: Any, engine: Engine) -> None:
    """Let `engine` run `model` from now on, and answer for its weights."""
    vars(model)[SPREAD] = engine
    for weight in model.parameters():
        vars(weight)[SPREAD] = engine


def entrance(model: Any) -> Any:
    """What is to be called in the place of `model`: what runs it, where that is something else."""
    engine = vars(model).get(SPREAD)
    return engine if callable(engine) else model


def is_spread(model: Any) -> bool:
    """Whether the weights of `model`, or of the base it shares, are spread."""
    return dist.is_available() and dist.is_initialized() and SPREAD in vars(_own(model))


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
    with vars(model)[SPREAD].gathered(model):
        yield


def give_back(model: Any) -> None:
    """Let each process keep its part alone of all weights in `model`, as before and after computations."""
    if dist.is_available() and dist.is_initialized():
        for part in _parts(model):
            part.reshard()


def is_part(tensor: Tensor) -> bool:
    """Whether each process holds a part of `tensor` alone, by torch's own means."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def shape(weight: Tensor) -> torch.Size:
    """Of all of a weight that may be spread."""
    engine: Engine | None = vars(weight).get(SPREAD)
    return weight.shape if engine is None else engine.shape(weight)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread, in every process; all processes must ask."""
    engine: Engine | None = vars(tensor).get(SPREAD)
    if engine is not None:
        return engine.whole(tensor)
    return tensor.detach().full_tensor() if is_part(tensor) else tensor.detach()  # type: ignore[attr-defined]


@torch.no_grad()
def fill(weight: Tensor, value: Tensor) -> None:
    """Give `weight`, spread or not, a `value` that every process holds whole, or that is spread as it is."""
    engine: Engine | None = vars(weight).get(SPREAD)
    if engine is not None:
        engine.fill(weight, value)
    else:
        weight.copy_(like(weight, value))


def like(weight: Tensor, value: Tensor) -> Tensor:
    """`value`, which every process holds whole, spread as `weight` is by torch's own means."""
    if not is_part(weight) or is_part(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = weight.device_mesh, weight.placements  # type: ignore[attr-defined]
    return distribute_tensor(value.to(weight.device), mesh, placements, src_data_rank=None)


def kept(weight: Tensor) -> Tensor:
    """A copy of `weight` to come back to: on the CPU, of a `DTensor` each process's part where it is."""
    return weight.detach().clone() if is_part(weight) else whole(weight).to("cpu", copy=True)


def _parts(model: Any) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    return [part for part in model.modules() if isinstance(part, FSDPModule)]


def _own(model: Any) -> Any:
    return model._shared if isinstance(model, Wearing) else model
