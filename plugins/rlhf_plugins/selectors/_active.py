"""What the active selectors share: pairs of samples, a measure, a random control arm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import Field

from rlhf_core import Candidate, PluginConfig, Question, RewardModel, Sample, Selector
from rlhf_core.plugins import CONTROL_ARM
from rlhf_core.records import distinct
from rlhf_core.splits import split_of
from rlhf_plugins.selectors.random import Random

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


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


class Choice(NamedTuple):
    """A pair to ask about."""

    pair: Pair
    why: str
    """The reason in words."""


class ActiveSelector(Selector):
    """Asks about the best pairs of samples, at most one of a prompt, next to a control arm.

    Held-out prompts are always asked about by lot: what is measured on them must be what the policy ordinarily says.
    Before there is a reward model everything is drawn by lot. Questions come in random order, so that nobody can tell
    the arms apart.
    """

    uses_reward: ClassVar[bool] = True

    def best(self, pairs: Sequence[Pair], differences: Floats, count: int) -> list[Choice]:
        """At most `count` of N pairs, no two of one prompt.

        `differences` [N, M] are score(first) - score(second) by each of the reward model's M members; M is 1 where it
        is no ensemble.
        """
        raise NotImplementedError

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
        pairs, differences = scored_pairs([c for c in training if c.prompt.id not in taken], reward)
        best = self.best(pairs, differences, left - len(control)) if pairs and left > len(control) else []
        chosen = [_question(choice) for choice in best]
        # Prompts whose samples are all alike give no pair: what they leave of the budget is drawn by lot.
        spare = budget - len(asked) - len(control) - len(chosen)
        known = {_pair(question) for question in (*asked, *control, *chosen)}
        more = [question for question in by_lot.select(training, budget, None) if _pair(question) not in known][:spare]
        questions = [*(_because(question, CONTROL_ARM) for question in (*asked, *control, *more)), *chosen]
        return sorted(questions, key=lambda question: question.id)


def scored_pairs(candidates: Sequence[Candidate], reward: RewardModel) -> tuple[list[Pair], Floats]:
    """Every pair of different samples of every candidate, and their differences [N, M] by the model's members."""
    import numpy as np

    kept = [Candidate(candidate.prompt, distinct(candidate.samples)) for candidate in candidates]
    prompts = [candidate.prompt for candidate in kept for _ in candidate.samples]
    samples = [sample.blind() for candidate in kept for sample in candidate.samples]
    if not samples:
        return [], np.empty((0, 1))
    scores = reward.score(prompts, samples)
    members = np.array(scores.members or [scores.mean], dtype=float)
    pairs, places, start = [], [], 0
    for candidate in kept:
        for i, j in combinations(range(len(candidate.samples)), 2):
            pairs.append(Pair(candidate, candidate.samples[i], candidate.samples[j]))
            places.append((start + i, start + j))
        start += len(candidate.samples)
    first, second = np.array(places, dtype=int).reshape(-1, 2).T
    return pairs, (members[:, first] - members[:, second]).T


def highest(pairs: Sequence[Pair], values: Floats, count: int) -> list[int]:
    """Places of the `count` prompts with the highest values, each with its best pair; ties in the order of the ids."""
    found: dict[str, int] = {}
    for place, pair in enumerate(pairs):
        prompt = pair.candidate.prompt.id
        if prompt not in found or values[place] > values[found[prompt]]:
            found[prompt] = place
    return sorted(found.values(), key=lambda place: (-values[place], pairs[place].candidate.prompt.id))[:count]


def _question(choice: Choice) -> Question:
    # The better-scored sample must not always stand first; ids are as good as random.
    samples = tuple(sorted((choice.pair.first, choice.pair.second), key=lambda sample: sample.id))
    return Question(prompt=choice.pair.candidate.prompt, samples=samples, reason=choice.why)


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    import numpy as np

    found: Floats = 0.5 * (1 + np.tanh(x / 2))
    return found


def entropy(p: Floats) -> Floats:
    """Of coins with P(heads) = p, in nats."""
    from scipy.special import entr

    found: Floats = entr(p) + entr(1 - p)
    return found


def _pair(question: Question) -> frozenset[str]:
    """Its samples, whichever is shown first."""
    return frozenset(sample.id for sample in question.samples)


def _because(question: Question, reason: str) -> Question:
    return question.model_copy(update={"reason": reason})
