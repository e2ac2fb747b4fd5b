"""What the conformance kit feeds to plugins: a few hand-made records of both modalities, a toy policy, a toy reward.

The texts hold what breaks careless plugins: an empty answer, one in Chinese, one with an emoji, a very long one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rlhf_core.plugins import ANY, Candidate, FitJob, Policy, RewardModel, Scores
from rlhf_core.records import (
    Answer,
    Comparison,
    Demonstration,
    Episode,
    Feedback,
    Modality,
    Prompt,
    Question,
    Ranking,
    Rating,
    Reaction,
    Sample,
    Trajectory,
)

TOPICS = (
    "the new bridge", "a lost dog", "rain in May", "the school roof", "两家医院合并", "a chess final",
    "bread prices", "the night train", "a stolen tuba", "the old mill", "a long drought", "the town choir",
)  # fmt: skip
ENVIRONMENT = "MountainCar-v0"
"""Registered by Gymnasium itself; observes position and velocity, has three actions."""
MANNERS = ("{} reopened on Monday.", "YOU WON'T BELIEVE {} 😱!!!", "People say that {} was seen; nobody knows more.")


def prompts(modality: Modality) -> list[Prompt]:
    """Twelve prompts."""
    made: dict[Modality, Callable[[int, str], Prompt]] = {"text": _article, "control": _start}
    return [made[modality](number, topic) for number, topic in enumerate(TOPICS)]


def _article(number: int, topic: str) -> Prompt:
    references = (MANNERS[0].format(topic),)
    return Prompt(text=f"Write a headline about {topic}.", group=f"article {number}", references=references)


def _start(number: int, topic: str) -> Prompt:
    return Prompt(episode=Episode(environment=ENVIRONMENT, seed=number))


def candidates(modality: Modality) -> list[Candidate]:
    """Each prompt with three different samples."""
    return [Candidate(prompt, _samples(prompt, number)) for number, prompt in enumerate(prompts(modality))]


def questions(modality: Modality, *, samples: int = 2, wanted: int = 1) -> list[Question]:
    """A question about each prompt, with the first `samples` of its samples."""
    return [
        Question(prompt=prompt, samples=tuple(found[:samples]), reason="for the conformance kit", wanted=wanted)
        for prompt, found in candidates(modality)
    ]


def answers(kinds: Iterable[type[Feedback]], modality: Modality) -> list[Answer]:
    """Answers of two annotators, of each of `kinds`, in which the first sample of each prompt is the better one."""
    found: list[Answer] = []
    kinds = set(kinds)
    for who in ("ada", "ben"):
        for question in questions(modality):
            given: list[Feedback] = []
            if Comparison in kinds:
                given.append(question.compare([1.0, 0.0], annotator=who))
            if Ranking in kinds:
                given.append(question.rank([1.0, 0.0], annotator=who))
            if Rating in kinds:
                given += [question.rate(0, 5, annotator=who), question.rate(1, 2, annotator=who)]
            if Reaction in kinds:
                given += [
                    Reaction(question_id=question.id, annotator=who, sample=sample.id, count=count, exposures=1000)
                    for sample, count in zip(question.samples, (90, 30), strict=True)
                ]
            if Demonstration in kinds:
                given.append(_demonstration(question, who))
            found += [Answer.model_validate({"question": question, "feedback": feedback}) for feedback in given]
    return found


def demonstrations(modality: Modality) -> list[Answer]:
    """An expert's answer to each prompt: questions without samples."""
    bare = [Question(prompt=prompt) for prompt in prompts(modality)]
    return [Answer(question=question, feedback=_demonstration(question, "expert")) for question in bare]


def _samples(prompt: Prompt, number: int) -> list[Sample]:
    if prompt.episode is not None:
        return [Sample(prompt_id=prompt.id, trajectory=_trajectory(number, speed)) for speed in (0.001, 0.02, 0.05)]
    texts = [manner.format(TOPICS[number]) for manner in MANNERS]
    if number == 0:
        texts[1] = ""
    if number == 1:
        texts[1] = "long " * 500
    return [Sample(prompt_id=prompt.id, text=text) for text in texts]


def _trajectory(number: int, speed: float) -> Trajectory:
    steps = range(5)
    return Trajectory(
        observations=tuple((0.01 * number - speed * step, -speed) for step in steps),
        actions=tuple((float((step + number) % 3),) for step in steps),
        environment_rewards=tuple(0.0 if speed * step > 0.15 else -1.0 for step in steps),
    )


def _demonstration(question: Question, who: str) -> Demonstration:
    good = _samples(question.prompt, 2)[0]
    return Demonstration(question_id=question.id, annotator=who, text=good.text, trajectory=good.trajectory)


class ToyPolicy(Policy):
    """Answers with one of three manners, chosen by a digest of prompt and seed; learns nothing."""

    modality: ClassVar[frozenset[Modality]] = ANY

    def prepare(self, prompts: Iterable[Prompt], demonstrations: Iterable[Answer]) -> None:
        """Nothing to prepare."""

    def sample(self, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Sample]]:
        """`n` samples for each prompt."""
        return [[self._sample(prompt, f"{seed} {i} {prompt.id}") for i in range(n)] for prompt in prompts]

    def save(self, folder: Path) -> None:
        """Write the version."""
        (folder / "version.txt").write_text(self.version)

    def load(self, folder: Path) -> None:
        """Read the version."""
        self.version = (folder / "version.txt").read_text()

    def _sample(self, prompt: Prompt, key: str) -> Sample:
        chosen = _samples(prompt, 2)[hashlib.sha256(key.encode()).digest()[0] % 3]
        return chosen.model_copy(update={"policy": "toy", "round": self.round})


class ToyReward(RewardModel):
    """Likes short texts and slow trajectories. `fit` fails: whoever is handed this one may only call `score`."""

    modality: ClassVar[frozenset[Modality]] = ANY

    def fit(self, job: FitJob) -> dict[str, Any]:
        """Not for those who only score."""
        raise AssertionError("only score() of this reward model may be called")

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Minus the length, minus the last speed."""
        return Scores([_shortness(sample) for sample in samples])


def _shortness(sample: Sample) -> float:
    if sample.trajectory is not None:
        return -abs(sample.trajectory.observations[-1][1])
    return -len(sample.text or "") / 100


class BrokenReward(ToyReward):
    """Scores with NaN, as a diverged reward model does."""

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """All NaN."""
        return Scores([float("nan")] * len(samples))
