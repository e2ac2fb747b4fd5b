"""Log-probabilities of given tokens under a causal language model, as training needs them."""

from __future__ import annotations

from typing import Any

import torch

from rlhf_core.lm.attention import MOST_SCORES, PackedAttention, can_share, packed_output, scores_kept
from rlhf_core.lm.forward import forward
from rlhf_core.lm.lean_llama import lean_llama
from rlhf_core.lm.packing import Packed, pack
from rlhf_core.lm.precision import computes_again
from rlhf_core.lm.prefix import distinct_rows
from rlhf_core.lm.sharding import is_spread

CHUNK = 2**18
"""Logits that are looked at together: few enough to stay in a core's cache, and never all in float32."""


class _Picked(torch.autograd.Function):
    """log p(token) and entropy of softmax(logits / temperature), keeping nothing for the backward pass but the logits.

    With p = softmax(z): d log p_k / d z = 1_k - p  and  d H / d z = -p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, tokens: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        picked = logits.new_empty(len(logits), dtype=torch.float32)
        entropy = torch.empty_like(picked)
        for rows in _chunks(logits):
            log_p = _log_softmax(logits[rows], temperature)
            picked[rows] = log_p.gather(1, tokens[rows].unsqueeze(1)).squeeze(1)
            entropy[rows] = -torch.linalg.vecdot(log_p.exp(), log_p)
        ctx.save_for_backward(logits, tokens, entropy)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return picked, entropy

    @staticmethod
    def backward(
        ctx: Any, grad_picked: torch.Tensor | None, grad_entropy: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, None, None]:
        logits, tokens, entropy = ctx.saved_tensors
        if grad_picked is None and grad_entropy is None:
            return None, None, None
        gradient = torch.empty_like(logits)
        for rows in _chunks(logits):
            log_p = _log_softmax(logits[rows], ctx.temperature)
            slope = log_p.exp()
            if grad_entropy is not None:
                weight = log_p.add_(entropy[rows].unsqueeze(1)).mul_(grad_entropy[rows].unsqueeze(1))
                slope *= -(weight if grad_picked is None else weight.add_(grad_picked[rows].unsqueeze(1)))
            elif grad_picked is not None:
                slope *= -grad_picked[rows].unsqueeze(1)
            if grad_picked is not None:
                slope.scatter_add_(1, tokens[rows].unsqueeze(1), grad_picked[rows].unsqueeze(1))
            gradient[rows] = slope if ctx.temperature == 1.0 else slope.div_(ctx.temperature)
        return gradient, None, None


def _chunks(logits: torch.Tensor) -> list[slice]:
    """The rows of `logits` [N, V] in pieces of about `CHUNK` numbers."""
    size = max(CHUNK // logits.shape[1], 1)
    return [slice(start, start + size) for start in range(0, len(logits), size)]


def _log_softmax(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Of `logits` / temperature, in float32."""
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    return scaled.log_softmax(-1)


