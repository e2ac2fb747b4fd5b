"""Selector `random`: asks about samples drawn by lot. What cleverer selectors are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import zip_longest
from math import comb
from random import Random as Generator

from pydantic import Field

from rlhf_core import Candidate, PluginConfig, Question, RewardModel, Sample, Selector
from rlhf_core.records import distinct


class Random(Selector):
    """Draws prompts, and `width` different samples of each, in random order.

    A prompt with fewer different samples is asked about with those that it has, as a policy that has learnt says more
    and more of the same; with a single one it is passed over. Every prompt is asked about once before any is asked
    about twice, and the same set of samples never is, so there can be fewer questions than the budget. What is drawn
    for a prompt does not depend on the other prompts.
    """

    class Config(PluginConfig):
        """How wide the questions are."""

        width: int = Field(2, ge=2)
        """Samples a question, at most: 2 are compared, more are ranked."""

    def select(self, candidates: Sequence[Candidate], budget: int, reward: RewardModel | None) -> list[Question]:
        """At most `budget` questions."""
        drawn = []
        for candidate in candidates:
            samples = distinct(candidate.samples)
            if len(samples) > 1:
                # The samples take part, so that the next round's draw over the same prompts is another one.
                key = "/".join([str(self.run.seed), candidate.prompt.id, *(sample.id for sample in samples)])
                drawn.append((hashlib.sha256(key.encode()).digest(), candidate.prompt, samples))
        drawn.sort(key=lambda entry: entry[0])
        passes = passes_needed([comb(len(samples), self._width(samples)) for _, _, samples in drawn], budget)
        columns = [
            [Question(prompt=prompt, samples=choice, reason="random") for choice in self._sets(key, samples, passes)]
            for key, prompt, samples in drawn[: budget if passes == 1 else None]
        ]
        rounds = zip_longest(*columns)
        return [question for questions in rounds for question in questions if question is not None][:budget]

    def _sets(self, key: bytes, samples: Sequence[Sample], count: int) -> list[tuple[Sample, ...]]:
        """Up to `count` different sets of samples, each in random order."""
        rng, width = Generator(key), self._width(samples)
        total = comb(len(samples), width)
        sets = []
        for rank in rng.sample(range(total), min(count, total)):
            chosen = [samples[index] for index in combination(len(samples), width, rank)]
            rng.shuffle(chosen)
            sets.append(tuple(chosen))
        return sets

    def _width(self, samples: Sequence[Sample]) -> int:
        return min(self.config.width, len(samples))


def passes_needed(totals: Sequence[int], budget: int) -> int:
    """The least p with sum(min(total, p)) >= budget; the largest total where no p reaches it."""
    passes = 1
    while passes < max(totals, default=1) and sum(min(total, passes) for total in totals) < budget:
        passes += 1
    return passes


def combination(n: int, k: int, rank: int) -> tuple[int, ...]:
    """The combination number `rank` of `k` out of range(`n`), in lexicographic order."""
    chosen: list[int] = []
    for value in range(n):
        if len(chosen) == k:
            break
        starting_here = comb(n - value - 1, k - len(chosen) - 1)
        if rank < starting_here:
            chosen.append(value)
        else:
            rank -= starting_here
    return tuple(chosen)
