"""What reward and reference say of a batch of answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf_core.errors import TrainingError
from rlhf_core.lm.logprobs import sequence_logprobs_and_states
from rlhf_core.plugins import RewardModel
from rlhf_core.records import Prompt, Sample
from rlhf_core.rl.masks import row_sums
from rlhf_core.rl.rewards import Moments, length_excess, penalise_unfinished, standardise
from rlhf_plugins import world
from rlhf_plugins.optimizers.text.experience import Experience

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel
    from rlhf_plugins.optimizers.text.settings import Settings


@dataclass(frozen=True)
class Graded:
    """B answers with everything that is known before anything is learnt from them; constants."""

    experience: Experience
    scores: Tensor
    """[B] float32: the reward as it counts, normalised, clipped, penalties and the price of costs taken off."""
    reference: Tensor
    """[B, T] log-probabilities of the tokens under the reference; 0 at masked positions."""
    log_ratio: Tensor
    """[B, T] log policy / reference, the k1 estimate of the divergence."""
    hidden: Tensor | None
    """[B, T, H] the reference's last hidden states before each token, where the learner reads them."""
    coefficient: float
    """Reward that a nat of divergence costs in this step."""
    group: int
    """Answers to each prompt; they stand side by side."""
    prompts: Sequence[Prompt] = ()
    """B prompts."""
    samples: Sequence[Sample] = ()
    """B answers as texts, for those who ask about them."""
    costs: Sequence[float] = ()
    """B costs, where they are bounded."""

    @property
    def penalised(self) -> Tensor:
        """[B]: the score less the cost of the whole answer's divergence, the reward that has pi* as its optimum."""
        return self.scores - self.coefficient * row_sums(self.log_ratio, self.experience.mask)


@dataclass
class RewardScale:
    """Where the reward's zero and unit are."""

    mean: float = 0.0
    std: float = 1.0
    moments: Moments = field(default_factory=Moments)
    """Of all rewards so far, where the scale follows them."""

    def follow(self, rewards: Tensor) -> None:
        """Take the zero and unit of these and all earlier rewards."""
        self.moments = self.moments.after(rewards)
        self.mean, self.std = self.moments.mean, self.moments.std or 1.0


def shaped(rewards: Sequence[float], scale: RewardScale, batch: Experience, limit: int, config: Settings) -> Tensor:
    """The rewards [B] as they count: standardised, clipped, less the penalties for length and a missing end."""
    scores = torch.tensor(rewards, device=batch.ids.device)
    scores = standardise(scores, scale.mean, scale.std, clip=config.reward_clip)
    lengths = batch.mask.sum(dim=1)
    if config.overlong_margin:
        excess = length_excess(lengths, limit=limit, margin=config.overlong_margin)
        scores = scores - config.missing_eos_penalty * excess
    else:
        scores = penalise_unfinished(scores, batch.finished, config.missing_eos_penalty)
    return scores - config.length_penalty * lengths if config.length_penalty else scores


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
    """What the frozen `lm` makes of the answers, `size` rows at a time, in one pass; processes share the rows.

    Returns the log-probabilities [B, T] of their tokens, 0 at masked positions, and with `hidden` the last layer's
    states [B, T, H] float32 before each token, else None; 0 at masked positions, too.
    """
    logprobs = torch.zeros_like(experience.logprobs)
    states: Tensor | None = None
    for index, part in experience.pieces(size):
        width = part.mask.shape[1]
        with lm.autocast():
            picked, _, before = sequence_logprobs_and_states(
                lm.model, part.ids, part.attention, part.start, temperature, states=hidden
            )
        if before is not None:
            if states is None:
                states = torch.zeros(*logprobs.shape, before.shape[-1], device=before.device)
            states[index, :width] = torch.where(part.mask.unsqueeze(-1), before.float(), 0.0)
        logprobs[index, :width] = torch.where(part.mask, picked, 0.0)
    return world.merged(logprobs), None if states is None else world.merged(states)
