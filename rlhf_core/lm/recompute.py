"""Activation checkpointing: layers forget what the backward pass would need, and compute it again then.

Memory for the activations of one layer instead of all, for a third more time (Chen et al. 2016). Unlike the models' own
switch it works in evaluation mode, where all of this house's training happens (dropout stays off), leaves sampling
with its cache alone, and computes again with the adapters that were worn the first time.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from rlhf_core.errors import TrainingError
from rlhf_core.lm.wearing import worn, worn_now


class Recomputing:
    """Mixed into the class of a layer."""

    computes_again = True
    """Known to `lm.precision.computes_again`."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """As ever, but with gradients nothing but the arguments is kept."""
        run = super().forward  # type: ignore[misc]
        if not torch.is_grad_enabled() or options.get("past_key_values") is not None:
            return run(*arguments, **options)
        adapters = worn_now(self)
        again = contextlib.nullcontext if adapters is None else lambda: worn(self, adapters)
        return checkpoint(
            run, *arguments, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), again()), **options
        )


def recompute_activations(model: Any) -> None:
    """Let the layers of `model` recompute. Raises TrainingError for architectures whose layers don't know how."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise TrainingError(
            f"{type(model).__name__} has no layers that can be computed again",
            remedy="Drop gradient_checkpointing; a smaller micro_batch saves memory too.",
        )
    kinds: dict[type, type] = {}
    for layer in layers:
        kind = type(layer)
        if not issubclass(kind, Recomputing):
            # The class, not the instance: copies of the model must compute with their own weights.
            layer.__class__ = kinds.setdefault(kind, type(kind.__name__, (Recomputing, kind), {}))
