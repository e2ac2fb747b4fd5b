"""Sampling answers from a causal language model, in batches, with the log-probability of every sampled token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlhf_core.lm.decoding import decoding


@dataclass
class Rollouts:
    """B answers of at most T tokens to B prompts."""

    prompt_ids: torch.Tensor
    """[B, P] int64, left-padded; columns that are padding in every row are gone."""
    prompt_mask: torch.Tensor
    """[B, P] int64, 1 for real tokens."""
    tokens: torch.Tensor
    """[B, T] int64, padded after the end. T is the longest answer's length."""
    logprobs: torch.Tensor
    """[B, T] float32, nats, under the distribution that was sampled from; 0 in the padding."""
    mask: torch.Tensor
    """[B, T] bool, true for sampled tokens, the EOS included."""
    finished: torch.Tensor
    """[B] bool, true where the answer ended with EOS or a stop string, false where it was cut at the limit."""


def rollout(
    model: Any,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    *,
    max_new_tokens: int,
    eos_id: int,
    pad_id: int,
    seeds: Sequence[int],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_new_tokens: int = 0,
    stops: Callable[[torch.Tensor], list[bool]] | None = None,
) -> Rollouts:
    """Sample one answer a row of the left-padded `prompt_ids` [B, P]; `seeds` holds one seed a row.

    Row i is a function of the model, its prompt and `seeds[i]`: the other rows enter only through the rounding of
    floating-point sums. Every row has its own stream of uniform numbers, one a step, inverted through the cumulative
    distribution in float64. A prompt that stands in several rows is run once and its cache shared out. Finished rows
    leave the batch. At no time are there logits for more than one position a row.

    Without `top_k`, `top_p` and `min_new_tokens` the log-probs are exactly those of softmax(logits / temperature);
    with them they are those of the filtered, renormalised distribution that was really sampled from. `top_k=1` is
    greedy decoding. `stops` says of the answers so far [b, t] of the unfinished rows which of them have come to an end
    without an EOS. Raises ValueError for a temperature that is not positive or a number of seeds that does not fit.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature:g}; top_k=1 is greedy decoding")
    rows = len(prompt_ids)
    if len(seeds) != rows:
        raise ValueError(f"{len(seeds)} seeds for {rows} prompts")
    device = prompt_ids.device
    used = prompt_mask.any(0).nonzero()
    start = int(used[0]) if len(used) else 0
    prompt_ids, prompt_mask = prompt_ids[:, start:], prompt_mask[:, start:]

    uniforms = uniform_table(seeds, max_new_tokens).to(device)
    tokens = torch.full((rows, max_new_tokens), pad_id, dtype=torch.int64, device=device)
    logprobs = torch.zeros(rows, max_new_tokens, device=device)
    mask = torch.zeros(rows, max_new_tokens, dtype=torch.bool, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)

    with torch.inference_mode(), decoding(model, prompt_ids, prompt_mask, max_new_tokens) as decoder:
        logits = decoder.begin()
        alive = torch.arange(rows, device=device)
        step = 0
        while True:
            forbidden = eos_id if step < min_new_tokens else None
            token, logprob = sample_tokens(
                logits, uniforms[:, step], temperature=temperature, top_k=top_k, top_p=top_p, forbidden=forbidden
            )
            tokens[alive, step], logprobs[alive, step], mask[alive, step] = token, logprob, True
            ended = token == eos_id
            step += 1
            if stops is not None:
                ended |= torch.tensor(stops(tokens[alive, :step]), device=device)
            finished[alive] = ended
            if step == max_new_tokens or bool(ended.all()):
                break
            if bool(ended.any()):
                left = (~ended).nonzero().squeeze(1)
                alive, token, uniforms = alive[left], token[left], uniforms[left]
                decoder.keep(left)
            logits = decoder.step(token)
    return Rollouts(prompt_ids, prompt_mask, tokens[:, :step], logprobs[:, :step], mask[:, :step], finished)


def uniform_table(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Uniform numbers in [0, 1), float64 [B, steps]; row i depends on `seeds[i]` alone."""
    import numpy as np

    table = np.empty((len(seeds), steps))
    for row, seed in zip(table, seeds, strict=True):
        np.random.Generator(np.random.Philox(key=seed)).random(out=row)
    return torch.from_numpy(table)


def sample_tokens(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    forbidden: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row of `logits` [B, V] by inverting its distribution at `uniforms` [B].

    Returns the tokens, int64 [B], and their log-probabilities under the distribution drawn from, float32 [B].
    `top_k` keeps the k most likely tokens, `top_p` the fewest that hold that much probability (Holtzman et al. 2020),
    `forbidden` is never drawn.
    """
    scores = logits.float() / temperature
    if forbidden is not None:
        scores[:, forbidden] = -torch.inf
    if 0 < top_k < scores.shape[-1]:
        scores = keep_top_k(scores, top_k)
    if top_p < 1.0:
        scores = keep_top_p(scores, top_p)
    log_p = scores.log_softmax(-1)
    cumulative = log_p.exp().cumsum(-1, dtype=torch.float64)
    target = uniforms.unsqueeze(1) * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[-1] - 1)
    return token.squeeze(1), log_p.gather(1, token).squeeze(1)


def keep_top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """`scores` [B, V] with everything but the k highest of each row at -inf; of equal ones the first stay."""
    order = torch.argsort(scores, dim=-1, descending=True, stable=True)
    return scores.scatter(1, order[:, k:], -torch.inf)


def keep_top_p(scores: torch.Tensor, p: float) -> torch.Tensor:
    """`scores` [B, V] with everything at -inf but the most likely tokens that together first reach probability p."""
    ordered, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    return scores.scatter(1, order, ordered.masked_fill(before >= p, -torch.inf))
