"""Several answers to one question: what they say together, and how far the annotators agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import fsum

from rlhf_core.feedback.convert import ranking_pairs
from rlhf_core.metrics import Metric
from rlhf_core.records import Answer, Comparison, Ranking


def soft_label(probabilities: Sequence[float]) -> tuple[float, float]:
    """The mean of n stated probabilities and their weight n, whatever order they come in."""
    return fsum(probabilities) / len(probabilities), float(len(probabilities))


def pairwise_agreement(units: Iterable[Sequence[Hashable]]) -> float | None:
    """The share of equal labels among all pairs of annotators who labelled the same unit; None where none did.

    `units` holds the labels that each unit got, one an annotator.
    """
    equal = total = 0
    for labels in units:
        n = len(labels)
        total += n * (n - 1) // 2
        equal += sum(count * (count - 1) // 2 for count in Counter(labels).values())
    return equal / total if total else None


def nominal_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal labels: 1 is perfect agreement, 0 is what chance gives, below 0 is worse.

    `units` holds the labels that each unit got, one an annotator; missing answers are simply absent. None where no unit
    has two labels, or where only one label was ever used (chance agreement is then perfect). Krippendorff,
    "Computing Krippendorff's Alpha-Reliability" (2011), section C.
    """
    coincidences: Counter[tuple[Hashable, Hashable]] = Counter()
    for labels in units:
        if len(labels) < 2:
            continue
        counts = Counter(labels)
        for a, b in ((a, b) for a in counts for b in counts):
            coincidences[a, b] += counts[a] * (counts[b] - (a == b)) / (len(labels) - 1)  # type: ignore[assignment]
    totals: Counter[Hashable] = Counter()
    for (a, _), count in coincidences.items():
        totals[a] += count
    n = fsum(totals.values())
    expected = n * n - fsum(count * count for count in totals.values())
    if expected == 0:
        return None
    observed = fsum(count for (a, b), count in coincidences.items() if a != b)
    return 1 - (n - 1) * observed / expected


def preference_labels(answers: Iterable[Answer]) -> dict[tuple[str, str], list[str]]:
    """What the annotators said about each unordered pair of samples: `lower`, `higher` or `tie`, one an annotator.

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
            label = "tie" if probability == 0.5 else "lower" if (probability > 0.5) == (a < b) else "higher"
            said[min(a, b), max(a, b)][feedback.annotator] = label
    return {pair: list(by_annotator.values()) for pair, by_annotator in sorted(said.items())}


def agreement(answers: Iterable[Answer]) -> dict[str, Metric]:
    """How far annotators agree on pairs: `annotator_agreement` (a share) and `krippendorff_alpha`.

    `n` is the number of pairs that two annotators or more judged; empty where there is no such pair.
    """
    units = [labels for labels in preference_labels(answers).values() if len(labels) > 1]
    found = {"annotator_agreement": pairwise_agreement(units), "krippendorff_alpha": nominal_alpha(units)}
    return {name: Metric(value=value, n=len(units)) for name, value in found.items() if value is not None}
