"""The points of the contracts of those who train policies: warm starts and optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.plugins import OptimizeJob
from rlhf_core.testing import materials
from rlhf_core.testing.materials import BrokenReward, ToyReward
from rlhf_core.testing.subject import Subject, bad_metrics, ids


def starts_a_policy(subject: Subject) -> Iterator[str]:
    """Trains in place, returns finite metrics, and does the same twice."""
    demonstrations = materials.demonstrations(subject.modality)
    prompts = materials.prompts(subject.modality)[:3]
    results = []
    for _ in range(2):
        policy = subject.policy(subject.plugin.trains)  # type: ignore[attr-defined]
        yield from bad_metrics(subject.make().start(policy, demonstrations[:9], demonstrations[9:]))
        results.append([ids(samples) for samples in policy.sample(prompts, 1, seed=1)])
    if results[0] != results[1]:
        yield "two trainings with one seed give different policies"


def optimizes_a_policy(subject: Subject) -> Iterator[str]:
    """Trains the policy in place, leaves the reference alone, calls nothing but `score`, and does the same twice."""
    prompts = materials.prompts(subject.modality)
    results = []
    for _ in range(2):
        policy, reference = (subject.policy(subject.plugin.trains) for _ in range(2))  # type: ignore[attr-defined]
        before = [ids(samples) for samples in reference.sample(prompts[:3], 1, seed=1)]
        yield from bad_metrics(subject.make().optimize(OptimizeJob(policy, reference, ToyReward(), prompts)))
        if [ids(samples) for samples in reference.sample(prompts[:3], 1, seed=1)] != before:
            yield "the reference policy changed"
        results.append([ids(samples) for samples in policy.sample(prompts[:3], 1, seed=1)])
    if results[0] != results[1]:
        yield "two optimisations with one seed give different policies"


def optimizes_without_a_reward(subject: Subject) -> Iterator[str]:
    """Where it declares that it needs no reward, feedback of the kinds that it learns from is enough."""
    optimizer: Any = subject.plugin
    if optimizer.needs_reward:
        return
    kinds = optimizer.feedback_wanted(reward=False)
    if not kinds:
        yield "needs no reward, but learns from no feedback either"
        return
    given = FeedbackSet.of(materials.answers(kinds, subject.modality))
    prompts = materials.prompts(subject.modality)
    policy, reference = (subject.policy(optimizer.trains) for _ in range(2))
    job = OptimizeJob(policy, reference, None, prompts, feedback=given, validation=given)
    yield from bad_metrics(subject.make().optimize(job))


def refuses_rewards_that_are_no_numbers(subject: Subject) -> Iterator[str]:
    """NaN rewards raise TrainingError before they reach the weights."""
    policy, reference = (subject.policy(subject.plugin.trains) for _ in range(2))  # type: ignore[attr-defined]
    try:
        subject.make().optimize(OptimizeJob(policy, reference, BrokenReward(), materials.prompts(subject.modality)))
    except TrainingError:
        return
    yield "rewards of NaN were accepted; TrainingError is expected"
