"""The points of each contract. A point is a function that yields what is wrong; its name says what is promised."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from rlhf_core.metrics import Metric
from rlhf_core.plugins import EvaluateJob
from rlhf_core.records import Demonstration, Ranking, Rating, Sample, Skip
from rlhf_core.testing import materials
from rlhf_core.testing.materials import ToyReward
from rlhf_core.testing.step_points import does_something, fills_what_it_gives, fits_some_place
from rlhf_core.testing.subject import Subject, bad_metrics, close, ids
from rlhf_core.testing.training_points import (
    optimizes_a_policy,
    optimizes_without_a_reward,
    refuses_rewards_that_are_no_numbers,
    starts_a_policy,
)

Point = Callable[[Subject], Iterator[str]]


# Data sources


def reads_the_same_twice(subject: Subject) -> Iterator[str]:
    """Every reading yields the same records, so that a resumed campaign sees what the killed one saw."""
    for name in ("prompts", "demonstrations", "feedback"):
        if ids(getattr(subject.make(), name)()) != ids(getattr(subject.make(), name)()):
            yield f"{name}() yields other records the second time"


def brings_something(subject: Subject) -> Iterator[str]:
    """A source without prompts and without feedback is of no use."""
    source = subject.make()
    if not any(next(iter(found()), None) for found in (source.prompts, source.demonstrations, source.feedback)):
        yield "prompts(), demonstrations() and feedback() are all empty"


def brings_what_it_declares(subject: Subject) -> Iterator[str]:
    """Feedback is of the announced kinds, demonstrations are demonstrations, prompts are of the modality."""
    source = subject.make()
    declared = tuple(source.yields(source.config))
    strange = sorted({type(a.feedback).__name__ for a in source.feedback() if not isinstance(a.feedback, declared)})
    if strange:
        yield f"feedback() yields {', '.join(strange)}, which yields(config) does not announce"
    if any(not isinstance(answer.feedback, Demonstration) for answer in source.demonstrations()):
        yield "demonstrations() yields something else than demonstrations"
    if any(prompt.modality not in source.modality for prompt in source.prompts()):
        yield "prompts() yields prompts of a modality that the class does not declare"


# Policies


def samples_every_prompt(subject: Subject) -> Iterator[str]:
    """`n` samples for each prompt, in order, of the right modality."""
    prompts = materials.prompts(subject.modality)
    found = subject.prepared().sample(prompts, 2, seed=1)
    if [len(samples) for samples in found] != [2] * len(prompts):
        yield f"sample() of {len(prompts)} prompts with n=2 gives {[len(samples) for samples in found]} samples"
        return
    for prompt, samples in zip(prompts, found, strict=True):
        if any(sample.prompt_id != prompt.id for sample in samples):
            yield f"samples for `{prompt.content}` name another prompt"
        if any((sample.text is None) != (prompt.episode is not None) for sample in samples):
            yield f"samples for `{prompt.content}` are of another modality"


def samples_the_same_twice(subject: Subject) -> Iterator[str]:
    """Equal seed, weights and prompt give equal samples, whatever the other prompts of the call are."""
    prompts = materials.prompts(subject.modality)
    policy = subject.prepared()
    together = policy.sample(prompts, 2, seed=1)
    if [ids(samples) for samples in policy.sample(prompts, 2, seed=1)] != [ids(samples) for samples in together]:
        yield "the same call gives other samples the second time"
    if ids(policy.sample(prompts[-1:], 2, seed=1)[0]) != ids(together[-1]):
        yield "a prompt alone gets other samples than among others"


def policy_survives_saving(subject: Subject) -> Iterator[str]:
    """`load` takes over what `save` wrote, and nothing on disk can execute code."""
    prompts = materials.prompts(subject.modality)[:3]
    policy = subject.prepared()
    before = [ids(samples) for samples in policy.sample(prompts, 1, seed=1)]
    if [ids(samples) for samples in subject.reloaded(policy).sample(prompts, 1, seed=1)] != before:
        yield "a reloaded policy gives other samples"
    if pickles := subject.pickles(policy):
        yield f"save() writes {', '.join(pickles)}; weights belong into safetensors"


# Selectors


def selects_within_budget(subject: Subject) -> Iterator[str]:
    """At most `budget` different questions, each about samples of one candidate or segments of them, with a reason."""
    candidates = materials.candidates(subject.modality)
    known = {candidate.prompt.id: candidate.samples for candidate in candidates}
    for reward in (None, ToyReward()):
        selected = subject.make().select(candidates, 5, reward)
        if not 1 <= len(selected) <= 5 or len(set(ids(selected))) != len(selected):
            yield f"a budget of 5 gives {len(selected)} questions, {len(set(ids(selected)))} of them different"
        if any(
            not any(_is_part(sample, whole) for whole in known.get(question.prompt.id, ()))
            for question in selected
            for sample in question.samples
        ):
            yield "a question holds samples that are none of the candidate's"
        if any(not question.reason.strip() for question in selected):
            yield "a question does not say in `reason` why it was selected"


def selects_the_same_twice(subject: Subject) -> Iterator[str]:
    """One seed, one selection."""
    candidates = materials.candidates(subject.modality)
    if ids(subject.make().select(candidates, 5, None)) != ids(subject.make().select(candidates, 5, None)):
        yield "two selections with one seed differ"


# Annotators


def answers_what_was_asked(subject: Subject) -> Iterator[str]:
    """Every answer names its question, its samples, and is of an announced kind."""
    annotator = subject.make()
    declared = (*annotator.yields, Skip)
    if not tuple(annotator.yields):
        yield "yields is empty: nobody could learn from it"
    sizes = (2, 3) if {Ranking, Rating} & set(annotator.yields) else (2,)
    for size in sizes:
        questions = {question.id: question for question in materials.questions(subject.modality, samples=size)}
        for feedback in annotator.annotate(list(questions.values())):
            if not isinstance(feedback, declared):
                yield f"gives a {type(feedback).__name__}, which `yields` does not announce"
            if feedback.question_id not in questions:
                yield f"answers {feedback.question_id}, which is not the id of a question asked"
                continue
            named = {
                *(getattr(feedback, name) for name in ("first", "second", "sample") if hasattr(feedback, name)),
                *(getattr(feedback, "samples", ())),
            }
            if not named <= set(ids(questions[feedback.question_id].samples)):
                yield "names a sample that is not in the question"


def answers_no_more_than_wanted(subject: Subject) -> Iterator[str]:
    """At most `wanted` annotators answer a question."""
    answers: dict[str, set[str]] = {}
    for feedback in subject.make().annotate(materials.questions(subject.modality, wanted=2)):
        answers.setdefault(feedback.question_id, set()).add(feedback.annotator)
    most = max(map(len, answers.values()), default=0)
    if most > 2:
        yield f"{most} annotators answered a question that wanted 2"


def answers_the_same_twice(subject: Subject) -> Iterator[str]:
    """One seed, one answer; and the answer to a question depends on that question alone."""
    questions = materials.questions(subject.modality)
    together = sorted(ids(subject.make().annotate(questions)))
    if sorted(ids(subject.make().annotate(questions))) != together:
        yield "two runs with one seed give different answers"
    annotator = subject.make()
    alone = sorted(feedback.id for question in reversed(questions) for feedback in annotator.annotate([question]))
    if alone != together:
        yield "a question asked alone gets another answer than among others"


# Converters


def converts_what_it_declares(subject: Subject) -> Iterator[str]:
    """Something follows, of the announced kinds, on the prompts and by the annotators of what it follows from."""
    converter = subject.make()
    given = materials.answers(converter.takes, subject.modality)
    found = list(converter.convert(given))
    if not tuple(converter.takes) or not tuple(converter.yields):
        yield "takes or yields is empty: the pipeline check could not place it"
    strange = {type(a.feedback).__name__ for a in found if not isinstance(a.feedback, tuple(converter.yields))}
    if strange:
        yield f"gives {', '.join(sorted(strange))}, which `yields` does not announce"
    if {answer.question.prompt.id for answer in found} - {answer.question.prompt.id for answer in given}:
        yield "gives feedback on a prompt that nobody was asked about, which may be one that is held out"
    for who in {answer.feedback.annotator for answer in found}:
        if not any(who.startswith(answer.feedback.annotator) for answer in given):
            yield f"gives feedback by {who!r}, who said nothing"


def converts_the_same_in_any_order(subject: Subject) -> Iterator[str]:
    """One set of answers, one result."""
    given = materials.answers(subject.plugin.takes, subject.modality)  # type: ignore[attr-defined]
    forwards, backwards = (sorted(ids(subject.make().convert(each))) for each in (given, given[::-1]))
    if forwards != backwards:
        yield "another order of the same answers gives another result"


# Reward models


def scores_every_sample(subject: Subject) -> Iterator[str]:
    """One finite number a sample; the spread, where there is one, is not negative."""
    prompts, samples = _pairs(subject)
    scores = subject.fitted.score(prompts, samples)
    lists = {"mean": scores.mean, **scores.criteria, **({"spread": scores.spread} if scores.spread is not None else {})}
    for name, values in lists.items():
        if len(values) != len(samples):
            yield f"{name} has {len(values)} values for {len(samples)} samples"
        if not all(math.isfinite(value) for value in values):
            yield f"{name} holds numbers that are not finite"
    if scores.spread is not None and any(value < 0 for value in scores.spread):
        yield "spread holds negative numbers"
    if subject.fitted.score([], []).mean != []:
        yield "no samples should get no scores"


def scores_each_sample_for_itself(subject: Subject) -> Iterator[str]:
    """The score of one sample does not depend on the others of the call."""
    prompts, samples = _pairs(subject)
    together = subject.fitted.score(prompts, samples).mean
    alone = [subject.fitted.score([p], [s]).mean[0] for p, s in zip(prompts, samples, strict=True)]
    if not close(together, alone):
        yield "samples scored one by one get other scores than together"
    backwards = subject.fitted.score(prompts[::-1], samples[::-1]).mean[::-1]
    if not close(together, backwards):
        yield "the order of the samples changes their scores"


def learns_the_same_twice(subject: Subject) -> Iterator[str]:
    """One seed, one reward model, to the bit."""
    prompts, samples = _pairs(subject)
    if subject.fit().score(prompts, samples).mean != subject.fitted.score(prompts, samples).mean:
        yield "two fits with one seed give different scores"


def reward_survives_saving(subject: Subject) -> Iterator[str]:
    """`load` takes over what `save` wrote, and nothing on disk can execute code."""
    prompts, samples = _pairs(subject)
    if subject.reloaded(subject.fitted).score(prompts, samples).mean != subject.fitted.score(prompts, samples).mean:
        yield "a reloaded reward model gives other scores"
    if pickles := subject.pickles(subject.fitted):
        yield f"save() writes {', '.join(pickles)}; weights belong into safetensors"


# Evaluators and gates


def produces_what_it_declares(subject: Subject) -> Iterator[str]:
    """The announced metrics, finite, inside their intervals; tables of JSON. Without a reward model, those that are not
    of it.
    """
    evaluator = subject.make()
    announced = set(evaluator.produces(evaluator.config))
    of_reward = set(evaluator.of_reward(evaluator.config))
    if of_reward - announced:
        yield f"of_reward(config) names {', '.join(sorted(of_reward - announced))}, which produces(config) does not"
    for reward in (ToyReward(), None):
        with subject.excused():
            found = evaluator.evaluate(_evaluation(subject, reward))
        missing = announced - set(found.metrics)
        if missing and reward is not None:
            yield f"produces(config) announces {', '.join(sorted(missing))}, which evaluate() does not return"
        elif missing - of_reward:
            strange = ", ".join(sorted(missing - of_reward))
            yield f"without a reward model evaluate() does not return {strange}, which of_reward(config) does not name"
        yield from bad_metrics(found.metrics)
        json.dumps(found.tables, allow_nan=False)


def measures_the_same_twice(subject: Subject) -> Iterator[str]:
    """One seed, one result."""
    job = _evaluation(subject, ToyReward())
    with subject.excused():
        if subject.make().evaluate(job) != subject.make().evaluate(job):
            yield "two evaluations with one seed differ"


def decides_with_reasons(subject: Subject) -> Iterator[str]:
    """Reads the metrics it declares and no others, gives reasons, and decides the same twice."""
    gate = subject.make()
    metrics = {name: Metric(value=0.7, low=0.6, high=0.8, n=100) for name in gate.needs(gate.config)}
    decision = gate.decide(metrics, metrics)
    if not any(reason.strip() for reason in decision.reasons):
        yield "the decision has no reasons"
    if subject.make().decide(metrics, metrics) != decision:
        yield "two decisions on the same metrics differ"


def _pairs(subject: Subject) -> tuple[list[Any], list[Any]]:
    """Every sample of the kit with its prompt, row by row."""
    rows = [(prompt, sample) for prompt, samples in materials.candidates(subject.modality) for sample in samples]
    return [prompt for prompt, _ in rows], [sample for _, sample in rows]


def _is_part(sample: Sample, whole: Sample) -> bool:
    """Whether `sample` is `whole`, or a segment of its trajectory."""
    if sample.trajectory is None or whole.trajectory is None:
        return sample.id == whole.id
    part, whole_steps = sample.trajectory, whole.trajectory
    length = len(part.actions)
    return any(
        part.observations == whole_steps.observations[start : start + length]
        and part.actions == whole_steps.actions[start : start + length]
        for start in range(len(whole_steps.actions) - length + 1)
    )


def _evaluation(subject: Subject, reward: ToyReward | None) -> EvaluateJob:
    prompts = materials.prompts(subject.modality)
    policy = subject.any_policy()
    samples = {
        name: policy.sample(prompts, 2, seed=seed) for seed, name in enumerate(("challenger", "champion", "warm_start"))
    }
    return EvaluateJob(prompts, samples, policy=policy, reference=subject.any_policy(), reward=reward, gold=ToyReward())


POINTS: dict[str, tuple[Point, ...]] = {
    "data_sources": (reads_the_same_twice, brings_something, brings_what_it_declares),
    "policies": (samples_every_prompt, samples_the_same_twice, policy_survives_saving),
    "warm_starts": (starts_a_policy,),
    "selectors": (selects_within_budget, selects_the_same_twice),
    "annotators": (answers_what_was_asked, answers_no_more_than_wanted, answers_the_same_twice),
    "converters": (converts_what_it_declares, converts_the_same_in_any_order),
    "reward_models": (
        scores_every_sample, scores_each_sample_for_itself, learns_the_same_twice, reward_survives_saving,
    ),
    "optimizers": (optimizes_a_policy, optimizes_without_a_reward, refuses_rewards_that_are_no_numbers),
    "evaluators": (produces_what_it_declares, measures_the_same_twice),
    "gates": (decides_with_reasons,),
    "steps": (fits_some_place, does_something, fills_what_it_gives),
}  # fmt: skip
