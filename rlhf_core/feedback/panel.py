"""What a lead wants to know of the people who answer: agreement, biases, time, and how far each can be relied on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from rlhf_core.feedback.aggregate import Pairing, preference_labels
from rlhf_core.feedback.agreement import LEVELS, Level, krippendorff_alpha, pairwise_agreement, pairwise_kappas
from rlhf_core.feedback.reliability import DawidSkene, Label, dawid_skene
from rlhf_core.records import Answer, AnyFeedback, Comparison, Rating, Skip

RANKS = {"lower": -1, "tie": 0, "higher": 1}
"""Preferences as numbers, for the ordinal and the interval alpha."""


class Share(NamedTuple):
    """How often something was so, of how many."""

    value: float
    n: int


@dataclass(frozen=True)
class AnnotatorFigures:
    """One annotator."""

    name: str
    questions: int
    """Questions answered, skips included."""
    skips: int
    seconds: float | None
    """Median time of an answer."""
    shown_first: Share | None
    """How often the sample shown first was preferred, of the comparisons without a tie."""
    reliability: float | None
    """Probability of naming the true preference (Dawid-Skene over all pairs, gold ones known)."""
    gold: Share | None
    """Preferences and ratings on gold questions that are right; a rating within one step of the known one is."""
    steady: Share | None
    """Pairs asked again, the other way round, that got the same answer."""


class Disagreement(NamedTuple):
    """A pair about which annotators think differently."""

    answers: tuple[Answer, ...]
    """One an annotator."""
    split: float
    """How even the sides are: 0 is unanimous, 1 is half and half."""


@dataclass(frozen=True)
class Panel:
    """All of them together."""

    annotators: tuple[AnnotatorFigures, ...]
    """By name."""
    alphas: dict[str, dict[Level, float]]
    """`preferences` and each rating criterion -> level -> Krippendorff's alpha."""
    agreement: Share | None
    """Equal preferences among all pairs of annotators; n is the number of sample pairs with two answers or more."""
    kappa: Share | None
    """Cohen's kappa, the mean over pairs of annotators weighted by what they have in common; n is what."""
    shown_first: Share | None
    seconds: float | None
    disagreements: tuple[Disagreement, ...]
    """The most even ones first."""


def panel(
    answers: Iterable[Answer],
    gold: Mapping[str, AnyFeedback] | None = None,
    repeats: Mapping[str, str] | None = None,
    *,
    disagreements: int = 20,
) -> Panel:
    """The figures of `answers`. `gold` holds the known answers by question, `repeats` repeated -> original question."""
    gold, repeats = gold or {}, repeats or {}
    everything = list(answers)
    first_time = [answer for answer in everything if answer.question.id not in repeats]
    labels = preference_labels(first_time)
    ratings = _ratings(first_time)
    known = _known(first_time, gold)
    found = _dawid_skene(labels, known)
    by_annotator: dict[str, list[Answer]] = defaultdict(list)
    for answer in everything:
        by_annotator[answer.feedback.annotator].append(answer)
    kappas = pairwise_kappas(labels.values())
    common = sum(n for _, n in kappas.values())
    together = [list(said.values()) for said in labels.values() if len(said) > 1]
    equal = pairwise_agreement(together)
    return Panel(
        annotators=tuple(
            _figures(name, by_annotator[name], found, gold, known, repeats) for name in sorted(by_annotator)
        ),
        alphas=_alphas(labels, ratings),
        agreement=None if equal is None else Share(equal, len(together)),
        kappa=Share(sum(kappa * n for kappa, n in kappas.values()) / common, common) if common else None,
        shown_first=_shown_first(everything),
        seconds=_seconds(everything),
        disagreements=_disagreements(first_time, labels, disagreements),
    )


def _figures(
    name: str, own: Sequence[Answer], found: DawidSkene | None, gold: Mapping[str, AnyFeedback],
    known: Mapping[Pairing, str], repeats: Mapping[str, str],
) -> AnnotatorFigures:  # fmt: skip
    skips = sum(isinstance(answer.feedback, Skip) for answer in own)
    return AnnotatorFigures(
        name=name,
        questions=len({answer.question.id for answer in own}),
        skips=skips,
        seconds=_seconds(own),
        shown_first=_shown_first(own),
        reliability=found.accuracy(name) if found is not None and name in found.confusion else None,
        gold=_right(own, gold, known),
        steady=_steady(own, repeats),
    )


