"""Running a model on padded rows, with the positions that it is to believe."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from rlhf_core.lm.sharding import entrance


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token among the real tokens of its row, [B, L] int64, wherever the padding stands."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def takes_positions(model: Any) -> bool:
    """Whether the architecture is told positions; some (ALiBi, recurrent ones) derive them from the mask, and encoders
    count in ways of their own.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(plain.forward).parameters and not is_encoder(plain.config)


def is_encoder(config: Any) -> bool:
    """Whether the architecture reads a text in both directions, as BERT does."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    return type(config) in MODEL_FOR_MASKED_LM_MAPPING


def hidden_states(backbone: Any, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """States [B, L, H] of the last layer of a decoder or an encoder; the tokens `ids` [B, L] stand at `places`.

    `mask` is [B, L], or additive [B, 1, L, L]. Encoders need their padding on the right.
    """
    options: dict[str, Any] = {} if is_encoder(backbone.config) else {"use_cache": False}
    if takes_positions(backbone):
        options["position_ids"] = places
    states: torch.Tensor = backbone(input_ids=ids, attention_mask=mask, **options).last_hidden_state
    return states


def forward(model: Any, ids: torch.Tensor, mask: torch.Tensor, **options: Any) -> Any:
    """Run `model` on padded `ids` [B, L] with explicit positions, so that padding on either side changes nothing."""
    if takes_positions(model):
        options["position_ids"] = positions(mask)[:, -ids.shape[1] :]
    return entrance(model)(input_ids=ids, attention_mask=mask, **{"use_cache": False, **options})
