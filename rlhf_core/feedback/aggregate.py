"""Several answers to one question: what they say together, and how far the annotators agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import fsum, log

from rlhf_core.feedback.agreement import krippendorff_alpha, pairwise_agreement
from rlhf_core.feedback.convert import ranking_pairs
from rlhf_core.feedback.reliability import Label, dawid_skene
from rlhf_core.metrics import Metric
from rlhf_core.records import Answer, Comparison, Ranking

Pairing = tuple[str, str]
"""Ids of two samples, the lower one first."""


def soft_label(probabilities: Sequence[float]) -> tuple[float, float]:
    """The mean of n stated probabilities and their weight n, whatever order they come in."""
    return fsum(probabilities) / len(probabilities), float(len(probabilities))


def weighed_labels(votes: Mapping[Pairing, Sequence[tuple[str, float]]]) -> dict[Pairing, float]:
    """P(first is better) of each pair from (annotator, stated probability) of each of its answers, where annotators
    count by their reliability: the Dawid-Skene posterior of `lower` plus half that of `tie`.

    Strengths do not count: a slight preference is a preference. Which of two ids is lower means nothing, so every label
    counts once more for the pair turned round: without that, annotators who are seldom compared with others could be
    explained by all lower samples being the better ones. With one answer a pair there is nothing to tell reliabilities
    by, and the labels are close to those of the annotators.
    """
    said = [(pair, who, p) for pair, answers in votes.items() for who, p in answers]
    if not said:
        return {}
    labels = [
        Label((pair, turned), who, preference(1 - p if turned else p)) for pair, who, p in said for turned in (0, 1)
    ]
    found = dawid_skene(labels, values=("lower", "tie", "higher"))
    return {pair: lower + tie / 2 for pair, (lower, tie, _) in ((pair, found.truth[pair, 0]) for pair in votes)}


def annotator_weights(answers: Iterable[Answer]) -> dict[str, float]:
    """How much each annotator of comparisons and rankings should count, 1 on average over what they said of pairs.

    log(accuracy / (1 - accuracy)) + log(K - 1) of their Dawid-Skene accuracy on K = 3 values (lower, tie, higher), the
    weight that a vote of this accuracy has in the most probable label (Hastie et al. 2009, "Multi-class AdaBoost"); 0
    for those at chance or below. All 1 where nobody is better than chance.
    """
    said = preference_labels(answers)
    labels = [Label(pair, who, value) for pair, votes in said.items() for who, value in votes.items()]
    if not labels:
        return {}
    found = dawid_skene(labels, values=("lower", "tie", "higher"))
    weights = {name: vote_weight(found.accuracy(name), 3) for name in found.confusion}
    mean = fsum(weights[label.annotator] for label in labels) / len(labels)
    return {name: weight / mean if mean else 1.0 for name, weight in weights.items()}


def vote_weight(accuracy: float, values: int) -> float:
    """log(a / (1 - a)) + log(K - 1), at least 0: what a vote of accuracy a among K values is worth."""
    accuracy = min(max(accuracy, 1e-6), 1 - 1e-6)
    return max(log(accuracy / (1 - accuracy)) + log(values - 1), 0.0)


def preference(probability: float) -> str:
    """`lower` where the sample with the lower id is the better one with `probability` > 0.5, `higher`, or `tie`."""
    return "tie" if probability == 0.5 else "lower" if probability > 0.5 else "higher"


def preference_labels(answers: Iterable[Answer]) -> dict[tuple[str, str], dict[str, str]]:
    """What each annotator said about each unordered pair of samples: `lower`, `higher` or `tie`.

    The label names the sample with the lower or the higher id, so that labels mean the same whatever order the samples
    were shown in. From comparisons and rankings; of two answers by one annotator about a pair the last one counts.
    """
    said: Mapping[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for answer in answers:
        feedback = answer.feedback
        if isinstance(feedback, Comparison):
            votes = [(feedback.first, feedback.second, feedback.probability)]
        elif isinstance(feedback, Ranking):
            votes = [(feedback.samples[i], feedback.samples[j], p) for i, j, p in ranking_pairs(feedback.ranks)]
        else:
            continue
        for a, b, probability in votes:
            said[min(a, b), max(a, b)][feedback.annotator] = preference(probability if a < b else 1 - probability)
    return dict(sorted(said.items()))


def agreement(answers: Iterable[Answer]) -> dict[str, Metric]:
    """How far annotators agree on pairs: `annotator_agreement` (a share) and `krippendorff_alpha`.

    `n` is the number of pairs that two annotators or more judged; empty where there is no such pair.
    """
    units = [list(said.values()) for said in preference_labels(answers).values() if len(said) > 1]
    found = {"annotator_agreement": pairwise_agreement(units), "krippendorff_alpha": krippendorff_alpha(units)}
    return {name: Metric(value=value, n=len(units)) for name, value in found.items() if value is not None}
