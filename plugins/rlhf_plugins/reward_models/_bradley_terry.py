"""The Bradley-Terry model of preferences (Bradley and Terry 1952): P(a is better than b) = sigma(r_a - r_b)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def preference_loss(margins: torch.Tensor, stated: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean over B pairs of weight * -[y log sigma(r1 - r2) + (1 - y) log sigma(r2 - r1)], in nats.

    `margins` r1 - r2, `stated` y in [0, 1] and `weight` are [B]. With y the mean of k answers and a weight that is
    proportional to k it is the log-likelihood of all answers, which is why weights enter as they are.
    """
    losses = torch.nn.functional.binary_cross_entropy_with_logits(margins, stated, reduction="none")
    return (weight * losses).mean()


def lapsing_loss(margins: torch.Tensor, stated: torch.Tensor, weight: torch.Tensor, lapse: float) -> torch.Tensor:
    """`preference_loss` of raters who answer a share `lapse` of the questions without looking, one way or the other.

    P(first is better) = (1 - lapse) sigma(r1 - r2) + lapse / 2 (Christiano et al. 2017, section 2.2.3): however far
    apart two rewards are, the answer may contradict them, so an answer that must be wrong no longer pulls at them.
    """
    agreeing = (1 - lapse) * torch.sigmoid(margins) + lapse / 2
    contrary = (1 - lapse) * torch.sigmoid(-margins) + lapse / 2
    return -(weight * (stated * agreeing.log() + (1 - stated) * contrary.log())).mean()


def groups_of(shared: Sequence[Hashable]) -> NDArray[np.int64]:
    """[N] numbers of groups, from 0: items that share something are of one group, those with None of their own."""
    places: dict[Hashable, int] = {}
    keys = [(i, None) if one is None else (None, one) for i, one in enumerate(shared)]
    return np.array([places.setdefault(key, len(places)) for key in keys], dtype=np.int64)


def batches_by_length(
    lengths: NDArray[np.int64], groups: NDArray[np.int64], size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """A random order of all items in batches of at most `size` items of similar length, batches in random order.

    Groups are shuffled, then sorted by length within stretches of about 16 batches: little padding, and batches that
    differ from epoch to epoch. The items of one of the `groups` [N] (see `groups_of`) follow one another, so that all
    but those at a batch's border are in one batch; a group that would fill a batch is taken apart.
    """
    if not len(lengths):
        return []
    apart = np.bincount(groups)[groups] >= size
    _, groups = np.unique(np.where(apart, len(groups) + np.arange(len(groups)), groups), return_inverse=True)
    sizes = np.bincount(groups)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    typical = np.bincount(groups, lengths) / sizes
    order = rng.permutation(len(sizes))
    stretch = (np.cumsum(sizes[order]) - sizes[order]) // (16 * size)
    # Groups of equally many items go together too: their shared rows have about the same length.
    order = order[np.lexsort((typical[order], sizes[order], stretch))]
    items = np.concatenate([members[group] for group in order])
    batches = [items[i : i + size] for i in range(0, len(items), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def set_dropout(scalar: torch.nn.Module, rate: float) -> None:
    """Dropout of `rate` before the head and on all that layers hand on, but not on attention weights.

    Those would have to be written out in full instead of going through the fused kernels: a third more time a step.
    """
    for path, module in scalar.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0 if "att" in path.rsplit(".", 1)[-1] else rate
        for name in ("attention_dropout", "attn_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
