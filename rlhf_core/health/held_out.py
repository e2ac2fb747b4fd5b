"""A fitted reward model on feedback that it never saw: on held-out prompts, annotators, and the newest samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlhf_core.health.preferences import Predictions, accuracy, weighted_mean
from rlhf_core.health.ratings import rating_health, spearman
from rlhf_core.metrics import Metric
from rlhf_core.records import Answer, Comparison, Sample

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet, Pair
    from rlhf_core.plugins import RewardModel

Floats = NDArray[np.float64]


def predictions(pairs: Sequence[Pair], predicted: Any) -> Predictions:
    """`predicted` [N], P(first is better), beside what people said of the pairs."""
    return Predictions(
        predicted=np.asarray(predicted, dtype=float),
        stated=np.array([pair.probability for pair in pairs], dtype=float),
        weight=np.array([pair.weight for pair in pairs], dtype=float),
        longer=np.array([float(length(pair.first) - length(pair.second)) for pair in pairs], dtype=float),
        prompts=[pair.prompt.group or pair.prompt.id for pair in pairs],
    )


def length(sample: Sample) -> int:
    """Characters of a text, steps of a trajectory."""
    return len(sample.text or "") if sample.trajectory is None else len(sample.trajectory.actions)


def predict(model: RewardModel, pairs: Sequence[Pair]) -> Predictions:
    """What `model` says of the pairs: sigma(score of the first - score of the second)."""
    prompts = [pair.prompt for pair in pairs]
    samples = [pair.first.blind() for pair in pairs] + [pair.second.blind() for pair in pairs]
    scores = np.array(model.score(prompts + prompts, samples).mean, dtype=float)
    gaps = scores[: len(pairs)] - scores[len(pairs) :]
    return predictions(pairs, 0.5 * (1 + np.tanh(gaps / 2)))


def newest(pairs: Sequence[Pair]) -> list[int]:
    """Places of the pairs whose samples are of the newest round, where there are older ones too; else none."""
    rounds = [max(pair.first.round, pair.second.round) for pair in pairs]
    last = max(rounds, default=0)
    return [i for i, round_ in enumerate(rounds) if round_ == last] if min(rounds, default=0) < last else []


def accuracy_on_newest(found: Predictions, pairs: Sequence[Pair], seed: int = 0) -> dict[str, Metric]:
    """`reward_accuracy_newest`: on the newest policy's samples, which the policy's training moved away from the
    others; it falls before the accuracy on all pairs does.
    """
    places = newest(pairs)
    return _accuracy(found, places, "reward_accuracy_newest", seed)


def accuracy_by_annotator(model: RewardModel, held_out: FeedbackSet, fewest: int = 20) -> dict[str, tuple[float, int]]:
    """Annotator -> accuracy on the own untied answers to held-out prompts, and their number, where at least `fewest`.

    A model that fits the majority and fails one annotator shows here, and so does an annotator unlike the others.
    """
    from rlhf_core.feedback.dataset import FeedbackSet

    table = {}
    for name in sorted(held_out.annotators()):
        own = FeedbackSet(answer for answer in held_out.answers() if answer.feedback.annotator == name)
        pairs = [pair for pair in own.pairs() if pair.probability != 0.5]
        if len(pairs) >= fewest:
            found = predict(model, pairs)
            table[name] = (accuracy(found.predicted, found.stated, np.ones(len(pairs))), len(pairs))
    return table


def held_out_ratings(model: RewardModel, held_out: FeedbackSet, seed: int = 0) -> dict[str, Metric]:
    """Rank correlation of scores with people's mean ratings (over criteria), `reward_spearman` and so on.

    Of a model that predicts ratings by a criterion `rating`, also the errors; scores alone have no unit.
    """
    rated = held_out.ratings()
    if len(rated) < 2:
        return {}
    by_sample: dict[str, list[Any]] = {}
    for one in rated:
        by_sample.setdefault(one.sample.id, []).append(one)
    first = [group[0] for group in by_sample.values()]
    stated = np.array([float(np.mean([one.score for one in group])) for group in by_sample.values()])
    scores = model.score([one.prompt for one in first], [one.sample.blind() for one in first])
    prompts = [one.prompt.group or one.prompt.id for one in first]
    if "rating" in scores.criteria:
        return rating_health(np.array(scores.criteria["rating"]), stated, prompts, seed=seed)
    found = rating_health(np.array(scores.mean), stated, prompts, seed=seed)
    return {name: metric for name, metric in found.items() if name in ("reward_spearman", "reward_pearson")}


def predictions_of_people(feedback: FeedbackSet) -> Predictions:
    """What people said of all pairs, as if predicted: for figures of the labels alone."""
    pairs = feedback.pairs()
    return predictions(pairs, [pair.probability for pair in pairs])


def length_correlation(found: Predictions) -> dict[str, Metric]:
    """`reward_length_correlation`: rank correlation of the predicted preference with the difference in length.

    Compare it with the same figure of people's own preferences: what is above it the model has made up.
    """
    gaps = np.concatenate([found.predicted - 0.5, 0.5 - found.predicted])
    # Both orders of every pair, so that the order in which it is stored does not matter.
    value = spearman(gaps, np.concatenate([found.longer, -found.longer]))
    return {} if np.isnan(value) else {"reward_length_correlation": Metric(value=value, n=len(found.predicted))}


def position_preference(feedback: FeedbackSet) -> dict[str, Metric]:
    """`first_shown_chosen`: the share of untied comparisons won by the sample that was shown first.

    Far from 0.5 the annotators, or those who order what they see, are biased; a reward model never sees the order.
    """
    answers = [
        (answer.question.prompt.id, float(answer.feedback.choice == "first"))
        for answer in feedback.only("comparison").answers()
        if isinstance(answer.feedback, Comparison) and answer.feedback.choice != "tie"
    ]
    if not answers:
        return {}
    prompts, won = zip(*answers, strict=True)
    return {"first_shown_chosen": weighted_mean(np.array(won), np.ones(len(won)), prompts)}


def held_out_annotators(feedback: FeedbackSet, share: float) -> set[str]:
    """The annotators whose answers train nothing: at least one and at most all but one where `share` > 0, by a hash of
    their names, so that somebody held out today was never learnt from.
    """
    names = sorted(feedback.annotators(), key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(names[: min(max(round(share * len(names)), 1), len(names) - 1)]) if share > 0 else set()


def by_annotators(feedback: FeedbackSet, names: set[str], given: bool) -> FeedbackSet:
    """The answers that these annotators gave, or those that they did not give."""
    from rlhf_core.feedback.dataset import FeedbackSet

    return FeedbackSet(answer for answer in feedback.answers() if (answer.feedback.annotator in names) == given)


def leaks(train: FeedbackSet, held_out: FeedbackSet) -> set[str]:
    """Ids of held-out questions that training knows: whose prompt, or group of prompts, or one of whose samples in
    answer to the same words, is also on the other side.

    Splits are made by group, and by words where there is no group; data that brings its own split, or one article in
    two groups, can break it. Two prompts with equal words in different groups are no leak as long as their samples
    differ: a task has one instruction for everything.
    """
    known = {key for answer in train.answers() for key in _traces(answer)}
    return {answer.question.id for answer in held_out.answers() if known & _traces(answer)}


def without_questions(feedback: FeedbackSet, questions: set[str]) -> FeedbackSet:
    """The answers to other questions."""
    from rlhf_core.feedback.dataset import FeedbackSet

    return FeedbackSet(answer for answer in feedback.answers() if answer.question.id not in questions)


def _traces(answer: Answer) -> set[tuple[str, str]]:
    """What an answer's question is recognised by."""
    prompt = answer.question.prompt
    place = ("group", prompt.group) if prompt.group else ("prompt", prompt.content)
    said = {(prompt.content, str(sample.text)) for sample in answer.question.samples if sample.text is not None}
    return {place, *said}


def _accuracy(found: Predictions, places: Sequence[int], name: str, seed: int) -> dict[str, Metric]:
    kept = [i for i in places if found.stated[i] != 0.5]
    if not kept:
        return {}
    right = np.where(
        found.predicted[kept] == 0.5, 0.5, (found.predicted[kept] > 0.5) == (found.stated[kept] > 0.5)
    ).astype(float)
    return {name: weighted_mean(right, found.weight[kept], [found.prompts[i] for i in kept], seed=seed)}
