"""Samples of a policy before a judge."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlhf_core.errors import RlhfError
from rlhf_core.plugins import RewardModel
from rlhf_core.records import Prompt, Sample

Judged = list[list[float]]
"""A score for each of n samples of each prompt."""


def judge_samples(judge: RewardModel, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> Judged:
    """The judge's score of every sample, prompt by prompt. Raises RlhfError where one is not finite."""
    flat = [(prompt, sample) for prompt, answers in zip(prompts, samples, strict=True) for sample in answers]
    scores = iter(judge.score([prompt for prompt, _ in flat], [sample for _, sample in flat]).mean)
    judged = [[next(scores) for _ in answers] for answers in samples]
    for prompt, row in zip(prompts, judged, strict=True):
        if not all(map(math.isfinite, row)):
            raise RlhfError(
                f"the judge {type(judge).__name__} gave the scores {row} to the prompt {prompt.content[:80]!r}",
                remedy="A judge must give every sample a finite number.",
            )
    return judged
