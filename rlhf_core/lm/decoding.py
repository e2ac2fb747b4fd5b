"""One more token for every row, again and again: the inner loop of sampling."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf_core.lm.attention import PackedAttention, attending, can_share
from rlhf_core.lm.cache import growing_cache
from rlhf_core.lm.forward import forward
from rlhf_core.lm.lean_llama import LeanLlama, lean_llama
from rlhf_core.lm.packing import Packed, pack
from rlhf_core.lm.prefix import distinct_rows

ROOM = 16
"""Steps for which room is made at once. Products read all of it, because they would copy a part of it first."""
MOST_TOGETHER = 8
"""Answers to one prompt that attend together: so many times as much as is needed is computed on their own tokens."""


class Decoder(Protocol):
    """B rows of prompts that are being answered."""

    def begin(self) -> Tensor:
        """Read the prompts; logits [B, V] after them."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append `tokens` [B]; logits [B, V] after them."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows [b] alone."""


@contextlib.contextmanager
def decoding(model: Any, ids: Tensor, mask: Tensor, room: int) -> Iterator[Decoder]:
    """A decoder of left-padded prompts [B, P] for at most `room` tokens more; `model` is to be run by it alone inside.

    Where the architecture allows it, answers read their prompt's keys and values together; else through transformers'
    caches. Both give the model's own logits up to rounding.
    """
    packed = pack(ids, mask, ids.shape[1]) if can_share(model) else None
    if packed is None:
        yield CachedDecoder(model, ids, mask, room)
        return
    decoder = SharingDecoder(model, packed, room, lean_llama(model, packed=True))
    with attending(model, decoder.attend):
        yield decoder


class SharingDecoder:
    """Keeps a prompt's keys and values once, however many answers it has, and attends to all answers of it together.

    Answers stand in a grid of G prompts with n places each. One prompt's keys and those of the answers to it, token by
    token, stand in one row; all queries of the prompt meet that row in one product, and a bias hides from each what
    belongs to the other answers. That computes more than is needed, but on a CPU reading keys is what takes the time,
    and here each is read once.
    """

    def __init__(self, model: Any, packed: Packed, room: int, lean: LeanLlama | None) -> None:
        self.model, self.packed, self.most, self.lean = model, packed, room, lean
        self.room = min(ROOM, room)
        """Steps there is room for."""
        self.length = packed.shape[1]
        """Tokens P of the longest prompt."""
        self.grid = Grid.of(packed.group)
        self.lengths = packed.prompt_lengths[packed.group]
        """[B] tokens of each row's prompt."""
        self.states: dict[int, Tensor] = {}
        """Keys and values of each layer, [2, G, Hkv, P + room * n, D]; those of answers by token, then by place."""
        self.steps = 0
        """Tokens appended, the one being computed included; 0 while the prompts are read."""
        columns = torch.arange(self.length)
        self.absent = columns >= packed.prompt_lengths[packed.group[self.grid.rows]].view(-1, self.grid.each)[:, :1]
        """[G, P] true where a prompt has ended."""
        self.bias: Tensor | None = None
        """[G, 1, n * H / Hkv, P + room * n]: -inf where a query must not look: padding, other answers, the future. None
        where it is to be made anew."""

    def begin(self) -> Tensor:
        """Read the distinct prompts, without padding."""
        packed = self.packed
        return self._run(packed.ids.unsqueeze(0), packed.positions.unsqueeze(0), packed.lasts)[0, packed.group]

    def step(self, tokens: Tensor) -> Tensor:
        """Append `tokens`."""
        places = (self.lengths + self.steps).unsqueeze(1)
        self.steps += 1
        if self.steps > self.room:
            self._make_room()
        if self.bias is not None:
            self._uncover(self.bias, self.steps - 1)
        return self._run(tokens.unsqueeze(1), places)[:, 0]

    def _run(self, ids: Tensor, positions: Tensor, columns: Tensor | None = None) -> Tensor:
        """Logits of `ids` [B, L], or of `columns` alone, in the fewest operations that this model allows."""
        if self.lean is not None:
            return self.lean(ids, positions, self.attend, columns)
        options = {"use_cache": False, "logits_to_keep": 0 if columns is None else columns}
        logits: Tensor = self.model(input_ids=ids, position_ids=positions, **options).logits
        return logits

    def keep(self, rows: Tensor) -> None:
        """Forget the others; their places are given up once they are an eighth of all."""
        self.lengths = self.lengths[rows]
        grid = self.grid.kept(rows)
        smaller, places = grid.pressed()
        if 8 * len(smaller.rows) > 7 * len(grid.rows):
            self.grid = grid
            return
        prompts = places[:: smaller.each] // grid.each
        for layer, states in self.states.items():
            self.states[layer] = self._moved(states, grid, smaller, prompts, places)
        self.grid, self.absent, self.bias = smaller, self.absent[prompts], None

    def attend(self, layer: int, together: Tensor, shared: int, scale: float) -> Tensor:
        """[B, 1, H + 2 Hkv, D] in, [B, 1, H, D] out; while prompts are read as `PackedAttention`."""
        if not self.steps:
            return PackedAttention(self.packed, self._read)(layer, together, shared, scale)
        heads, width, grid = together.shape[2] - 2 * shared, together.shape[3], self.grid
        query, fresh = torch.split(grid.laid(together[:, 0]), [heads, 2 * shared], dim=2)
        start, end = self.length + (self.steps - 1) * grid.each, self.length + self.steps * grid.each
        states = self.states[layer]
        states[:, :, :, start:end] = fresh.view(-1, grid.each, 2, shared, width).permute(2, 0, 3, 1, 4)
        # Several query heads on one of the keys are, to that one, so many more queries.
        asked = query.view(-1, grid.each, shared, heads // shared, width).transpose(1, 2)
        pairs, size = asked.shape[:2], grid.each * heads // shared
        asked, keys, values = asked.reshape(-1, size, width), *states.flatten(1, 2)
        if asked.dtype == torch.float32:  # the faster order of this product, by half
            scores = (keys @ asked.transpose(1, 2)).transpose(1, 2)
        else:
            scores = asked @ keys.transpose(1, 2)
        if self.bias is None:
            self.bias = scores.new_full((pairs[0], 1, *scores.shape[1:]), -torch.inf)
            self.bias[..., : self.length] = torch.where(self.absent, -torch.inf, 0.0)[:, None, None]
            self._uncover(self.bias, 0)
        weights = torch.add(self.bias, scores.view(*pairs, *scores.shape[1:]), alpha=scale).softmax(-1)
        found = (weights.view(scores.shape) @ values).view(*pairs, grid.each, -1, width).transpose(1, 2)
        return grid.taken(found.reshape(-1, heads, width)).unsqueeze(1)

    def _read(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Keep the prompts' keys and values [prompts, Hkv, P, D], and set room aside for the answers'."""
        prompts = self.packed.group[self.grid.rows].view(-1, self.grid.each)[:, 0]
        _, shared, length, width = keys.shape
        room = self.room * self.grid.each
        self.states[layer] = keys.new_zeros(2, len(prompts), shared, length + room, width)
        for held, part in zip(self.states[layer], (keys, values), strict=True):
            held[:, :, :length] = part[prompts]

    def _uncover(self, bias: Tensor, first: int) -> None:
        """Let every answer see its own tokens from step `first` on."""
        each = self.grid.each
        own = torch.eye(each, dtype=torch.bool).repeat_interleave(bias.shape[2] // each, dim=0)
        start, end = self.length + first * each, self.length + self.steps * each
        bias[..., start:end].masked_fill_(own.repeat(1, self.steps - first), 0.0)

    def _make_room(self) -> None:
        """For some steps more."""
        more = min(self.room + ROOM, self.most) - self.room
        for layer, states in self.states.items():
            empty = states.new_zeros(*states.shape[:3], more * self.grid.each, states.shape[4])
            self.states[layer] = torch.cat([states, empty], dim=3)
        self.room, self.bias = self.room + more, None

    def _moved(self, states: Tensor, old: Grid, new: Grid, prompts: Tensor, places: Tensor) -> Tensor:
        """The states of `old`'s places [G' * n'] in the layout of `new`."""
        _, count, shared, _, width = states.shape
        fresh = states.new_zeros(2, len(prompts), shared, self.length + self.room * new.each, width)
        fresh[:, :, :, : self.length] = states[:, prompts, :, : self.length]
        filled = states[:, :, :, self.length : self.length + self.steps * old.each]
        by_place = filled.view(2, count, shared, self.steps, old.each, width).permute(1, 4, 0, 2, 3, 5)
        moved = by_place[places // old.each, places % old.each].view(
            len(prompts), new.each, 2, shared, self.steps, width
        )
        answers = slice(self.length, self.length + self.steps * new.each)
        fresh[:, :, :, answers] = moved.permute(2, 0, 3, 4, 1, 5).flatten(3, 4)
        return fresh


@dataclass(frozen=True)
class Grid:
    """Where B rows stand: each in one of the `each` places of its prompt."""

    each: int
    rows: Tensor
    """[G * each] the row in each place; some row where there is none any more."""
    places: Tensor
    """[B] the place of each row."""

    @classmethod
    def of(cls, group: Tensor) -> Grid:
        """Rows of equal `group` [B] side by side; many of them are parted, so that they don't compute too much."""
        order = group.argsort(stable=True)
        counts = torch.bincount(group)
        most = int(counts.max())
        each = -(-most // -(-most // MOST_TOGETHER))
        ranks = torch.arange(len(order)) - (counts.cumsum(0) - counts)[group[order]]
        parts = -(-counts // each)
        prompts = (parts.cumsum(0) - parts)[group[order]] + ranks // each
        places = torch.empty_like(order)
        places[order] = prompts * each + ranks % each
        return cls._filled(each, places, int(parts.sum()))

    def kept(self, rows: Tensor) -> Grid:
        """With these rows alone, where they are."""
        return self._filled(self.each, self.places[rows], len(self.rows) // self.each)

    def pressed(self) -> tuple[Grid, Tensor]:
        """The smallest grid of the same rows, and what place here each of its places was."""
        prompts, order = self.places // self.each, self.places.argsort()
        left, numbers, counts = torch.unique(prompts[order], return_inverse=True, return_counts=True)
        each = int(counts.max())
        ranks = torch.arange(len(order)) - (counts.cumsum(0) - counts)[numbers]
        places = torch.empty_like(order)
        places[order] = numbers * each + ranks
        before = left.repeat_interleave(each) * self.each
        before[places] = self.places
        return self._filled(each, places, len(left)), before

    def laid(self, parts: Tensor) -> Tensor:
        """[B, ...] as [G, each, ...]."""
        if len(self.rows) != len(self.places) or not self._in_order:
            parts = parts[self.rows]
        return parts.view(-1, self.each, *parts.shape[1:])

    def taken(self, parts: Tensor) -> Tensor:
        """[G * each, ...] as [B, ...]."""
        return parts if self._in_order and len(self.rows) == len(self.places) else parts[self.places]

    @classmethod
    def _filled(cls, each: int, places: Tensor, prompts: int) -> Grid:
        """Empty places get a row of their own prompt where there is one, so that a prompt is known by any place."""
        rows = torch.full((prompts, each), -1)
        rows.view(-1)[places] = torch.arange(len(places))
        rows = torch.where(rows < 0, rows.amax(1, keepdim=True).clamp(min=0), rows)
        return cls(each, rows.flatten(), places)

    @cached_property
    def _in_order(self) -> bool:
        return torch.equal(self.places, torch.arange(len(self.places)))


class CachedDecoder:
    """Any architecture, through transformers' caches."""

    def __init__(self, model: Any, ids: Tensor, mask: Tensor, room: int) -> None:
        self.model, self.ids, self.mask = model, ids, mask
        self.cache = growing_cache(model, ids.shape[1] + room)

    def begin(self) -> Tensor:
        """Read the prompts; equal ones are computed once."""
        firsts, index = distinct_rows(self.ids, self.mask)
        options = {"past_key_values": self.cache, "use_cache": True, "logits_to_keep": 1}
        logits: Tensor = forward(self.model, self.ids[firsts], self.mask[firsts], **options).logits
        if len(firsts) < len(self.ids):
            self.cache.reorder_cache(index)
        return logits[index, -1]

    def step(self, tokens: Tensor) -> Tensor:
        """Append `tokens`."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        options = {"past_key_values": self.cache, "use_cache": True}
        logits: Tensor = forward(self.model, tokens.unsqueeze(1), self.mask, **options).logits[:, -1]
        return logits

    def keep(self, rows: Tensor) -> None:
        """Forget the others."""
        self.mask = self.mask[rows]
        self.cache.reorder_cache(rows)
