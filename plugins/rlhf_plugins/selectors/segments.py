"""Selector `segments`: cuts episodes into segments, of which another selector chooses what to ask about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from random import Random as Generator
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from rlhf_core import Candidate, PluginConfig, Question, RewardModel, Sample, Selector, Use
from rlhf_core.errors import DataError
from rlhf_core.plugins import CONTROL
from rlhf_core.records import Modality
from rlhf_plugins.control.pictures import Pictures, draw


class Segments(Selector):
    """Short clips are easier to judge than whole episodes and say more exactly what was good (Christiano et al. 2017).

    A segment is `length` steps of an episode, from a random step on. Where the environment ended the episode sooner,
    the segment ends with it: nothing that could be rewarded follows, so whoever sums over the steps counts the rest as
    nothing. Episodes that a time limit cut give whole segments only.
    """

    modality: ClassVar[frozenset[Modality]] = CONTROL

    class Config(PluginConfig):
        """How long, how many, chosen how, shown how."""

        length: int | None = Field(50, ge=1)
        """Steps of a segment. None: whole episodes."""
        per_sample: int = Field(1, ge=1)
        """Segments cut from each episode, with different beginnings."""
        then: Annotated[Use, Use.of("selectors")] = Use(use="random")
        """Chooses among the segments of each prompt."""
        pictures: Pictures | None = None
        """Draws what is asked about, for people to look at. None: numbers only, for simulated raters."""

    def select(self, candidates: Sequence[Candidate], budget: int, reward: RewardModel | None) -> list[Question]:
        """At most `budget` questions about segments."""
        from rlhf_core.plugins.registry import Registry

        chooser: Selector = Registry().create("selectors", self.config.then, run=self.run)
        cuts = {cut.segment.id: cut for candidate in candidates for cut in self._cuts(candidate)}
        by_prompt: dict[str, list[Sample]] = {candidate.prompt.id: [] for candidate in candidates}
        for cut in cuts.values():
            by_prompt[cut.segment.prompt_id].append(cut.segment)
        pools = [Candidate(candidate.prompt, by_prompt[candidate.prompt.id]) for candidate in candidates]
        questions = chooser.select(pools, budget, reward)
        return questions if self.config.pictures is None else [self._drawn(question, cuts) for question in questions]

    def _cuts(self, candidate: Candidate) -> Iterator[Cut]:
        for sample in candidate.samples:
            if sample.trajectory is None:
                raise DataError("a text has no segments", remedy="Use a selector for texts, such as `random`.")
            steps = len(sample.trajectory.actions)
            length = self.config.length or steps
            rng = Generator(hashlib.sha256(f"{self.run.seed}/{sample.id}".encode()).digest())
            starts = possible_starts(steps, length, ended=sample.finished) if self.config.length else range(1)
            for start in sorted(rng.sample(starts, min(self.config.per_sample, len(starts)))):
                stop = min(start + length, steps)
                segment = sample.model_copy(
                    update={
                        "trajectory": sample.trajectory.cut(start, stop),
                        "finished": sample.finished and stop == steps,
                    }
                )
                yield Cut(segment, sample, start)

    def _drawn(self, question: Question, cuts: dict[str, Cut]) -> Question:
        drawn = []
        for segment in question.samples:
            cut = cuts[segment.id]
            frames = draw(question.prompt, cut.episode, cut.start, segment, self.config.pictures)
            if not frames:
                self.run.note(f"{question.prompt.content} does not happen again as it did, so it cannot be drawn")
            trajectory = segment.trajectory
            assert trajectory is not None
            update = {"trajectory": trajectory.model_copy(update={"frames": frames})}
            drawn.append(segment.model_copy(update=update))
        return question.model_copy(update={"samples": tuple(drawn)})


class Cut(NamedTuple):
    """A segment with the episode it is cut from and the step that it begins with."""

    segment: Sample
    episode: Sample
    start: int


def possible_starts(steps: int, length: int, *, ended: bool) -> range:
    """Where a segment of `length` may begin in an episode of `steps`.

    Anywhere, where the environment `ended` the episode: what happens before the end is worth seeing, and nothing comes
    after it. Else only where `length` steps follow, or at the beginning of an episode that is shorter.
    """
    return range(steps) if ended else range(max(steps - length, 0) + 1)
