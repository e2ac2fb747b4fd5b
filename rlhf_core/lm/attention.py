"""Attention that knows which answers share a prompt, in the place of a transformers model's own.

transformers lets a model's attention be replaced by name and leaves everything else to the model; what is put in here
reads keys and values of a shared prompt once for all answers, and needs neither masks nor transformers' caches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rlhf_core.lm.forward import forward, takes_positions
from rlhf_core.lm.functions import softmax
from rlhf_core.lm.packing import Packed, pack
from rlhf_core.lm.precision import ONE_AT_A_TIME, computes_again
from rlhf_core.lm.sharding import entrance

NAME = "rlhf_shared_prompts"
MOST_SCORES = 2**27
"""Attention scores that a training pass may keep for its backward pass; beyond, kernels that recompute them win."""

Attend = Callable[[int, Tensor, int, float], Tensor]
"""From a layer's number, its queries, keys and values side by side [B, L, H + 2 Hkv, D], Hkv and the scale to
[B, L, H, D]."""

_current: ContextVar[Attend] = ContextVar(NAME)
_trusted: WeakKeyDictionary[Any, dict[bool, bool]] = WeakKeyDictionary()


class NotPlainAttentionError(NotImplementedError):
    """The architecture's attention does more than softmax(q k / scale) v."""


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, _: Any, *, scaling: float | None = None, **options: Any
) -> tuple[Tensor, None]:
    """What transformers calls, see its AttentionInterface."""
    if options.get("dropout") or any(options.get(name) is not None for name in ("softcap", "s_aux", "sliding_window")):
        raise NotPlainAttentionError
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    together = torch.cat([part.transpose(1, 2) for part in (query, key, value)], dim=2)
    return _current.get()(module.layer_idx, together, key.shape[1], scale), None


@contextlib.contextmanager
def attending(model: Any, attend: Attend) -> Iterator[None]:
    """Let all layers of `model` attend by `attend` inside."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    with ONE_AT_A_TIME:
        before = {key: config._attn_implementation for key, config in configs.items()}
        token = _current.set(attend)
        try:
            for config in configs.values():
                config._attn_implementation = NAME
            yield
        finally:
            _current.reset(token)
            for key, config in configs.items():
                config._attn_implementation = before[key]


def can_share(model: Any) -> bool:
    """Whether `model` can be run by `attending` here and now: on the CPU, where its numbers are the model's own.

    Tried out once on a handful of tokens, because there is no other way to know what an architecture does with its
    positions and masks. Accelerators have kernels of their own that are faster.
    """
    if next(model.parameters()).device.type != "cpu" or computes_again(model):
        return False
    known = _trusted.setdefault(model, {})
    if model.training not in known:
        known[model.training] = _agrees(model)
    return known[model.training]


@torch.no_grad()
def _agrees(model: Any) -> bool:
    from transformers.cache_utils import DynamicCache, DynamicLayer

    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    cache = DynamicCache(config=plain.config)
    if not takes_positions(model) or not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return False
    ids = torch.tensor([[1, 1, 2, 3, 4, 5, 6], [1, 1, 2, 3, 7, 8, 1], [5, 4, 3, 2, 1, 6, 7]])
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
    if plain.config.get_text_config().vocab_size <= int(ids.max()):
        return False
    packed = pack(ids, mask, 4)
    assert packed is not None
    with torch.random.fork_rng(devices=[]):
        own = forward(model, ids, mask).logits[:, 3:-1].float()
        try:
            ours = packed_output(model, packed).logits[0].float()
        except (NotPlainAttentionError, RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            return False
    groups = len(packed.lasts)
    expected = torch.cat([own[[0, 2], 0], own[:, 1:].flatten(0, 1)])
    return len(ours) == groups + 6 and bool((ours - expected).abs().max() <= 0.05 * expected.abs().max())


def packed_output(model: Any, packed: Packed, **options: Any) -> Any:
    """The model's output on the whole row; logits [1, K, V] of what is `asked_for` of it alone."""
    with attending(model, PackedAttention(packed)):
        return entrance(model)(
            input_ids=packed.ids.unsqueeze(0),
            position_ids=packed.positions.unsqueeze(0),
            use_cache=False,
            logits_to_keep=packed.asked_for,
            **options,
        )


