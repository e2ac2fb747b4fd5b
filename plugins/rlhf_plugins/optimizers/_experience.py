"""One batch of experience: prompts and the policy's answers as tensors, and what reward and reference say of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from rlhf_core.errors import TrainingError
from rlhf_core.lm.logprobs import forward, token_logprobs
from rlhf_core.lm.rollout import rollout
from rlhf_core.plugins import LanguageModelPolicy, RewardModel
from rlhf_core.records import Prompt, Sample

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel

Item = TypeVar("Item")


@dataclass(frozen=True)
class Experience:
    """B answers of at most T tokens; all tensors on the policy's device."""

    ids: Tensor
    """[B, L] int64: left-padded prompts, then right-padded answers; L = start + T."""
    attention: Tensor
    """[B, L] int64, 1 at real tokens."""
    start: int
    """Column of the first answer token."""
    mask: Tensor
    """[B, T] bool, True at the answers' own tokens, the end of sequence included."""
    logprobs: Tensor
    """[B, T] float32, nats, as the sampling engine computed them."""
    finished: Tensor
    """[B] bool, False where the answer was cut at the length limit."""

    def rows(self, index: Tensor) -> Experience:
        """The answers of `index` [b] alone, without the columns that are padding in all of them."""
        attention = self.attention[index]
        used = attention.any(dim=0).nonzero()
        first, last = int(used[0]), int(used[-1]) + 1
        width = last - self.start
        return Experience(
            ids=self.ids[index, first:last],
            attention=attention[:, first:last],
            start=self.start - first,
            mask=self.mask[index, :width],
            logprobs=self.logprobs[index, :width],
            finished=self.finished[index],
        )

    def pieces(self, size: int | None, index: Tensor | None = None) -> list[Tensor]:
        """`index` (all rows if None) in pieces of at most `size` rows of similar length, so that little is padding."""
        if index is None:
            index = torch.arange(len(self.ids), device=self.ids.device)
        if size is None or size >= len(index):
            return [index]
        lengths = self.attention[index].sum(dim=1)
        return list(index[lengths.argsort(stable=True)].split(size))


def turn(items: Sequence[Item], *, seed: int, stream: int, number: int, size: int) -> list[Item]:
    """Batch `number` of `size` items: pass after pass over all of them, each pass in an order of its own.

    A function of its arguments alone, so that a resumed run takes exactly what an uninterrupted one would have taken:
    nothing is left out, nothing twice. `stream` keeps two uses of one seed apart.
    """
    places = [divmod(position, len(items)) for position in range(number * size, (number + 1) * size)]
    orders = {p: np.random.default_rng([seed, stream, p]).permutation(len(items)) for p in {p for p, _ in places}}
    return [items[orders[p][place]] for p, place in places]


def answers(lm: LanguageModel, prompts: Sequence[Prompt], *, seeds: Sequence[int], temperature: float) -> Experience:
    """Let the model answer each prompt once, with the log-probabilities that sampling computes anyway."""
    ids, mask = lm.encode(prompts)
    with lm.autocast():
        rolled = rollout(
            lm.model,
            ids,
            mask,
            max_new_tokens=lm.max_new_tokens,
            eos_id=lm.eos_id,
            pad_id=lm.pad_id,
            seeds=seeds,
            temperature=temperature,
        )
    return Experience(
        ids=torch.cat([rolled.prompt_ids, rolled.tokens], dim=1),
        attention=torch.cat([rolled.prompt_mask, rolled.mask.long()], dim=1),
        start=rolled.prompt_ids.shape[1],
        mask=rolled.mask,
        logprobs=rolled.logprobs,
        finished=rolled.finished,
    )


class Shown(NamedTuple):
    """A demonstration."""

    prompt: Prompt
    text: str
    weight: float


def demonstrated(lm: LanguageModel, shown: Sequence[Shown]) -> Experience:
    """Demonstrations in the place of sampled answers; their `logprobs` are left at 0."""
    prompts = [each.prompt for each in shown]
    ids, mask = lm.encode(prompts)
    rows = [torch.tensor(tokens) for tokens in lm.answer_tokens([each.text for each in shown], prompts)]
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=lm.pad_id).to(ids.device)
    own = (torch.arange(padded.shape[1]) < lengths[:, None]).to(ids.device)
    return Experience(
        ids=torch.cat([ids, padded], dim=1),
        attention=torch.cat([mask, own.long()], dim=1),
        start=ids.shape[1],
        mask=own,
        logprobs=torch.zeros(own.shape, device=ids.device),
        finished=torch.ones(len(rows), dtype=torch.bool, device=ids.device),
    )


def as_samples(policy: LanguageModelPolicy, prompts: Sequence[Prompt], experience: Experience) -> list[Sample]:
    """The answers as the records that reward models read."""
    texts = policy.lm.decode(experience.ids[:, experience.start :])
    return [
        Sample(prompt_id=prompt.id, text=text, policy=policy.version or "data", round=policy.round, finished=finished)
        for prompt, text, finished in zip(prompts, texts, experience.finished.tolist(), strict=True)
    ]


def scores_of(reward: RewardModel, prompts: Sequence[Prompt], samples: Sequence[Sample], *, when: str) -> list[float]:
    """One finite score a sample. Raises TrainingError where `reward` gives another number of them, or bad ones."""
    scores = [float(value) for value in reward.score(prompts, samples).mean]
    name = type(reward).__name__
    if len(scores) != len(samples):
        raise TrainingError(
            f"the reward model gave {len(scores)} scores for {len(samples)} samples",
            where=name,
            remedy="`score` must return one mean a sample.",
        )
    bad = [i for i, value in enumerate(scores) if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"{when}: {len(bad)} of {len(scores)} rewards are not finite; the first, {scores[bad[0]]}, is for "
            f"{samples[bad[0]].text!r} in answer to {prompts[bad[0]].content!r}",
            where=name,
            remedy="The step was refused before any weight changed, and the last good checkpoint stays. "
            "Repair the reward model, then run the same command again.",
        )
    return scores


@torch.no_grad()
def opinion(
    lm: LanguageModel, experience: Experience, *, temperature: float, size: int | None, hidden: bool
) -> tuple[Tensor, Tensor | None]:
    """What the frozen `lm` makes of the answers, `size` rows at a time, in one pass.

    Returns the log-probabilities [B, T] of their tokens, 0 at masked positions, and with `hidden` the last layer's
    states [B, T, H] float32 before each token, else None.
    """
    logprobs = torch.zeros_like(experience.logprobs)
    states: Tensor | None = None
    for index in experience.pieces(size):
        part = experience.rows(index)
        width = part.mask.shape[1]
        before = torch.arange(part.start - 1, part.start - 1 + width, device=part.ids.device)
        with lm.autocast():
            output = forward(lm.model, part.ids, part.attention, logits_to_keep=before, output_hidden_states=hidden)
        picked = token_logprobs(output.logits, part.ids[:, part.start :], temperature)
        logprobs[index, :width] = torch.where(part.mask, picked, 0.0)
        if hidden:
            last = output.hidden_states[-1][:, before].float()
            if states is None:
                states = torch.zeros(*logprobs.shape, last.shape[-1], device=last.device)
            states[index, :width] = last
    return logprobs, states
