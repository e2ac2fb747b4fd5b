"""The processes that train one policy together (data parallelism). A process by itself is a world of one.

Every process holds the whole batch of experience as small tensors [B, T] and decides the same from them: advantages,
whitening, the order of minibatches, when to stop. What costs time is shared out by rows: sampling, the reference's
opinion, forward and backward passes. Losses are divided by the tokens of the whole batch, so the sum of the processes'
gradients is the gradient that one process would have computed, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Found = TypeVar("Found")
Number = TypeVar("Number", int, float)


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 is the one that logs and writes."""
    return dist.get_rank() if size() > 1 else 0


def share(rows: Tensor) -> Tensor:
    """This process's part of the row numbers `rows` [n]: neighbours, which often answer one prompt, stay together."""
    return rows if size() == 1 else rows.tensor_split(size())[rank()]


def merged(own: Tensor) -> Tensor:
    """`own`, filled in the rows of this process and 0 elsewhere, with the other processes' rows filled in too."""
    if size() == 1:
        return own
    counted = own.int() if own.dtype == torch.bool else own
    dist.all_reduce(counted)
    return counted.to(own.dtype)


def totals(*numbers: float) -> tuple[float, ...]:
    """The sums of each number over all processes."""
    return _reduced(numbers, dist.ReduceOp.SUM)


def largest(number: Number) -> Number:
    """The largest of all processes' numbers."""
    return type(number)(_reduced((number,), dist.ReduceOp.MAX)[0])


def add_gradients(weights: Iterable[Tensor]) -> None:
    """Make every gradient the sum of all processes' gradients; a process without one counts as 0."""
    if size() == 1:
        return
    waiting = []
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        waiting.append(dist.all_reduce(weight.grad, async_op=True))
    for each in waiting:
        each.wait()


def from_first(find: Callable[[], Found]) -> Found:
    """What `find()` gives in process 0, in every process; it is called there alone."""
    if size() == 1:
        return find()
    found: list[Any] = [find() if rank() == 0 else None]
    dist.broadcast_object_list(found)
    answer: Found = found[0]
    return answer


def _reduced(numbers: tuple[float, ...], operation: Any) -> tuple[float, ...]:
    if size() == 1:
        return numbers
    tensor = torch.tensor(numbers, dtype=torch.float64, device=_device())
    dist.all_reduce(tensor, operation)
    return tuple(tensor.tolist())


def _device() -> torch.device:
    """Where this world's numbers travel: NCCL only carries those on a GPU."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
