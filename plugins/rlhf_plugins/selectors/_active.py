"""What the active selectors share: pairs of samples, a measure, a random control arm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import ClassVar, NamedTuple

from pydantic import Field

from rlhf_core import Candidate, PluginConfig, Question, RewardModel, Sample, Selector
from rlhf_core.plugins import CONTROL_ARM
from rlhf_core.splits import split_of
from rlhf_plugins.selectors.random import Random, distinct


class ActiveConfig(PluginConfig):
    """How much is left to chance."""

    control: float = Field(0.2, ge=0, le=1)
    """Share of the questions on training prompts that are drawn by lot. They say what selection gains, keep the
    feedback from losing touch with what the policy ordinarily says, and find what the reward model does not know that
    it does not know."""


class Pair(NamedTuple):
    """Two samples of a candidate that could be compared."""

    candidate: Candidate
    first: Sample
    second: Sample
    members: Sequence[tuple[float, float]]
    """Scores of the two by each member of the reward model; one entry where it is no ensemble."""


class ActiveSelector(Selector):
    """Asks about the pairs of samples with the highest `value`, at most one of a prompt, next to a control arm.

    Held-out prompts are always asked about by lot: what is measured on them must be what the policy ordinarily says.
    Before there is a reward model everything is drawn by lot. Questions come in random order, so that nobody can tell
    the arms apart.
    """

    uses_reward: ClassVar[bool] = True

    def value(self, pair: Pair) -> float:
        """How much the answer would teach."""
        raise NotImplementedError

    def why(self, pair: Pair, value: float) -> str:
        """The reason in words."""
        raise NotImplementedError

    def check(self, reward: RewardModel, pairs: Sequence[Pair]) -> None:
        """Complain about a reward model that cannot say what is needed."""

    def select(self, candidates: Sequence[Candidate], budget: int, reward: RewardModel | None) -> list[Question]:
        """At most `budget` questions."""
        training = [c for c in candidates if split_of(c.prompt) == "train"]
        held_out = [c for c in candidates if split_of(c.prompt) != "train"]
        by_lot = Random(run=self.run)
        if reward is None or not training:
            return [_because(question, CONTROL_ARM) for question in by_lot.select(candidates, budget, None)]
        tested = min(round(budget * len(held_out) / len(candidates)), budget)
        asked = by_lot.select(held_out, tested, None)
        left = budget - len(asked)
        control = by_lot.select(training, round(left * self.config.control), None)
        taken = {question.prompt.id for question in control}
        pairs = list(scored_pairs([c for c in training if c.prompt.id not in taken], reward))
        self.check(reward, pairs)
        chosen = [self._question(pair, value) for pair, value in self.best(pairs, left - len(control))]
        # Prompts whose samples are all alike give no pair: what they leave of the budget is drawn by lot.
        spare = budget - len(asked) - len(control) - len(chosen)
        known = {_pair(question) for question in (*asked, *control, *chosen)}
        more = [question for question in by_lot.select(training, budget, None) if _pair(question) not in known][:spare]
        questions = [*(_because(question, CONTROL_ARM) for question in (*asked, *control, *more)), *chosen]
        return sorted(questions, key=lambda question: question.id)

    def best(self, pairs: Sequence[Pair], count: int) -> list[tuple[Pair, float]]:
        """The `count` prompts with the highest values, each with its best pair; ties in the order of the ids."""
        found: dict[str, tuple[Pair, float]] = {}
        for pair in pairs:
            value, prompt = self.value(pair), pair.candidate.prompt.id
            if prompt not in found or value > found[prompt][1]:
                found[prompt] = (pair, value)
        return sorted(found.values(), key=lambda entry: (-entry[1], entry[0].candidate.prompt.id))[:count]

    def _question(self, pair: Pair, value: float) -> Question:
        # The better-scored sample must not always stand first; ids are as good as random.
        samples = tuple(sorted((pair.first, pair.second), key=lambda sample: sample.id))
        return Question(prompt=pair.candidate.prompt, samples=samples, reason=self.why(pair, value))


def scored_pairs(candidates: Sequence[Candidate], reward: RewardModel) -> Iterator[Pair]:
    """Every pair of different samples of every candidate, scored by every member of the reward model."""
    kept = [Candidate(candidate.prompt, distinct(candidate.samples)) for candidate in candidates]
    prompts = [candidate.prompt for candidate in kept for _ in candidate.samples]
    samples = [sample.blind() for candidate in kept for sample in candidate.samples]
    if not samples:
        return
    scores = reward.score(prompts, samples)
    members = scores.members or [scores.mean]
    start = 0
    for candidate in kept:
        for i, j in combinations(range(len(candidate.samples)), 2):
            given = [(member[start + i], member[start + j]) for member in members]
            yield Pair(candidate, candidate.samples[i], candidate.samples[j], given)
        start += len(candidate.samples)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + math.tanh(x / 2))


def entropy(p: float) -> float:
    """Of a coin with P(heads) = p, in nats."""
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def _pair(question: Question) -> frozenset[str]:
    """Its samples, whichever is shown first."""
    return frozenset(sample.id for sample in question.samples)


def _because(question: Question, reason: str) -> Question:
    return question.model_copy(update={"reason": reason})
