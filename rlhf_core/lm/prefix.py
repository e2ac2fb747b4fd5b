"""Prompts that several rows of a batch share: computed once, in sampling, scoring and training."""

from __future__ import annotations

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
