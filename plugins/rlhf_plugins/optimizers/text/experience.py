"""One batch of experience: prompts and the policy's answers as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from rlhf_core.plugins import LanguageModelPolicy
from rlhf_core.records import Prompt, Sample
from rlhf_plugins import world

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

    def pieces(self, size: int | None, index: Tensor | None = None) -> Iterator[tuple[Tensor, Experience]]:
        """This process's share of `index` (all rows if None) in pieces of at most `size` rows, with their numbers.

        Rows of similar length stand together, so that little is padding. In a spare piece (see `world.pieces`) the mask
        is False throughout.
        """
        if index is None:
            index = torch.arange(len(self.ids), device=self.ids.device)
        for piece, own in world.pieces(index, self.attention.sum(dim=1), size):
            part = self.rows(piece)
            yield piece, part if own else replace(part, mask=torch.zeros_like(part.mask))


def turn(items: Sequence[Item], *, seed: int, stream: int, number: int, size: int) -> list[Item]:
    """Batch `number` of `size` items: pass after pass over all of them, each pass in an order of its own.

    A function of its arguments alone, so that a resumed run takes exactly what an uninterrupted one would have taken:
    nothing is left out, nothing twice. `stream` keeps two uses of one seed apart.
    """
    places = [divmod(position, len(items)) for position in range(number * size, (number + 1) * size)]
    orders = {p: np.random.default_rng([seed, stream, p]).permutation(len(items)) for p in {p for p, _ in places}}
    return [items[orders[p][place]] for p, place in places]


def answers(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    *,
    seeds: Sequence[int],
    temperature: float,
    stop: Sequence[str] = (),
) -> Experience:
    """Let the model answer each prompt once, with the log-probabilities that sampling computes anyway.

    Every process samples its share of the answers and gets all of them.
    """
    rows = world.share(torch.arange(len(prompts)))
    asked, own = [prompts[i] for i in rows], [seeds[i] for i in rows]
    rolled = lm.rollout(asked, seeds=own, temperature=temperature, stop=stop)
    experience = Experience(
        ids=torch.cat([rolled.prompt_ids, rolled.tokens], dim=1),
        attention=torch.cat([rolled.prompt_mask, rolled.mask.long()], dim=1),
        start=rolled.prompt_ids.shape[1],
        mask=rolled.mask,
        logprobs=rolled.logprobs,
        finished=rolled.finished,
    )
    return experience if world.size() == 1 else _together(experience, rows, len(prompts), lm.pad_id)


def _together(own: Experience, rows: Tensor, count: int, pad: int) -> Experience:
    """All `count` answers, of which this process has `rows`: as wide as the longest prompt and answer of any."""
    left = world.largest(own.start) - own.start
    right = world.largest(own.mask.shape[1]) - own.mask.shape[1]

    def all_rows(tensor: Tensor, before: int, after: int) -> Tensor:
        full = torch.zeros(count, before + tensor.shape[1] + after, dtype=tensor.dtype, device=tensor.device)
        full[rows.to(tensor.device)] = torch.nn.functional.pad(tensor, (before, after))
        return world.merged(full)

    attention = all_rows(own.attention, left, right)
    return Experience(
        ids=torch.where(attention.bool(), all_rows(own.ids, left, right), pad),
        attention=attention,
        start=own.start + left,
        mask=all_rows(own.mask, 0, right),
        logprobs=all_rows(own.logprobs, 0, right),
        finished=all_rows(own.finished[:, None], 0, 0)[:, 0],
    )


def as_samples(policy: LanguageModelPolicy, prompts: Sequence[Prompt], experience: Experience) -> list[Sample]:
    """The answers as the records that reward models read."""
    texts = policy.lm.decode(experience.ids[:, experience.start :], stop=policy.stop)
    return [
        Sample(prompt_id=prompt.id, text=text, policy=policy.version or "data", round=policy.round, finished=finished)
        for prompt, text, finished in zip(prompts, texts, experience.finished.tolist(), strict=True)
    ]
