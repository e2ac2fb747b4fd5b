"""The forward pass of models of Llama's shape, in fewer and larger operations than their own code.

For a few dozen tokens at a time what lies between the products takes as long as the products, and a third of the time
for thousands. Here queries, keys and values come of one product and are turned and attended to side by side; norms and
rotations have gradients by hand; and the last layer goes on with those tokens alone that are asked for. For sampling
the gate and what it gates come of one product too, over weights that are packed once for all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Linear, functional

from rlhf_core.lm.attention import Attend, PackedAttention, packed_output
from rlhf_core.lm.functions import rms_norm, turn
from rlhf_core.lm.packed_linear import PackedLinear, joined
from rlhf_core.lm.packing import pack

MOST_PACKED = 2**31
"""Bytes of weights that are packed, because they are in memory once more then; a larger model runs its own code."""

_trusted: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def lean_llama(model: Any, *, packed: bool) -> LeanLlama | None:
    """`model` with its weights as they are now, ready to run; None where its own code must run.

    `packed` for many passes without gradients; else gradients flow to the weights. For models that
    `attention.can_share` has seen. Tried out once on a handful of tokens: other architectures have parts of the same
    names and do more with them.
    """
    if (
        _trusted.get(model) is False
        or torch.is_autocast_enabled("cpu")
        or model.training
        or _hooked(model)
        or (packed and _bytes(model) > MOST_PACKED)
    ):
        return None
    try:
        lean = LeanLlama(model, packed=packed)
        _trusted[model] = _trusted.get(model) or _agrees(model, lean)
    except (NotLlamaError, RuntimeError, TypeError, ValueError, AttributeError):
        _trusted[model] = False
    return lean if _trusted[model] else None


Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """One transformer block: [.., I] to [.., O] each."""

    before_attention: Map
    before_mlp: Map
    scale: float
    qk_norms: tuple[Map, Map] | None
    """Of queries and keys, head by head, where the architecture has them."""
    qkv: Map
    out: Map
    mlp: Map


class LeanLlama:
    """Embedding, blocks and head of a model whose parts have the names that they have in Llama (Qwen, Mistral, ...)."""

    def __init__(self, model: Any, *, packed: bool) -> None:
        """Take the weights of `model` as they are now. Raises NotLlamaError where its parts are others."""
        body = _part(model, "model")
        self.embedding, self.rotary = _part(body, "embed_tokens"), _part(body, "rotary_emb")
        self.norm = _norm(body, "norm")
        self.layers = [_layer(layer, packed=packed) for layer in _part(body, "layers")]
        head = _linear(model, "lm_head")
        self.head: Map = PackedLinear([head]) if packed else head
        config = model.config.get_text_config()
        self.heads, self.shared = config.num_attention_heads, config.num_key_value_heads

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend, keep: Tensor | None = None) -> Tensor:
        """Logits [B, L, V] of `ids` [B, L] at `positions` [B, L], or of the columns `keep` [K] alone."""
        return self.head(self.states(ids, positions, attend, keep))

    def states(self, ids: Tensor, positions: Tensor, attend: Attend, keep: Tensor | None = None) -> Tensor:
        """What the head reads, [B, L, H] or [B, K, H]."""
        states = self.embedding(ids)
        heads = [self.heads, self.shared, self.shared]
        cos, sin = self.rotary(states, positions)
        width = sin.shape[-1]
        # Turning by half the width and this sign is what the models' own `rotate_half` does.
        sin = torch.cat([-sin[..., : width // 2], sin[..., width // 2 :]], dim=-1)
        cos, sin = (part.repeat(1, 1, self.heads + self.shared) for part in (cos, sin))
        for number, layer in enumerate(self.layers):
            found = layer.qkv(layer.before_attention(states))
            if layer.qk_norms is not None:
                query, key, value = torch.split(found.view(*ids.shape, sum(heads), -1), heads, dim=2)
                found = torch.cat([layer.qk_norms[0](query), layer.qk_norms[1](key), value], dim=2).flatten(2)
            found = turn(found, cos, sin, width).view(*ids.shape, sum(heads), -1)
            seen = attend(number, found, self.shared, layer.scale).reshape(*ids.shape, -1)
            if keep is not None and number == len(self.layers) - 1:
                states, seen = states[:, keep], seen[:, keep]
            states = states + layer.out(seen)
            states = states + layer.mlp(layer.before_mlp(states))
        return self.norm(states)


class NotLlamaError(TypeError):
    """The model is of another shape."""


def _layer(layer: Any, *, packed: bool) -> Layer:
    attention, mlp = _part(layer, "self_attn"), _part(layer, "mlp")
    qkv = [_linear(attention, name) for name in ("q_proj", "k_proj", "v_proj")]
    gate, up, down = (_linear(mlp, name) for name in ("gate_proj", "up_proj", "down_proj"))
    out = _linear(attention, "o_proj")
    return Layer(
        before_attention=_norm(layer, "input_layernorm"),
        before_mlp=_norm(layer, "post_attention_layernorm"),
        scale=_part(attention, "scaling"),
        qk_norms=(_norm(attention, "q_norm"), _norm(attention, "k_norm")) if hasattr(attention, "q_norm") else None,
        qkv=PackedLinear(qkv) if packed else _joined(qkv),
        out=PackedLinear([out]) if packed else out,
        mlp=_packed_mlp([gate, up], down, _part(mlp, "act_fn")) if packed else mlp,
    )


def _joined(maps: Sequence[Linear]) -> Map:
    weight, bias = joined(maps)
    return partial(functional.linear, weight=weight, bias=bias)


def _packed_mlp(gate_up: Sequence[Linear], down: Linear, activation: Map) -> Map:
    first, second = PackedLinear(gate_up), PackedLinear([down])

    def mlp(states: Tensor) -> Tensor:
        gate, up = torch.split(first(states), first.widths, dim=-1)
        return second(activation(gate) * up)

    return mlp


def _norm(owner: Any, name: str) -> Map:
    """Llama's norm in our own code; the part itself where it is another."""
    part: Map = _part(owner, name)
    if not hasattr(part, "variance_epsilon"):
        return part
    return partial(rms_norm, weight=part.weight, eps=part.variance_epsilon)  # type: ignore[attr-defined]