def _ratings(answers: Sequence[Answer]) -> dict[str, dict[str, dict[str, float]]]:
    """Criterion -> sample -> annotator -> score."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for answer in answers:
        if isinstance(rating := answer.feedback, Rating):
            found[rating.criterion][rating.sample][rating.annotator] = rating.score
    return found


def _alphas(
    labels: Mapping[Pairing, Mapping[str, str]], ratings: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> dict[str, dict[Level, float]]:
    units: dict[str, list[list[float]]] = {
        "preferences": [[RANKS[label] for label in said.values()] for said in labels.values()]
    }
    units |= {criterion: [list(said.values()) for said in by.values()] for criterion, by in sorted(ratings.items())}
    found: dict[str, dict[Level, float]] = {}
    for name, each in units.items():
        alphas = {level: krippendorff_alpha(each, level) for level in LEVELS}
        if any(alpha is not None for alpha in alphas.values()):
            found[name] = {level: alpha for level, alpha in alphas.items() if alpha is not None}
    return found


def _known(answers: Sequence[Answer], gold: Mapping[str, AnyFeedback]) -> dict[Pairing, str]:
    """The right preference of each pair that a gold question knows."""
    questions = {answer.question.id: answer.question for answer in answers if answer.question.id in gold}
    known = [Answer.model_construct(question=questions[id], feedback=gold[id]) for id in questions]
    return {pair: next(iter(said.values())) for pair, said in preference_labels(known).items()}


def _dawid_skene(labels: Mapping[Pairing, Mapping[str, str]], known: Mapping[Pairing, str]) -> DawidSkene | None:
    given = [Label(pair, who, label) for pair, said in labels.items() for who, label in said.items()]
    several = any(len(said) > 1 or pair in known for pair, said in labels.items())
    # Where everybody answered alone, nothing tells a reliable annotator from another.
    return dawid_skene(given, values=tuple(RANKS), known=dict(known)) if several else None


def _shown_first(answers: Iterable[Answer]) -> Share | None:
    choices = Counter(a.feedback.choice for a in answers if isinstance(a.feedback, Comparison))
    n = choices["first"] + choices["second"]
    return Share(choices["first"] / n, n) if n else None


def _seconds(answers: Iterable[Answer]) -> float | None:
    by_question = {
        (answer.question.id, answer.feedback.annotator): answer.feedback.seconds
        for answer in answers
        if answer.feedback.seconds is not None
    }
    return median(seconds for seconds in by_question.values() if seconds is not None) if by_question else None


def _right(own: Sequence[Answer], gold: Mapping[str, AnyFeedback], known: Mapping[Pairing, str]) -> Share | None:
    on_gold = [answer for answer in own if answer.question.id in gold]
    said = preference_labels(on_gold)
    right = [label == known[pair] for pair, by in said.items() if pair in known for label in by.values()]
    for answer in on_gold:
        rating, expected = answer.feedback, gold[answer.question.id]
        if isinstance(rating, Rating) and isinstance(expected, Rating) and rating.sample == expected.sample:
            right.append(abs(rating.score - expected.score) <= 1)
    return Share(sum(right) / len(right), len(right)) if right else None


def _steady(own: Sequence[Answer], repeats: Mapping[str, str]) -> Share | None:
    labels = {}
    for answer in own:
        for said in preference_labels([answer]).values():
            labels[answer.question.id] = next(iter(said.values()))
    same = [labels[again] == labels[once] for again, once in repeats.items() if again in labels and once in labels]
    return Share(sum(same) / len(same), len(same)) if same else None


def _disagreements(
    answers: Sequence[Answer], labels: Mapping[Pairing, Mapping[str, str]], limit: int
) -> tuple[Disagreement, ...]:
    comparisons: dict[Pairing, dict[str, Answer]] = defaultdict(dict)
    for answer in answers:
        if isinstance(said := answer.feedback, Comparison):
            comparisons[min(said.first, said.second), max(said.first, said.second)][said.annotator] = answer
    found = []
    for pair, by_annotator in comparisons.items():
        ranks = [RANKS[labels[pair][name]] for name in by_annotator]
        if min(ranks) < max(ranks):
            even = 1 - abs(sum(ranks)) / len(ranks)
            found.append(Disagreement(tuple(by_annotator[name] for name in sorted(by_annotator)), even))
    found.sort(key=lambda each: (-each.split, -len(each.answers), each.answers[0].question.id))
    return tuple(found[:limit])
