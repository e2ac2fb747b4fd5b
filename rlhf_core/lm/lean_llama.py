"""The forward pass of models of Llama's shape without gradients, in fewer and larger operations than their own code.

For a few dozen tokens at a time what lies between the products takes as long as the products. Here queries, keys and
values come of one product, and so do the gate and what it gates, over weights that are packed once for all steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Linear

from rlhf_core.lm.attention import Attend, PackedAttention, packed_output
from rlhf_core.lm.packed_linear import PackedLinear
from rlhf_core.lm.packing import pack

MOST_PACKED = 2**31
"""Bytes of weights that are packed, because they are in memory once more then; a larger model runs its own code."""

_trusted: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def lean_llama(model: Any) -> LeanLlama | None:
    """`model` with its weights as they are now, ready to run; None where its own code must run.

    For models that `attention.can_share` has seen. Tried out once on a handful of tokens: other architectures have
    parts of the same names and do more with them.
    """
    if (
        _trusted.get(model) is False
        or torch.is_autocast_enabled("cpu")
        or _hooked(model)
        or _bytes(model) > MOST_PACKED
    ):
        return None
    try:
        lean = LeanLlama(model)
        _trusted[model] = _trusted.get(model) or _agrees(model, lean)
    except (NotLlamaError, RuntimeError, TypeError, ValueError, AttributeError):
        _trusted[model] = False
    return lean if _trusted[model] else None


@dataclass(frozen=True)
class Layer:
    """One transformer block: the model's own parts, and its linear maps packed."""

    before_attention: Any
    before_mlp: Any
    activation: Any
    scale: float
    qk_norms: tuple[Any, Any] | None
    """Of queries and keys, head by head, where the architecture has them."""
    qkv: PackedLinear
    out: PackedLinear
    gate_up: PackedLinear
    down: PackedLinear


class LeanLlama:
    """Embedding, blocks and head of a model whose parts have the names that they have in Llama (Qwen, Mistral, ...)."""

    def __init__(self, model: Any) -> None:
        """Pack the weights of `model` as they are now. Raises NotLlamaError where its parts are others."""
        body = _part(model, "model")
        self.embedding, self.rotary, self.norm = (_part(body, n) for n in ("embed_tokens", "rotary_emb", "norm"))
        self.layers = [_packed(layer) for layer in _part(body, "layers")]
        self.head = PackedLinear([_linear(model, "lm_head")])
        config = model.config.get_text_config()
        self.heads, self.shared = config.num_attention_heads, config.num_key_value_heads

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend, keep: Tensor | None = None) -> Tensor:
        """Logits [B, L, V] of `ids` [B, L] at `positions` [B, L], or of the columns `keep` [K] alone."""
        states = self.embedding(ids)
        heads = [self.heads, self.shared, self.shared]
        cos, sin = self.rotary(states, positions)
        half = sin.shape[-1] // 2
        # Turning by half the width and this sign is what the models' own `rotate_half` does.
        cos, sin = cos.unsqueeze(2), torch.cat([-sin[..., :half], sin[..., half:]], dim=-1).unsqueeze(2)
        for number, layer in enumerate(self.layers):
            found = layer.qkv(layer.before_attention(states)).view(*ids.shape, sum(heads), -1)
            if layer.qk_norms is not None:
                query, key, value = torch.split(found, heads, dim=2)
                found = torch.cat([layer.qk_norms[0](query), layer.qk_norms[1](key), value], dim=2)
            turned = found[:, :, : -self.shared]
            across = turned.roll(half, -1).mul_(sin)
            turned.mul_(cos).add_(across)
            query, key, value = torch.split(found.transpose(1, 2), heads, dim=1)
            seen = attend(number, query, key, value, layer.scale)
            states = states + layer.out(seen.reshape(*ids.shape, -1))
            gate, up = torch.split(layer.gate_up(layer.before_mlp(states)), layer.gate_up.widths, dim=-1)
            states = states + layer.down(layer.activation(gate) * up)
        return self.head(self.norm(states if keep is None else states[:, keep]))


class NotLlamaError(TypeError):
    """The model is of another shape."""


def _packed(layer: Any) -> Layer:
    attention, mlp = _part(layer, "self_attn"), _part(layer, "mlp")
    return Layer(
        before_attention=_part(layer, "input_layernorm"),
        before_mlp=_part(layer, "post_attention_layernorm"),
        activation=_part(mlp, "act_fn"),
        scale=_part(attention, "scaling"),
        qk_norms=(attention.q_norm, _part(attention, "k_norm")) if hasattr(attention, "q_norm") else None,
        qkv=PackedLinear([_linear(attention, name) for name in ("q_proj", "k_proj", "v_proj")]),
        out=PackedLinear([_linear(attention, "o_proj")]),
        gate_up=PackedLinear([_linear(mlp, name) for name in ("gate_proj", "up_proj")]),
        down=PackedLinear([_linear(mlp, "down_proj")]),
    )


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
    prompts = int(packed.lasts[-1]) + 1
    ours = lean(packed.ids.unsqueeze(0), packed.positions.unsqueeze(0), PackedAttention(packed))[0].float()
    ours = torch.cat([ours[packed.lasts], ours[prompts:]])
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.05
    return ours.shape == own.shape and bool((ours - own).abs().max() <= tolerance * own.abs().max())
