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

from rlhf_core.lm.sharding import is_part

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


def pieces(rows: Tensor, lengths: Tensor, most: int | None) -> list[tuple[Tensor, bool]]:
    """This process's share of the row numbers `rows` [n] in pieces of at most `most`, of similar `lengths`, with True.

    `lengths` [N] are those of all rows there are. Every process gets as many pieces, because they bring spread weights
    together by running the same passes at the same time: one with fewer rows gets spare pieces, with False, of a row
    that is another's and must count nothing here.
    """
    shares = rows.tensor_split(size())
    own = shares[rank()]
    if most is None or most >= len(shares[0]):
        most = max(len(shares[0]), 1)
    else:
        own = own[lengths[own].argsort(stable=True)]
    found = [(piece, True) for piece in own.split(most) if len(piece)]
    # The first share is the largest, and so none of its own pieces is spare.
    return found + [(rows[:1], False)] * (-(-len(shares[0]) // most) - len(found))


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
    """Make every gradient the sum of all processes' gradients; a process without one counts as 0.

    Gradients of spread weights are that already.
    """
    if size() == 1:
        return
    waiting = []
    for weight in weights:
        if is_part(weight):
            continue
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
