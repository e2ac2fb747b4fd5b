"""Linear maps for sampling: weights laid out once as the CPU's kernels want them, not again at every product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Linear, functional


class PackedLinear:
    """Linear maps of the same input, computed as one product; no gradients.

    oneDNN computes with weights in blocks and puts plain ones into that order at every call: of 64 rows' products that
    is a fifth, of 8 rows' a third. In blocks, what comes of a row does not depend on how many rows there are, either.
    """

    def __init__(self, maps: Sequence[Linear]) -> None:
        """From maps [I -> O_1], [I -> O_2], ... to one [I -> O_1 + O_2 + ...], with copies of their weights."""
        self.widths = [part.out_features for part in maps]
        with torch.no_grad():
            weight, self.bias = joined(maps)
        self.blocks = _in_blocks(weight)
        self.weight = weight if self.blocks is None else None

    def __call__(self, states: Tensor) -> Tensor:
        """`states` [..., I] to [..., O]."""
        if self.blocks is None:
            return functional.linear(states, self.weight, self.bias)  # type: ignore[arg-type]
        result: Tensor = torch.ops.mkldnn._linear_pointwise.default(states, self.blocks, self.bias, "none", [], "")
        return result


def joined(maps: Sequence[Linear]) -> tuple[Tensor, Tensor | None]:
    """Weight [O_1 + O_2 + ..., I] and bias of maps [I -> O_1], [I -> O_2], ... as one; gradients flow to their own."""
    weight = torch.cat([part.weight for part in maps])
    if all(part.bias is None for part in maps):
        return weight, None
    return weight, torch.cat([weight.new_zeros(p.out_features) if p.bias is None else p.bias for p in maps])


def _in_blocks(weight: Tensor) -> Tensor | None:
    """`weight` as oneDNN wants it, by what torch's own compiler does when it freezes a model; None where it cannot."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight.default(weight)
    except (RuntimeError, AttributeError):  # a processor or a build without these products
        return None
    return blocks
