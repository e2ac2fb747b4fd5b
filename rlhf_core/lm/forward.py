"""Running a model on padded rows, with the positions that it is to believe."""

from __future__ import annotations

import inspect
from typing import Any

import torch


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token among the real tokens of its row, [B, L] int64, wherever the padding stands."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def takes_positions(model: Any) -> bool:
    """Whether the architecture is told positions; some (ALiBi, recurrent ones) derive them from the mask."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(plain.forward).parameters


def forward(model: Any, ids: torch.Tensor, mask: torch.Tensor, **options: Any) -> Any:
    """Run `model` on padded `ids` [B, L] with explicit positions, so that padding on either side changes nothing."""
    if takes_positions(model):
        options["position_ids"] = positions(mask)[:, -ids.shape[1] :]
    return model(input_ids=ids, attention_mask=mask, **{"use_cache": False, **options})
