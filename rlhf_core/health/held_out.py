"""A fitted reward model on feedback that it never saw: on held-out prompts, annotators, and the newest samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlhf_core.health.preferences import Predictions, accuracy, preference_health, weighted_mean
from rlhf_core.health.ratings import rating_health
from rlhf_core.health.temperature import sigmoid
from rlhf_core.metrics import Metric
from rlhf_core.records import Answer, Comparison, Sample

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import FeedbackSet, Pair
    from rlhf_core.plugins import RewardModel

Floats = NDArray[np.float64]
PARTIAL = ("accuracy", "precision", "recall", "f1", "auc", "ece", "brier", "spearman")
"""What is also measured on a part of the held-out feedback."""


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
    return predictions(pairs, sigmoid(margins(model, pairs)))


def margins(model: RewardModel, pairs: Sequence[Pair]) -> Floats:
    """Score of the first minus that of the second, [N]."""
    prompts = [pair.prompt for pair in pairs]
    samples = [pair.first.blind() for pair in pairs] + [pair.second.blind() for pair in pairs]
    scores = np.array(model.score(prompts + prompts, samples).mean, dtype=float)
    found: Floats = scores[: len(pairs)] - scores[len(pairs) :]
    return found


def newest(pairs: Sequence[Pair]) -> list[int]:
    """Places of the pairs whose samples are of the newest round, where there are older ones too; else none."""
    rounds = [max(pair.first.round, pair.second.round) for pair in pairs]
    last = max(rounds, default=0)
    return [i for i, round_ in enumerate(rounds) if round_ == last] if min(rounds, default=0) < last else []


def on_newest(
    model: RewardModel, held_out: FeedbackSet, found: Predictions, pairs: Sequence[Pair]
) -> dict[str, Metric]:
    """`reward_` + each of `PARTIAL` + `_newest`: on the newest policy's samples, which the policy's training moved away
    from the others; they fall before the figures of all pairs do. `found` are the predictions for `pairs`, which are
    those of `held_out`. Empty where all samples are of one round.
    """
    from rlhf_core.feedback.dataset import FeedbackSet

    metrics = preference_health(only(found, newest(pairs)))
    rounds = {sample.round for answer in held_out.answers() for sample in answer.question.samples}
    if len(rounds) > 1:
        last = max(rounds)
        fresh = (a for a in held_out.answers() if any(sample.round == last for sample in a.question.samples))
        metrics |= held_out_ratings(model, FeedbackSet(fresh))
    return _renamed(metrics, "_newest")


def of_strangers(model: RewardModel, held_out: FeedbackSet) -> dict[str, Metric]:
    """`reward_` + each of `PARTIAL` + `_new_annotators`: on people whom the model never heard, about prompts that it
    never saw; `held_out` are their answers.
    """
    pairs = held_out.pairs()
    metrics = preference_health(predict(model, pairs)) if pairs else {}
    return _renamed(metrics | held_out_ratings(model, held_out), "_new_annotators")


def only(found: Predictions, places: Sequence[int]) -> Predictions:
    """Some of the pairs."""
    kept = list(places)
    return Predictions(
        predicted=found.predicted[kept],
        stated=found.stated[kept],
        weight=found.weight[kept],
        longer=found.longer[kept],
        prompts=[found.prompts[i] for i in kept],
    )


def _renamed(metrics: dict[str, Metric], suffix: str) -> dict[str, Metric]:
    named = {f"reward_{name}": f"reward_{name}{suffix}" for name in PARTIAL}
    return {named[name]: metric for name, metric in metrics.items() if name in named}


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
