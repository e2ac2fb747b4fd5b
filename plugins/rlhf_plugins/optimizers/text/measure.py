"""A policy as it stands: answers to given prompts, measured by proxy reward and divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlhf_core.metrics import Metric, bootstrap
from rlhf_core.records import Prompt, Sample
from rlhf_core.rl.kl import k1
from rlhf_core.rl.masks import row_sums
from rlhf_plugins.optimizers.text.experience import answers, as_samples
from rlhf_plugins.optimizers.text.grading import opinion, scores_of

if TYPE_CHECKING:
    from rlhf_core.plugins import LanguageModelPolicy, RewardModel


@dataclass(frozen=True)
class Measured:
    """What was answered, and the optimizers' metrics of it."""

    samples: list[Sample]
    metrics: dict[str, Metric]


def measure(
    policy: LanguageModelPolicy,
    reference: LanguageModelPolicy,
    reward: RewardModel | None,
    prompts: Sequence[Prompt],
    *,
    temperature: float,
    size: int | None,
    seed: int,
    stream: int,
    when: str,
) -> Measured:
    """One answer to each prompt, the same random numbers at every call; `size` rows in one pass of the reference.

    Without a reward model the metric `reward` is left out.
    """
    seeds = np.random.default_rng([seed, stream]).integers(0, 2**63, size=len(prompts)).tolist()
    batch = answers(policy.lm, prompts, seeds=seeds, temperature=temperature, stop=policy.stop)
    samples = as_samples(policy, prompts, batch)
    rewards = None if reward is None else scores_of(reward, prompts, samples, when=when)
    logprobs, _ = opinion(reference.lm, batch, temperature=temperature, size=size, hidden=False)
    divergence = row_sums(k1(batch.logprobs, logprobs), batch.mask)
    metrics = {
        **({} if rewards is None else {"reward": bootstrap(rewards, seed=seed)}),
        "kl": bootstrap(divergence.tolist(), seed=seed),
        "answer_tokens": bootstrap(batch.mask.sum(dim=1).tolist(), seed=seed),
        "eos_rate": bootstrap(batch.finished.float().tolist(), seed=seed),
    }
    return Measured(samples, metrics)
