"""A key-value cache that never copies what it already holds."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values in room that is set aside at once; transformers' own copies everything each step."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.filled = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append [B, H, n, D] keys and values; returns all so far as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.all_keys = _roomy(key_states, self.room)
            self.all_values = _roomy(value_states, self.room)
        start, self.filled = self.filled, self.filled + key_states.shape[-2]
        self.all_keys[:, :, start : self.filled] = key_states
        self.all_values[:, :, start : self.filled] = value_states
        self._show()
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Make row i what row `beam_idx[i]` was; rows may vanish or multiply."""
        self.all_keys = _picked(self.all_keys, beam_idx, self.filled)
        self.all_values = _picked(self.all_values, beam_idx, self.filled)
        self._show()

    def _show(self) -> None:
        self.keys = self.all_keys[:, :, : self.filled]
        self.values = self.all_values[:, :, : self.filled]


def _roomy(states: torch.Tensor, room: int) -> torch.Tensor:
    rows, heads, _, width = states.shape
    return states.new_empty(rows, heads, room, width)


def _picked(states: torch.Tensor, rows: torch.Tensor, filled: int) -> torch.Tensor:
    fresh = states.new_empty(len(rows), *states.shape[1:])
    fresh[:, :, :filled] = states[rows, :, :filled]
    return fresh


def growing_cache(model: Any, room: int) -> Any:
    """A cache for `model` with room for `room` positions.

    Architectures whose layers keep something else than all keys and values (sliding windows, recurrent states) get
    the layers that transformers has for them.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    cache = DynamicCache(config=plain.config)
    if cache.layers and all(type(layer) is DynamicLayer for layer in cache.layers):
        cache.layers = [GrowingLayer(room) for _ in cache.layers]
    return cache
