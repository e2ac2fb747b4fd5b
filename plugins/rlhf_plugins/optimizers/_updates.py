"""The two updates of a PPO step: fit the values, then improve the policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.rl.kl import k3
from rlhf_core.rl.losses import imitation_loss, policy_loss, value_loss
from rlhf_core.rl.masks import masked_sum
from rlhf_plugins.optimizers._experience import Experience, Shown, demonstrated
from rlhf_plugins.optimizers._trainee import Trainee
from rlhf_plugins.optimizers._values import ValueModel

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel
    from rlhf_plugins.optimizers.ppo import Ppo

VALUE_STREAM, POLICY_STREAM = 2, 3
"""Which random numbers order the minibatches; the prompts and answers use the streams before."""


@dataclass(frozen=True)
class Lesson:
    """What a batch of experience teaches: four constants [B, T], 0 at masked positions."""

    experience: Experience
    advantages: Tensor
    """Whitened if the config says so."""
    values: Tensor
    """As the value model saw them before this step."""
    returns: Tensor
    """What it should have seen."""
    hidden: Tensor | None
    """[B, T, H] for value models that read the reference's hidden states."""


def fit_values(
    model: ValueModel, trainee: Trainee, lesson: Lesson, config: Ppo.Config, *, seed: int, step: int
) -> dict[str, float]:
    """Move the values towards the returns. Raises NotFiniteError before a bad update."""
    experience = lesson.experience
    tokens = _tokens_an_update(experience, config)
    losses: list[float] = []
    norms: list[float] = []
    for chunk in _minibatches(len(experience.ids), config.value_epochs, config.minibatches, (seed, VALUE_STREAM, step)):
        total = 0.0
        for index in experience.pieces(config.micro_batch, chunk.to(experience.ids.device)):
            part = experience.rows(index)
            width = part.mask.shape[1]
            hidden = None if lesson.hidden is None else lesson.hidden[index, :width]
            loss = value_loss(
                model.values(part, hidden),
                lesson.values[index, :width],
                lesson.returns[index, :width],
                part.mask,
                clip=config.value_clip,
                tokens=tokens,
            )
            loss.backward()
            total += loss.item()
        norms.append(trainee.step(total))
        losses.append(total)
    return {"value_loss": float(np.mean(losses)), "value_grad_norm": float(np.mean(norms))}


def improve_policy(
    lm: LanguageModel,
    trainee: Trainee,
    lesson: Lesson,
    config: Ppo.Config,
    *,
    seed: int,
    step: int,
    temperature: float,
    imitate: Callable[[int, int], Sequence[Shown]] | None,
) -> dict[str, float]:
    """Take the clipped policy-gradient updates of one step. Raises NotFiniteError before a bad one.

    `imitate(n, size)` gives `size` demonstrations for update number n of this step. Returns what to log; averages are
    over tokens.
    """
    experience = lesson.experience
    tokens = _tokens_an_update(experience, config)
    sums: dict[str, float] = dict.fromkeys(("policy_loss", "entropy", "clip_fraction", "ratio"), 0.0)
    seen = update = 0
    norms: list[float] = []
    logged: dict[str, float] = {"ratio_max": 0.0, "early_stop": 0.0}
    if imitate is not None:
        logged["ptx_loss"] = 0.0
    for chunk in _minibatches(len(experience.ids), config.epochs, config.minibatches, (seed, POLICY_STREAM, step)):
        loss = moved = mismatch = 0.0
        chunk_tokens = 0
        for index in experience.pieces(config.micro_batch, chunk.to(experience.ids.device)):
            part = experience.rows(index)
            width = part.mask.shape[1]
            with lm.autocast():
                logprobs, entropy = sequence_logprobs(lm.model, part.ids, part.attention, part.start, temperature)
            result = policy_loss(
                logprobs, part.logprobs, lesson.advantages[index, :width], part.mask, clip=config.clip, tokens=tokens
            )
            result.loss.backward()
            logprobs = logprobs.detach()
            moved += masked_sum(k3(part.logprobs, logprobs), part.mask).item()
            mismatch += masked_sum((part.logprobs - logprobs).abs(), part.mask).item()
            chunk_tokens += int(part.mask.sum())
            loss += result.loss.item()
            sums["entropy"] += masked_sum(entropy.detach(), part.mask).item()
            sums["clip_fraction"] += result.clipped.sum().item()
            sums["ratio"] += masked_sum(result.ratio, part.mask).item()
            logged["ratio_max"] = max(logged["ratio_max"], result.ratio.max().item())
        seen += chunk_tokens
        sums["policy_loss"] += loss * tokens
        if update == 0:
            # No update yet: every difference is the sampling engine's numerics against the trainer's.
            logged["logprob_mismatch"] = mismatch / chunk_tokens
        elif config.early_stop_kl is not None and moved / chunk_tokens > config.early_stop_kl:
            trainee.optimizer.zero_grad()
            logged["early_stop"] = 1.0
            break
        if imitate is not None:
            imitation = imitation_gradient(lm, imitate(update, len(chunk)), config)
            logged["ptx_loss"] += imitation
            loss += config.ptx * imitation
        norms.append(trainee.step(loss))
        update += 1
        logged["policy_moved"] = moved / chunk_tokens
    if imitate is not None:
        logged["ptx_loss"] /= update
    averages = {name: total / seen for name, total in sums.items()}
    return {**averages, **logged, "grad_norm": float(np.mean(norms)), "updates": float(update)}


def imitation_gradient(lm: LanguageModel, demonstrations: Sequence[Shown], config: Ppo.Config) -> float:
    """Add the gradient of the weighted imitation loss; returns the loss without `ptx`, nats a token."""
    shown = demonstrated(lm, demonstrations)
    weights = torch.tensor([each.weight for each in demonstrations], device=shown.ids.device)
    tokens = float((shown.mask.sum(dim=1) * weights).sum())
    total = 0.0
    for index in shown.pieces(config.micro_batch):
        part = shown.rows(index)
        with lm.autocast():
            logprobs, _ = sequence_logprobs(lm.model, part.ids, part.attention, part.start)
        loss = imitation_loss(logprobs, part.mask, weights[index], tokens=tokens)
        (config.ptx * loss).backward()
        total += loss.item()
    return total


def _minibatches(rows: int, epochs: int, parts: int, key: tuple[int, ...]) -> Iterator[Tensor]:
    """Every row once an epoch, in an order that follows from `key` alone."""
    for epoch in range(epochs):
        order = np.random.default_rng([*key, epoch]).permutation(rows)
        yield from torch.from_numpy(order).tensor_split(parts)


def _tokens_an_update(experience: Experience, config: Ppo.Config) -> float:
    """The batch's tokens an optimizer step: a token weighs the same in whatever minibatch and company it falls."""
    return float(experience.mask.sum()) / config.minibatches
