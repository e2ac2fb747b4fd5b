"""Answers and their prompts in one row without padding; a prompt that several answers share stands there once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_core.lm.prefix import distinct_rows


@dataclass(frozen=True)
class Packed:
    """G distinct prompts and what B answers to them go on with: N tokens in all, prompts first."""

    ids: Tensor
    """[N] int64."""
    positions: Tensor
    """[N] int64, place of each token in its own prompt and answer."""
    lasts: Tensor
    """[G] int64, where in the row each prompt's last token stands."""
    group: Tensor
    """[B] int64, each answer's prompt."""
    shape: tuple[int, int, int, int]
    """G, longest prompt P, B, most tokens T that an answer goes on with."""
    slots: Tensor
    """[G * P + B * T] int64: which token a slot of the padded layout holds; 0 where it is padding."""
    places: Tensor
    """[N] int64: the slot of each token."""
    padding: Tensor | None
    """Slots that hold nothing, int64; None where all are taken, and in order."""
    prompt_lengths: Tensor
    """[G] int64."""

    @property
    def asked_for(self) -> Tensor:
        """[K] int64: where the tokens stand after which another was drawn, each prompt's last and then the answers'."""
        prompts = int(self.lasts[-1]) + 1
        return torch.cat([self.lasts, torch.arange(prompts, len(self.ids), device=self.ids.device)])

    def spread(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`tokens` [N, ...] in the padded layout: the prompts' [G, P, ...] and the answers' [B, T, ...]."""
        groups, length, rows, steps = self.shape
        if self.padding is not None:
            tokens = _Spread.apply(tokens, self.slots, self.places)  # type: ignore[no-untyped-call]
        prompts, answers = torch.split(tokens, [groups * length, rows * steps])
        return (
            prompts.view(groups, length, *tokens.shape[1:]),
            answers.view(rows, steps, *tokens.shape[1:]),
        )

    def gather(self, prompts: Tensor, answers: Tensor) -> Tensor:
        """Back from `spread`'s layout to [N, ...]; what stands at padding is left behind."""
        slots = torch.cat([prompts.flatten(0, 1), answers.flatten(0, 1)])
        if self.padding is None:
            return slots
        gathered: Tensor = _Gather.apply(slots, self.slots, self.places, self.padding)  # type: ignore[no-untyped-call]
        return gathered


class _Spread(torch.autograd.Function):
    """Tokens into slots. Every token has one slot of its own, so the backward pass adds nothing up."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return tokens.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None


class _Gather(torch.autograd.Function):
    """Slots back into tokens."""

    @staticmethod
    def forward(ctx: Any, filled: Tensor, slots: Tensor, places: Tensor, padding: Tensor) -> Tensor:
        ctx.save_for_backward(slots, padding)
        return filled.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        slots, padding = ctx.saved_tensors
        spread = gradient.index_select(0, slots)
        return spread.index_fill_(0, padding, 0), None, None, None


def pack(ids: Tensor, mask: Tensor, start: int) -> Packed | None:
    """Pack rows [B, L] of prompts (before column `start`) and answers, of each answer all real tokens but the last.

    The last token predicts nothing that is asked for. None where a row has no prompt at all, or an answer that does
    not stand flush left: there are no such rows in training, and the model's own forward pass says what they mean.
    """
    asked, answered = mask[:, :start].bool(), mask[:, start:].bool()
    if not asked.any(1).all() or bool((answered[:, 1:] & ~answered[:, :-1]).any()):
        return None
    firsts, group = distinct_rows(ids[:, :start], mask[:, :start])
    asked = asked[firsts]
    going_on = answered[:, 1:]
    prompt_lengths, lengths = asked.sum(1), going_on.sum(1)
    places_p, at_p, empty_p = _slots(prompt_lengths)
    places_a, at_a, empty_a = _slots(lengths)
    tokens, slots_p = int(prompt_lengths.sum()), at_p.numel()
    padding = torch.cat([empty_p.flatten(), empty_a.flatten()])
    slots = torch.cat([at_p.flatten(), at_a.flatten() + tokens]).masked_fill(padding, 0)
    steps = torch.arange(going_on.shape[1], device=ids.device)
    return Packed(
        ids=torch.cat([ids[firsts, :start][asked], ids[:, start:-1][going_on]]),
        positions=torch.cat(
            [(asked.long().cumsum(1) - 1)[asked], (prompt_lengths[group].unsqueeze(1) + steps)[going_on]]
        ),
        lasts=prompt_lengths.cumsum(0) - 1,
        group=group,
        shape=(*at_p.shape, *at_a.shape),
        slots=slots,
        places=torch.cat([places_p, places_a + slots_p]),
        padding=padding.nonzero().squeeze(1) if bool(padding.any()) else None,
        prompt_lengths=prompt_lengths,
    )


def _slots(lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of rows of `lengths` [R] side by side: each token's slot [N], each slot's token [R, longest], which are empty."""
    longest = int(lengths.max())
    columns = torch.arange(longest, device=lengths.device)
    empty = columns >= lengths.unsqueeze(1)
    tokens = (lengths.cumsum(0) - lengths).unsqueeze(1) + columns
    return (~empty).flatten().nonzero().squeeze(1), tokens, empty