def token_logprobs(logits: torch.Tensor, tokens: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Log-probability in nats of `tokens` [..] under softmax(`logits` [.., V] / temperature), float32 [..]."""
    return token_logprobs_and_entropy(logits, tokens, temperature)[0]


def token_logprobs_and_entropy(
    logits: torch.Tensor, tokens: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probabilities of `token_logprobs` with the entropy in nats of each distribution, both float32 [..]."""
    picked, entropy = _Picked.apply(logits.flatten(0, -2), tokens.flatten(), temperature)  # type: ignore[no-untyped-call]
    return picked.view(tokens.shape), entropy.view(tokens.shape)


def sequence_logprobs(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, answer_start: int, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the answers in `ids` and the entropies of the distributions they were drawn from.

    `ids` and `mask` are [B, L]; columns before `answer_start` hold the left-padded prompts, the T = L - `answer_start`
    columns after it the answers, padded on the right. Returns two float32 [B, T]; entries outside `mask` mean nothing.
    Gradients flow to both. Logits exist only for the answers' tokens. A prompt that stands in many rows is computed
    once and, where the architecture allows it (see `lm.attention`), padding not at all.
    """
    found = sequence_logprobs_and_states(model, ids, mask, answer_start, temperature, states=False)
    return found[0], found[1]


def sequence_logprobs_and_states(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, answer_start: int, temperature: float = 1.0, *, states: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What `sequence_logprobs` gives, and with `states` the last layer's hidden states [B, T, H] before each token."""
    length = ids.shape[1]
    if not 1 <= answer_start < length:
        raise ValueError(f"the answer must start inside the sequence, after a prompt: {answer_start} of {length}")
    if can_share(model):
        packed = pack(ids, mask, answer_start)
        if packed is not None and scores_kept(model, packed) <= MOST_SCORES:
            return _by_packing(model, packed, ids, mask, answer_start, temperature, states=states)
    logits = None if states else answer_logits_by_prefix(model, ids, mask, answer_start)
    before = None
    if logits is None:
        predicting = torch.arange(answer_start - 1, length - 1, device=ids.device)
        output = forward(model, ids, mask, logits_to_keep=predicting, output_hidden_states=states)
        logits = output.logits
        before = output.hidden_states[-1][:, predicting] if states else None
    return *token_logprobs_and_entropy(logits, ids[:, answer_start:], temperature), before


def _by_packing(
    model: Any,
    packed: Packed,
    ids: torch.Tensor,
    mask: torch.Tensor,
    start: int,
    temperature: float,
    *,
    states: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Every real token is computed once, and none that is not; 0 where there is none."""
    logits, hidden = _answer_logits(model, packed, states=states)
    answered = mask[:, start:].bool()
    going_on, groups = answered[:, 1:], len(packed.lasts)

    def unpacked(firsts: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        """[G or B, ...] before the first tokens and [n, ...] before the others as [B, T, ...]."""
        firsts = firsts if len(firsts) == len(ids) else firsts[packed.group]
        later = rest.new_zeros(*going_on.shape, *rest.shape[1:])
        later = later.masked_scatter(going_on.reshape(*going_on.shape, *[1] * (rest.dim() - 1)), rest)
        return torch.cat([firsts.unsqueeze(1), later], dim=1)

    ends, others = logits[:groups], logits[groups:]
    first = token_logprobs_and_entropy(ends[packed.group], ids[:, start], temperature)
    rest = token_logprobs_and_entropy(others, ids[:, start + 1 :][going_on], temperature)
    logprobs, entropy = (unpacked(*pair) for pair in zip(first, rest, strict=True))
    if hidden is None:
        return logprobs, entropy, None
    return logprobs, entropy, unpacked(hidden[:groups][packed.group], hidden[groups:])


def _answer_logits(model: Any, packed: Packed, *, states: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits [K, V] of the tokens that are asked for and, with `states`, the last layer's hidden states [K, H]."""
    wanted = packed.asked_for
    lean = lean_llama(model, packed=False)
    if lean is not None:
        found = lean.states(packed.ids.unsqueeze(0), packed.positions.unsqueeze(0), PackedAttention(packed), wanted)
        return lean.head(found)[0], found[0] if states else None
    output = packed_output(model, packed, output_hidden_states=states)
    return output.logits[0], output.hidden_states[-1][0, wanted] if states else None


def answer_logits_by_prefix(model: Any, ids: torch.Tensor, mask: torch.Tensor, answer_start: int) -> Any:
    """Logits [B, T, V] that predict the answers in `ids`, each distinct prompt computed once; gradients flow through.

    None where that does not pay (the average prompt has fewer than two answers), where activations are to be computed
    again (`lm.recompute`), where weights are spread over processes, which must all run as many passes, or where the
    architecture keeps something else than all keys and values. Equal to a plain forward pass up to rounding.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    firsts, index = distinct_rows(ids[:, :answer_start], mask[:, :answer_start])
    if 2 * len(firsts) > len(ids) or is_spread(model) or (torch.is_grad_enabled() and computes_again(model)):
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