def _linear(owner: Any, name: str) -> Linear:
    """A plain linear map; one with adapters, or quantised, is not."""
    part = _part(owner, name)
    if type(part) is not Linear:
        raise NotLlamaError(f"{name} is a {type(part).__name__}")
    return part


def _part(owner: Any, name: str) -> Any:
    part = getattr(owner, name, None)
    if part is None:
        raise NotLlamaError(f"{type(owner).__name__} has no {name}")
    return part


def _hooked(model: Any) -> bool:
    """Whether somebody waits for the calls of parts; transformers does for good once hidden states were asked for."""
    hooks = (
        hook for part in model.modules() for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    )
    return any(hook.__module__ != "transformers.utils.output_capturing" for hook in hooks)


def _bytes(model: Any) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


@torch.no_grad()
def _agrees(model: Any, lean: LeanLlama) -> bool:
    ids = torch.tensor([[1, 1, 2, 3, 4, 5, 6], [1, 1, 2, 3, 7, 8, 1], [5, 4, 3, 2, 1, 6, 7]])
    packed = pack(ids, torch.ones_like(ids), 4)
    assert packed is not None
    own = packed_output(model, packed).logits[0].float()
    positions = packed.positions.unsqueeze(0)
    ours = lean(packed.ids.unsqueeze(0), positions, PackedAttention(packed), packed.asked_for)[0].float()
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.05
    return ours.shape == own.shape and bool((ours - own).abs().max() <= tolerance * own.abs().max())
