"""Prompts that several rows of a batch share: computed once, in sampling, scoring and training."""

from __future__ import annotations

from typing import Any

import torch


def distinct_rows(ids: torch.Tensor, mask: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """The numbers of the first of each group of equal rows, and for every row the place of its own there, [B] int64.

    `ids` and `mask` are [B, P]; rows are equal where both are.
    """
    places: dict[tuple[int, ...], int] = {}
    firsts: list[int] = []
    index: list[int] = []
    for i, row in enumerate(torch.cat([ids, mask], dim=1).tolist()):
        place = places.setdefault(tuple(row), len(places))
        if place == len(firsts):
            firsts.append(i)
        index.append(place)
    return firsts, torch.tensor(index, device=ids.device)


def answer_logits_by_prefix(model: Any, ids: torch.Tensor, mask: torch.Tensor, answer_start: int) -> Any:
    """Logits [B, T, V] that predict the answers in `ids`, each distinct prompt computed once; gradients flow through.

    None where that does not pay (the average prompt has fewer than two answers) or the architecture keeps something
    else than all keys and values. Equal to a plain forward pass up to rounding.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    from rlhf_core.lm.logprobs import forward

    firsts, index = distinct_rows(ids[:, :answer_start], mask[:, :answer_start])
    if 2 * len(firsts) > len(ids):
        return None
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    cache = DynamicCache(config=plain.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    prompts = forward(
        model,
        ids[firsts, :answer_start],
        mask[firsts, :answer_start],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    first = prompts.logits[index]
    if answer_start == ids.shape[1] - 1:
        return first
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[index], layer.values[index]
    rest = forward(model, ids[:, answer_start:-1], mask[:, :-1], past_key_values=cache, use_cache=True)
    return torch.cat([first, rest.logits], dim=1)