class PackedAttention:
    """Each token attends to its own prompt's and answer's tokens so far.

    `seen` is told each layer's keys and values of the prompts [G, Hkv, P, D].
    """

    def __init__(self, packed: Packed, seen: Callable[[int, Tensor, Tensor], None] | None = None) -> None:
        self.packed, self.seen = packed, seen
        groups, length, rows, steps = packed.shape
        same = rows % groups == 0 and bool((packed.group == torch.arange(rows) // (rows // groups)).all())
        self.each = rows // groups if same else 1
        """Answers a prompt whose queries meet its keys together."""
        self.pick = None if same else packed.group
        late = torch.full((length, length), -torch.inf).triu(1), torch.full((steps, steps), -torch.inf).triu(1)
        self.later_prompt, self.later_answer = late
        lengths = packed.prompt_lengths if self.pick is None else packed.prompt_lengths[self.pick]
        absent = torch.arange(length) >= lengths.unsqueeze(1)
        self.absent = torch.zeros(absent.shape).masked_fill(absent, -torch.inf) if bool(absent.any()) else None

    def __call__(self, layer: int, together: Tensor, shared: int, scale: float) -> Tensor:
        """[1, N, H + 2 Hkv, D] in, [1, N, H, D] out."""
        groups, length, rows, steps = self.packed.shape
        heads, width = together.shape[2] - 2 * shared, together.shape[3]
        times, sizes = heads // shared, [heads, shared, shared]
        of_prompts, of_answers = (torch.split(part, sizes, dim=2) for part in self.packed.spread(together[0]))
        # Several query heads on one of the keys are, to that one, so many more queries.
        asked = (of_prompts[0] * scale).view(groups, length, shared, times, width).permute(0, 2, 3, 1, 4)
        keys, values = (part.transpose(1, 2) for part in of_prompts[1:])
        if self.seen is not None:
            self.seen(layer, keys, values)
        scores = asked.reshape(groups, shared, times * length, width) @ keys.transpose(2, 3)
        scores = scores.view(groups, shared, times, length, length).add_(self.later_prompt.to(scores.dtype))
        weights = softmax(scores)[..., :length].reshape(groups, shared, times * length, length)
        prompts = weights @ values
        prompts = prompts.view(groups, shared, times, length, width).permute(0, 3, 1, 2, 4)
        prompts = prompts.reshape(groups, length, heads, width)
        if not steps:
            return self.packed.gather(prompts, of_answers[0]).unsqueeze(0)

        if self.pick is not None:
            keys, values = keys[self.pick], values[self.pick]
        each, groups = self.each, rows // self.each
        of_each = (groups, shared, each * times * steps)
        asked = (of_answers[0] * scale).view(groups, each, steps, shared, times, width).permute(0, 3, 1, 4, 2, 5)
        asked = asked.reshape(groups, shared, each, times * steps, width)
        own_keys, own_values = (
            part.reshape(groups, each, steps, shared, width).permute(0, 3, 1, 2, 4) for part in of_answers[1:]
        )
        to_prompt = asked.view(*of_each, width) @ keys.transpose(2, 3)
        if self.absent is not None:
            to_prompt += self.absent[:, None, None].to(asked.dtype)
        to_own = (asked @ own_keys.transpose(3, 4)).view(groups, shared, each, times, steps, steps)
        to_own = to_own.add_(self.later_answer.to(asked.dtype)).view(*of_each, steps)
        weights = softmax(to_prompt, to_own)
        found = weights[..., length : length + steps].reshape(groups, shared, each, times * steps, steps) @ own_values
        found = found.view(*of_each, width) + weights[..., :length] @ values
        answers = found.view(groups, shared, each, times, steps, width).permute(0, 2, 4, 1, 3, 5)
        return self.packed.gather(prompts, answers.reshape(rows, steps, heads, width)).unsqueeze(0)


def scores_kept(model: Any, packed: Packed) -> int:
    """Attention scores of all layers and heads in a pass over `packed`."""
    config = model.config.get_text_config()
    groups, length, rows, steps = packed.shape
    one = groups * length * length + rows * steps * (length + steps)
    return int(config.num_hidden_layers * config.num_attention_heads * one)
